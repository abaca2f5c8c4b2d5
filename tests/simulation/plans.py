"""Plans: steps that belong together, each a way to a fault that steps drawn one by one never come to.

A plan is drawn from a seed, as single steps are: which nodes, how many, how long between. It takes a
simulation that is calm, and yields its steps one after the other. What a plan aims at is named in its
docstring; what must hold is what always must. Where a plan makes no sense (too few nodes) it yields
nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation.simulation import Simulation

Step = tuple[str, dict[str, Any]]
Plan = Callable[[Simulation, random.Random], Iterator[Step]]

#: Keys that only plans write: what they hold is not overwritten by chance.
OWN_KEYS = ("e", "f", "g")

#: Beyond all timestamps that a leader may issue.
FAR_S = 224 * 366 * 86_400.0


def wait(seconds: float) -> Step:
    return "wait", {"seconds": seconds}


def call(rng: random.Random, kind: str, key: str, nth: int = 0) -> Step:
    asked = {"client": rng.randrange(3), "kind": kind, "keys": [key], "nth": nth}
    return "call", asked


def _roles(simulation: Simulation, rng: random.Random) -> tuple[int, list[int]]:
    """Who leads, and all others in a random order."""
    leader = simulation.fleet.names.index(simulation.leader)
    others = [node for node in range(len(simulation.fleet.names)) if node != leader]
    rng.shuffle(others)
    return leader, others


def forgotten_promise(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Empty the disk of one that has promised while the candidate gathers, and turn the partition.

    The old leader brings the emptied node in, and may count it beside those that the candidate counts.
    """
    leader, (candidate, *rest) = _roles(simulation, rng)
    count, k = len(rest) + 2, simulation.write_quorum
    if count - 2 - k < 1:
        return
    size = rng.randint(1, count - 2 - k)  # too few for the candidate, which has its own promise
    side, away = rest[:size], rest[size:]
    if rng.random() < 0.8:  # they sleep through a start of the leader: then nobody has to read them
        for node in side:
            yield "crash", {"node": node}
        yield "takeover", {"node": leader}
        yield wait(rng.uniform(2, 4))
    yield "turn", {"groups": [[candidate, *side], [leader, *away]]}
    for node in side:
        yield "start", {"node": node}
    yield "takeover", {"node": candidate}
    yield wait(rng.uniform(1, 3))
    emptied, promised = side[0], side[1:]
    yield "crash", {"node": emptied}
    yield "wipe", {"node": emptied}
    yield "turn", {"groups": [[candidate, *promised], [leader, emptied, *away]]}
    yield "start", {"node": emptied}
    yield wait(rng.uniform(1, 6))
    needed = count - k - 1 - size  # promises, beside those that it has heard
    turned = away[:needed] if rng.random() < 0.8 else away[: rng.randint(1, len(away))]
    kept = [node for node in away if node not in turned]
    yield "turn", {"groups": [[candidate, *promised, *turned], [leader, emptied, *kept]]}
    yield wait(rng.uniform(3, 8))


def two_takeovers(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Begin a takeover while another one reads, and let the first promise the second at the worst time.

    That is, before its last transaction, or between that and the moment when it leads. Then the network
    turns, so that the first hears nothing of the second, but keeps the followers that it needs.
    """
    old, (first, second, *rest) = _roles(simulation, rng)
    k = simulation.write_quorum
    if len(rest) < k:
        return
    followers, others = rest[:k], [old, *rest[k:]]
    at_once = rng.random() < 0.5
    yield "crash", {"node": old}
    yield "hold", {"node": followers[0], "what": "records"}
    yield "takeover", {"node": first, "crash_old": True}
    yield wait(rng.uniform(0.1, 0.5))
    for node in others:
        yield "start", {"node": node}
        yield "block", {"node": first, "other": node}
    yield "block", {"node": first, "other": second}
    for node in followers:
        yield "block", {"node": second, "other": node}
    apart: list[Step] = [("turn", {"groups": [[first, *followers], [second, *others]]})]
    yield "when", {"node": second, "moment": "leads", "steps": apart}
    if at_once:
        yield "disk", {"node": first, "slow_s": 0.1}
        yield "hold", {"node": first, "what": "promise"}
        promise = [("release", {"node": first, "what": "promise"})]
        yield "when", {"node": first, "moment": "leads", "steps": promise}
    yield "crash", {"node": second}
    yield "takeover", {"node": second}
    yield wait(rng.uniform(0.05, 0.4))
    yield "release", {"node": followers[0], "what": "records"}
    yield wait(rng.uniform(0.5, 3))
    yield "disk", {"node": first}
    for _ in range(4):  # a write at the first would tell it what it has promised: reads do not
        yield call(rng, "put", OWN_KEYS[0], int(second > first))
        yield wait(rng.uniform(0.1, 1))
        yield call(rng, "read", OWN_KEYS[0], int(first > second))
        yield wait(rng.uniform(0, 0.5))


def _shut_out(simulation: Simulation, rng: random.Random) -> tuple[int, list[int], list[int]]:
    """A leader, as many as have to confirm, and the others."""
    leader, others = _roles(simulation, rng)
    k = simulation.write_quorum
    return leader, others[:k], others[k:]


def changes_in_a_row(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Confirm writes, change the quorum once or more, and have those take over that lack the writes."""
    leader, near, far = _shut_out(simulation, rng)
    if not simulation.setup.changes or not far:
        return
    count = len(simulation.fleet.names)
    for node in far:
        yield "lag", {"low_ms": 60_000, "high_ms": 60_000, "node": node}
    for key in OWN_KEYS:
        yield call(rng, "put", key)
    yield wait(rng.uniform(0.1, 0.5))
    if rng.random() < 0.7:
        yield "lag", {"low_ms": 0, "high_ms": 0}
    else:  # what comes then is late there as well
        for node in rng.sample(far, rng.randint(0, len(far))):
            yield "lag", {"low_ms": 0, "high_ms": 0, "node": node}
    for _ in range(rng.choice((1, 2, 2, 3))):
        yield "quorum", {"write_quorum": rng.randrange(count), "none": rng.random() < 0.2}
        yield wait(rng.choice((0.05, 0.5, 2.0)))
    gone = [leader, *near]
    if rng.random() < 0.5:
        gone = [leader, *rng.sample(near, rng.randint(0, len(near)))]
    heir, helpers = far[0], [node for node in (*near, *far[1:]) if node not in gone]
    for node in (*gone, heir):
        yield "crash", {"node": node}
    if rng.random() < 0.3 and gone[1:]:
        yield "wipe", {"node": gone[-1]}
    kept = rng.sample(helpers, rng.randint(0, len(helpers)))
    yield "turn", {"groups": [[heir, *kept]]}
    yield "takeover", {"node": heir, "quorum": rng.randrange(count)}
    yield wait(rng.uniform(3, 8))
    yield "heal", {}
    for node in gone:
        yield "start", {"node": node}
    yield wait(rng.uniform(1, 5))


def cancelled_change(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Hang up on changes of the quorum while they are on their way to the disk, or fill it just then."""
    if not simulation.setup.changes:
        return
    leader, others = _roles(simulation, rng)
    disk_s = simulation.setup.disk_s
    count = len(others) + 1
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            patience_s = rng.uniform(0, 2 * disk_s + 0.001)
            yield "quorum", {"write_quorum": rng.randrange(count), "patience_s": patience_s}
            yield wait(rng.uniform(0.1, 1.0))
    else:
        k = simulation.write_quorum
        if k == len(others):
            return
        yield "turn", {"groups": [[leader, *others[:k]], others[k:]]}
        yield wait(rng.uniform(1, 3))
        yield "quorum", {"write_quorum": rng.randrange(k, len(others))}
        yield wait(rng.uniform(0.1, 1.0))
        yield "disk", {"node": leader, "full": True}
        yield "heal", {}
        yield wait(rng.uniform(2, 8))
        yield "disk", {"node": leader}
    yield wait(2.0)
    yield "expect_settled", {}


def emptied_while_it_changes(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Empty disks while the quorum or the members change, and the leader with them."""
    leader, others = _roles(simulation, rng)
    if not simulation.setup.changes:
        return
    for node in others[: rng.randint(1, 3)]:
        yield "quorum", {"write_quorum": rng.randrange(len(others))}
        yield wait(rng.choice((0.02, 0.5, 2.0)))
        yield "crash", {"node": node}
        yield "wipe", {"node": node}
        yield "start", {"node": node}
        yield wait(rng.choice((0.02, 0.5, 3.0)))
    how: dict[str, Any] = {"node": others[-1], "crash_old": rng.random() < 0.7}
    if rng.random() < 0.3:
        how["left_out"] = rng.choice(others)
    yield "takeover", {**how, "quorum": rng.randrange(len(others))}
    yield wait(rng.uniform(1, 3))
    if rng.random() < 0.5:
        yield "crash", {"node": leader}
        yield "wipe", {"node": leader}
        yield "start", {"node": leader}
    yield wait(rng.uniform(1, 5))


def old_copy(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Put an old copy of a disk back in the same epoch, with what was deleted since purged elsewhere."""
    leader, others = _roles(simulation, rng)
    node, key = others[0], rng.choice(OWN_KEYS)
    if rng.random() < 0.2:
        yield call(rng, "put", key)
        yield wait(1.0)
    yield "keep_copy", {"node": node}
    yield wait(rng.uniform(0.1, 1.0))
    yield call(rng, "put", key)
    yield wait(rng.uniform(1, 3))
    yield call(rng, "delete", key)
    yield wait(rng.uniform(3, 12))
    if rng.random() < 0.2:
        yield "takeover", {"node": leader, "crash_old": True}
        yield wait(2.0)
    yield "crash", {"node": node}
    yield "put_back", {"node": node}
    yield "start", {"node": node}
    yield wait(rng.uniform(2, 8))


def torn_page(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """Write while a page of the map is read, and lose the leader once a follower has that page alone.

    The writes are confirmed by nobody: whoever could is cut off, in silence. A batch of them must come
    whole or not at all.
    """
    leader, near, far = _shut_out(simulation, rng)
    if not far:
        return
    behind, rest = far[0], far[1:]
    yield "weather", {"rejects": True}
    yield "turn", {"groups": [[leader, *near], [behind], rest]}
    yield wait(rng.uniform(3, 5))
    for key in OWN_KEYS:
        yield call(rng, "put", key)
    yield wait(1.0)
    yield "weather", {"rejects": False}
    yield "disk", {"node": leader, "slow_s": 0.03}
    yield "lag", {"low_ms": 50, "high_ms": 1500, "node": behind}
    yield "turn", {"groups": [[leader, behind], near, rest]}
    yield call(rng, "read", OWN_KEYS[0])  # for which the leader tries at once to reach all
    for _ in range(rng.randint(20, 50)):
        keys = rng.sample(OWN_KEYS, rng.choice((1, 2, 3)))
        kind = "put" if len(keys) == 1 else "batch"
        asked = {"client": rng.randrange(3), "kind": kind, "keys": keys, "nth": 0}
        yield "call", {**asked, "patience_s": 0.05}
        yield wait(rng.uniform(0, 0.03))
    yield wait(rng.uniform(0.1, 1.5))
    yield "crash", {"node": leader}
    yield "disk", {"node": leader}
    yield "heal", {}
    yield "takeover", {"node": rng.choice(far + near)}
    yield wait(2.0)


def far_clock(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """A clock stands beyond all bounds for a while, and writes come then."""
    node, others = _roles(simulation, rng)
    if rng.random() < 0.2:
        node = rng.choice(others)
    yield "jump", {"node": node, "seconds": FAR_S}
    yield call(rng, "put", rng.choice(OWN_KEYS))
    yield wait(rng.uniform(0.5, 3))
    if rng.random() < 0.3:
        yield "takeover", {"node": node, "crash_old": rng.random() < 0.5}
        yield wait(rng.uniform(1, 3))
    yield "jump", {"node": node, "seconds": -FAR_S}
    yield wait(rng.uniform(1, 3))


def power_lost(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """One machine loses what its system has not written: the leader's, or that of one that promised."""
    leader, others = _roles(simulation, rng)
    k = simulation.write_quorum
    if simulation.setup.durability != "os" or simulation.lossy is not None:
        return
    if rng.random() < 0.5 or len(others) < k + 1:
        for key in OWN_KEYS:
            yield call(rng, "put", key)
            yield wait(rng.uniform(0, 0.3))
        node = leader if rng.random() < 0.7 else others[0]
        yield "lose_power", {"node": node}
        yield wait(rng.uniform(0, 1))
        yield "takeover", {"node": leader}
        yield "start", {"node": node}
        yield "calm", {"seconds": 30.0}
        return
    # As in `forgotten_promise`; what is lost is the promise alone.
    candidate, witness, away = others[0], others[1], others[2:]
    yield "turn", {"groups": [[leader, *away], [candidate, witness]]}
    yield wait(12.0)  # whoever waits for an answer has given up
    yield "write_back", {"node": witness}
    yield "takeover", {"node": candidate}
    yield wait(rng.uniform(1, 3))
    yield "lose_power", {"node": witness}
    yield "turn", {"groups": [[candidate], [leader, witness, *away]]}
    yield "start", {"node": witness}
    yield wait(rng.uniform(1, 4))
    needed = max(0, len(others) + 1 - k - 2)
    yield "turn", {"groups": [[candidate, *away[:needed]], [leader, witness, *away[needed:]]]}
    yield wait(rng.uniform(3, 8))
    yield "calm", {"seconds": 30.0}


PLANS: tuple[Plan, ...] = (
    forgotten_promise,
    two_takeovers,
    changes_in_a_row,
    cancelled_change,
    emptied_while_it_changes,
    old_copy,
    torn_page,
    far_clock,
    power_lost,
)


def draw_plan(simulation: Simulation, rng: random.Random) -> Iterator[Step]:
    """One that makes sense here."""
    if simulation.setup.durability == "os":
        return power_lost(simulation, rng)
    if simulation.setup.changes:
        changing = (changes_in_a_row, cancelled_change, emptied_while_it_changes)
        return rng.choice((*changing, *changing, forgotten_promise, two_takeovers))(simulation, rng)
    several = (forgotten_promise, forgotten_promise, two_takeovers, two_takeovers, torn_page)
    return rng.choice((*several, old_copy, far_clock))(simulation, rng)
