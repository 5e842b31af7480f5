"""Whether an application's logger leaves out lines: zap's sampler, told by when the lines of a path were logged.

Problem: `zap.NewProductionConfig()` logs the first 100 lines of a level and message within a second and then every
100th; where the message is the path, as with gin-contrib/zap, counts are up to 100 times too low, and nothing says so.
Promise: suspicion rests on what sampling alone does: a second's first 100 lines come at one rate and all later ones at
a hundredth of it, ten seconds in a row. Real traffic, however steady, bursty or near 100 a second, goes on after its
100th line as before, or stops. Seconds are cut as zap cuts them: a new one begins with the first line after the last,
which sampling never leaves out. Times are those of the lines, so a poll or a buffer in between changes nothing.
Refused: to guess how much is missing; lines that carry a weight (they say themselves); rates below 125 a second, where
too little is left out to tell.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST = 100  # of a second, all logged
_THEREAFTER = 100  # of the others one in so many
_SECOND_NS = 1_000_000_000
_LATEST_KNEE_NS = 800_000_000  # when a second's 100th line must have come, so that anything is left out
_NEEDED = 10  # seconds in a row
_ENOUGH = 3  # seconds to the contrary, to withdraw a suspicion
MOST_PATHS = 1024
_LOOK_BACK = 10  # lines; a second begins where a gap is 10 times as long as each of the next 8 on average


class _Path:
    """One path's current second."""

    __slots__ = ("_before", "_began", "_count", "_knee", "_late", "_recent", "_synchronous", "against", "suspected")

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_LOOK_BACK)
        self._synchronous = False  # the second is cut where the sampler cuts it, as far as anybody can tell
        self._began = 0
        self._count = 0
        self._knee = 0  # time of the 100th line
        self._late = 0  # lines in the later half of what was left of the second then
        self._before = 0  # seconds in a row that look sampled
        self.against = 0  # seconds in a row that had more than 100 lines and do not
        self.suspected = False

    def see(self, times_ns: Sequence[int]) -> None:
        """Take the times of further lines, in their order."""
        for time_ns in times_ns:
            if not self._synchronous:
                self._synchronize(time_ns)
            elif time_ns < self._began + _SECOND_NS:
                self._count += 1
                if self._count == FIRST:
                    self._knee, self._late = time_ns, 0
                elif self._count > FIRST and time_ns - self._knee > self._began + _SECOND_NS - time_ns:
                    self._late += 1
            elif self._holds():
                self._began, self._count = time_ns, 1
            else:
                self._synchronous = False
                self._recent.append(time_ns)

    def _synchronize(self, time_ns: int) -> None:
        recent = self._recent
        recent.append(time_ns)
        if len(recent) < _LOOK_BACK:
            return
        gap, following = recent[1] - recent[0], recent[-1] - recent[1]
        if gap * (_LOOK_BACK - 2) >= 10 * max(following, 0) and gap > 0:
            self._synchronous = True
            self._began, self._count = recent[1], _LOOK_BACK - 1
            recent.clear()

    def _holds(self) -> bool:
        """Look at a second that is over; say whether the next one may be cut where this one ends."""
        if self._count < FIRST:
            if self._count < FIRST // 2 and self._before:
                self._before = 0  # what was in a row is interrupted; nothing speaks against it
            return True
        if self._looks_sampled():
            self.against = 0
            self._before += 1
            self.suspected = self.suspected or self._before >= _NEEDED
            return True
        self._before = 0
        self.against += 1
        if self.against >= _ENOUGH:
            self.suspected = False
        return False

    def _looks_sampled(self) -> bool:
        lasted = self._knee - self._began
        if not 0 < lasted <= _LATEST_KNEE_NS:
            return False
        # what the rate of the first 100 says of the rest of the second, of which every 100th line is left
        rest = (FIRST - 1) / lasted * (_SECOND_NS - lasted)
        expected = rest / _THEREAFTER
        others = self._count - FIRST
        # evenly: a burst that is over soon has no lines late in the second
        return int(expected * 0.7) <= others <= expected * 1.3 + 1 and self._late >= int(others * 0.35)


class Watch:
    """The paths whose lines are watched. Bounded; what is suspected is kept when room is made."""

    def __init__(self) -> None:
        self._paths: dict[str, _Path] = {}
        self.suspected = 0  # paths

    def see(self, times: Mapping[str, list[int]]) -> list[str]:
        """Take when lines were logged, in order, by path as logged; return the paths that are suspected anew."""
        fresh = []
        for name, times_ns in times.items():
            path = self._paths.get(name)
            if path is None:
                if len(self._paths) >= MOST_PATHS:
                    self._paths = {name: path for name, path in self._paths.items() if path.suspected}
                if len(self._paths) >= MOST_PATHS:
                    continue
                path = self._paths[name] = _Path()
            before = path.suspected
            path.see(times_ns)
            if path.suspected != before:
                self.suspected += 1 if path.suspected else -1
                if path.suspected:
                    fresh.append(name)
        return fresh

    def __len__(self) -> int:
        return len(self._paths)
