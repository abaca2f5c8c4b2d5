"""Every way in which trikv says no.

    TrikvError
     ├─ BadRequest                  the request was bad; nothing was written
     │   ├─ MalformedJson       400  malformed_json
     │   ├─ InvalidKey          400  invalid_key
     │   ├─ NotFound            404  not_found
     │   ├─ NoSuchRoute         404  no_such_route
     │   ├─ MethodNotAllowed    405  method_not_allowed
     │   ├─ RequestTimeout      408  request_timeout
     │   ├─ TooLarge            413  too_large
     │   ├─ InvalidBody         422  invalid_body
     │   └─ InvalidParameter    422  invalid_parameter
     ├─ Refused                     this node does not do that; nothing was written
     │   ├─ NotLeader           403  not_leader
     │   ├─ NotFollower         403  not_follower
     │   ├─ StaleEpoch          409  stale_epoch
     │   ├─ WrongCluster        409  wrong_cluster
     │   ├─ WrongNode           409  wrong_node
     │   ├─ HasLeader           409  has_leader
     │   └─ VersionConflict     412  version_conflict
     ├─ Unavailable                 come back later; nothing was written
     │   ├─ Overloaded          503  overloaded
     │   ├─ NotEnoughFollowers  503  not_enough_followers
     │   ├─ NotReady            503  not_ready
     │   └─ ReadTimeout         504  read_timeout
     ├─ OutcomeUnknown              it may have been written, or be written later
     │   ├─ QuorumNotMet        503  quorum_not_met
     │   └─ StorageFailed       507  storage_failed
     ├─ PeerFailed                  between nodes: no answer, or not the one expected
     ├─ Superseded                  within a node: its epoch is over
     └─ SettingError                at start: a bad value in the environment

An error knows its HTTP status, its stable `code`, whether the write that it answers may have happened
(`may_have_written`), and what else belongs in its problem document (`extra`). It does not know how
such a document is sent: that is `trikv.web.problems`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TrikvError(Exception):
    """The root: `detail` is one sentence for a person, `extra` are fields for a program."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "not_ready"
    may_have_written: ClassVar[bool] = False

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequest(TrikvError):
    """The request was bad. Nothing was written."""

    status, code = 400, "bad_request"


class MalformedJson(BadRequest):
    status, code = 400, "malformed_json"


class InvalidKey(BadRequest):
    status, code = 400, "invalid_key"


class NotFound(BadRequest):
    status, code = 404, "not_found"


class NoSuchRoute(BadRequest):
    status, code = 404, "no_such_route"


class MethodNotAllowed(BadRequest):
    status, code = 405, "method_not_allowed"


class RequestTimeout(BadRequest):
    status, code = 408, "request_timeout"


class TooLarge(BadRequest):
    status, code = 413, "too_large"


class InvalidBody(BadRequest):
    status, code = 422, "invalid_body"


class InvalidParameter(BadRequest):
    status, code = 422, "invalid_parameter"


class Refused(TrikvError):
    """This node does not do that. Nothing was written."""

    status, code = 403, "refused"


class NotLeader(Refused):
    status, code = 403, "not_leader"


class NotFollower(Refused):
    status, code = 403, "not_follower"


class StaleEpoch(Refused):
    """The epoch is below the one that this node has promised; `promised` names it."""

    status, code = 409, "stale_epoch"


class HasLeader(Refused):
    """A plain `/replicate` came to a node that follows a leader."""

    status, code = 409, "has_leader"


class WrongCluster(Refused):
    """The other node belongs to another cluster; `cluster` names this node's."""

    status, code = 409, "wrong_cluster"


class WrongNode(Refused):
    """What came was meant for another node, or comes from one that bears this node's name."""

    status, code = 409, "wrong_node"


class VersionConflict(Refused):
    """A precondition did not hold; `version` is the current one, null where there is no key."""

    status, code = 412, "version_conflict"


class Unavailable(TrikvError):
    """Not now. Nothing was written."""


class Overloaded(Unavailable):
    status, code = 503, "overloaded"


class NotEnoughFollowers(Unavailable):
    """Fewer links are live than the write quorum asks for."""

    status, code = 503, "not_enough_followers"


class NotReady(Unavailable):
    """This node does not lead yet, or no longer; `waiting_for` says what it waits for."""

    status, code = 503, "not_ready"


class ReadTimeout(Unavailable):
    """What the read asked for was not known in time."""

    status, code = 504, "read_timeout"


class OutcomeUnknown(TrikvError):
    """The write may have happened, or may still."""

    may_have_written = True


class QuorumNotMet(OutcomeUnknown):
    status, code = 503, "quorum_not_met"


class StorageFailed(OutcomeUnknown):
    status, code = 507, "storage_failed"


class PeerFailed(TrikvError):
    """A request to another node failed: `detail` says how. Never leaves this node as an answer."""

    status, code = 503, "peer_failed"


class Superseded(TrikvError):
    """An epoch is over: some node has promised a higher one, `promised`. Never leaves this node."""

    status, code = 503, "superseded"


def error_text(error: BaseException) -> str:
    """Return the text of an exception, or the name of its type where it has none."""
    return str(error).strip() or type(error).__name__


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in a group of groups."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


class SettingError(TrikvError):
    """A bad setting: the text names the variable, what it holds and what was expected."""
