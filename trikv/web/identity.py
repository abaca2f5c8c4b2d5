"""The id of a request: taken from its header, or made; in its answer, and in every log line about it.

Rules
- An id that came in goes out unchanged. One that is too long, or holds what does not belong in a log
  line, is refused, as any bad input is: to put another in its place would leave two halves that do not
  meet.
- Without one a request gets an id of this process: a random prefix, and a number. But not where it would
  be of no use to anyone, and cost: a hot route's answer that is a success, and no trace, has none. (With
  LOG_LEVEL=DEBUG it is of use, since every request is in the log.)
- While a request is worked on, `logs.request_id` holds its id.
"""

from __future__ import annotations

import logging
import re
import secrets
from itertools import count

from trikv import log
from trikv.errors import InvalidParameter
from trikv.protocol.json_value import clip

HEADER = "X-Request-ID"

#: A UUID has 36, a few proxies' ids have some more.
MAX_REQUEST_ID = 128

_LEGAL = re.compile(f"[A-Za-z0-9._~:/+=@-]{{1,{MAX_REQUEST_ID}}}")


class RequestIds:
    """Where the ids of requests come from."""

    def __init__(self) -> None:
        self.everywhere = log.logger.isEnabledFor(logging.DEBUG)
        """Whether every request is to have one."""
        self._prefix = secrets.token_hex(4)
        self._next = count(1).__next__

    def begin(self, sent: str | None) -> InvalidParameter | None:
        """Work on a request begins, which came with that id; why that is refused, if it is."""
        if sent is not None and _LEGAL.fullmatch(sent):
            log.request_id.set(sent)
            return None
        log.request_id.set(self._new())
        if sent is None:
            return None
        return InvalidParameter(
            f"{HEADER}: expected 1 to {MAX_REQUEST_ID} letters, digits or any of . _ ~ : / + = @ -, "
            f"got {clip(sent)!r}",
            field=HEADER,
        )

    def need(self) -> None:
        """What is worked on is to have an id, if it has none."""
        if not log.request_id.get():
            log.request_id.set(self._new())

    def _new(self) -> str:
        return f"{self._prefix}-{self._next():x}"
