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


_BEHIND = 4096  # batches: a line that never ends can hold up a log for as long as its container lives
_LOGS = 4096  # a source holds a few dozen at most; a process that lives for months sees more


class Ack:
    """One batch's acknowledgement: `done()` once per sink."""

    __slots__ = ("_left", "_position", "_reach", "_tracker", "passed")

    def __init__(self, tracker: Tracker, position: Position, parts: int, reach: int) -> None:
        self._tracker = tracker
        self._position = position
        self._left = parts
        self._reach = reach
        self.passed = False  # none of its lines, and of those before them, is read again

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
        self._behind: deque[Ack] = deque()  # finished, and the watermark has not passed all of their lines
        self.watermark: Position | None = None
        self.watermarks: dict[str, Position] = {}  # of each log, the latest moved last

    def __len__(self) -> int:
        """Return how many batches are not finished, or finished behind one that is not."""
        return len(self._open)

    def open(self, position: Position, parts: int, reach: int = -1) -> Ack:
        """Open the ack of the batch that ends at `position`; with no sinks it is finished at once.

        `reach` is the start of its last line. That may lie behind the position, which stays in front of an open block
        of another stream.
        """
        ack = Ack(self, position, parts, reach)
        self._open.append(ack)
        if not parts:
            self._advance()
        return ack

    def _advance(self) -> None:
        while self._open and not self._open[0]._left:  # noqa: SLF001
            ack = self._open.popleft()
            self._behind.append(ack)
            self.watermark = position = ack._position  # noqa: SLF001
            self.watermarks.pop(position.log, None)
            self.watermarks[position.log] = position
            if len(self.watermarks) > _LOGS:
                del self.watermarks[next(iter(self.watermarks))]
        while self._behind and (self._is_behind(self._behind[0]) or len(self._behind) > _BEHIND):
            self._behind.popleft().passed = True

    def _is_behind(self, ack: Ack) -> bool:
        """Whether all lines of a batch lie before the watermark of their log."""
        mark = self.watermarks.get(ack._position.log)  # noqa: SLF001
        return mark is None or mark.offset > ack._reach  # noqa: SLF001
