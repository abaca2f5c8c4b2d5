"""How a node comes to lead: promises first, then what the members hold. Every start of a leader is one.

Rules
- It picks an epoch above every epoch that it has seen, promises it to itself, and has the members
  promise it. Refused, it tries again above what refused it.
- It needs promises from N - k members that are not new (itself, if it is not), of the newest
  configuration found and of all that this may have replaced; or from all members, whoever is new. If all
  are new, a cluster is born, empty. With k = 0 nothing was promised to anyone. All are asked once,
  whoever is needed.
- An old copy of a node's data, which is behind what all are known to have, counts as new.
- Once they are enough, all that have promised are asked again, and only an answer of the same instance
  counts: a promise may have been forgotten with a disk meanwhile (see `_ask_again`).
- Only then does it read. Of those that are not new, the ones established in the highest epoch found
  speak, and the union of their maps is the state it leads with. If it is one of them it reads what the
  others hold above the floor, also where it led that epoch: a loss of power may have taken its last
  writes. If it is none of them, what it holds beyond that state is overruled, as a follower's strays
  are.
- If anything has raised its own promise meanwhile, the takeover is off: the last transaction looks, and
  so does the moment at which leading begins.
- A start that changes more than one member is refused. What a start changes is a change of the
  configuration like any other: see `quorum_change`.

Until it has what it needs it does not lead: `waiting_for` names what is missing, and it keeps trying.
It can be interrupted anywhere: all before the last transaction are promises, which are always safe; what
was read is staged beside the map.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

import trio

from trikv import log
from trikv.errors import PeerFailed, StorageFailed, Superseded, first_leaf
from trikv.model import membership as configurations
from trikv.model.membership import Configuration
from trikv.model.node_state import NodeState
from trikv.model.record import Entry, Record
from trikv.model.version import MAX_EPOCH_NUMBER, NO_EPOCH, NO_VERSION, Epoch, Version, VersionClock
from trikv.network.peers import Candidate, Promised, Remote, configuration_in
from trikv.network.transport import Transport
from trikv.protocol.messages import LeaderName
from trikv.replication.follower import MAX_EPOCH_STEP
from trikv.replication.handshake import is_stale
from trikv.storage.group_commit import Committer
from trikv.storage.store import Store
from trikv.takeover.leadership import Term, keep_copy

#: Between two tries to reach a member, and after a competing takeover: at random, up to this.
RETRY_S = 1.0
COMPETITION_S = 3.0

Found = tuple[Version, Configuration] | None


class Takeover:
    def __init__(
        self,
        *,
        name: LeaderName,
        urls: Sequence[str],
        write_quorum: int,
        store: Store,
        committer: Committer,
        transport: Transport,
        request_timeout_s: float,
        now_us: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.waiting_for: list[str] = ["its takeover to begin"]
        """What is missing, in words."""
        self._trouble = log.Trouble()
        self._name = name
        self._remotes = {url: Remote(transport, url, request_timeout_s) for url in urls}
        self._write_quorum = write_quorum
        self._store = store
        self._committer = committer
        self._now_us = now_us
        self._rng = rng
        self._problems: dict[str, str] = {}  # by URL
        self._heard: dict[str, Promised] = {}  # by URL
        self._changed = trio.Event()
        self._seen_us = 0  # the greatest timestamp that a leader has issued, as far as is known

    async def run(self) -> tuple[Term, VersionClock]:
        """Try until this node leads. Raises SettingError if too many members have changed."""
        above = NO_EPOCH
        while True:
            try:
                return await self._attempt(above)
            except Superseded as error:
                promised = error.extra["promised"]
                if promised.number <= self._store.state.promised.number + MAX_EPOCH_STEP:
                    above = max(above, promised)
                self._wait_for([f"its turn: {error.detail}"])
                await trio.sleep(self._rng.uniform(0.1, COMPETITION_S))
            except StorageFailed as error:
                self._wait_for([f"its disk: {error.detail}"])
                await trio.sleep(RETRY_S)

    async def _attempt(self, above: Epoch) -> tuple[Term, VersionClock]:
        """From an epoch to leading in it. Raises Superseded, StorageFailed, SettingError."""
        newest = self._store.greatest_version()
        self._seen_us = 0 if newest is None else _timestamp_us(newest)
        seen = max(above, NO_EPOCH if newest is None else newest.epoch)
        epoch = await self._committer.commit(partial(_promise_itself, seen=seen), synced=True)
        state = self._store.state
        self._heard, self._problems = {}, {}
        candidate = Candidate(self._name, state.instance, state.cluster, epoch)
        while True:
            await self._gather(candidate)
            if not await self._ask_again(candidate):
                await trio.sleep(RETRY_S * self._rng.uniform(0.5, 1.0))
                continue
            configuration = self._newest_configuration()
            members = self._members()
            if configuration is not None:
                configurations.check_change(configuration[1], members.keys())
            speakers = self._speakers()
            try:
                await self._read(epoch, speakers)
                break
            except PeerFailed as failure:  # it has promised, and must speak: hear it again
                self._forget(failure)
                await trio.sleep(RETRY_S * self._rng.uniform(0.5, 1.0))
        return await self._lead(candidate, configuration, members, speakers is not None)

    # -- promises -----------------------------------------------------------------------------------

    async def _gather(self, candidate: Candidate) -> None:
        """Wait until there are promises enough. Raises Superseded, StorageFailed."""
        async with _open_nursery() as nursery:
            asked = set(self._heard)
            for url in [url for url in self._remotes if url not in self._heard]:
                nursery.start_soon(self._keep_asking, url, candidate, asked)
            while missing := self._missing(asked):
                self._wait_for(missing)
                self._changed = trio.Event()
                if not self._missing(asked):
                    break
                await self._changed.wait()
                _check_own_promise(self._store, candidate.epoch)
            nursery.cancel_scope.cancel()

    async def _ask_again(self, candidate: Candidate) -> bool:
        """Ask all that have promised once more, now that enough have; return if they still count.

        A member may have lost its disk since it promised, and the promise with it, and the old leader
        may have brought it in again. Every promise that counts is repeated here by the same instance,
        after the last of them was made: from then on the old leader has too few members left to admit
        an emptied one. Raises Superseded.
        """
        before = {url: told.state.instance for url, told in self._heard.items()}

        async def ask_again(url: str) -> None:
            await self._ask(url, candidate)
            if url not in self._heard:  # one failure more is none: it has promised already
                await self._ask(url, candidate)

        async with _open_nursery() as nursery:
            for url in before:
                nursery.start_soon(ask_again, url)
        _check_own_promise(self._store, candidate.epoch)
        same = all(
            self._heard[url].state.instance == instance
            for url, instance in before.items()
            if url in self._heard
        )
        return same and not self._missing(set(self._remotes))

    async def _keep_asking(self, url: str, candidate: Candidate, asked: set[str]) -> None:
        """Ask one member until it has promised, and again if that cannot be told from another's."""
        while True:
            if url not in self._heard or self._doubtful(url):
                try:
                    await self._ask(url, candidate)
                finally:
                    asked.add(url)
                    self._changed.set()
            await trio.sleep(RETRY_S * self._rng.uniform(0.5, 1.0))

    async def _ask(self, url: str, candidate: Candidate) -> None:
        """Ask one member to promise: afterwards it is among those heard, or its problem is known."""
        try:
            told = await self._remotes[url].promise(candidate)
            self._check_cluster(url, told.state)
            self._hear(url, told)
            self._problems.pop(url, None)
        except PeerFailed as failure:
            self._heard.pop(url, None)
            self._problems[url] = failure.detail

    def _hear(self, url: str, told: Promised) -> None:
        """Raises PeerFailed, and forgets both, if two URLs lead to one node."""
        node_id = told.state.node_id
        for other, before in self._heard.items():
            if other != url and before.state.node_id == node_id:
                del self._heard[other]
                self._heard.pop(url, None)
                self._problems[other] = f"{other}: {node_id} answers here and at {url}"
                raise PeerFailed(f"{url}: {node_id} answers here and at {other}")
        self._heard[url] = told

    def _doubtful(self, url: str) -> bool:
        """Whether another answers there than is recorded: it may be a passing mistake."""
        known = self._recorded()
        return known.get(url) not in (None, self._heard[url].state.node_id)

    def _check_cluster(self, url: str, state: NodeState) -> None:
        """Raises PeerFailed if it can't be counted as a member of its own."""
        if state.node_id == self._name.node_id:
            raise PeerFailed(
                f"{url}: a node with this one's NODE_ID, {state.node_id}, answers here"
            )
        if state.established == state.promised:  # the epoch that it is asked for
            raise PeerFailed(
                f"{url}: {state.node_id} says that it was brought in {state.established}, which nobody "
                "leads yet"
            )
        clusters = {told.state.cluster for told in self._heard.values()}
        clusters |= {self._store.state.cluster}
        if state.cluster and clusters - {"", state.cluster}:
            raise PeerFailed(f"{url}: {state.node_id} belongs to another cluster, {state.cluster}")

    def _missing(self, asked: set[str]) -> list[str]:
        """What the takeover waits for, in words; [] if it may go on.

        Everyone is asked once, also where fewer would do: a member that has promised a higher epoch,
        to one that then did not lead, would refuse this leader later, and end its leadership.
        """
        unasked = [f"a first answer of {url}" for url in self._remotes if url not in asked]
        if unasked:
            return unasked
        unheard = [url for url in self._remotes if url not in self._heard]
        found = self._newest_configuration()
        heard = {told.state.node_id for told in self._heard.values()} | {self._name.node_id}
        if not unheard and (found is None or all(v.members <= heard for v in found[1].all_voters)):
            return []  # all have promised, whoever is new
        unnamed = [self._problem(url) for url in unheard]
        if found is None:
            return [
                f"a promise of every member, since none of them knows any yet: {why}"
                for why in unnamed
            ]
        configuration = found[1]
        unknown = [url for url in unheard if url not in self._recorded()]
        if unknown:
            return [
                f"an answer of a node that is not known here: {self._problem(u)}" for u in unknown
            ]
        promised = self._old()
        if configuration.asynchronous and not self._store.state.new:
            return []
        lacking = configuration.lacking(promised)
        if not promised and not lacking:  # k = 0, and this node knows nothing
            lacking = len(unheard)
        others = ", ".join(unnamed) or "members that FOLLOWER_URLS leaves out"
        if lacking:
            return [f"{lacking} more to promise of: {others}"]
        doubled = self._doubled()
        return [f"members to be told apart: {doubled}"] if doubled else []

    def _doubled(self) -> str | None:
        """Two URLs that lead to one member, as far as is known, in words."""
        known = self._recorded()
        places: dict[str, str] = {}
        for url in self._remotes:
            told = self._heard.get(url)
            node_id = known.get(url) if told is None else told.state.node_id
            other = url if node_id is None else places.setdefault(node_id, url)
            if other != url:
                return f"{node_id} is at {other} and at {url}"
        return None

    def _problem(self, url: str) -> str:
        return self._problems.get(url, f"{url} (not asked yet)")

    def _old(self) -> set[str]:
        """The members that have promised and are not new, nor an old copy; this node included."""
        states = [*(told.state for told in self._heard.values()), self._store.state]
        floor = self._floor()
        return {s.node_id for s in states if not s.new and not is_stale(s, floor)}

    def _floor(self) -> Version:
        """The highest floor that is known: nobody but an old copy is further behind."""
        return max(
            self._store.state.floor, *(t.state.floor for t in self._heard.values()), NO_VERSION
        )

    def _newest_configuration(self) -> Found:
        try:
            own = configuration_in(self._store.get(configurations.KEY))
        except ValueError as error:
            raise StorageFailed(f"its record of the configuration is broken: {error}") from None
        found = [told.configuration for told in self._heard.values()] + [own]
        return max((f for f in found if f is not None), key=lambda f: f[0], default=None)

    def _recorded(self) -> dict[str | None, str]:
        """Which member was last at which URL, by the newest configuration found."""
        found = self._newest_configuration()
        return {} if found is None else {url: name for name, url in found[1].members.items()}

    def _members(self) -> dict[str, str | None]:
        """The members that this node's settings name, by node id; all are known by now."""
        known = self._recorded()
        members: dict[str, str | None] = {self._name.node_id: self._name.url}
        for url in self._remotes:
            told = self._heard.get(url)
            node_id = known.get(url) if told is None else told.state.node_id
            assert node_id is not None
            members[node_id] = url
        return members

    def _forget(self, failure: PeerFailed) -> None:
        for url in [url for url in self._heard if failure.detail.startswith(f"{url}/")]:
            del self._heard[url]
            self._problems[url] = failure.detail

    def _wait_for(self, what: list[str]) -> None:
        if what != self.waiting_for and self._trouble.is_news(*what):
            log.info("takeover.waits", waiting_for="; ".join(what))
        self.waiting_for = what

    # -- what the members hold ----------------------------------------------------------------------

    def _speakers(self) -> list[str] | None:
        """The URLs of those to be read; None if this node is no speaker, and must read all of it."""
        state = self._store.state
        speakers = self._established()
        own = NO_EPOCH if is_stale(state, self._floor()) else state.established
        base = max((self._heard[url].state.established for url in speakers), default=NO_EPOCH)
        if max(base, own) == NO_EPOCH:
            return []
        if own < base:
            return None
        return [] if own > base else speakers

    def _established(self) -> list[str]:
        """The URLs of those that are established in the highest epoch heard of, old copies aside."""
        floor = self._floor()
        states = {
            url: told.state
            for url, told in self._heard.items()
            if not told.state.new and not is_stale(told.state, floor)
        }
        base = max((state.established for state in states.values()), default=NO_EPOCH)
        return [url for url, state in states.items() if state.established == base]

    async def _read(self, epoch: Epoch, speakers: list[str] | None) -> None:
        """Stage what the speakers hold beyond this node, or all of it. Raises PeerFailed.

        Nothing is merged before all is read: some of it may be the rest of a batch, of which a key has
        been written again since, in a record that is still to come.
        """
        await self._committer.commit(Store.begin_staging)
        urls, after = speakers, self._store.state.floor
        if urls is None:
            urls, after = self._established(), NO_VERSION
        for url in urls:
            self._wait_for([f"the map of {url}, from {after} on"])
            async with aclosing(self._remotes[url].pages(after, epoch)) as pages:
                async for page in pages:
                    await self._committer.commit(partial(_stage_page, page=page))
                    self._seen_us = max(
                        self._seen_us, *(_timestamp_us(one.version) for one in page)
                    )

    async def _lead(
        self,
        candidate: Candidate,
        found: Found,
        members: dict[str, str | None],
        speaker: bool,
    ) -> tuple[Term, VersionClock]:
        """The last transaction, and what comes of it."""
        clusters = {told.state.cluster for told in self._heard.values()} - {""}
        cluster = candidate.cluster or (
            clusters.pop() if clusters else self._rng.randbytes(8).hex()
        )
        clock = VersionClock(candidate.epoch, self._now_us, self._seen_us)
        old = None if found is None else found[1]
        wanted = self._wanted(old, members)
        try:  # both before anything is written; the configuration's comes after
            overruling, configuring = clock.issue(), clock.issue()
        except OverflowError as error:
            raise StorageFailed(f"it can't issue versions: {error}") from None

        def change(store: Store) -> None:
            _check_own_promise(store, candidate.epoch)
            if speaker:
                store.merge_staged()
            else:
                self._exchange(store, overruling)
            # Also if nothing changes: what was found may be a stray, which the exchange overrules.
            store.merge([Entry(configuring, [(configurations.KEY, configurations.encode(wanted))])])
            floor = self._floor()
            if (
                store.state.watermark < floor
            ):  # those whose maps it was given have purged up to there
                store.set_purged(floor)
            store.set_state(
                store.state._replace(
                    cluster=cluster,
                    floor=floor,
                    established=candidate.epoch,
                    led=candidate.epoch,
                    watermark=Version(candidate.epoch, 0),
                )
            )

        await self._committer.commit(change)
        await self._committer.commit(Store.end_staging)
        # The last look, with no checkpoint between it and the moment when the leadership is visible:
        # until then a promise that this node makes deposes nobody.
        _check_own_promise(self._store, candidate.epoch)
        in_force = (wanted.voters,) if old is None else old.all_voters
        self.waiting_for = []
        log.info(
            "leader.leads",
            epoch=candidate.epoch,
            cluster=cluster,
            heard=len(self._heard),
            members=len(members),
            write_quorum=wanted.write_quorum,
        )
        heard = {url: told.state for url, told in self._heard.items()}
        # Whoever was brought in this epoch has the configuration: it is older than all that comes.
        version = Version(candidate.epoch, 0)
        term = Term(candidate._replace(cluster=cluster), wanted, version, in_force, heard)
        return term, clock

    def _wanted(self, old: Configuration | None, members: dict[str, str | None]) -> Configuration:
        """What this node's settings ask for, as the successor of what was found."""
        if old is None:
            return Configuration(members, self._write_quorum)
        if old.members == members and old.write_quorum == self._write_quorum:
            return old
        return old.changed_to(members, self._write_quorum, old.all_voters)

    def _exchange(self, store: Store, version: Version) -> None:
        """Lead with what was staged; what this node held beyond it is overruled, in that version."""
        strays = store.staged_strays()
        if strays:  # the copy first: it may fail, and then nothing must have been written
            keep_copy(store, self._name.node_id, [held for held, _ in strays])
        store.merge_staged()
        pairs = [(held.key, "" if theirs is None else theirs.value) for held, theirs in strays]
        store.merge([Entry(version, pairs)])


@asynccontextmanager
async def _open_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery out of which Superseded and StorageFailed come by themselves, not in a group."""
    over: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except* (Superseded, StorageFailed) as errors:
        over = first_leaf(errors)
    if over is not None:
        raise over


def _promise_itself(store: Store, *, seen: Epoch) -> Epoch:
    state = store.state
    epoch = Epoch(max(state.promised, seen).number + 1, state.instance)
    if epoch.number > MAX_EPOCH_NUMBER:
        raise StorageFailed(
            f"it holds {max(state.promised, seen)}, and there is no epoch above that"
        )
    store.set_state(state._replace(promised=epoch))
    return epoch


def _check_own_promise(store: Store, epoch: Epoch) -> None:
    """Raises Superseded if anything has raised it."""
    if (promised := store.state.promised) != epoch:
        raise Superseded(f"this node has promised {promised}", promised=promised)


def _timestamp_us(version: Version) -> int:
    """A leader's; what came in the lab's plain form has a client's, which does not count."""
    return version.timestamp_us if version.epoch.number > 0 else 0


def _stage_page(store: Store, *, page: Sequence[Record]) -> None:
    store.stage(page)
