"""The id of a request: taken from its header, or made; in its answer, and in every log line about it.

Rules
- An id that came in goes out unchanged. One that is too long, or holds what does not belong in a log
  line, is refused, as any bad input is: to put another in its place would leave two halves that do not
  meet.
- Without one a request gets an id of this process: a random prefix, and a number.
- While a request is worked on, `logs.request_id` holds its id.
"""

from __future__ import annotations

import re
import secrets
from itertools import count

from trikv.errors import InvalidParameter
from trikv.jsonvalue import clip

HEADER = "X-Request-ID"

#: A UUID has 36, a few proxies' ids have some more.
MAX_REQUEST_ID = 128

_LEGAL = re.compile(f"[A-Za-z0-9._~:/+=@-]{{1,{MAX_REQUEST_ID}}}")


class RequestIds:
    """Where the ids of requests come from."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._next = count(1).__next__

    def new(self) -> str:
        return f"{self._prefix}-{self._next():x}"

    def of(self, sent: str | None) -> tuple[str, InvalidParameter | None]:
        """The id of a request that came with that one, and why it is refused, if it is."""
        if sent is None:
            return self.new(), None
        if _LEGAL.fullmatch(sent):
            return sent, None
        return self.new(), InvalidParameter(
            f"{HEADER}: expected 1 to {MAX_REQUEST_ID} letters, digits or any of . _ ~ : / + = @ -, "
            f"got {clip(sent)!r}",
            field=HEADER,
        )
