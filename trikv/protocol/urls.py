"""Base URLs of nodes: what is one, and its one spelling. For settings, the client, the command line.

Pure.
"""

from __future__ import annotations

import ipaddress
import re

import idna

#: In any other form a URL may mean one thing to us and another to whoever opens the connection.
_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE | re.ASCII
)

#: What people write that is not matched, most telling first.
_REASONS = (
    (r"\s", "it holds a blank"),
    (r"@", "it names a user"),
    (r"%", "it holds a %: expected no zone, and nothing escaped"),
    (r"[^\x00-\x7f]", "expected a host in ASCII (xn--…)"),
    (r"^(?!https?://)", "expected http:// or https://"),
    (r"^https?:/*(:\d*)?/?$", "it names no host"),
    (r":(?![0-9]{1,5}/?$)[^/:\]]*$", "expected a port from 1 to 65535"),
    (r"^https?://[^/?#]+[/?#]", "expected nothing behind the port"),
)


def base_url(text: str) -> str:
    """Return `http://host:port` in its one spelling. Raises ValueError, which says what is wrong."""
    found = _URL.fullmatch(text)
    if found is None:
        reasons = (why for pattern, why in _REASONS if re.search(pattern, text, re.IGNORECASE))
        raise ValueError(next(reasons, "expected a host name or an address"))
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    check_host(host.strip("[]"))
    if port is None:
        return f"{scheme}://{host}"
    if not 1 <= int(port) <= 65535:
        raise ValueError("expected a port from 1 to 65535")
    return f"{scheme}://{host}:{int(port)}"


def check_host(host: str) -> None:
    """Raises ValueError for what is neither an IPv6 address nor a name that a resolver takes."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host!r:.80} is no IPv6 address") from None
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(1 <= len(label) <= 63 for label in labels):
        raise ValueError("expected a host of 253 characters at most, 1 to 63 between two dots")
    for label in labels:
        if label.lower().startswith("xn--"):
            try:
                idna.decode(label)
            except idna.IDNAError:
                raise ValueError(f"{label!r:.80} is no encoded name") from None


def without_secrets(text: str) -> str:
    """A text to be shown in which a URL may stand: without its user, password and query."""
    _, at, rest = text.rpartition("@")
    return re.sub(r"[?#].*", "?***", f"***@{rest}" if at else text, flags=re.DOTALL)
