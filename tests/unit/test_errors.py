"""The tree of errors is what its docstring draws, and each says once what it is."""

from __future__ import annotations

import re

from trikv import errors
from trikv.errors import (
    BadRequest,
    OutcomeUnknown,
    PeerFailed,
    Refused,
    SettingError,
    Superseded,
    TrikvError,
    Unavailable,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TrikvError) and kind is not TrikvError
]
INNER = {BadRequest, Refused, Unavailable, OutcomeUnknown}

#: Those that are answered to a client.
ANSWERED = [kind for kind in KINDS if kind not in INNER | {SettingError, PeerFailed, Superseded}]


def test_the_docstring_draws_every_error_with_its_status_and_code() -> None:
    drawing = errors.__doc__ or ""
    for kind in ANSWERED:
        assert re.search(rf"─ {kind.__name__} +{kind.status}  {kind.code}$", drawing, re.MULTILINE)
    drawn = set(re.findall(r"─ (\w+)", drawing))
    assert drawn == {kind.__name__ for kind in KINDS}


def test_every_error_that_is_answered_has_a_code_of_its_own() -> None:
    assert len({kind.code for kind in ANSWERED}) == len(ANSWERED)


def test_no_error_is_a_500() -> None:
    assert all(400 <= kind.status < 600 and kind.status != 500 for kind in KINDS)


def test_only_an_outcome_that_is_unknown_may_have_written() -> None:
    for kind in KINDS:
        assert kind.may_have_written is issubclass(kind, OutcomeUnknown)
