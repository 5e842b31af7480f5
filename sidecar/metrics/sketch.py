"""Durations as log-scaled buckets: a quantile summary with a hard error bound that is a native histogram as well.

Problem: quantiles must be right in the tail, forget, merge, and cost less than the line they come from.
Promise: bucket i holds the seconds in (2^((i-1)/32), 2^(i/32)], Prometheus' schema 5, so a quantile is within 1.09 % of
the nearest-rank value, merging is exact in any order, and the buckets go out as a native histogram unchanged.
Smallest and largest value are kept as they were logged, in milliseconds, and answer the first and the last rank
exactly (keyed in seconds, because a factor of 1000 is no shift of buckets; `v / 1000 * 1000 != v` for one in fifty).
A sketch that takes no more values is packed to a tenth of its memory.
Refused: rank-error sketches (t-digest, KLL), measured 100 % off at p99 of a heavy tail.
"""

from __future__ import annotations

from array import array
from math import nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCHEMA = 5
PER_DOUBLING = 1 << SCHEMA
ZERO_THRESHOLD = 2.0**-128  # seconds, client_golang's default: at or below it is the zero bucket
_GAMMA = 2.0 ** (1 / PER_DOUBLING)
# Times a bucket's upper bound in seconds: its value in milliseconds, where the relative error is smallest.
_MIDDLE = 2 / (1 + _GAMMA) * 1000


class Fraction(NamedTuple):
    """A part of 1, exact; the library's would bring 0.4 MiB of arithmetic that nobody needs here."""

    numerator: int
    denominator: int


class Sketch:
    """The durations of one stretch of time. `counts` has no entry of 0; everything agrees with `n`."""

    __slots__ = ("counts", "high", "low", "n", "zeros")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}  # bucket → how many
        self.zeros = 0
        self.n = 0
        self.low = 0.0  # milliseconds; of no meaning while n is 0, like `high`
        self.high = 0.0

    def items(self) -> Iterable[tuple[int, int]]:
        """Give (bucket, how many)."""
        return self.counts.items()

    def columns(self) -> list[list[int]]:
        """Return the buckets and how many each holds, as two lists."""
        return [list(self.counts), list(self.counts.values())]

    def copy(self) -> Sketch:
        """Return a sketch of the same values."""
        one = Sketch()
        one.counts, one.zeros, one.n, one.low, one.high = self.counts.copy(), self.zeros, self.n, self.low, self.high
        return one

    def add(self, other: Sketch | Packed) -> None:
        """Merge another sketch into this one."""
        if not other.n:
            return
        if self.n:
            self.low = min(self.low, other.low)
            self.high = max(self.high, other.high)
            add_counts(self.counts, other.items())
        else:
            self.low, self.high = other.low, other.high
            self.counts = dict(other.items())
        self.zeros += other.zeros
        self.n += other.n

    def quantiles(self, fractions: Sequence[Fraction]) -> list[float]:
        """Return the milliseconds at rank ceil(φ·n) for each φ, which must ascend; NaN when empty."""
        n = self.n
        if not n:
            return [nan] * len(fractions)
        values: list[float] = []
        buckets = iter(sorted(self.counts))
        bucket, passed = None, self.zeros
        for part in fractions:
            rank = -(-part.numerator * n // part.denominator)
            if rank <= 1:
                values.append(self.low)
            elif rank >= n:
                values.append(self.high)
            else:
                while passed < rank:
                    bucket = next(buckets)
                    passed += self.counts[bucket]
                value = 0.0 if bucket is None else 2.0 ** (bucket / PER_DOUBLING) * _MIDDLE
                values.append(min(max(value, self.low), self.high))
        return values


class Packed:
    """A sketch that takes no more values."""

    __slots__ = ("_buckets", "_counts", "high", "low", "n", "zeros")

    def __init__(self, counts: Mapping[int, int], zeros: int, low: float, high: float) -> None:
        self._buckets = array("h", counts)
        self._counts = array("Q", counts.values())
        self.zeros = zeros
        self.n = sum(self._counts) + zeros
        self.low = low
        self.high = high

    def items(self) -> Iterable[tuple[int, int]]:
        """Give (bucket, how many)."""
        return zip(self._buckets, self._counts, strict=True)

    def columns(self) -> list[list[int]]:
        """Return the buckets and how many each holds, as two lists."""
        return [self._buckets.tolist(), self._counts.tolist()]


def pack(sketch: Sketch) -> Packed:
    return Packed(sketch.counts, sketch.zeros, sketch.low, sketch.high)


def fraction(quantile: float) -> Fraction:
    """Return the quantile as it is written: 0.07 is 7/100, not the binary number a little above it."""
    written = int(f"{quantile:.15f}".replace(".", ""))
    return Fraction(written, 10**15)


def add_counts(into: dict[int, int], counts: Iterable[tuple[int, int]]) -> None:
    for bucket, count in counts:
        into[bucket] = into.get(bucket, 0) + count


def coarser(counts: Iterable[tuple[int, int]], steps: int) -> dict[int, int]:
    """Return the buckets of a schema smaller by `steps`: exact, each takes in 2^steps finer ones."""
    if not steps:
        return dict(counts)
    merged: dict[int, int] = {}
    for bucket, count in counts:
        wide = ((bucket - 1) >> steps) + 1
        merged[wide] = merged.get(wide, 0) + count
    return merged


def upper_bound(bucket: int, schema: int) -> float:
    """Return the largest number of seconds that a bucket holds."""
    return float(2.0 ** (bucket * 2.0**-schema))
