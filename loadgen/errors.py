"""What is expected to go wrong, and the exit code that says so.

    LoadgenError            1   the run could not be done, or not to its end
    ├── UsageError          2   the arguments cannot be served; nothing was run
    │   ├── OutputError     2   the output folder cannot be written to
    │   └── NotALeader      2   the URL is that of a node that does not lead
    ├── ClusterError        1   the local cluster did not start, or lost a node
    └── ApiError            1   the leader refused a request, or answered what no leader answers
        └── Unreachable     1   no answer came at all

Each message is one line that says what was found and what was expected (a dead node's adds the
end of its log). They are shown without a traceback; any other exception is a bug and keeps its own.
"""

from collections.abc import Iterator


class LoadgenError(Exception):
    """Something that a user may meet and should understand from its message."""

    exit_code = 1


class UsageError(LoadgenError):
    """The arguments cannot be served, here or by the cluster they name."""

    exit_code = 2


class OutputError(UsageError):
    """The output folder cannot be made or written to."""


class NotALeader(UsageError):
    """The node at the URL answers, but as a follower."""


class ClusterError(LoadgenError):
    """The local cluster did not start, or one of its nodes ended while it was needed."""


class ApiError(LoadgenError):
    """A request failed. `code` is the node's own code, or one of ours where it gave none."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(ApiError):
    """No answer: connection refused or lost, or time ran out. A write may have happened."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deeply nested; an exception alone is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
