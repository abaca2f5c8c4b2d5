"""Every way in which a call of the client fails.

    ClientError
     ├─ Refused                the answer is no, and asking again would not change it
     │   ├─ VersionConflict    the key is not as `if_version` or `if_absent` expects it
     │   └─ InvalidRequest     the key, the value or a parameter is bad (a ValueError, too)
     ├─ Unavailable            nobody could do it before the deadline (a TimeoutError, too)
     └─ OutcomeUnknown         a write that may have happened, or may still

`may_have_happened` is the question that matters after a write: False means that the write is not in
the map and never will be, so that it may simply be tried again. It is True for OutcomeUnknown and for
nothing else; a read, which changes nothing, never raises that.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ClientError(Exception):
    """The root. `str()` of it is `detail`.

    code     what went wrong, for programs: a code of trikv's problem documents (docs/api.md), or one
    of
             the client's own: `unreachable`, `no_answer`, `unexpected_answer`
    status   the HTTP status of the answer behind it; None if there was none
    detail   one sentence for a person; its wording may change
    version  a version text, or None: see the subclasses
    key      the key that it is about, where it is about one
    field    what was bad in a request, as the server names it
    node     the URL of the node that was asked last
    """

    may_have_happened: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        version: str | None = None,
        key: str | None = None,
        field: str | None = None,
        node: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.version = version
        self.key = key
        self.field = field
        self.node = node

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is otherwise built again from its text alone; process pools pickle them.
        return _rebuild, (type(self), self.args, vars(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}: {self.detail}>"


class Refused(ClientError):
    """No, and asking again would not change it. Nothing was written."""


class VersionConflict(Refused):
    """A precondition did not hold. Nothing was written.

    `key` is the key that was not as expected; `version` the version that it has, None if it is not
    there.
    """


class InvalidRequest(Refused, ValueError):
    """A key, a value or a parameter is bad; `field` says which. Nothing was written."""


class Unavailable(ClientError, TimeoutError):
    """No node could do it before the deadline. Nothing was written.

    `code`, `status` and `node` are those of the last attempt: `not_enough_followers`, say, or
    `unreachable`.
    """


class OutcomeUnknown(ClientError):
    """The write may have happened, or may happen yet: it is up to you to look, or to write again.

    `version` is that of the write if a node has told it (`quorum_not_met`): then it is on the leader's
    disk, is still being replicated, and normally will be confirmed.
    """

    may_have_happened = True


def _rebuild(kind: type[ClientError], args: tuple[Any, ...], state: dict[str, Any]) -> ClientError:
    """An exception as it was when it was pickled or copied."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return error
