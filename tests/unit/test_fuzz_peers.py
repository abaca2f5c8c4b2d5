"""Nodes among confused or hostile ones: a follower with such leaders, a leader with such followers.

What is sent is well formed more often than not, so that it gets past the decoders: epochs, watermarks,
floors, handshakes that end or do not, promises, records of any version, in any order.

A follower must never contradict itself (`NodeState.check_invariants`), nor forget a promise, nor answer
500; what it holds is the join of the records that it has taken, an oracle here keeps a dict of them; and
what it refuses changes nothing. A leader must go on: it is up, does not contradict itself, and answers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support import MemoryNetwork, call, dump, lone_leaf, open_memory_node, put, read_body
from tests.unit import fuzzing as fuzz
from tests.unit.fuzzing import bodies_like, examples, often
from tests.unit.test_fuzz_routes import CODES, with_epoch
from trikv.config import Config
from trikv.errors import PeerFailed, SettingError
from trikv.model.node_state import NodeState
from trikv.model.record import Record, entries_of, wins
from trikv.model.version import Epoch, Version
from trikv.network.simulated_lag import LagRange
from trikv.network.transport import Reply
from trikv.node.node import Node, open_node
from trikv.protocol.messages import (
    Batch,
    LeaderName,
    PromiseBody,
    decode_replicate,
    encode_batch,
    encode_entry,
)
from trikv.storage.group_commit import run_inline
from trikv.storage.store import Store

# -- a follower -------------------------------------------------------------------------------------

_epochs = st.sampled_from([Epoch(1, "a"), Epoch(1, "b"), Epoch(2, "a")])
_versions = st.builds(Version, _epochs, st.integers(1, 6))
_records = st.builds(
    Record, st.sampled_from(["a", "b", "c", "\0x"]), st.sampled_from(["", "1", '"v"']), _versions
)


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """What a leader might send, of whichever epoch, wherever it takes its follower to be."""
    epoch = draw(_epochs)
    reached = draw(often(st.builds(Version, st.just(epoch), st.integers(1, 6)), _versions))
    established = draw(st.booleans())
    return encode_batch(
        LeaderName(draw(st.sampled_from(["boss", "rival"]))),
        epoch,
        [encode_entry(one) for one in entries_of(draw(st.lists(_records, max_size=3)))],
        follower=draw(often(st.none(), st.just("somebody"))),
        watermark=reached if established else draw(st.none() | st.just(reached)),
        floor=draw(often(st.just(reached), st.none() | _versions)),
        established=established,
        confirmed=draw(often(st.none(), st.just(reached) | _versions)),
    )


plain_forms = st.builds(
    '{{"key":"{}","value":{},"timestamp":{}}}'.format,
    st.sampled_from("abc"),
    st.integers(0, 2),
    st.integers(0, 3),
).map(str.encode)


@st.composite
def promises(draw: st.DrawFn) -> bytes:
    """What a candidate might ask, or one that has lost count."""
    epoch = draw(often(_epochs, st.builds(Epoch, st.just(1_000_003), st.sampled_from("ab"))))
    name = LeaderName(draw(st.sampled_from(["boss", "rival", "me"])))
    cluster = draw(st.sampled_from(["", "c", "d"]))
    return msgspec.json.encode(PromiseBody(name, epoch.instance, cluster, str(epoch)))


said_to_a_follower = st.one_of(
    *[st.tuples(st.just("/replicate"), batches())] * 4,
    st.tuples(st.just("/replicate"), plain_forms),
    st.tuples(st.just("/replicate"), bodies_like(fuzz.batch)),
    st.tuples(st.just("/replica/promise"), promises()),
    st.tuples(st.just("/replica/promise"), bodies_like(fuzz.asked_promise)),
)


class Follower:
    """A follower, and beside it what it must hold."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.oracle: dict[str, Record] = {}

    @property
    def state(self) -> NodeState:
        return self.node.store.state

    def held(self) -> dict[str, Record]:
        return {r.key: r for r in self.node.store.page_by_version(None, 10**6, 10**9)}

    async def hear(self, target: str, body: bytes) -> bool:
        """Whether it was taken."""
        before, held = self.state, self.held()
        answer = await call(self.node, "POST", target, body)
        content = fuzz.decoded(await read_body(answer))
        self.state.check_invariants()
        if answer.status != 200:
            assert CODES[content["code"]] == answer.status, content
            assert (self.state, self.held()) == (before, held), content
        elif target == "/replicate":
            self._take(decode_replicate(body), before)
        self._check(before)
        return answer.status == 200

    def _take(self, message: Batch | Record, before: NodeState) -> None:
        taken = message.entries if isinstance(message, Batch) else entries_of([message])
        for one in [record for entry in taken for record in entry.records]:
            if one.version > before.floor and wins(one, self.oracle.get(one.key)):
                self.oracle[one.key] = one
        if isinstance(message, Batch):
            assert message.epoch == self.state.promised >= before.promised

    def _check(self, before: NodeState) -> None:
        state, held = self.state, self.held()
        assert state.promised >= before.promised
        assert (state.established, state.watermark) >= (before.established, before.watermark)
        assert state.floor >= before.floor
        purged = {
            key: one
            for key, one in self.oracle.items()
            if key not in held and one.deleted and one.version <= state.floor
        }
        assert held == {key: one for key, one in self.oracle.items() if key not in purged}


@examples(100)
@given(st.lists(said_to_a_follower, min_size=8, max_size=25), st.booleans())
def test_a_follower_of_confused_leaders_holds_the_join_of_what_it_took(
    said: list[tuple[str, bytes]], all_at_once: bool
) -> None:
    async def main() -> None:
        config = Config(node_id="me", role="follower")
        async with open_memory_node(config, MemoryNetwork(), "http://me") as node:
            follower = Follower(node)
            taken = [one for one in said if await follower.hear(*one)]
            if all_at_once:  # again, in one group of the committer or a few
                before = follower.state
                async with trio.open_nursery() as nursery:
                    for target, body in taken:
                        nursery.start_soon(call, node, "POST", target, body)
                follower.state.check_invariants()
                assert follower.state.promised == before.promised
            assert (await call(node, "GET", "/health")).status == 200

    run(main)


# -- a leader ---------------------------------------------------------------------------------------


class Babble:
    """A transport to followers that answer anything; 1.a in an answer is the epoch asked for."""

    def __init__(self, replies: dict[str, Sequence[Reply]]) -> None:
        self._replies: dict[str, Iterator[Reply]] = {
            url: itertools.cycle(some) for url, some in replies.items()
        }
        self._epoch = "0.0"

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        await trio.sleep(0.01)
        if body is not None:
            self._epoch = msgspec.json.decode(body)["epoch"]
        reply = next(self._replies[url.partition("?")[0]], None)
        if reply is None:
            raise PeerFailed(f"{url}: silent")
        return Reply(reply.status, with_epoch(reply.body, self._epoch))


def replies(texts: st.SearchStrategy[str], good: str) -> st.SearchStrategy[list[Reply]]:
    """What follows upon another; half of the time a good one comes first."""
    first: st.SearchStrategy[list[Reply]] = st.sampled_from([[Reply(200, good.encode())], []])
    usual = st.builds(Reply, st.just(200), texts.map(fuzz.as_bytes))
    other = st.builds(
        Reply, st.sampled_from([200, 409, 503, 500]), bodies_like(often(texts, fuzz.problem))
    )
    rest = st.lists(often(usual, other), max_size=4)
    return st.builds(list[Reply].__add__, first, rest)


_asked_epoch = often(st.just("1.a"), fuzz.epoch_texts)


def answers_of(name: str) -> dict[str, st.SearchStrategy[list[Reply]]]:
    """What a follower answers, by URL; most often it is who it is, and promises what it is asked."""
    node_id = often(st.just(name), fuzz.node_ids)
    acknowledgement = fuzz.shaped(
        {
            "status": st.just('"ok"'),
            "node_id": fuzz.quoted(node_id),
            "epoch": fuzz.quoted(_asked_epoch),
        }
    )
    ours = {"node_id": name, "status": "ok", "epoch": "1.a", "promised": "1.a", "led": "0.0"}
    new = {"instance": "a", "cluster": "", "established": "0.0", "watermark": "0.0-0"}
    good = msgspec.json.encode(
        {**ours, **new, "floor": "0.0-0", "records": 0, "digest": "0" * 32}
    ).decode()
    promises = fuzz.promise_answer(_asked_epoch, node_id)
    return {
        f"http://{name}/replica/promise": replies(promises, good),
        f"http://{name}/replica": replies(fuzz.replica_answer, good),
        f"http://{name}/replica/records": replies(
            fuzz.records_answer, '{"records":[],"next":null}'
        ),
        f"http://{name}/replicate": replies(acknowledgement, good),
    }


answers = st.fixed_dictionaries({**answers_of("follower1"), **answers_of("follower2")})


@examples(100)
@given(answers, st.integers(0, 2))
def test_a_leader_of_confused_followers_goes_on(
    said: dict[str, Sequence[Reply]], write_quorum: int
) -> None:
    async def main() -> None:
        config = Config(
            node_id="me",
            write_quorum=write_quorum,
            follower_urls=("http://follower1", "http://follower2"),
            lag=LagRange(0, 0),
            request_timeout_s=1,
            write_timeout_s=3,
        )
        async with open_node(
            config,
            store=Store.open(None),
            transport=Babble(said),
            run_blocking=run_inline,
            rng=random.Random(0),
        ) as node:
            for _ in range(4):
                await trio.sleep(5)
                node.store.state.check_invariants()
                await check_asked(node)
                await dump(node)

    with suppress(SettingError):  # they agree on other members than its settings name
        run(main)


async def check_asked(node: Node) -> None:
    """It answers what it is asked, as documented, whatever the answer is."""
    status, content = await put(node, "k", 1)
    assert status == 200 or CODES[content["code"]] == status
    for target in ("/health", "/replica", "/admin/replica-status?data=true"):
        answer = await call(node, "GET", target)
        content = fuzz.decoded(await read_body(answer))
        assert answer.status == 200 or content["code"] == "not_ready", content


def run(main: Callable[[], Any]) -> None:
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None
