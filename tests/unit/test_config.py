"""A bad setting is named, with what it holds and what was expected, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.config import (
    MAX_FOLLOWERS,
    SETTINGS,
    Config,
    reachable_url,
    read_config,
)
from trikv.errors import SettingError
from trikv.network.simulated_lag import LagRange
from trikv.protocol.urls import base_url, without_secrets

FIVE = ",".join(f"http://follower{i}:8000" for i in range(1, 6))
MANY = ",".join(f"http://f{i}" for i in range(MAX_FOLLOWERS + 1))


def test_with_nothing_set_all_defaults_hold() -> None:
    assert read_config({}) == Config(
        role="leader",
        node_id="node",
        host="0.0.0.0",
        port=8000,
        advertise_url=None,
        write_quorum=0,  # of no followers
        lag=LagRange(0, 1000),
        lag_seed=None,
        request_timeout_s=5,
        follower_urls=(),
        data_dir=Path("data/node"),
        durability="fsync",
        write_timeout_s=11,
        max_value_bytes=2**20,
        max_inflight_writes=1024,
        log_level="INFO",
    )


def test_every_setting_is_read() -> None:
    environment = {
        "ROLE": "leader",
        "NODE_ID": "Leader-1.a_b",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "ADVERTISE_URL": "http://leader:8000/",
        "WRITE_QUORUM": "2",
        "MIN_DELAY_MS": "1.5",
        "MAX_DELAY_MS": "20",
        "LAG_SEED": "7",
        "REQUEST_TIMEOUT": "0.5",
        "FOLLOWER_URLS": f" {FIVE} ,",
        "DATA_DIR": "/tmp/somewhere",
        "DURABILITY": "os",
        "WRITE_TIMEOUT": "3",
        "MAX_VALUE_BYTES": "100",
        "MAX_INFLIGHT_WRITES": "10",
        "FAST_LANE": "off",
        "LOG_LEVEL": "debug",
    }
    assert set(environment) == {setting.name for setting in SETTINGS}
    assert read_config(environment) == Config(
        role="leader",
        node_id="Leader-1.a_b",
        host="127.0.0.1",
        port=0,
        advertise_url="http://leader:8000",
        write_quorum=2,
        lag=LagRange(1.5, 20),
        lag_seed=7,
        request_timeout_s=0.5,
        follower_urls=tuple(FIVE.split(",")),
        data_dir=Path("/tmp/somewhere"),
        durability="os",
        write_timeout_s=3,
        max_value_bytes=100,
        max_inflight_writes=10,
        fast_lane=False,
        log_level="DEBUG",
    )


@pytest.mark.parametrize("nothing", ["", " ", "\t\n"])
def test_a_variable_set_to_nothing_counts_as_not_set(nothing: str) -> None:
    assert read_config({setting.name: nothing for setting in SETTINGS}) == read_config({})


def test_variables_of_other_programs_do_not_matter() -> None:
    assert read_config({"PATH": "/bin", "port": "x", "TRIKV_PORT": "y"}) == read_config({})


BAD = [
    ("ROLE", "Leader"),
    ("ROLE", "primary"),
    ("NODE_ID", "-a"),
    ("NODE_ID", "a b"),
    ("NODE_ID", "a/b"),
    ("NODE_ID", ".."),
    ("NODE_ID", "é"),
    ("NODE_ID", "a" * 64),
    ("NODE_ID", "a\nb"),
    ("HOST", "not a host"),
    ("HOST", "http://127.0.0.1"),
    ("HOST", "[::1"),
    ("HOST", "a" * 254),
    ("HOST", "a..b"),
    ("HOST", "a" * 64),
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("PORT", "80.0"),
    ("PORT", "http"),
    ("PORT", "8_0"),
    ("PORT", "+80"),
    ("PORT", "0x50"),
    ("PORT", "²"),
    ("PORT", "٨٠"),
    ("PORT", "9" * 5000),
    ("ADVERTISE_URL", "leader:8000"),
    ("ADVERTISE_URL", "ftp://leader"),
    ("ADVERTISE_URL", "http://"),
    ("ADVERTISE_URL", "http://leader:0"),
    ("ADVERTISE_URL", "http://leader:65536"),
    ("ADVERTISE_URL", "http://leader:port"),
    ("ADVERTISE_URL", "http://leader/path"),
    ("ADVERTISE_URL", "http://leader?x=1"),
    ("ADVERTISE_URL", "http://leader#x"),
    ("ADVERTISE_URL", "http://user@leader"),
    ("ADVERTISE_URL", "http://le ader"),
    ("ADVERTISE_URL", "http://[::1"),
    ("ADVERTISE_URL", "http://lead\u00e9r"),
    ("ADVERTISE_URL", "http://a..b"),
    ("FOLLOWER_URLS", f"http://{'a' * 64}:8000"),
    ("WRITE_QUORUM", "-1"),
    ("WRITE_QUORUM", "6"),
    ("WRITE_QUORUM", "101"),
    ("WRITE_QUORUM", "2.5"),
    ("WRITE_QUORUM", "all"),
    ("MIN_DELAY_MS", "-1"),
    ("MIN_DELAY_MS", "nan"),
    ("MIN_DELAY_MS", "inf"),
    ("MIN_DELAY_MS", "1e3"),
    ("MIN_DELAY_MS", "1s"),
    ("MIN_DELAY_MS", "1001"),
    ("MIN_DELAY_MS", "600001"),
    ("MAX_DELAY_MS", "-0.5"),
    ("MAX_DELAY_MS", "600001"),
    ("MAX_DELAY_MS", "1,5"),
    ("LAG_SEED", "-1"),
    ("LAG_SEED", "seed"),
    ("LAG_SEED", "1.5"),
    ("REQUEST_TIMEOUT", "0"),
    ("REQUEST_TIMEOUT", "601"),
    ("REQUEST_TIMEOUT", "5s"),
    ("REQUEST_TIMEOUT", "NaN"),
    ("FOLLOWER_URLS", "follower1:8000"),
    ("FOLLOWER_URLS", "http://a,http://b,http://a/"),
    ("FOLLOWER_URLS", "http://A,http://a"),
    ("FOLLOWER_URLS", "http://a;http://b"),
    ("FOLLOWER_URLS", "http://a http://b"),
    ("FOLLOWER_URLS", "http://a,,x"),
    ("FOLLOWER_URLS", MANY),
    ("DURABILITY", "full"),
    ("DURABILITY", "FSYNC"),
    ("WRITE_TIMEOUT", "0"),
    ("WRITE_TIMEOUT", "3601"),
    ("WRITE_TIMEOUT", "never"),
    ("MAX_VALUE_BYTES", "0"),
    ("MAX_VALUE_BYTES", "1MB"),
    ("MAX_VALUE_BYTES", str(16 * 2**20 + 1)),
    ("DATA_DIR", "~/x"),
    ("DATA_DIR", "a\nb"),
    ("DATA_DIR", "x" * 5000),
    ("MAX_INFLIGHT_WRITES", "0"),
    ("MAX_INFLIGHT_WRITES", "100001"),
    ("FAST_LANE", "yes"),
    ("LOG_LEVEL", "LOUD"),
    ("LOG_LEVEL", "20"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_setting_is_named_with_what_it_holds_and_what_was_expected(
    name: str, text: str
) -> None:
    environment = {"FOLLOWER_URLS": FIVE, name: text}
    with pytest.raises(SettingError) as refusal:
        read_config(environment)
    said = str(refusal.value)
    assert said.startswith(f"{name}=")
    assert "expected " in said
    assert repr(without_secrets(text))[1:20].rstrip("'") in said
    assert len(said.splitlines()) == 1
    assert len(said) < 500


def test_every_setting_that_can_be_bad_is_among_the_bad_ones() -> None:
    assert {name for name, _ in BAD} == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("name", ["FOLLOWER_URLS", "ADVERTISE_URL", "HOST", "NODE_ID", "ROLE"])
@pytest.mark.parametrize(
    "text",
    [
        "http://user:s3cret@host:8000",
        "http://a,http://user:s3cret@host:8000,http://b",
        "http://:s3cret@host",
        "http://user:s3/cr@et,s3cret@host",
        "http://host/?token=s3cret",
        "http://host/#s3cret",
        "user:s3cret@host:8000",
    ],
)
def test_no_password_stands_in_an_error(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}=.*: expected ") as refusal:
        read_config({name: text})
    assert "s3" not in str(refusal.value)
    assert "host" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("DATA_DIR", '"/data"', "the quotes are part of it: write /data"),
        ("DATA_DIR", "'/data'", "the quotes are part of it: write /data"),
        ("DATA_DIR", "~/x", f"~ is not expanded here: write {Path('~/x').expanduser()}"),
        ("DATA_DIR", "$HOME/x", "variables are not expanded here"),
        ("DATA_DIR", "/srv/${NAME}", "variables are not expanded here"),
        ("DATA_DIR", "%APPDATA%/x", "variables are not expanded here"),
        ("DATA_DIR", ":MEMORY:", "write a path of the file system"),
        ("DATA_DIR", "file:///data", "write a path of the file system"),
        ("NODE_ID", '"n1"', "the quotes are part of it: write n1"),
        ("ROLE", "'leader'", "the quotes are part of it: write leader"),
        ("FOLLOWER_URLS", '"http://a"', "the quotes are part of it: write http://a"),
    ],
)
def test_what_a_shell_would_have_taken_away_is_refused_with_what_to_write(
    name: str, text: str, meant: str
) -> None:
    with pytest.raises(SettingError, match=rf"^{name}=.*: expected .*; {re.escape(meant)}"):
        read_config({name: text})


@given(st.sampled_from([setting.name for setting in SETTINGS]), st.text())
def test_any_text_is_a_setting_or_a_setting_error(name: str, text: str) -> None:
    try:
        config = read_config({name: text})
    except SettingError as refusal:
        said = str(refusal)
        assert (name in said, "\n" in said) == (True, False)
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(("followers", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 3), (5, 3)])
def test_the_default_quorum_is_3_or_all_followers_if_there_are_fewer(
    followers: int, quorum: int
) -> None:
    urls = ",".join(FIVE.split(",")[:followers])
    assert read_config({"FOLLOWER_URLS": urls}).write_quorum == quorum


def test_a_quorum_above_the_followers_is_an_error_once_it_is_set() -> None:
    with pytest.raises(SettingError, match=r"^WRITE_QUORUM='3': expected .* to 1 "):
        read_config({"FOLLOWER_URLS": "http://a", "WRITE_QUORUM": "3"})


def test_a_follower_takes_the_leaders_quorum_for_granted() -> None:
    assert read_config({"ROLE": "follower", "WRITE_QUORUM": "3"}).role == "follower"


def test_a_lag_whose_ends_are_swapped_names_both() -> None:
    with pytest.raises(SettingError, match=r"MIN_DELAY_MS='30': .*MAX_DELAY_MS \(20\)"):
        read_config({"MIN_DELAY_MS": "30", "MAX_DELAY_MS": "20"})


def test_a_node_does_not_follow_itself() -> None:
    with pytest.raises(SettingError, match="FOLLOWER_URLS"):
        read_config({"ADVERTISE_URL": "http://a", "FOLLOWER_URLS": "http://b,http://a/"})
    with pytest.raises(SettingError, match="FOLLOWER_URLS"):
        read_config({"HOST": "::1", "PORT": "80", "FOLLOWER_URLS": "http://[::1]:80"})


def test_the_write_timeout_follows_the_lag_and_the_request_timeout() -> None:
    config = read_config({"MAX_DELAY_MS": "2000", "REQUEST_TIMEOUT": "3"})
    assert config.write_timeout_s == 8


def test_memory_is_no_directory() -> None:
    assert read_config({"DATA_DIR": ":memory:"}).data_dir is None


def test_the_data_directory_bears_the_nodes_name() -> None:
    assert read_config({"NODE_ID": "follower1"}).data_dir == Path("data/follower1")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", "http://a"),
        ("http://a/", "http://a"),
        ("HTTP://Node_1.Example:8000/", "http://node_1.example:8000"),
        ("https://10.0.0.1:65535", "https://10.0.0.1:65535"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_base_url_has_one_spelling(text: str, url: str) -> None:
    assert base_url(text) == url
    assert base_url(url) == url


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"HOST": "127.0.0.1"}, "http://127.0.0.1:4711"),
        ({"HOST": "[::1]"}, "http://[::1]:4711"),
        ({"HOST": "node1"}, "http://node1:4711"),
        ({"HOST": "0.0.0.0"}, None),
        ({"HOST": "::"}, None),
        ({"HOST": "0.0.0.0", "ADVERTISE_URL": "http://a:8000"}, "http://a:8000"),
    ],
)
def test_a_node_tells_others_a_url_only_where_it_makes_sense(
    environment: dict[str, str], url: str | None
) -> None:
    assert reachable_url(read_config({"PORT": "0", **environment}), 4711) == url
