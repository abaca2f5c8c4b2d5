"""What is allowed at the start of a node and hardly meant where data matter is a warning in its log."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trikv.__main__ import _warn_of_traps
from trikv.config import SETTINGS, misspelt, read_config


def warned_of(caplog: pytest.LogCaptureFixture, **settings: str) -> dict[str, str]:
    """The warnings of a node with these settings, with their hints."""
    _warn_of_traps(read_config({"DATA_DIR": ":memory:", **settings}))
    return {record.getMessage(): vars(record)["fields"]["hint"] for record in caplog.records}


def test_a_leader_without_followers_says_that_nothing_is_replicated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warned = warned_of(caplog)
    assert set(warned) == {"leader.alone"}
    assert "nothing is replicated" in warned["leader.alone"]
    assert "FOLLOWER_URLS" in warned["leader.alone"]


def test_a_follower_is_not_warned_of_what_a_leader_does(caplog: pytest.LogCaptureFixture) -> None:
    assert not warned_of(caplog, ROLE="follower")


def test_who_has_one_follower_is_told_to_add_one_and_never_to_lower_the_quorum(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warned = warned_of(caplog, FOLLOWER_URLS="http://a:1", MAX_DELAY_MS="0")
    assert set(warned) == {"quorum.fragile"}
    assert "add a second follower" in warned["quorum.fragile"]
    assert "WRITE_QUORUM lower" not in warned["quorum.fragile"]


def test_who_has_two_followers_is_told_to_lower_the_quorum(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warned = warned_of(caplog, FOLLOWER_URLS="http://a:1,http://b:1", MAX_DELAY_MS="0")
    assert "set WRITE_QUORUM lower" in warned["quorum.fragile"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FOLLOWER_URL", "FOLLOWER_URLS"),
        ("FOLLOWERS_URLS", "FOLLOWER_URLS"),
        ("WRITE_QUROUM", "WRITE_QUORUM"),
        ("write_quorum", "WRITE_QUORUM"),
        ("MAX_DELAY", "MAX_DELAY_MS"),
        ("NODEID", "NODE_ID"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_a_misspelt_setting_is_found(name: str, meant: str) -> None:
    assert misspelt({name: "secret", "PATH": "/bin"}) == {name: meant}


def test_settings_and_what_a_shell_exports_are_no_misspellings() -> None:
    ordinary = (
        "HOME HOSTNAME HOSTTYPE PATH PWD SHELL SHLVL TERM USER LANG LOGNAME http_proxy TRIKV_URLS"
    )
    names = [setting.name for setting in SETTINGS] + ordinary.split()
    assert misspelt(dict.fromkeys(names, "x")) == {}


@pytest.mark.parametrize("module", ["trikv", "trikv.cli"])
def test_a_python_without_trikvs_dependencies_gets_one_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", module, "--version"],  # without site-packages
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("install trikv first: ")
    assert len(done.stderr.splitlines()) == 1
