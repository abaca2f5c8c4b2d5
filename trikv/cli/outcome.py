"""How a command ends: exit codes for scripts, a sentence or two for people.

    0    done
    1    the answer is no: the key is not there, replicas differ, a node is not well, writes failed
    2    bad usage: an option, a key or a value that cannot be; nothing was written
    3    refused: a condition did not hold, say; nothing was written
    4    nobody could do it in time; nothing was written
    5    a write that may have happened
    6    failed on this machine: output that cannot be written, a node that does not start, a bug
    130  ended by Ctrl-C (128 + the number of the signal)
    141  nobody reads the output any more (`trikv list | head -1`)

The first question after a write that failed is whether it may have happened; so that is what the code
tells, and the second sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from trikv.client import (
    ClientError,
    InvalidRequest,
    OutcomeUnknown,
    Refused,
    Unavailable,
)


class ExitCode(IntEnum):
    DONE = 0
    NO = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    UNKNOWN = 5
    FAILED = 6
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class CommandError(Exception):
    """What ends a command; one line for a person, and what a script goes by.

    code  for programs: one of the API's, the client's, or ours
    more  further fields of the error's document
    hint  a second line: what happened to the write, or what to do
    """

    def __init__(
        self,
        detail: str,
        exit_code: ExitCode,
        *,
        code: str,
        hint: str | None = None,
        may_have_happened: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.exit_code = exit_code
        self.code = code
        self.hint = hint
        self.may_have_happened = may_have_happened
        self.more = more

    @property
    def document(self) -> dict[str, Any]:
        """As `--json` tells it, on standard error."""
        told = {
            "code": self.code,
            "detail": self.detail,
            "may_have_happened": self.may_have_happened,
            "exit_code": int(self.exit_code),
        }
        return {"error": told | {k: v for k, v in self.more.items() if v is not None}}


class ClosedPipe(Exception):
    """Nobody reads the output any more."""


def usage_error(detail: str, *, hint: str | None = None, field: str | None = None) -> CommandError:
    return CommandError(detail, ExitCode.USAGE, code="usage", hint=hint, field=field)


def failed(detail: str, *, code: str = "failed", hint: str | None = None) -> CommandError:
    """Something on this machine went wrong."""
    return CommandError(detail, ExitCode.FAILED, code=code, hint=hint)


def interrupted(*, write: bool = False) -> CommandError:
    """Ctrl-C. `write`: while a write was on its way."""
    return CommandError(
        "interrupted",
        ExitCode.INTERRUPTED,
        code="interrupted",
        hint="The write may have happened." if write else None,
        may_have_happened=write,
    )


def from_client(error: ClientError, *, write: bool) -> CommandError:
    """What a failure of the client comes to. `write`: it was to change something."""
    return CommandError(
        error.detail,
        exit_code_of(error),
        code=error.code,
        hint=_hint(error, write=write),
        may_have_happened=error.may_have_happened,
        status=error.status,
        version=error.version,
        key=error.key,
        field=error.field,
        node=error.node,
    )


def exit_code_of(error: ClientError) -> ExitCode:
    match error:
        case OutcomeUnknown():
            return ExitCode.UNKNOWN
        case Unavailable():
            return ExitCode.UNAVAILABLE
        case InvalidRequest():
            return ExitCode.USAGE
        case Refused() if (
            error.code == "unexpected_answer"
        ):  # to a read: something else listens there
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.REFUSED


def _hint(error: ClientError, *, write: bool) -> str | None:
    if isinstance(error, InvalidRequest) and error.field == "consistency":
        return "To read what a node holds at this moment: --consistency local"
    if not write:
        return None
    if not error.may_have_happened:
        return None if "nothing was written" in error.detail else "Nothing was written."
    if error.version is not None:
        return (
            f"It has version {error.version} and is on the leader's disk: it normally will be "
            "confirmed, and `trikv get` then shows that version."
        )
    return "It may have happened, or may happen yet: look, or do it again."


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deeply nested; an exception alone is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
