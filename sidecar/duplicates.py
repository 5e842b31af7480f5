"""One request, several access lines: ginzap's line per error, and services that log each request in two formats.

Promise: a request is counted once, whichever of its lines comes first, and a line without a twin is counted. Pairs
are told by method, path, status, time and duration among the latest lines; nothing is held back, nothing is locked
out, so a panic that only the outer logger sees still counts. State is bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

_WINDOW_NS = 100_000_000
_MOST_KEYS = 2048
_MOST_PER_KEY = 64
_NEAR_MS = 5.0
_NEAR_SHARE = 0.1
_PAIR_WINDOW_NS = 2_000_000_000  # gin's text has whole seconds
_TELLING_PAIRS = 20


class ErrorLines:
    """gin-contrib/zap writes one line per error of a request, all with the same latency (its PR #80 is open)."""

    def __init__(self) -> None:
        self._requests: dict[Hashable, tuple[int, set[str]]] = {}

    def repeats(self, request: Hashable, message: str, time_ns: int, *, exact: bool) -> bool:
        """Say whether this line belongs to a request that an earlier one has counted.

        `exact` tells that the latency is fine enough to identify a request; a coarse one (whole milliseconds) needs
        another error text as well.
        """
        seen = self._requests.get(request)
        if seen and abs(time_ns - seen[0]) <= _WINDOW_NS and (exact or message not in seen[1]):
            seen[1].add(message)
            return True
        if len(self._requests) >= _MOST_KEYS:
            self._requests.clear()
        self._requests[request] = (time_ns, {message})
        return False


@dataclass(slots=True)
class _Request:
    ms: float | None
    time_ns: int
    formats: set[str] = field(default_factory=set)


class Twins:
    """Finds the lines of one request in different formats.

    Two middlewares of a service time the same request, the outer one a little longer, on a busy machine much longer:
    so the nearest line of the other format is the twin. Whether the formats are two views of the same requests at all
    shows in how many of these pairs are really near; where few are, the formats belong to different servers of one
    process, and only a near line counts as a twin.
    """

    def __init__(self) -> None:
        self._formats: dict[str, int] = {}  # lines of each
        self._recent: dict[Hashable, deque[_Request]] = {}
        self._pairs = self._near_pairs = 0

    @property
    def several(self) -> bool:
        """Whether more than one access format has been seen: only then can a line have a twin."""
        return len(self._formats) > 1

    def counted(self, form: str, key: Hashable, ms: float | None, time_ns: int) -> bool:
        """Say whether a line of another format has counted this request; remember it if not."""
        self._formats[form] = self._formats.get(form, 0) + 1
        requests = self._recent.get(key)
        if requests is None:
            if len(self._recent) >= _MOST_KEYS:
                self._recent.clear()
            requests = self._recent[key] = deque(maxlen=_MOST_PER_KEY)
        elif len(self._formats) > 1:
            twin = self._twin(requests, form, ms, time_ns)
            if twin is not None:
                twin.formats.add(form)
                if len(twin.formats) >= len(self._formats):
                    requests.remove(twin)
                return True
        requests.append(_Request(ms, time_ns, {form}))
        return False

    def _twin(self, requests: deque[_Request], form: str, ms: float | None, time_ns: int) -> _Request | None:
        waiting = [
            request
            for request in requests
            if form not in request.formats and abs(request.time_ns - time_ns) <= _PAIR_WINDOW_NS
        ]
        if not waiting:
            return None
        twin = min(waiting, key=lambda request: _distance(request.ms, ms))
        near = _near(twin.ms, ms)
        self._pairs += 1
        self._near_pairs += near
        independent = self._pairs >= _TELLING_PAIRS and self._near_pairs * 2 < self._pairs
        return None if independent and not near else twin


def _distance(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else abs(one - other)


def _near(one: float | None, other: float | None) -> bool:
    """Say whether two durations may well be of one request: differently placed and printed, not much apart."""
    if one is None or other is None:
        return True
    return abs(one - other) <= max(_NEAR_MS, _NEAR_SHARE * max(one, other))
