"""The arguments: what they mean, what they may be, and what each is when it is not given.

Every bad value ends in argparse's exit code 2, with a line that names the option, shows what it
was given, and says what was expected. What only the cluster can tell, such as whether there are
enough followers for a quorum, is checked once it has been asked.

`--check` makes it another program, with options of its own. One that belongs to the other program is
bad usage, not ignored.
"""

import argparse
import re
import secrets
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from loadgen.check import plan
from loadgen.check.plan import CheckPlan
from loadgen.cluster import FOLLOWERS
from loadgen.results import LAB_LAG
from loadgen.theory import UniformLag
from trikv.protocol.urls import base_url, without_secrets

QUICK_LAG = UniformLag(0, 50)

# The node's own bound: ten minutes.
MAX_LAG_MS = 600_000
MAX_SEED = 10**12
# Bounds against slips of the pen: beyond them a run takes days, or more sockets than there are.
MAX_WRITES = 100_000
MAX_CONCURRENCY = 1_000
MAX_KEYS = 100_000
MAX_WAIT_S = 3_600
MAX_DURATION_S = 86_400
# So many at least, for a phase without faults and a few faults.
MIN_DURATION_S = 10
MAX_CLIENTS = 100

DEFAULT_WRITES = 100
DEFAULT_CONCURRENCY = 10
DEFAULT_KEYS = 10
DEFAULT_WAIT_S = 30

#: Windows has no signal that stops a process where it is.
CAN_PAUSE = hasattr(signal, "SIGSTOP")

#: What only one of the two programs takes.
EXPERIMENT_ONLY = ("quorums", "writes", "concurrency", "quick", "leader", "wait")
CHECK_ONLY = ("duration", "nemesis", "clients", "quorum", "containers")

EPILOG = """\
exit codes: 0 all well; 1 writes failed, replicas differ, or the run could not be done (with
--check: anomalies, or a run that says too little); 2 bad usage, nothing was run; 130 ended by
Ctrl-C.

examples:
  python -m loadgen                          the lab's experiment, on a cluster of its own
  python -m loadgen --quick                  the same in seconds, with a small lag
  python -m loadgen --leader http://127.0.0.1:8000 --quorums 1,3,5 --lag 10-200
  python -m loadgen --check                  a history under kills, pauses, takeovers, judged
  python -m loadgen --check --quorum 0 --lag 0-500 --nemesis takeover      writes get lost: see how
"""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked. `quorums` is None where the cluster decides.

    With `check`, only that and `output` count.
    """

    leader_url: str | None
    quorums: tuple[int, ...] | None
    writes: int
    concurrency: int
    keys: int
    lag: UniformLag
    seed: int
    output: Path
    wait_s: float
    check: CheckPlan | None = None


def default_quorums(followers: int) -> tuple[int, ...]:
    """The lab's quorums, as far as there are followers for them."""
    return tuple(range(1, min(followers, FOLLOWERS) + 1))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Check the command line. Raises SystemExit(2) with usage and reason on bad usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    foreign = EXPERIMENT_ONLY if given.check else CHECK_ONLY
    for name in foreign:
        value = getattr(given, name)
        if value is not None and value is not False:  # 0 was given
            where = "without" if given.check else "with"
            parser.error(f"argument --{name}: expected only {where} --check")
    if given.leader is None and given.quorums and max(given.quorums) > FOLLOWERS:
        parser.error(
            f"argument --quorums: {max(given.quorums)} cannot be met by {FOLLOWERS} followers: "
            f"expected quorums from 1 to {FOLLOWERS}"
        )
    if "pause" in (given.nemesis or ()) and not given.containers and not CAN_PAUSE:
        parser.error("argument --nemesis: pause: expected only where processes can be stopped")
    lag = given.lag or (QUICK_LAG if given.quick else LAB_LAG)
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    return Options(
        leader_url=given.leader,
        quorums=given.quorums,
        writes=_or(given.writes, DEFAULT_WRITES),
        concurrency=_or(given.concurrency, DEFAULT_CONCURRENCY),
        keys=_or(given.keys, DEFAULT_KEYS),
        lag=lag,
        seed=seed,
        output=given.output,
        wait_s=_or(given.wait, DEFAULT_WAIT_S),
        check=_check_plan(given, seed) if given.check else None,
    )


def _check_plan(given: argparse.Namespace, seed: int) -> CheckPlan:
    kinds = tuple(k for k in plan.KINDS if k != "pause" or CAN_PAUSE or given.containers)
    usual_s = plan.DEFAULT_CONTAINERS_DURATION_S if given.containers else plan.DEFAULT_DURATION_S
    return CheckPlan(
        duration_s=_or(given.duration, usual_s),
        nemesis=_or(given.nemesis, kinds),
        clients=_or(given.clients, plan.DEFAULT_CLIENTS),
        keys=_or(given.keys, plan.DEFAULT_KEYS),
        quorum=_or(given.quorum, plan.DEFAULT_QUORUM),
        lag=_or(given.lag, plan.DEFAULT_LAG),
        seed=seed,
        containers=given.containers,
    )


def _or(given: T | None, default: T) -> T:
    """What was given; the default if nothing was."""
    return default if given is None else given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadgen",
        description=(
            "Measure how long a write takes for each write quorum, and whether the replicas\n"
            "match the leader afterwards. Without --leader it starts a cluster of its own (one\n"
            "leader, five followers, on loopback, in a temporary directory) and leaves nothing\n"
            "behind but its reports."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_experiment(parser)
    _add_cluster(parser)
    _add_check(parser)
    parser.add_argument("--version", action="version", version=f"trikv loadgen {_version()}")
    return parser


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--quorums",
        metavar="LIST",
        type=quorum_list,
        help="write quorums to measure, in turn, e.g. 1,3,5 or 2-4 (default: 1 to the number of "
        "followers, but at most 5)",
    )
    add(
        "--writes",
        metavar="N",
        type=whole(1, MAX_WRITES),
        help=f"writes per quorum (default: {DEFAULT_WRITES})",
    )
    add(
        "--concurrency",
        metavar="N",
        type=whole(1, MAX_CONCURRENCY),
        help=f"writes at a time (default: {DEFAULT_CONCURRENCY})",
    )
    add(
        "--keys",
        metavar="N",
        type=whole(1, MAX_KEYS),
        help="keys that the writes are dealt out to; with --check, keys in use at a time "
        f"(default: {DEFAULT_KEYS})",
    )
    add(
        "--lag",
        metavar="MIN-MAX",
        type=lag_range,
        help="simulated lag of each delivery in milliseconds, drawn uniformly between the two, "
        "e.g. 0-1000; one number for a fixed lag (default: 0-1000, with --quick 0-50, with "
        "--check 0-50)",
    )
    add("--quick", action="store_true", help="a small lag, so that it is done in seconds")
    add(
        "--seed",
        metavar="N",
        type=whole(0, MAX_SEED),
        help="seed of the order of the keys and, on a cluster of its own, of the lags; with --check, "
        "of what the clients and the nemesis do (default: drawn, and shown)",
    )
    add(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("reports"),
        help="folder for summary.json, report.md, writes.csv and quorum_vs_latency.png, or for "
        "history.json, history.png, check.md and the nodes' logs (default: %(default)s)",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--leader",
        metavar="URL",
        type=leader_url,
        help="drive the cluster of this leader instead, e.g. http://127.0.0.1:8000; its write "
        "quorum and lag are changed for the run and given back afterwards, and the keys "
        "loadgen-key-0, -1, ... stay",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=whole(0, MAX_WAIT_S),
        help="with --leader: how long to wait for it to answer and to reach all its followers "
        f"(default: {DEFAULT_WAIT_S})",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "checking a history",
        "Clients read and write while a nemesis kills, pauses, cuts off and empties nodes of a\n"
        "cluster of their own; then all that they were told is checked. The run is invalid if a\n"
        f"fault was met fewer than {plan.LEAST_FAULTS} times, or less than {plan.LEAST_RATE:.0%} of "
        "the fault-free rate was left.",
    ).add_argument
    add("--check", action="store_true", help="record a history and check it")
    add(
        "--duration",
        metavar="SECONDS",
        type=whole(MIN_DURATION_S, MAX_DURATION_S),
        help=f"of the clients' work, its first {plan.FAULT_FREE_S:.0f} s without faults (default: "
        f"{plan.DEFAULT_DURATION_S}, with --containers {plan.DEFAULT_CONTAINERS_DURATION_S})",
    )
    add(
        "--nemesis",
        metavar="LIST",
        type=nemesis_list,
        help=f"faults to use, or none (default: {','.join(plan.KINDS)})",
    )
    add(
        "--clients",
        metavar="N",
        type=whole(1, MAX_CLIENTS),
        help=f"clients, each with one request at a time (default: {plan.DEFAULT_CLIENTS})",
    )
    add(
        "--quorum",
        metavar="N",
        type=whole(0, FOLLOWERS),
        help="write quorum; with 0 nothing is promised, and much is lost (default: "
        f"{plan.DEFAULT_QUORUM})",
    )
    add(
        "--containers",
        action="store_true",
        help="on the containers of docker/compose.yml instead of processes; needs docker compose, "
        "and a checkout",
    )


def _version() -> str:
    try:
        return metadata.version("trikv")
    except metadata.PackageNotFoundError:
        return "(not installed, run from its source)"


def whole(low: int, high: int) -> Callable[[str], int]:
    """A checker of whole numbers from `low` to `high`, for argparse."""

    def check(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number from {low} to {high}"
            )
        return int(text)

    return check


def quorum_list(text: str) -> tuple[int, ...]:
    """`1,3,5`, `2-4`, or both mixed; each quorum once."""
    expected = f"{text!r}: expected quorums like 1,3,5 or 2-4, each at least 1 and given once"
    found: list[int] = []
    for part in text.split(","):
        matched = re.fullmatch(r"\s*([0-9]{1,3})(?:\s*-\s*([0-9]{1,3}))?\s*", part)
        if matched is None:
            raise argparse.ArgumentTypeError(expected)
        low, high = int(matched[1]), int(matched[2] or matched[1])
        if not 1 <= low <= high:
            raise argparse.ArgumentTypeError(expected)
        found.extend(range(low, high + 1))
    if len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(expected)
    return tuple(found)


def nemesis_list(text: str) -> tuple[str, ...]:
    """`kill,pause`, each kind once; `none` or nothing for no faults."""
    kinds = [part.strip() for part in text.split(",")]
    if kinds in (["none"], [""]):
        return ()
    if not set(kinds) <= set(plan.KINDS) or len(set(kinds)) < len(kinds):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected faults like kill,pause, each of {', '.join(plan.KINDS)} and given "
            "once, or none"
        )
    return tuple(kind for kind in plan.KINDS if kind in kinds)


def lag_range(text: str) -> UniformLag:
    """`0-1000`, or `100` for a lag that is always the same."""
    number = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)"
    matched = re.fullmatch(rf"{number}(?:-{number})?", text)
    if matched is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected MIN-MAX in milliseconds, e.g. 0-1000, or one number"
        )
    low, high = float(matched[1]), float(matched[2] or matched[1])
    if not low <= high <= MAX_LAG_MS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected MIN to be at most MAX, and MAX at most {MAX_LAG_MS} ms"
        )
    return UniformLag(low, high)


def leader_url(text: str) -> str:
    """`http://HOST:PORT` or `https://…`, and nothing behind it."""
    try:
        return base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{without_secrets(text)!r}: expected the URL of the leader, "
            f"e.g. http://127.0.0.1:8000: {error}"
        ) from None
