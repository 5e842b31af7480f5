"""Which records are done: a set of numbers, held as ranges because most of it is one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Ranges:
    """A set of numbers as sorted, disjoint, half-open ranges; the first starts at 0."""

    def __init__(self) -> None:
        self.ranges: list[list[int]] = [[0, 0]]

    @property
    def low(self) -> int:
        """Return the number below which all are in the set."""
        return self.ranges[0][1]

    @property
    def high(self) -> int:
        """Return the number above the highest in the set."""
        return self.ranges[-1][1]

    @property
    def count(self) -> int:
        return sum(end - start for start, end in self.ranges)

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self.ranges, number, key=lambda pair: pair[0]) - 1
        return index >= 0 and number < self.ranges[index][1]

    def covers(self, start: int, end: int) -> bool:
        index = bisect_right(self.ranges, start, key=lambda pair: pair[0]) - 1
        return index >= 0 and end <= self.ranges[index][1]

    def touches(self, start: int, end: int) -> bool:
        index = bisect_left(self.ranges, end, key=lambda pair: pair[0]) - 1
        return index >= 0 and start < self.ranges[index][1]

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        left = bisect_left(self.ranges, start, key=lambda pair: pair[1])
        right = bisect_right(self.ranges, end, key=lambda pair: pair[0])
        if left < right:
            start, end = min(start, self.ranges[left][0]), max(end, self.ranges[right - 1][1])
        self.ranges[left:right] = [[start, end]]


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending numbers as half-open ranges."""
    if isinstance(numbers, range):
        yield numbers.start, numbers.stop
        return
    start = end = -1
    for number in numbers:
        if number != end:
            if end > start:
                yield start, end
            start = number
        end = number + 1
    if end > start:
        yield start, end
