"""The tree of errors is what its docstring draws, and each says once what it is."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from trikv import errors
from trikv.client import errors as client_errors
from trikv.client.errors import ClientError
from trikv.errors import (
    BadRequest,
    OutcomeUnknown,
    PeerFailed,
    Refused,
    SettingError,
    Superseded,
    TrikvError,
    Unavailable,
    error_text,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TrikvError) and kind is not TrikvError
]
INNER = {BadRequest, Refused, Unavailable, OutcomeUnknown}

#: Those that are answered to a client.
ANSWERED = [kind for kind in KINDS if kind not in INNER | {SettingError, PeerFailed, Superseded}]

CLIENT_KINDS = [
    kind
    for kind in vars(client_errors).values()
    if isinstance(kind, type) and issubclass(kind, ClientError)
]


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


def everything(error: Exception) -> tuple[object, ...]:
    return type(error), str(error), repr(error), error.args, vars(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [TrikvError, *KINDS])
def test_every_error_of_a_node_is_pickled_and_copied_whole(
    kind: type[TrikvError], protocol: int
) -> None:
    error = kind("why", key="k", version=None)
    error.add_note("seen in a test")
    for again in (
        pickle.loads(pickle.dumps(error, protocol)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert everything(again) == everything(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLIENT_KINDS)
def test_every_error_of_the_client_is_pickled_and_copied_whole(
    kind: type[ClientError], protocol: int
) -> None:
    error = kind("why", code="c", status=503, version="v", key="k", field="f", node="n")
    error.add_note("seen in a test")
    for again in (
        pickle.loads(pickle.dumps(error, protocol)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert everything(again) == everything(error)


def test_the_text_of_an_error_is_never_blank() -> None:
    assert error_text(ValueError("why")) == "why"
    assert error_text(TimeoutError()) == "TimeoutError"
    assert error_text(OSError("  ")) == "OSError"


def test_no_other_place_makes_a_text_of_an_error_that_may_be_blank() -> None:
    """An exception is always true, so `error or …` is always the error."""
    root = Path(__file__).parents[2]
    for folder in ("trikv", "loadgen", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            assert not re.search(r"\b(error|failure|exc) or type\(", path.read_text()), path
