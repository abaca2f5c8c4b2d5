"""What the nodes say of themselves and the leader of all, put together; and whether all is well.

Each named node is asked for its health. Whoever leads (of several that believe so the one with the
highest epoch; or one that a follower names) is asked to compare the replicas.
Followers that were not named are told as the leader sees them: their addresses may be of use between
the nodes only.

All is well if the leader is ready, every named node is too, every link is live, and every replica is
equal to the leader's. Under writes a replica may differ merely because something was on its way while
it was compared; so one that is not well may be well at the next look.

`put_together` and what it calls are pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

import trio

from trikv.cli.output import plural
from trikv.client import ClientError
from trikv.client.admin import AdminClient, Document
from trikv.client.nodes import node_url
from trikv.model.version import Epoch

#: A node that has not told its health by then is told as unreachable.
HEALTH_S = 3.0

Found = Document | ClientError


@dataclass
class NodeView:
    """One node; None where nobody has said. `reachable` is None for a node that was not asked."""

    url: str | None
    node_id: str | None = None
    role: str | None = None
    leads: bool = False
    reachable: bool | None = None
    ready: bool | None = None
    waiting_for: list[str] = field(default_factory=list)
    epoch: str | None = None
    software_version: str | None = None
    link: str | None = None
    link_reason: str | None = None
    lag_records: int | None = None
    lag_ms: float | None = None
    rate_records_s: float | None = None
    min_delay_ms: float | None = None
    max_delay_ms: float | None = None
    replica: str | None = None
    records: int | None = None
    differing_keys: list[str] = field(default_factory=list)
    differing_keys_total: int | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        return self.node_id or self.url or "?"


@dataclass
class Survey:
    """All of them. What the leader alone knows is None if there is none."""

    nodes: list[NodeView]
    leader: str | None = None
    leader_url: str | None = None
    cluster: str | None = None
    epoch: str | None = None
    write_quorum: int | None = None
    pending_write_quorum: int | None = None
    environment_write_quorum: int | None = None
    settled: bool | None = None
    followers: int | None = None
    live_links: int | None = None
    inflight_writes: int | None = None
    min_delay_ms: float | None = None
    max_delay_ms: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.problems

    @property
    def moving(self) -> bool:
        """Nothing is wrong but that replicas differ, as they do while something is on its way."""
        differing = [node for node in self.nodes if node.replica == "mismatch"]
        return 0 < len(self.problems) == len([one for one in differing if one.link == "live"])

    @property
    def answered(self) -> bool:
        """Whether any node has said anything."""
        return any(node.reachable for node in self.nodes)

    @property
    def document(self) -> dict[str, Any]:
        """As `status --json` tells it."""
        return {"healthy": self.healthy, **dataclasses.asdict(self)}


async def take(client: AdminClient, *, timeout_s: float, compare: bool = True) -> Survey:
    """Ask them all. `compare`: the replicas, too."""
    found: dict[str, Found] = {}
    await _ask_all(client, client.urls, found, timeout_s)
    leader_url = who_leads(found)
    if leader_url is None:
        named = [url for url in _named_leaders(found) if url not in found]
        strangers: dict[str, Found] = {}
        await _ask_all(client, named, strangers, timeout_s)
        leader_url = who_leads(strangers)
        found |= strangers
    replicas: Found | None = None
    if compare and leader_url is not None:
        try:
            replicas = await client.replica_status(timeout_s=timeout_s)
        except ClientError as error:
            replicas = error
    return put_together(found, leader_url, replicas)


async def _ask_all(
    client: AdminClient, urls: Sequence[str], found: dict[str, Found], timeout_s: float
) -> None:
    found |= {url: ClientError("no answer", code="no_answer") for url in urls}

    async def ask(url: str) -> None:
        try:
            found[url] = await client.health(url, timeout_s=min(timeout_s, HEALTH_S))
        except ClientError as error:
            found[url] = error

    async with trio.open_nursery() as nursery:
        for url in urls:
            nursery.start_soon(ask, url)


def who_leads(found: Mapping[str, Found]) -> str | None:
    """The URL of the one that leads, of those that say so."""
    leaders = [
        (epoch_of(health.get("epoch")), url)
        for url, health in found.items()
        if not isinstance(health, ClientError)
        and health.get("role") == "leader"
        and health.get("leads") is True
    ]
    return max(leaders)[1] if leaders else None


def epoch_of(text: Any) -> Epoch:
    try:
        return Epoch.parse(text)
    except (ValueError, TypeError):
        return Epoch(0, "")


def _named_leaders(found: Mapping[str, Found]) -> list[str]:
    urls = []
    for health in found.values():
        leader = None if isinstance(health, ClientError) else health.get("leader")
        if isinstance(leader, dict) and isinstance(leader.get("url"), str):
            try:
                urls.append(node_url(leader["url"]))
            except ValueError:
                continue
    return list(dict.fromkeys(urls))


def put_together(
    found: Mapping[str, Found], leader_url: str | None, replicas: Found | None
) -> Survey:
    """What was asked, as one picture. `replicas`: the leader's comparison, if there is one."""
    nodes = [_view(url, health) for url, health in found.items()]
    survey = Survey(nodes)
    if leader_url is not None:
        _add_leader(survey, leader_url, found[leader_url])
    if isinstance(replicas, ClientError):
        survey.problems.append(f"the replicas could not be compared: {replicas.detail}")
    elif replicas is not None:
        _add_replicas(survey, replicas)
    survey.problems = [*_problems(survey), *survey.problems]
    # The leader first, then as they are known to it.
    survey.nodes.sort(key=lambda node: not node.leads)
    return survey


def _view(url: str, health: Found) -> NodeView:
    if isinstance(health, ClientError):
        return NodeView(url, reachable=False, error=health.detail)
    view = NodeView(url, reachable=True)
    _fill(view, health, str, "node_id", "role", "epoch", "software_version")
    _fill(view, health, bool, "ready")
    view.waiting_for = _texts(health, "waiting_for")
    return view


def _fill(view: NodeView | Survey, told: Document, kind: type | UnionType, *names: str) -> None:
    """Take over what is told, if it is of the right type: who answers may be anything."""
    for name in names:
        value = told.get(name)
        if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            setattr(view, name, value)


def _texts(told: Document, name: str) -> list[str]:
    found = told.get(name)
    return list(map(str, found)) if isinstance(found, list) else []


def objects(told: Document, name: str) -> list[Document]:
    """The objects in a list, whoever has answered."""
    found = told.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _object(told: Document, name: str) -> Document:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _add_leader(survey: Survey, url: str, health: Found) -> None:
    assert not isinstance(health, ClientError)
    survey.leader_url = url
    _fill(survey, health, str, "cluster", "epoch")
    _fill(survey, health, bool, "settled")
    _fill(survey, health, int, "write_quorum", "pending_write_quorum", "environment_write_quorum")
    _fill(survey, health, int, "followers", "live_links", "inflight_writes")
    lag = _object(health, "lag")
    _fill(survey, lag, int | float, "min_delay_ms", "max_delay_ms")
    for node in survey.nodes:
        node.leads = node.url == url
        if node.leads:
            survey.leader = node.node_id
    for told in objects(lag, "followers"):
        _fill(_node_of(survey, told), told, int | float, "min_delay_ms", "max_delay_ms")


def _add_replicas(survey: Survey, replicas: Document) -> None:
    for node in survey.nodes:
        if node.leads:
            _fill(node, _object(replicas, "leader"), int, "records")
    for told in objects(replicas, "followers"):
        node = _node_of(survey, told)
        _fill(node, told, str, "link", "link_reason", *(() if node.error else ("error",)))
        _fill(node, told, int, "lag_records", "records", "differing_keys_total")
        _fill(node, told, int | float, "lag_ms", "rate_records_s")
        node.replica = told["status"] if isinstance(told.get("status"), str) else None
        node.differing_keys = _texts(told, "differing_keys")


def _node_of(survey: Survey, told: Document) -> NodeView:
    """The node that the leader speaks of; a new one, if nobody has named it."""
    name, url = (
        found if isinstance(found := told.get(field_name), str) else None
        for field_name in ("node_id", "url")
    )
    for node in survey.nodes:
        if node.node_id is not None and node.node_id == name and not node.leads:
            return node
    for node in survey.nodes:
        if node.url == url and node.node_id in (None, name):
            node.node_id = name
            return node
    survey.nodes.append(NodeView(url, name, "follower"))
    return survey.nodes[-1]


def _problems(survey: Survey) -> list[str]:
    """What is not well, a sentence each."""
    told = []
    for node in survey.nodes:
        if node.reachable is False:
            why = (node.error or "").removeprefix(f"{node.url}: ")
            told.append(f"{node.name} cannot be reached: {why}")
        elif node.reachable and not node.ready:
            waits = "; ".join(node.waiting_for) or "not ready"
            told.append(
                f"{node.name} waits for {waits}" if node.waiting_for else f"{node.name}: {waits}"
            )
        another = (node.node_id, node.epoch) != (survey.leader, survey.epoch)  # not by another URL
        if node.role == "leader" and survey.leader_url is not None and another:
            told.append(f"{node.name} was started to lead, and does not")
        if node.link is not None and node.link != "live":
            why = f": {node.link_reason}" if node.link_reason else ""
            told.append(f"the link to {node.name} is {node.link}{why}")
        elif node.replica == "mismatch":
            keys = plural("key", node.differing_keys_total or 0)
            on_way = node.lag_records
            late = f"; {plural('record', on_way)} on the way" if on_way else ""
            told.append(f"{node.name} differs from the leader in {keys}{late}")
        elif node.replica == "unreachable":
            told.append(f"the leader could not compare {node.name}: {node.error}")
    if survey.leader_url is None:
        told.insert(0, "no leader can be reached" if survey.answered else "no node can be reached")
    return told
