"""The arguments: what they mean, what they may be, and what each is when it is not given.

Every bad value ends in argparse's exit code 2, with a line that names the option, shows what it
was given, and says what was expected. What only the cluster can tell, such as whether there are
enough followers for a quorum, is checked once it has been asked.
"""

import argparse
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from loadgen.cluster import FOLLOWERS
from loadgen.results import LAB_LAG
from loadgen.theory import UniformLag

QUICK_LAG = UniformLag(0, 50)

# The node's own bound: ten minutes.
MAX_LAG_MS = 600_000
MAX_SEED = 10**12
# Bounds against slips of the pen: beyond them a run takes days, or more sockets than there are.
MAX_WRITES = 100_000
MAX_CONCURRENCY = 1_000
MAX_KEYS = 100_000
MAX_WAIT_S = 3_600

EPILOG = """\
exit codes: 0 all well; 1 writes failed, replicas differ, or the run could not be done;
2 bad usage, nothing was run; 130 ended by Ctrl-C.

examples:
  python -m loadgen                          the lab's experiment, on a cluster of its own
  python -m loadgen --quick                  the same in seconds, with a small lag
  python -m loadgen --leader http://127.0.0.1:8000 --quorums 1,3,5 --lag 10-200
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked. `quorums` is None where the cluster decides."""

    leader_url: str | None
    quorums: tuple[int, ...] | None
    writes: int
    concurrency: int
    keys: int
    lag: UniformLag
    seed: int
    output: Path
    wait_s: float


def default_quorums(followers: int) -> tuple[int, ...]:
    """The lab's quorums, as far as there are followers for them."""
    return tuple(range(1, min(followers, FOLLOWERS) + 1))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Check the command line. Raises SystemExit(2) with usage and reason on bad usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.leader is None and given.quorums and max(given.quorums) > FOLLOWERS:
        parser.error(
            f"argument --quorums: {max(given.quorums)} cannot be met by {FOLLOWERS} followers: "
            f"expected quorums from 1 to {FOLLOWERS}"
        )
    lag = given.lag or (QUICK_LAG if given.quick else LAB_LAG)
    return Options(
        leader_url=given.leader,
        quorums=given.quorums,
        writes=given.writes,
        concurrency=given.concurrency,
        keys=given.keys,
        lag=lag,
        seed=secrets.randbelow(2**31) if given.seed is None else given.seed,
        output=given.output,
        wait_s=given.wait,
    )


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
        default=100,
        help="writes per quorum (default: %(default)s)",
    )
    add(
        "--concurrency",
        metavar="N",
        type=whole(1, MAX_CONCURRENCY),
        default=10,
        help="writes at a time (default: %(default)s)",
    )
    add(
        "--keys",
        metavar="N",
        type=whole(1, MAX_KEYS),
        default=10,
        help="keys that the writes are dealt out to (default: %(default)s)",
    )
    add(
        "--lag",
        metavar="MIN-MAX",
        type=lag_range,
        help="simulated lag of each delivery in milliseconds, drawn uniformly between the two, "
        "e.g. 0-1000; one number for a fixed lag (default: 0-1000, with --quick 0-50)",
    )
    add("--quick", action="store_true", help="a small lag, so that it is done in seconds")
    add(
        "--seed",
        metavar="N",
        type=whole(0, MAX_SEED),
        help="seed of the order of the keys and, on a cluster of its own, of the lags (default: "
        "drawn, and shown)",
    )
    add(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("reports"),
        help="folder for summary.json, report.md, writes.csv and quorum_vs_latency.png "
        "(default: %(default)s)",
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
        default=30,
        help="with --leader: how long to wait for it to answer and to reach all its followers "
        "(default: %(default)s)",
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
    expected = f"{text!r}: expected the URL of the leader, e.g. http://127.0.0.1:8000"
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
        (parts.hostname or "").encode("idna")  # no resolver takes an empty part, or one of over 63
    except ValueError:
        raise argparse.ArgumentTypeError(expected) from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok or rest:
        raise argparse.ArgumentTypeError(expected)
    if re.search(r"[\s\\<>\"{}|^`]", text):
        raise argparse.ArgumentTypeError(expected)
    return f"{parts.scheme}://{parts.netloc}"
