"""One request, several access lines: ginzap's line per error, and services that log each request in two formats.

Promise: a request is counted once, whichever of its lines comes first, and a line without a twin is counted. Pairs
are told by method, path, status, time and duration among the latest lines; nothing is held back, nothing is locked
out, so a panic that only the outer logger sees still counts. State is bounded.

What is saved for the next process is what a line written from now on can still be paired with: the entries of the last
window before the newest one, at most 256. Error texts and addresses are kept as digests, there and here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

_WINDOW_NS = 100_000_000
_MOST_KEYS = 2048
_MOST_PER_KEY = 64
_NEAR_MS = 5.0
_NEAR_SHARE = 0.1
_PAIR_WINDOW_NS = 2_000_000_000  # gin's text has whole seconds
_TELLING_PAIRS = 20
_MOST_SAVED = 256


class ErrorLines:
    """gin-contrib/zap writes one line per error of a request, all with the same latency (its PR #80 is open)."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[int, set[str]]] = {}

    def repeats(self, identity: Hashable, text: str, time_ns: int, *, exact: bool) -> bool:
        """Say whether this line belongs to a request that an earlier one has counted.

        `exact` tells that the latency is fine enough to identify a request; a coarse one (whole milliseconds) needs
        another error text as well.
        """
        request, message = _digest(repr(identity)), _digest(text)
        seen = self._requests.get(request)
        if seen and abs(time_ns - seen[0]) <= _WINDOW_NS and (exact or message not in seen[1]):
            seen[1].add(message)
            return True
        if len(self._requests) >= _MOST_KEYS:
            self._requests.clear()
        self._requests[request] = (time_ns, {message})
        return False

    def save(self) -> list[Any]:
        """Return what later lines may belong to, as plain JSON."""
        newest = max((time_ns for time_ns, _ in self._requests.values()), default=0)
        recent = [
            [request, time_ns, sorted(messages)]
            for request, (time_ns, messages) in self._requests.items()
            if time_ns >= newest - _WINDOW_NS
        ]
        return recent[-_MOST_SAVED:]

    def restore(self, saved: list[Any]) -> None:
        """Take what `save` returned. Raises TypeError or ValueError where it is something else."""
        self._requests = {str(request): (int(time_ns), set(messages)) for request, time_ns, messages in saved}


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

    def save(self) -> dict[str, Any]:
        """Return what later lines may be the twins of, as plain JSON."""
        # Of each key the latest come first: what is old is not looked at, of which there may be 131 000.
        oldest = max((requests[-1].time_ns for requests in self._recent.values() if requests), default=0)
        oldest -= _PAIR_WINDOW_NS
        recent: list[list[Any]] = []
        for key, requests in self._recent.items():
            late = takewhile(lambda request: request.time_ns >= oldest, reversed(requests))
            recent += reversed([[key, one.ms, one.time_ns, sorted(one.formats)] for one in late])
        recent.sort(key=lambda entry: entry[2])  # of one key they stay in their order: the sort is stable
        return {
            "formats": self._formats,
            "pairs": [self._pairs, self._near_pairs],
            "recent": recent[-_MOST_SAVED:],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take what `save` returned. Raises KeyError, TypeError or ValueError where it is something else."""
        self._formats = {str(form): int(count) for form, count in saved["formats"].items()}
        self._pairs, self._near_pairs = map(int, saved["pairs"])
        self._recent = {}
        for key, ms, time_ns, formats in saved["recent"]:
            requests = self._recent.setdefault(tuple(key), deque(maxlen=_MOST_PER_KEY))
            requests.append(_Request(ms, int(time_ns), set(formats)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _distance(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else abs(one - other)


def _near(one: float | None, other: float | None) -> bool:
    """Say whether two durations may well be of one request: differently placed and printed, not much apart."""
    if one is None or other is None:
        return True
    return abs(one - other) <= max(_NEAR_MS, _NEAR_SHARE * max(one, other))
