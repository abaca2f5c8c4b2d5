"""What travels between nodes: records, batches of them, answers. Encode and decode.

Rules
- Every body is checked against a type below (see `requests`). Unknown fields are ignored, so that
  a newer node can talk to an older one.
- A record is encoded once, however many followers it goes to; a batch is put together from such texts.

A record in a batch: `{"key": K, "version": "3.0f4c2a9d81e7-1700000000000000", "value": JSON}`, or with
`"deleted": true` in place of the value. Several values of one write are written in short:
`{"version": V, "values": {K: JSON, …}}`. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec

from trikv.errors import InvalidBody, InvalidKey, TooLarge, TrikvError
from trikv.model.node_state import NodeState, state_of
from trikv.model.record import MAX_KEY_BYTES, RESERVED_PREFIX, Entry, Record
from trikv.model.version import MAX_TIMESTAMP_US, PLAIN_EPOCH, Epoch, Version, is_instance
from trikv.protocol import canonical, json_value
from trikv.protocol.requests import PlainBody, convert

#: A batch is closed once it holds this many bytes or records: one follower transaction, well under a
#: second to send and to merge.
MAX_BATCH_BYTES = 4 * 2**20
MAX_BATCH_RECORDS = 5_000

#: Operations of one client's batch: it is one transaction everywhere, and is never split.
MAX_BATCH_OPERATIONS = 1_000

#: The largest MAX_VALUE_BYTES: a batch with one such value must still be a modest request.
LARGEST_VALUE_BYTES = 16 * 2**20

#: A batch as it arrives: its records' bytes, one value beyond the bound, and the frame around each.
MAX_REPLICATE_BODY_BYTES = 2 * (MAX_BATCH_BYTES + LARGEST_VALUE_BYTES)

#: Records in it. A leader sends some 15,000 at most, or what a takeover overrules in one write.
MAX_REPLICATE_RECORDS = 100_000

#: What a batch begins with is encoded once for a session, and kept for so many: there are fewer links.
KEPT_OPENINGS = 128

#: What batches say of themselves is kept for so many, of so many bytes at most.
KEPT_HEADS = 16
KEPT_HEAD_BYTES = 1024

# -- what there is ------------------------------------------------------------------------------------


_NodeId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]


class LeaderName(msgspec.Struct, frozen=True):
    """Who sends: its node id, and the URL at which clients reach it, where it knows one.

    Both are repeated to clients and in logs, so they are held to what settings may say.
    """

    node_id: _NodeId
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,300}\Z")] | None = None


class WireRecord(msgspec.Struct, frozen=True):
    """A record as it travels; a record that is not deleted has a value, which may be null."""

    key: str
    version: str
    value: Any = msgspec.UNSET
    deleted: bool = False


class WireEntry(msgspec.Struct, frozen=True):
    """In a batch: a record as it travels, or with `values` several of one write, in short."""

    version: str
    key: str | msgspec.UnsetType = msgspec.UNSET
    value: Any = msgspec.UNSET
    deleted: bool = False
    values: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class BatchBody(msgspec.Struct, frozen=True):
    """`POST /replicate` from the leader. No records: a heartbeat.

    `follower` is the instance that it is meant for: what was on its way to a node before its disk was
    emptied must not reach it after. With `established` the handshake is over, and the follower has been
    brought in the leader's state up to `watermark`. Up to `confirmed` all is on enough nodes: told where
    somebody may want to know.
    """

    leader: LeaderName
    epoch: str
    records: list[WireEntry]
    follower: str | None = None
    watermark: str | None = None
    floor: str | None = None
    established: bool = False
    confirmed: str | None = None


class ReplicateAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A follower's acknowledgement: all records of the batch are on its disk.

    `watched`: somebody watches it for changes, or reads there what has yet to come, and waits to be told
    how far it is.
    """

    status: str
    node_id: str
    epoch: str
    watched: bool = False


class PromiseBody(msgspec.Struct, frozen=True):
    """`POST /replica/promise`: take no lower epoch from now on. `cluster` is "" for one not born yet."""

    leader: LeaderName
    instance: str
    cluster: str
    epoch: str


_Instance = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z]{1,32}\Z")]


class PromiseAnswer(msgspec.Struct, frozen=True):
    """What the node is that has promised: its state (see `model.node_state`), and its configuration.

    `follows`: it takes records from a leader; a node that was started to lead does not.
    """

    node_id: _NodeId
    instance: _Instance
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z]{0,32}\Z")]
    promised: str
    established: str
    led: str
    watermark: str
    floor: str
    follows: bool = True
    configuration: WireRecord | None = None

    def state(self) -> NodeState:
        """Raises ValueError."""
        names = NodeState._fields
        return state_of({name: getattr(self, name) for name in names})


class ReplicaAnswer(msgspec.Struct, frozen=True):
    """`GET /replica`: what a node holds, in short."""

    node_id: _NodeId
    promised: str
    records: Annotated[int, msgspec.Meta(ge=0)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,32}\Z")]
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    instance: str = ""
    cluster: str = ""
    established: str = ""
    led: str = ""
    watermark: str = ""
    floor: str = ""


class RecordsAnswer(msgspec.Struct, frozen=True):
    """`GET /replica/records`: a page of records in version order; `next` is null at the end."""

    records: list[WireRecord]
    next: str | None


class Batch(NamedTuple):
    leader: LeaderName
    epoch: Epoch
    entries: list[Entry]
    follower: str | None = None
    watermark: Version | None = None
    floor: Version | None = None
    established: bool = False
    confirmed: Version | None = None


# -- decode -------------------------------------------------------------------------------------------


def decode_replicate(body: bytes) -> Batch | Record:
    """A `/replicate` body: a leader's batch, or in the plain form one record.

    Raises MalformedJson, InvalidBody, InvalidKey; TooLarge for a value that no node may have.
    """
    message = _decode_any(body)
    large = len(body) > LARGEST_VALUE_BYTES  # else no value in it is
    if isinstance(message, Record):
        if large:
            _check_value_size(message.value, "value")
        return message
    records = 0
    for index, (_, pairs) in enumerate(message.entries):
        records += len(pairs)
        if large:
            for _, value in pairs:
                name = "value" if len(pairs) == 1 else "values"
                _check_value_size(value, f"records[{index}].{name}")
    if records > MAX_REPLICATE_RECORDS:
        raise InvalidBody(
            f"records: expected at most {MAX_REPLICATE_RECORDS}, got {records}", field="records"
        )
    return message


def _check_value_size(value: str, field: str) -> None:
    """Raises TooLarge for a value that no node may have."""
    if (size := json_value.size_of(value)) > LARGEST_VALUE_BYTES:
        raise TooLarge(
            f"{field}: expected at most {LARGEST_VALUE_BYTES} bytes of JSON, got {size}",
            field=field,
        )


def _decode_any(body: bytes) -> Batch | Record:
    head, found, rest = body.partition(_RECORDS)
    if found and rest.endswith(_END) and len(head) <= KEPT_HEAD_BYTES:
        with suppress(UnicodeDecodeError, TrikvError):
            entries = canonical.entries(rest.removesuffix(_END).decode("utf-8"))
            if entries is not None:
                return _decode_head(head + _RECORDS + _END)._replace(entries=entries)
    return _decode_replicate(body)


#: Between what a batch says of itself and its records, as `encode_batch` writes it; and its end.
_RECORDS = b',"records":['
_END = b"]}"


@lru_cache(maxsize=KEPT_HEADS)
def _decode_head(body: bytes) -> Batch:
    """What a batch says of itself: it is the same for many, and this one has no records."""
    batch = _decode_replicate(body)
    assert isinstance(batch, Batch)
    return batch


def _decode_replicate(body: bytes) -> Batch | Record:
    decoded = json_value.decode(body)
    if isinstance(decoded, dict) and "records" not in decoded and "timestamp" in decoded:
        return _plain_record(convert(decoded, PlainBody))
    batch = convert(decoded, BatchBody)
    epoch = decode_epoch(batch.epoch)
    entries = [
        _decode_entry(entry, f"records[{index}]") for index, entry in enumerate(batch.records)
    ]
    watermark, floor, confirmed = (
        None if text is None else _decode_version(text, field)
        for text, field in (
            (batch.watermark, "watermark"),
            (batch.floor, "floor"),
            (batch.confirmed, "confirmed"),
        )
    )
    if batch.follower is not None and not is_instance(batch.follower):
        raise InvalidBody("follower: expected 1 to 32 digits and small letters", field="follower")
    if batch.established and watermark is None:
        raise InvalidBody("watermark: required with established", field="watermark")
    return Batch(
        batch.leader,
        epoch,
        entries,
        batch.follower,
        watermark,
        floor,
        batch.established,
        confirmed,
    )


def decode_epoch(text: str) -> Epoch:
    """A leader's epoch. Raises InvalidBody."""
    try:
        epoch = Epoch.parse(text)
    except ValueError as error:
        raise InvalidBody(f"epoch: {error}", field="epoch") from None
    if epoch.number < 1:
        raise InvalidBody("epoch: a leader's epoch number is at least 1", field="epoch")
    return epoch


def _decode_version(text: str, field: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as error:
        raise InvalidBody(f"{field}: {error}", field=field) from None


def _decode_entry(entry: WireEntry, field: str) -> Entry:
    """What stands in a batch. Raises InvalidBody or InvalidKey, which name `field`."""
    if entry.values is msgspec.UNSET:
        if entry.key is msgspec.UNSET:
            name = f"{field}.key"
            raise InvalidBody(f"{name}: required, but missing", field=name)
        one = WireRecord(entry.key, entry.version, entry.value, entry.deleted)
        key, value, version = decode_record(one, field)
        return Entry(version, [(key, value)])
    if entry.key is not msgspec.UNSET or entry.value is not msgspec.UNSET or entry.deleted:
        raise InvalidBody(f"{field}: expected either a key or values", field=field)
    name = f"{field}.values"
    if not entry.values:
        raise InvalidBody(f"{name}: expected at least one", field=name)
    for key in entry.values:
        check_key_bytes(key, name)
    pairs = [(key, json_value.encode(value, name)) for key, value in entry.values.items()]
    return Entry(_decode_version(entry.version, f"{field}.version"), pairs)


def decode_record(record: WireRecord, field: str) -> Record:
    """A record as it travels. Raises InvalidBody or InvalidKey, which name `field`."""
    version = _decode_version(record.version, f"{field}.version")
    if record.deleted is (record.value is not msgspec.UNSET):
        raise InvalidBody(f'{field}: expected either a value or "deleted": true', field=field)
    check_key_bytes(record.key, f"{field}.key")
    value = "" if record.deleted else json_value.encode(record.value, f"{field}.value")
    return Record(record.key, value, version)


def _plain_record(body: PlainBody) -> Record:
    check_key(body.key, "key")
    expected = "timestamp: expected seconds since 1970, from 0 to 9007199254.740991"
    if not math.isfinite(body.timestamp) or not 0 <= body.timestamp * 1e6 <= MAX_TIMESTAMP_US:
        raise InvalidBody(expected, field="timestamp")
    version = Version(PLAIN_EPOCH, round(body.timestamp * 1e6))
    return Record(body.key, json_value.encode(body.value, "value"), version)


def check_key_bytes(key: str, field: str = "key") -> None:
    """Raises InvalidKey unless the key is 1 to 512 bytes of UTF-8."""
    try:
        size = json_value.size_of(key)
    except UnicodeEncodeError:
        raise InvalidKey(f"{field}: expected UTF-8, found a lone surrogate", field=field) from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidKey(
            f"{field}: expected 1 to {MAX_KEY_BYTES} bytes of UTF-8, got {size}", field=field
        )


def check_key(key: str, field: str = "key") -> None:
    """Raises InvalidKey unless a client may use this key."""
    check_key_bytes(key, field)
    if key.startswith(RESERVED_PREFIX):
        raise InvalidKey(f"{field}: keys that start with a NUL byte are reserved", field=field)


# -- encode -------------------------------------------------------------------------------------------


def encode_record(record: Record) -> str:
    """A record as it travels in a batch."""
    rest = '"deleted":true' if record.deleted else f'"value":{record.value}'
    return f'{{"key":{json_value.encode_string(record.key)},"version":"{record.version}",{rest}}}'


def encode_entry(entry: Entry) -> str:
    """What travels in a batch for an entry: its values in short if there are several."""
    version, pairs = entry
    values = [f"{json_value.encode_string(key)}:{value}" for key, value in pairs if value]
    if len(values) < 2:
        return ",".join(map(encode_record, entry.records))
    deleted = [encode_record(Record(key, "", version)) for key, value in pairs if not value]
    return ",".join([f'{{"version":"{version}","values":{{{",".join(values)}}}}}', *deleted])


def wire_record(record: Record) -> WireRecord:
    """A record to be put into an answer."""
    value = msgspec.UNSET if record.deleted else msgspec.Raw(record.value.encode())
    return WireRecord(record.key, str(record.version), value, record.deleted)


def encode_batch(
    leader: LeaderName,
    epoch: Epoch,
    entries: Sequence[str],
    *,
    follower: str | None = None,
    watermark: Version | None = None,
    floor: Version | None = None,
    established: bool = False,
    confirmed: Version | None = None,
) -> bytes:
    """A batch of encoded entries as a request body."""
    head = _opening(leader, epoch, follower)
    if watermark is not None:
        head += f'"watermark":"{watermark}",'
    if floor is not None:
        head += f'"floor":"{floor}",'
    if confirmed is not None:
        head += f'"confirmed":"{confirmed}",'
    if established:
        head += '"established":true,'
    return (f'{head}"records":[' + ",".join(entries) + "]}").encode()


@lru_cache(maxsize=KEPT_OPENINGS)
def _opening(leader: LeaderName, epoch: Epoch, follower: str | None) -> str:
    """What all batches of a session begin with."""
    text = f'{{"leader":{msgspec.json.encode(leader).decode()},"epoch":"{epoch}",'
    return text if follower is None else f'{text}"follower":"{follower}",'


def encode_records_page(records: Iterable[Record], following: Version | None) -> bytes:
    """The body of `GET /replica/records`."""
    after = "null" if following is None else f'"{following}"'
    return f'{{"records":[{",".join(map(encode_record, records))}],"next":{after}}}'.encode()


def encode_map(records: Iterable[Record]) -> str:
    """`"key":value` pairs, joined by commas: the inside of a JSON object."""
    return ",".join(
        f"{json_value.encode_string(r.key)}:{r.value}" for r in records if not r.deleted
    )
