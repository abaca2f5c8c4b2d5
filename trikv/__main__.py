"""One node: environment → trio.run.

Exit codes: 0 after a stop that was asked for (SIGTERM, Ctrl-C), 2 for a bad setting, a bad argument or
a port in use, 1 for a crash.
"""

from __future__ import annotations

from trikv import early

if __name__ == "__main__":
    early.listen()  # before the rest, which takes long
    early.require_dependencies()

import argparse
import gc
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial

import trio

from trikv import __version__, log
from trikv.config import Config, local_url, misspelt, reachable_url, read_config
from trikv.errors import SettingError
from trikv.network.timer import best_timer
from trikv.network.transport import HttpTransport
from trikv.node.node import Node, open_node
from trikv.storage.data_files import readable_by_others
from trikv.storage.group_commit import DiskWatch, RunBlocking, run_in_thread, run_inline
from trikv.storage.store import Store
from trikv.web.server import listen, serve

#: New objects, less those gone, at which Python looks for cycles.
GARBAGE_THRESHOLD = 20_000


def main() -> int:
    """Run a node until it is told to stop; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trikv",
        description="One node of a replicated key-value store.",
        epilog="All settings come from the environment: see docs/operations.md.",
    )
    parser.add_argument("--version", action="version", version=f"trikv {__version__}")
    parser.add_argument(
        "--stop-at-eof",
        action="store_true",
        help="stop when standard input ends: with the program that started the node",
    )
    return run_node(stop_at_eof=parser.parse_args().stop_at_eof)


def run_node(*, stop_at_eof: bool = False) -> int:
    """The same with settings from the environment and nothing else; the exit code."""
    exit_code = 0
    sys.unraisablehook = log.unraisable
    os.umask(0o077)  # what a node writes down is its user's business alone
    try:
        try:
            config = read_config(os.environ)
            log.set_up(config.log_level)
            for name, meant in misspelt(os.environ).items():
                log.warning("setting.unknown", variable=name, hint=f"did you mean {meant}?")
            trio.run(run, config, stop_at_eof)
        except* SettingError as errors:
            exit_code = 2
            meant = "".join(
                f"; {name} is no setting: did you mean {setting}?"
                for name, setting in misspelt(os.environ).items()
                if name.isprintable()
            )
            for error in _leaves(errors):
                log.say(f"{error}{meant}")
    except Exception:
        exit_code = 1
        log.say(traceback.format_exc().rstrip())  # Python itself would wait for whoever reads it
    finally:
        log.flush()
    return exit_code


def _leaves(group: BaseExceptionGroup[SettingError]) -> Iterator[SettingError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def run(config: Config, stop_at_eof: bool = False) -> None:
    """One node, from its listening socket to its last commit. Raises SettingError."""
    with trio.open_signal_receiver(*_stop_signals()) as signals:
        if early.stop_asked:
            return
        listeners, port = await listen(config)
        store = Store.open(config.data_dir, config.durability)
        # Reads from memory share the writer's connection, so everything must take turns.
        how: RunBlocking = run_inline if config.data_dir is None else run_in_thread
        async with (
            HttpTransport() as transport,
            open_node(
                config,
                store=store,
                transport=transport,
                run_blocking=how,
                disk=None if config.data_dir is None else DiskWatch(),
                url=reachable_url(config, port),
                timer=best_timer,
            ) as node,
        ):
            _say_started(node, port)
            _collect_less()
            stopped = partial(_asked_to_stop, signals, stop_at_eof)
            await serve(node, listeners, stopped, measure_delay=True)
            log.info("node.stopping")
    log.info("node.stopped")


def _stop_signals() -> list[signal.Signals]:
    """What asks a node to stop: SIGTERM, Ctrl-C, and on Windows Ctrl-Break."""
    names = ("SIGTERM", "SIGINT", "SIGBREAK")
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


async def _asked_to_stop(signals: AsyncIterator[int], stop_at_eof: bool) -> None:
    """Until a signal comes or, if that counts, standard input ends."""
    async with trio.open_nursery() as nursery:
        if stop_at_eof:
            nursery.start_soon(_until_eof, nursery.cancel_scope)
        await anext(signals)
        nursery.cancel_scope.cancel()


async def _until_eof(stop: trio.CancelScope) -> None:
    await trio.to_thread.run_sync(_read_to_eof, abandon_on_cancel=True)
    stop.cancel()


def _read_to_eof() -> None:
    # Not through sys.stdin, whose lock the interpreter would want at its end.
    with suppress(OSError):
        while os.read(0, 4096):
            pass


def _collect_less() -> None:
    """Look for cycles rarely: what a request makes is freed by its reference counts.

    At Python's default a few writes set off a look at all that is young, and a few thousand one at all
    there is, modules and all, for some 50 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _say_started(node: Node, port: int) -> None:
    config = node.config
    url = node.url or local_url(config, port)
    fields: dict[str, object] = {
        "role": config.role,
        "node_id": config.node_id,
        "url": url,
        "dashboard": f"{url}/ui",
        "data_dir": config.data_dir or ":memory:",
        "durability": config.durability,
        "epoch": node.epoch,
    }
    if config.role == "leader":
        low, high = config.lag
        fields |= {
            "followers": len(config.follower_urls),
            "write_quorum": config.write_quorum,
            "lag_ms": f"{low:g}-{high:g}",
        }
    log.info("node.started", **fields)
    _warn_of_traps(config)


def _warn_of_traps(config: Config) -> None:
    """Log what is allowed, and is hardly meant where data matter."""
    if config.data_dir is not None and (exposed := readable_by_others(config.data_dir)):
        log.warning(
            "data.exposed",
            modes=", ".join(f"{path} {mode}" for path, mode in exposed.items()),
            hint=f"other users may use these: chmod -R go= {config.data_dir}",
        )
    if config.role != "leader":
        return
    followers = len(config.follower_urls)
    if not followers:
        log.warning(
            "leader.alone",
            followers=0,
            hint="nothing is replicated: this disk has the only copy; set FOLLOWER_URLS",
        )
        return
    low, high = config.lag
    if high > 0:
        log.warning(
            "lag.simulated",
            lag_ms=f"{low:g}-{high:g}",
            hint="each write waits so long on its way to a follower; for real use set MAX_DELAY_MS=0",
        )
    if config.write_quorum == followers:
        remedy = (
            "add a second follower and keep WRITE_QUORUM=1"
            if followers == 1
            else "set WRITE_QUORUM lower"
        )
        log.warning(
            "quorum.fragile",
            write_quorum=config.write_quorum,
            followers=followers,
            hint=f"one dead follower stops all writes; for real use {remedy}",
        )


if __name__ == "__main__":
    sys.exit(main())
