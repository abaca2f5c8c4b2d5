"""The arguments: defaults are the lab's, and every bad value says what was expected."""

from pathlib import Path

import pytest

from loadgen import options
from loadgen.theory import UniformLag


def test_without_arguments_it_is_the_labs_experiment() -> None:
    given = options.parse([])
    assert given.leader_url is None
    assert given.quorums is None
    assert options.default_quorums(5) == (1, 2, 3, 4, 5)
    assert (given.writes, given.concurrency, given.keys) == (100, 10, 10)
    assert given.lag == UniformLag(0, 1000)
    assert given.output == Path("reports")


@pytest.mark.parametrize(
    ("followers", "quorums"), [(1, (1,)), (3, (1, 2, 3)), (9, (1, 2, 3, 4, 5))]
)
def test_quorums_are_the_labs_as_far_as_there_are_followers(
    followers: int, quorums: tuple[int, ...]
) -> None:
    assert options.default_quorums(followers) == quorums


def test_a_seed_is_drawn_if_none_is_given() -> None:
    assert options.parse([]).seed != options.parse([]).seed
    assert options.parse(["--seed", "12"]).seed == 12


def test_quick_means_a_small_lag_unless_a_lag_is_given() -> None:
    assert options.parse(["--quick"]).lag == UniformLag(0, 50)
    assert options.parse(["--quick", "--lag", "5-6"]).lag == UniformLag(5, 6)


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("0-1000", UniformLag(0, 1000)),
        ("100", UniformLag(100, 100)),
        ("0.5-2.25", UniformLag(0.5, 2.25)),
        ("0-0", UniformLag(0, 0)),
    ],
)
def test_a_lag_is_a_range_or_one_number(text: str, lag: UniformLag) -> None:
    assert options.parse(["--lag", text]).lag == lag


@pytest.mark.parametrize(
    ("text", "quorums"),
    [("3", (3,)), ("1,3,5", (1, 3, 5)), ("2-4", (2, 3, 4)), ("5,1-2", (5, 1, 2)), ("1, 2", (1, 2))],
)
def test_quorums_are_a_list_or_a_range(text: str, quorums: tuple[int, ...]) -> None:
    assert options.parse(["--quorums", text]).quorums == quorums


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://leader", "https://leader"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_leader_is_named_by_its_url(text: str, url: str) -> None:
    assert options.parse(["--leader", text]).leader_url == url


@pytest.mark.parametrize(
    ("arguments", "expectation"),
    [
        ("--quorums 0", "expected quorums like 1,3,5"),
        ("--quorums 6", "6 cannot be met by 5 followers: expected quorums from 1 to 5"),
        ("--quorums 1-6", "6 cannot be met by 5 followers"),
        ("--quorums 3-1", "expected quorums like"),
        ("--quorums 1,1", "given once"),
        ("--quorums 1,", "expected quorums like"),
        ("--quorums one", "'one': expected quorums like"),
        ("--writes 0", "--writes: '0': expected a whole number from 1 to 100000"),
        ("--writes 1.5", "expected a whole number"),
        ("--writes ten", "expected a whole number"),
        ("--writes 99999999999999999999", "expected a whole number"),
        ("--concurrency 0", "expected a whole number from 1 to 1000"),
        ("--concurrency 1001", "expected a whole number from 1 to 1000"),
        ("--keys 0", "expected a whole number from 1 to 100000"),
        ("--seed -1", "expected a whole number from 0"),
        ("--wait -1", "expected a whole number from 0 to 3600"),
        ("--lag 10-5", "expected MIN to be at most MAX"),
        ("--lag 0-600001", "MAX at most 600000 ms"),
        ("--lag -5-10", "expected MIN-MAX in milliseconds"),
        ("--lag 0:1000", "expected MIN-MAX in milliseconds, e.g. 0-1000"),
        ("--lag nan", "expected MIN-MAX"),
        ("--lag 1e3", "expected MIN-MAX"),
        ("--leader 127.0.0.1:8000", "expected the URL of the leader, e.g. http://127.0.0.1:8000"),
        ("--leader http://a..b", "expected the URL of the leader"),
        ("--leader ftp://leader", "expected the URL of the leader"),
        ("--leader http://", "expected the URL of the leader"),
        ("--leader http://x:99999", "expected the URL of the leader"),
        ("--leader http://x:0", "expected the URL of the leader"),
        ("--leader http://x/kv/a", "expected the URL of the leader"),
        ("--leader http://x?a=b", "expected the URL of the leader"),
        ("--leader http://me:pw@x", "expected the URL of the leader"),
        ("--leader http://[::1", "expected the URL of the leader"),
        ("--leader http://a<b", "expected the URL of the leader"),
        ("--lea http://x", "unrecognized arguments"),
        ("surplus", "unrecognized arguments"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_was_expected(
    arguments: str, expectation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        # One argument may not start with a dash of its own unless it is glued on.
        options.parse(arguments.replace(" -", "=-", 1).split(" "))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert expectation in error.splitlines()[-1]
    assert error.startswith("usage: python -m loadgen")


def test_a_found_cluster_may_have_more_than_five_followers() -> None:
    assert options.parse(["--leader", "http://x", "--quorums", "7"]).quorums == (7,)


def test_help_names_every_option_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options.parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in (
        *("--leader", "--quorums", "--writes", "--concurrency", "--keys", "--lag", "--seed"),
        *("--quick", "--output", "--wait", "--version"),
    ):
        assert option in text
    assert "exit codes: 0 all well; 1" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_check_has_defaults_that_meet_every_fault() -> None:
    check = options.parse(["--check"]).check
    assert check is not None
    assert check.nemesis == ("kill", "pause", "partition", "takeover", "wipe")
    assert (check.duration_s, check.clients, check.keys, check.quorum) == (150, 8, 10, 3)
    assert check.lag == UniformLag(0, 50)
    assert not check.containers
    assert options.parse([]).check is None


def test_a_check_takes_its_options() -> None:
    arguments = "--check --duration 60 --nemesis wipe,kill --clients 3 --keys 5 --quorum 0"
    arguments += " --lag 5 --seed 9 --output there --containers"
    given = options.parse(arguments.split(" "))
    check = given.check
    assert check is not None
    assert check.nemesis == ("kill", "wipe")
    assert (check.duration_s, check.clients, check.keys, check.quorum) == (60, 3, 5, 0)
    assert (check.lag, check.seed, check.containers) == (UniformLag(5, 5), 9, True)
    assert given.output == Path("there")


def test_where_processes_cannot_be_stopped_they_are_not_paused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "CAN_PAUSE", False)
    check = options.parse(["--check"]).check
    assert check is not None
    assert check.nemesis == ("kill", "partition", "takeover", "wipe")
    with pytest.raises(SystemExit):
        options.parse(["--check", "--nemesis", "pause"])
    assert "--nemesis: pause: expected only where" in capsys.readouterr().err
    assert options.parse(["--check", "--containers", "--nemesis", "pause"]).check is not None


@pytest.mark.parametrize("text", ["none", ""])
def test_a_check_may_leave_the_cluster_alone(text: str) -> None:
    check = options.parse(["--check", "--nemesis", text]).check
    assert check is not None
    assert check.nemesis == ()


@pytest.mark.parametrize(
    ("arguments", "expectation"),
    [
        ("--check --duration 9", "--duration: '9': expected a whole number from 10 to 86400"),
        ("--check --clients 0", "--clients: '0': expected a whole number from 1 to 100"),
        ("--check --quorum 6", "--quorum: '6': expected a whole number from 0 to 5"),
        ("--check --nemesis kill,fire", "--nemesis: 'kill,fire': expected faults like kill,pause"),
        ("--check --nemesis kill,kill", "given once"),
        ("--check --nemesis kill,none", "each of kill, pause, partition, takeover, wipe"),
        ("--check --leader http://x:1", "--leader: expected only without --check"),
        ("--check --writes 5", "--writes: expected only without --check"),
        ("--check --quick", "--quick: expected only without --check"),
        ("--check --wait 0", "--wait: expected only without --check"),
        ("--duration 60", "--duration: expected only with --check"),
        ("--nemesis none", "--nemesis: expected only with --check"),
        ("--quorum 0", "--quorum: expected only with --check"),
        ("--containers", "--containers: expected only with --check"),
    ],
)
def test_an_option_of_the_other_program_is_bad_usage(
    arguments: str, expectation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        options.parse(arguments.split(" "))
    assert caught.value.code == 2
    assert expectation in capsys.readouterr().err
