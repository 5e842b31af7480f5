"""The in-order watermark over delivered batches.

Batches are opened in reading order and finished in any order; the watermark is the highest position with
nothing unfinished below it, so a checkpoint never passes data that nobody durable has. Around a rotation two logs
are read in turn, so the watermark is kept for each log too. One writer (the event loop): no locks, no futures,
no callbacks. After Vector's OrderedFinalizer and the Datadog Agent's auditor.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.model import Position


_LOGS = 4096  # a source holds a few dozen at most; a process that lives for months sees more


class Ack:
    """One batch's acknowledgement: `done()` once per sink."""

    __slots__ = ("_left", "_position", "_tracker", "passed")

    def __init__(self, tracker: Tracker, position: Position, parts: int) -> None:
        self._tracker = tracker
        self._position = position
        self._left = parts
        self.passed = False  # the watermark stands at its end, or behind

    def done(self) -> None:
        """Say that one sink is done with the batch. Raises RuntimeError when said more often than there are sinks."""
        if self._left <= 0:
            raise RuntimeError(f"the batch that ends at {self._position} is already acknowledged")
        self._left -= 1
        if not self._left:
            self._tracker._advance()  # noqa: SLF001  the two are one mechanism


class Tracker:
    """Hands out acks in reading order and knows the watermark."""

    def __init__(self) -> None:
        self._open: deque[Ack] = deque()
        self.watermark: Position | None = None
        self.watermarks: dict[str, Position] = {}  # of each log, the latest moved last

    def __len__(self) -> int:
        """Return how many batches are not finished, or finished behind one that is not."""
        return len(self._open)

    def open(self, position: Position, parts: int) -> Ack:
        """Open the ack of the batch that ends at `position`; with no sinks it is finished at once."""
        ack = Ack(self, position, parts)
        self._open.append(ack)
        if not parts:
            self._advance()
        return ack

    def _advance(self) -> None:
        while self._open and not self._open[0]._left:  # noqa: SLF001
            ack = self._open.popleft()
            ack.passed = True
            self.watermark = position = ack._position  # noqa: SLF001
            self.watermarks.pop(position.log, None)
            self.watermarks[position.log] = position
            if len(self.watermarks) > _LOGS:
                del self.watermarks[next(iter(self.watermarks))]
