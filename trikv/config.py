"""Every setting of a node: its name, default, unit and check.

Settings come from the environment and nowhere else. All are checked before anything is opened or
bound; a bad one raises SettingError, whose text is one line that names the variable, what it holds and
what was expected. A variable that is set to nothing counts as not set, as compose files do it.

`SETTINGS` is the list that the documentation is tested against.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from trikv.errors import SettingError
from trikv.model.quorum import default_write_quorum, write_quorum_problem
from trikv.network.simulated_lag import MAX_DELAY_MS, LagRange
from trikv.protocol.messages import LARGEST_VALUE_BYTES
from trikv.protocol.urls import base_url, check_host, without_secrets
from trikv.storage.database import Durability

T = TypeVar("T")

Role = Literal["leader", "follower"]

#: Followers of one leader: each costs a task and a connection, and every write goes to all.
MAX_FOLLOWERS = 100

#: How like a setting's name another one must be to be taken for a misspelling of it (difflib's ratio).
_MISSPELT_RATIO = 0.85

#: The longest path that Linux takes.
MAX_PATH_CHARACTERS = 4095

_WILDCARD_HOSTS = {"0.0.0.0", "::", "[::]", ""}


class Setting(NamedTuple):
    """One variable. `default` is what the documentation says; `parse` raises ValueError."""

    name: str
    default: str
    expected: str
    parse: Callable[[str], Any]


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,12}", text) is None or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None:
            raise ValueError
        if not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return parse


def _node_id(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text) is None:
        raise ValueError
    return text


def _host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}|\[[0-9a-fA-F:.]+\]", text) is None:
        raise ValueError
    check_host(text.strip("[]"))
    return text.strip("[]")


def _directory(text: str) -> str:
    """A directory as it is written; what a shell would have made of it is refused, with that."""
    if text == ":memory:":
        return text
    if not text.isprintable() or len(text) > MAX_PATH_CHARACTERS:
        raise ValueError
    if text[0] == "~":
        raise _Meant(f"~ is not expanded here: write {os.path.expanduser(text)}")
    if re.search(r"\$[A-Za-z_{(]|%\w+%", text):
        raise _Meant("variables are not expanded here: write what they stand for")
    if text[0] == ":" or "://" in text:
        raise _Meant("write a path of the file system")
    if text[0] in "\"'" or text[-1] in "\"'":
        raise ValueError
    return text


class _Meant(ValueError):
    """A bad setting of which it is known what was meant: the text says it."""


def _urls(text: str) -> tuple[str, ...]:
    urls = tuple(base_url(part.strip()) for part in text.split(",") if part.strip())
    if len(set(urls)) != len(urls) or len(urls) > MAX_FOLLOWERS:
        raise ValueError
    return urls


_NODE_ID_EXPECTED = "1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first"
_URL_EXPECTED = "a base URL like http://node1:8000, with no path"

SETTINGS: tuple[Setting, ...] = (
    Setting("ROLE", "leader", "leader or follower", _one_of("leader", "follower")),
    Setting("NODE_ID", "node", _NODE_ID_EXPECTED, _node_id),
    Setting("HOST", "0.0.0.0", "a host name or an address to listen on", _host),
    Setting("PORT", "8000", "a port from 0 (any free one) to 65535", _whole(0, 65535)),
    Setting("ADVERTISE_URL", "", _URL_EXPECTED, base_url),
    Setting(
        "WRITE_QUORUM",
        "3, or the number of followers if that is less",
        "a whole number from 0 (asynchronous) to the number of followers",
        _whole(0, MAX_FOLLOWERS),
    ),
    Setting(
        "MIN_DELAY_MS", "0", f"milliseconds from 0 to {MAX_DELAY_MS}", _number(0, MAX_DELAY_MS)
    ),
    Setting(
        "MAX_DELAY_MS",
        "1000",
        f"milliseconds from MIN_DELAY_MS to {MAX_DELAY_MS}",
        _number(0, MAX_DELAY_MS),
    ),
    Setting("LAG_SEED", "", "a whole number from 0 to 10^12", _whole(0, 10**12)),
    Setting("REQUEST_TIMEOUT", "5", "seconds from 0.01 to 600", _number(0.01, 600)),
    Setting(
        "FOLLOWER_URLS",
        "",
        f"up to {MAX_FOLLOWERS} different base URLs like http://node1:8000, with commas between",
        _urls,
    ),
    Setting("DATA_DIR", "data/NODE_ID", "a directory, or :memory:", _directory),
    Setting("DURABILITY", "fsync", "fsync or os", _one_of("fsync", "os")),
    Setting(
        "WRITE_TIMEOUT",
        "MAX_DELAY_MS plus twice REQUEST_TIMEOUT",
        "seconds from 0.01 to 3600",
        _number(0.01, 3600),
    ),
    Setting(
        "MAX_VALUE_BYTES",
        "1048576",
        f"bytes from 1 to {LARGEST_VALUE_BYTES}",
        _whole(1, LARGEST_VALUE_BYTES),
    ),
    Setting("MAX_INFLIGHT_WRITES", "1024", "writes from 1 to 100000", _whole(1, 100_000)),
    Setting("FAST_LANE", "on", "on or off", _one_of("on", "off")),
    Setting("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR", lambda text: _level(text)),
)


def _level(text: str) -> str:
    return _one_of("DEBUG", "INFO", "WARNING", "ERROR")(text.upper())


@dataclass(frozen=True, kw_only=True)
class Config:
    """One node's settings, checked. Times in seconds, lag in milliseconds."""

    role: Role = "leader"
    node_id: str = "node"
    host: str = "0.0.0.0"
    port: int = 8000
    advertise_url: str | None = None
    write_quorum: int = 0
    lag: LagRange = field(default=LagRange(0, 1000))
    lag_seed: int | None = None
    request_timeout_s: float = 5.0
    follower_urls: tuple[str, ...] = ()
    data_dir: Path | None = None
    durability: Durability = "fsync"
    write_timeout_s: float = 11.0
    max_value_bytes: int = 2**20
    max_inflight_writes: int = 1024
    fast_lane: bool = True
    log_level: str = "INFO"


def read_config(environment: Mapping[str, str]) -> Config:
    """The settings in an environment. Raises SettingError for the first bad one."""
    given: dict[str, Any] = {}
    for name, default, expected, parse in SETTINGS:
        text = environment.get(name, "").strip()
        if text:
            try:
                given[name] = parse(text)
            except _Meant as meant:
                raise _bad(name, text, expected, f"; {meant}") from None
            except ValueError:
                raise _bad(name, text, expected) from None
        elif name not in _DERIVED and default:
            given[name] = parse(default)
    return _derive(given)


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are no settings but nearly named like one, each with that setting."""
    names = [setting.name for setting in SETTINGS]
    found = {}
    for name in sorted(environment.keys() - set(names)):
        alike = difflib.get_close_matches(name.upper(), names, 1, _MISSPELT_RATIO)
        if alike:
            found[name] = alike[0]
    return found


#: Settings whose default depends on others, or that may be absent.
_DERIVED = {
    "ADVERTISE_URL",
    "WRITE_QUORUM",
    "LAG_SEED",
    "FOLLOWER_URLS",
    "DATA_DIR",
    "WRITE_TIMEOUT",
}


def _derive(given: dict[str, Any]) -> Config:
    urls: tuple[str, ...] = given.get("FOLLOWER_URLS", ())
    lag = LagRange(given["MIN_DELAY_MS"], given["MAX_DELAY_MS"])
    if lag.min_delay_ms > lag.max_delay_ms:
        raise _bad(
            "MIN_DELAY_MS", f"{lag.min_delay_ms:g}", f"at most MAX_DELAY_MS ({lag.max_delay_ms:g})"
        )
    quorum: int = given.get("WRITE_QUORUM", default_write_quorum(len(urls)))
    if given["ROLE"] == "leader" and (problem := write_quorum_problem(quorum, len(urls))):
        raise _bad("WRITE_QUORUM", str(quorum), problem.removeprefix("expected "))
    own_url = given.get("ADVERTISE_URL") or _own_url(given["HOST"], given["PORT"])
    if own_url is not None and own_url in urls:
        raise _bad("FOLLOWER_URLS", ",".join(urls), f"the others only, not this node's {own_url}")
    data_dir: str = given.get("DATA_DIR", f"data/{given['NODE_ID']}")
    patience_s = lag.max_delay_ms / 1000 + 2 * given["REQUEST_TIMEOUT"]
    return Config(
        role=cast(Role, given["ROLE"]),
        node_id=given["NODE_ID"],
        host=given["HOST"],
        port=given["PORT"],
        advertise_url=given.get("ADVERTISE_URL"),
        write_quorum=quorum,
        lag=lag,
        lag_seed=given.get("LAG_SEED"),
        request_timeout_s=given["REQUEST_TIMEOUT"],
        follower_urls=urls,
        data_dir=None if data_dir == ":memory:" else Path(data_dir),
        durability=cast(Durability, given["DURABILITY"]),
        write_timeout_s=given.get("WRITE_TIMEOUT", patience_s),
        max_value_bytes=given["MAX_VALUE_BYTES"],
        max_inflight_writes=given["MAX_INFLIGHT_WRITES"],
        fast_lane=given["FAST_LANE"] == "on",
        log_level=given["LOG_LEVEL"],
    )


def _own_url(host: str, port: int) -> str | None:
    """How others reach a node that listens there, where that can be told."""
    if host in _WILDCARD_HOSTS or port == 0:
        return None
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_url(config: Config, port: int) -> str:
    """A URL at which the node answers on this machine, once it listens on `port`."""
    loopback = "::1" if config.host == "::" else "127.0.0.1"
    host = loopback if config.host in _WILDCARD_HOSTS else config.host
    return cast(str, _own_url(host, port))


def reachable_url(config: Config, port: int) -> str | None:
    """The URL that a node tells others, once it listens on `port`."""
    return config.advertise_url or _own_url(config.host, port)


def _bad(name: str, text: str, expected: str, hint: str = "") -> SettingError:
    shown = without_secrets(text)
    shown = shown if len(shown) <= 200 else shown[:197] + "..."
    if shown == text and text.isprintable() and re.fullmatch(r"(['\"]).+\1", text):
        hint = f"; the quotes are part of it: write {text[1:-1]}"
    return SettingError(f"{name}={shown!r}: expected {expected}{hint}")
