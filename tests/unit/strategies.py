"""What Hypothesis draws: versions and records that collide often, and any JSON value."""

from __future__ import annotations

from hypothesis import strategies as st

from trikv.model.record import MAX_KEY_BYTES, Entry, Pair, Record
from trikv.model.version import (
    MAX_EPOCH_NUMBER,
    MAX_TIMESTAMP_US,
    NO_EPOCH,
    PLAIN_EPOCH,
    Epoch,
    Version,
)
from trikv.protocol import json_value

instances = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=32)
epochs = st.builds(Epoch, st.integers(0, MAX_EPOCH_NUMBER), instances)
versions = st.builds(Version, epochs, st.integers(0, MAX_TIMESTAMP_US))

# Few of each, so that records meet in key, epoch, timestamp and value.
close_epochs = st.sampled_from(
    [NO_EPOCH, PLAIN_EPOCH, Epoch(1, "a"), Epoch(1, "b"), Epoch(2, "a"), Epoch(10, "0")]
)
close_versions = st.builds(Version, close_epochs, st.integers(1, 4))
close_values = st.sampled_from(["", "0", "1", "10", '"a"', '"é"', '"😀"', '"\uffff"', "[]", "null"])
close_records = st.builds(Record, st.sampled_from("ab"), close_values, close_versions)

# No lone surrogates, which are refused on the way in; NULs, line ends and all else there is.
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
keys = texts.filter(lambda key: 1 <= len(key.encode()) <= MAX_KEY_BYTES)
encoded_values = json_values.map(lambda value: json_value.encode(value, "value"))
records = st.builds(Record, keys, st.just("") | encoded_values, versions)

encoded_texts = texts.map(lambda text: json_value.encode(text, "value"))


def _pairs(
    keys: st.SearchStrategy[str],
    values: st.SearchStrategy[str],
    min_size: int = 1,
    max_size: int | None = None,
) -> st.SearchStrategy[list[Pair]]:
    """No key stands twice."""
    found = st.dictionaries(keys, values, min_size=min_size, max_size=max_size)
    return found.map(lambda pairs: list(pairs.items()))


# One write of several keys, of which some are deleted, of texts, of one, or of few that meet.
entries = st.one_of(
    st.builds(Entry, versions, _pairs(keys, encoded_texts, min_size=2, max_size=4)),
    st.builds(Entry, versions, _pairs(keys, st.just("") | encoded_values, max_size=4)),
    st.builds(Entry, close_versions, _pairs(st.sampled_from("abcé"), close_values)),
)
