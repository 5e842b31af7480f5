"""What went wrong a moment ago, for /health: counters tell how much since ever, not whether it still goes on.

Promise: bounded by the reasons there are. Refused: to judge it, which is `checks`'s.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LATELY_SECONDS = 60.0


@dataclass(slots=True, frozen=True)
class Unsaved:
    """The checkpoint cannot be written."""

    since: float  # epoch seconds
    problem: str  # of the last try


class Recent:
    """Remembers for a minute what was lost, and for as long as it lasts what cannot be saved."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._losses: dict[str, tuple[float, int]] = {}  # reason → when last, bytes since it last paused for a minute
        self.unsaved: Unsaved | None = None

    def lost(self, reason: str, count: int) -> None:
        """Note that bytes were lost."""
        now = self._clock()
        at, before = self._losses.get(reason, (now, 0))
        self._losses[reason] = (now, count + (before if now - at < LATELY_SECONDS else 0))

    def losses(self) -> dict[str, int]:
        """Return reason → bytes of what is being lost."""
        now = self._clock()
        return {reason: count for reason, (at, count) in self._losses.items() if now - at < LATELY_SECONDS}

    def saved(self) -> None:
        self.unsaved = None

    def not_saved(self, problem: str) -> None:
        self.unsaved = Unsaved(self.unsaved.since if self.unsaved else self._clock(), problem)
