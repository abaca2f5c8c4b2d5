"""Which node to ask next.

`Nodes` is what all calls of a client know together: the URLs, who leads as far as anyone has said, and
who has lately not been reached. It only ever shortens the search: each call asks all nodes if it must,
so that what is out of date here costs time and nothing else.

`Search` is one call's search for the leader, in rounds: whoever was named, then whoever is thought to
lead, then all others; each node once in a round. A node that is named and is not among the configured
ones (the cluster knows itself by names of its own, in containers for example) comes last: the leader
is normally configured, too, under the address at which it can be reached from here.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from trikv.protocol.urls import base_url, without_secrets

#: A node that was not reached is asked after all others for so long.
AVOID_S = 5.0


def node_url(text: str) -> str:
    """A node's URL in one form: `http://host:port`; the scheme may be left out. Raises ValueError."""
    if not isinstance(text, str):
        raise TypeError(f"nodes: expected a URL as a str, got {type(text).__name__}")
    try:
        if text.isdecimal():
            raise ValueError(f"a port needs a host: http://127.0.0.1:{text:.10}")
        return base_url(text if "://" in text else f"http://{text}")
    except ValueError as error:
        shown = without_secrets(text)
        raise ValueError(
            f"a node's URL looks like http://host:port, not {shown!r:.100}: {error}"
        ) from None


class Nodes:
    """The nodes of a cluster as a client knows them. May be shared by threads: nothing here must
    agree."""

    def __init__(self, urls: str | Sequence[str], rng: random.Random) -> None:
        given = [urls] if isinstance(urls, str) else list(urls)
        if not given:
            raise ValueError("a client needs the URL of one node at least")
        self.urls = tuple(dict.fromkeys(map(node_url, given)))
        self.leader = self.urls[0]
        """Who is thought to lead; not always one of `urls`."""
        self._reader = rng.randrange(len(self.urls))
        self._avoided_until: dict[str, float] = {}

    def failed(self, url: str, now_s: float) -> None:
        """A node was not reached, or did not answer."""
        self._avoided_until[url] = now_s + AVOID_S

    def answered(self, url: str) -> None:
        self._avoided_until.pop(url, None)

    def ring(self, first: str | None, now_s: float) -> list[str]:
        """All configured nodes in a circle, from `first` on; those that lately failed come last."""
        start = self.urls.index(first) if first in self.urls else 0
        circle = self.urls[start:] + self.urls[:start]
        return sorted(circle, key=lambda url: self._avoided_until.get(url, 0.0) > now_s)

    def after(self, url: str) -> str:
        """The next one in the circle."""
        if url not in self.urls:
            return self.urls[0]
        return self.urls[(self.urls.index(url) + 1) % len(self.urls)]

    def reader(self) -> str:
        """The node that a read from any node begins with: each time the next one."""
        self._reader = (self._reader + 1) % len(self.urls)
        return self.urls[self._reader]


class Search:
    """One call's search for the leader."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._asked: set[str] = set()
        self._first = nodes.leader
        self._named: list[str] = []

    def next(self, now_s: float) -> str | None:
        """Whom to ask now; None when all have been asked in this round."""
        known = [url for url in reversed(self._named) if url in self._nodes.urls]
        strangers = [url for url in reversed(self._named) if url not in self._nodes.urls]
        ring = self._nodes.ring(self._first, now_s)
        first = [self._first] if self._first not in self._nodes.urls else []
        for url in (*known, *first, *ring, *strangers):
            if url not in self._asked:
                self._asked.add(url)
                return url
        return None

    def named(self, url: str | None) -> None:
        """A node has refused because it follows, and named this one as the leader."""
        if url is None:
            return
        try:
            url = node_url(url)
        except ValueError:
            return  # what a node says of another is a hint, and this is none
        self._named.append(url)
        if url in self._nodes.urls:
            self._nodes.leader = url

    def leads(self, url: str) -> None:
        """A node has answered as only the leader does."""
        self._nodes.leader = url

    def again(self, first: str | None = None) -> None:
        """A new round, which begins with `first`, or with whoever is thought to lead."""
        self._asked.clear()
        self._named.clear()
        self._first = first or self._nodes.leader
