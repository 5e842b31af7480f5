"""The sidecar's own log: canonical JSON on stderr, one line per event, without trace id.

Promise: a line that could repeat is written at a limited rate and says how many it stands for; what is held back is
written in the end, so that amounts add up; a log that cannot be written stops nothing.
Refused: the content of an application's line (secrets).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REPEAT_SECONDS = 10.0
_MOST_SLOTS = 1000

Wording: TypeAlias = "Callable[[Mapping[str, int]], str]"  # says amounts in words


@dataclass(slots=True)
class _Slot:
    """One event and key: when its next line may be written, and what happened since the last one."""

    event: str
    silent_until: float = float("-inf")
    count: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    level: str = ""  # of what happened last, as the two below
    message: str | Wording = ""
    fields: dict[str, object] = field(default_factory=dict)


class Log:
    """Writes to stderr, or to `stream`."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._slots: dict[tuple[str, str], _Slot] = {}

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

    def limited(
        self,
        level: str,
        event: str,
        key: str,
        message: str | Wording,
        *,
        sums: Mapping[str, int] | None = None,
        **fields: object,
    ) -> None:
        """Write at most one line per event and key in ten seconds, that tells how many others it stands for.

        `sums` are amounts: a line carries, and its message tells, what they have come to since the line before it.
        """
        slot = self._slots.get((event, key))
        if slot is None:
            if len(self._slots) >= _MOST_SLOTS:  # keys come from closed sets or are few; this bound is for mistakes
                self.flush()
                self._slots.clear()
            slot = self._slots[event, key] = _Slot(event)
        slot.level, slot.message, slot.fields = level, message, fields
        slot.count += 1
        for name, amount in (sums or {}).items():
            slot.sums[name] = slot.sums.get(name, 0) + amount
        if self._clock() >= slot.silent_until:
            self._tell(slot)

    def catch_up(self) -> None:
        """Write what was held back for long enough; to be called again and again."""
        now = self._clock()
        for slot in list(self._slots.values()):
            if slot.count and now >= slot.silent_until:
                self._tell(slot)

    def flush(self) -> None:
        """Write everything that was held back, so that the lines of one kind add up to what happened."""
        for slot in list(self._slots.values()):
            if slot.count:
                self._tell(slot)

    def _tell(self, slot: _Slot) -> None:
        sums, repeated = slot.sums, slot.count - 1
        slot.count, slot.sums, slot.silent_until = 0, {}, self._clock() + _REPEAT_SECONDS
        message = slot.message if isinstance(slot.message, str) else slot.message(sums)
        more = {"repeated": repeated} if repeated else {}
        self.write(slot.level, slot.event, message, **slot.fields, **sums, **more)
