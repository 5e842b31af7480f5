"""The sidecar's own log: canonical JSON on stderr, one line per event, without trace id.

Promise: a line that could repeat is written at a limited rate and says how many it stands for; a log that cannot be
written stops nothing. Refused: the content of an application's line (secrets).
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

_REPEAT_SECONDS = 10.0


class Log:
    """Writes to stderr, or to `stream`."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._silent_until: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def write(self, level: str, event: str, message: str, **fields: object) -> None:
        """Write one line. `event` is a stable key; `fields` say values, never the content of a log line."""
        now = datetime.now(UTC)
        record = {
            "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z",
            "level": level,
            "service_name": "gin-sidecar",
            "message": message,
            "event": event,
            **fields,
        }
        try:
            self._stream.write(orjson.dumps(record, default=str).decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A log that cannot be written has no place left to say so, and must not stop the data.
            return

    def info(self, event: str, message: str, **fields: object) -> None:
        self.write("info", event, message, **fields)

    def warn(self, event: str, message: str, **fields: object) -> None:
        self.write("warn", event, message, **fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        self.write("error", event, message, **fields)

    def limited(self, level: str, event: str, key: str, message: str, **fields: object) -> None:
        """Write at most one line per event and key in ten seconds; the next one tells how many were held back."""
        slot = f"{event}\0{key}"
        now = self._clock()
        if now < self._silent_until.get(slot, 0.0):
            self._held_back[slot] = self._held_back.get(slot, 0) + 1
            return
        if len(self._silent_until) > 1000:  # keys come from closed sets or are few; this bound is for mistakes
            self._silent_until.clear()
        self._silent_until[slot] = now + _REPEAT_SECONDS
        held_back = self._held_back.pop(slot, 0)
        if held_back:
            fields["repeated"] = held_back
        self.write(level, event, message, **fields)
