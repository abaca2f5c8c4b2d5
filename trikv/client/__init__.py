"""The client: `Client` for trio and asyncio, `SyncClient` for programs that are not async.

    errors    every way in which a call fails, and whether the write may have happened
    model     what calls take and return
    nodes     whom to ask                                          (pure)
    wire      requests, and what answers mean                      (pure)
    doubt     what settles a write of unknown outcome              (pure)
    calls     one call: attempts, pauses, its deadline             (pure: generators)
    plans     what each method comes to; sessions, lists           (pure: generators)
    sse, feed server-sent events; a watch across many streams      (pure)
    http      what both shells need to know of httpx
    pool      how many exchanges at once, and connections that no fork shares
    aio, watching, batching    the shell for trio and asyncio
    sync                       the shell without either

The guide is docs/client.md.
"""

from trikv.client.aio import Client, Session
from trikv.client.batching import Batching
from trikv.client.errors import (
    ClientError,
    InvalidRequest,
    OutcomeUnknown,
    Refused,
    Unavailable,
    VersionConflict,
)
from trikv.client.model import Change, Consistency, Delete, Item, Operation, Put, Reset, Written
from trikv.client.sync import SyncClient, SyncSession, SyncWatch
from trikv.client.watching import Watch

__all__ = [
    "Batching",
    "Change",
    "Client",
    "ClientError",
    "Consistency",
    "Delete",
    "InvalidRequest",
    "Item",
    "Operation",
    "OutcomeUnknown",
    "Put",
    "Refused",
    "Reset",
    "Session",
    "SyncClient",
    "SyncSession",
    "SyncWatch",
    "Unavailable",
    "VersionConflict",
    "Watch",
    "Written",
]
