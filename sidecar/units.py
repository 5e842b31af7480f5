"""The unit of a duration: five units in the wild, one in the metric.

Promise: a number becomes milliseconds only when its unit is known: by its text ("1.2ms"), by its key
(`latency_us`), by its format (ginzap's float is seconds), by configuration, or, for a format whose integers may be
milliseconds or nanoseconds, by what the service has shown so far. What is not known is left alone and counted.
Never decided from one small number: an unmatched route takes 50 to 300 ns.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sidecar import gotext

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY_MS = 86_400_000.0


class Unit(StrEnum):
    """What a bare number counts."""

    NS = "ns"
    US = "us"
    MS = "ms"
    S = "s"
    STICKY = "sticky"  # ms or ns: one choice per service and format, told by its numbers
    UNKNOWN = "unknown"  # configuration decides, else integers are ns (time.Duration) and floats are seconds


_PER_MS = {Unit.NS: 1e-6, Unit.US: 1e-3, Unit.MS: 1.0, Unit.S: 1e3}
_DIVISOR = {Unit.NS: 1_000_000, Unit.US: 1_000}

_SUFFIXES = (
    (re.compile(r".*(?:[_.-](?:ns|nanos|nanoseconds|nsec)|[a-z](?:Ns|Nanos|Nanoseconds))"), Unit.NS),
    (re.compile(r".*(?:[_.-](?:us|micros|microseconds|usec)|[a-z](?:Us|Micros|Microseconds))"), Unit.US),
    (re.compile(r".*(?:[_.-](?:ms|millis|milliseconds|msec)|[a-z](?:Ms|MS|Millis|Milliseconds))|.*msec"), Unit.MS),
    (re.compile(r".*(?:[_.-](?:s|sec|secs|seconds)|[a-z](?:Sec|Secs|Seconds))"), Unit.S),
)


def of_key(key: str) -> Unit | None:
    """Return the unit that a key's own suffix names (`latency_ms`, `durationSeconds`), or None."""
    for pattern, unit in _SUFFIXES:
        if pattern.fullmatch(key):
            return unit
    return None


def milliseconds(value: float, unit: Unit) -> float:
    """Convert a number to milliseconds without the noise of binary fractions: 0.00227065 s is 2.27065 ms."""
    if unit is Unit.MS:
        return value
    if isinstance(value, int):
        if unit is Unit.S:
            return value * 1000
        divisor = _DIVISOR[unit]
        return value // divisor if value % divisor == 0 else value / divisor
    return round(value * _PER_MS[unit], 9)


_NUMBER = re.compile(r"-?\d{1,18}(?P<float>(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?)", re.ASCII)
_NOT_FINITE = frozenset({"NaN", "Inf", "+Inf", "-Inf"})  # as zap and strconv write them


def number(text: str) -> float | None:
    """Return the number that a text is in Go and JSON; Python's own reading takes `1_0` and `infinity` too."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    return float(text) if match["float"] else int(text)


@dataclass(slots=True)
class Reading:
    """What a duration field said."""

    ms: float | None = None
    rejected: str = ""  # why there is no ms: a reason of telemetry.catalogue.REJECTED
    inferred: bool = False  # the unit was guessed from the number's type alone
    unit: Unit | None = None  # of a number that was rejected: whoever reads it again must not take another one


def read(value: object, unit: Unit) -> Reading | None:
    """Read a duration whose unit is settled; None when the value is no duration at all."""
    if isinstance(value, str):
        text = gotext.strip_ansi(value)
        nanoseconds = gotext.duration_ns(text)
        if nanoseconds is not None:
            return _checked(milliseconds(nanoseconds, Unit.NS))
        if text in _NOT_FINITE:
            return Reading(rejected="not_finite")
        value = number(text)
        if value is None:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Reading(rejected="not_a_number") if isinstance(value, bool) else None
    if not math.isfinite(value):
        return Reading(rejected="not_finite")
    return _checked(milliseconds(value, unit))


def _checked(ms: float) -> Reading:
    if ms < 0:
        return Reading(rejected="negative")
    if ms > DAY_MS:
        return Reading(rejected="too_long")
    return Reading(ms=ms)


_ENOUGH = 50
_SURELY_NANOSECONDS = 100_000  # 1e5 ms are 100 s, 1e5 ns are 0.1 ms: only one of them is ordinary
_FEW_MILLISECONDS = 50


class Sticky:
    """The choice between milliseconds and nanoseconds for one format's integers.

    Decided over the first 50 numbers of matched routes: one of 1e5 or more means ns; all below with at least half
    between 0 and 50 means ms; else it stays open and the next 50 are asked.
    """

    def __init__(self) -> None:
        self.unit: Unit | None = None
        self._seen = 0
        self._small = 0

    def show(self, value: int, *, matched: bool) -> Unit | None:
        """Take one more number into account and return the unit, if it is known by now."""
        if self.unit is None and matched:
            self._seen += 1
            self._small += 0 <= value <= _FEW_MILLISECONDS
            if abs(value) >= _SURELY_NANOSECONDS:
                self.unit = Unit.NS
            elif self._seen >= _ENOUGH:
                if self._small * 2 >= self._seen:
                    self.unit = Unit.MS
                self._seen = self._small = 0
        return self.unit

    def save(self) -> list[Any]:
        """Return the state as plain JSON, for `load`."""
        return [self.unit, self._seen, self._small]

    @classmethod
    def load(cls, saved: Sequence[Any]) -> Sticky:
        """Raise TypeError or ValueError where `saved` is something else."""
        unit, seen, small = saved
        sticky = cls()
        sticky.unit = None if unit is None else Unit(unit)
        sticky._seen, sticky._small = int(seen), int(small)
        return sticky
