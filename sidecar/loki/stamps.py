"""Under which time a record is sent to Loki.

Loki takes two entries of a stream for one when time, line and structured metadata are the same: two real lines of an
application whose clock is coarse would silently become one. And it refuses times in the future, and before 1970.
Promise: a record keeps its own time, to the nanosecond, unless it would be taken for another one (it moves by single
nanoseconds until it would not) or Loki could not store it (it gets the present time). Decided once, before the first
send, from the sequence of records alone, so that a resend repeats it.
What was sent is remembered in a bounded way, as times and checksums, never as the records themselves: what is held so
long has left the caches of the CPU by the time it is freed. As long as no time ever repeats they are those of the last
2048 records, looked at only where times go back; from the first repetition on a set of the last 32 768.
The memory outlives the process: `snapshot` tells what was known when so many records had been settled. Whoever goes on
from there gives what comes again the times it had, and to what is new none that is taken. Kept are only records that a
later one may be equal to, given that times of one kind (whole seconds, or finer) go forward: those of its last second,
or of its last 10 ms; the newest 8192 at most.
Measured per record: 0.18 µs while times differ, 0.5 µs from the first repetition on.
"""

from __future__ import annotations

import base64
import struct
from array import array
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from sidecar import columnar
from sidecar.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sidecar.model import Record

GRACE_NS = 600 * 10**9  # Loki's creation_grace_period: what is later is refused

_REMEMBERED_FINE = 2048  # records, while no time repeats
_REMEMBERED = 16384  # from then on; of hashes there are two generations, each of so many
_SAVED = 8192
_SECOND_NS = 10**9
_FINE_NS = 10**7  # so far out of order lines may be whose times are finer than a second


class _Seeds(dict[str, int]):
    """The checksum of each format."""

    def __missing__(self, name: str) -> int:
        seed = self[name] = isal_zlib.crc32(name.encode())
        return seed


@dataclass(slots=True, frozen=True, eq=False)
class _Settled:
    """Records that were settled together: parallel columns."""

    asked: array[int]  # times
    given: array[int]
    checksums: array[int]


class Stamps:
    """Gives every record its time; remembers what it gave."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._log: deque[_Settled] = deque()  # in the order of settling
        self._logged = 0  # records in it
        self._newest = 0  # of the times in it
        self._coarse = False
        self._hashes: set[int] = set()  # of the time given and the checksum of line and format
        self._older_hashes: set[int] = set()
        self._seeds = _Seeds()
        self._settled = 0
        self.clamped_past = 0  # how many were before 1970, in all
        self.clamped_future = 0
        self.moved = 0

    def settle(self, records: Sequence[Record]) -> list[int]:
        """Return the time of each record, in ns since the epoch, in the records' order."""
        times = list(columnar.times_ns(records))
        if not times:
            return times
        self._settled += len(times)
        now = self._now_ns()
        ordered = sorted(times)  # of what is in order, as a rule: cheaper than min() and max()
        if ordered[0] <= 0 or ordered[-1] > now + GRACE_NS:
            times = self._clamp(times, now)
            ordered = sorted(times)
        checksums = self._checksums(records)
        if not self._coarse:
            distinct = set(times)
            if len(distinct) == len(times) and (ordered[0] > self._newest or self._are_free(distinct)):
                self._newest = max(self._newest, ordered[-1])
                self._note(times, times, checksums)
                return times
            self._turn_coarse()
        return self._separate(times, checksums)

    def _clamp(self, times: list[int], now: int) -> list[int]:
        """Replace what Loki cannot store by the present, one nanosecond apart so that the order stays."""
        latest = now + GRACE_NS
        clamped = []
        for time in times:
            if time <= 0:
                self.clamped_past += 1
            elif time > latest:
                self.clamped_future += 1
            else:
                clamped.append(time)
                continue
            clamped.append(now)
            now += 1
        return clamped

    def _are_free(self, times: set[int]) -> bool:
        """Say whether none of these times was given, as far as is remembered."""
        return all(times.isdisjoint(one.given) for one in self._log)

    def _turn_coarse(self) -> None:
        """Keep a set from now on: times of this application repeat."""
        self._coarse = True
        for one in self._log:
            self._hashes.update(map(hash, zip(one.given, one.checksums, strict=True)))

    def _checksums(self, records: Sequence[Record]) -> list[int]:
        """Return 32 bits for each line and format; format is the only metadata the line does not tell.

        Two different lines that share them, and the time, are a nanosecond apart without need: no harm is done.
        """
        seeds = map(self._seeds.__getitem__, columnar.formats(records))
        return list(map(isal_zlib.crc32, columnar.lines(records), seeds))

    def _note(self, asked: list[int], given: list[int], checksums: list[int]) -> None:
        got = array("q", given)
        self._log.append(_Settled(got if asked is given else array("q", asked), got, array("I", checksums)))
        self._logged += len(asked)
        most = _REMEMBERED if self._coarse else _REMEMBERED_FINE
        while self._logged - len(self._log[0].asked) > most:
            self._logged -= len(self._log.popleft().asked)

    def _separate(self, times: list[int], checksums: list[int]) -> list[int]:
        """Move records until none would be taken for another."""
        keys = list(map(hash, zip(times, checksums, strict=True)))
        distinct = set(keys)
        seen, older = self._hashes, self._older_hashes
        if len(distinct) == len(keys) and distinct.isdisjoint(seen) and distinct.isdisjoint(older):
            seen |= distinct
            self._note(times, times, checksums)
        else:
            asked = times.copy()
            next_free: dict[int, int] = {}  # key → where the last search for it ended: keeps a storm of equals linear
            for index, key in enumerate(keys):
                if key in seen or key in older:
                    time = next_free.get(key, times[index])
                    moved = key
                    while moved in seen or moved in older:
                        time += 1
                        moved = hash((time, checksums[index]))
                    next_free[key] = times[index] = time
                    self.moved += 1
                    seen.add(moved)
                else:
                    seen.add(key)
            self._note(asked, times, checksums)
        if len(seen) > _REMEMBERED:
            self._older_hashes, self._hashes = seen, set()
        return times

    # what outlives the process

    def snapshot(self, settled: int) -> dict[str, Any]:
        """Return what was known when so many records had been settled, as plain JSON, as far as it matters later.

        Time asked for → [checksums of those that got it (u32, little endian, base64), [[nanoseconds they were moved by,
        checksum], …]].
        """
        newest: dict[bool, int] = {}  # of times in whole seconds, and of finer ones: their clocks may differ
        kept: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
        skipped = self._settled - settled
        for asked, given, checksum in islice(self._backwards(), skipped, skipped + _SAVED):
            whole = asked % _SECOND_NS == 0
            reach = _SECOND_NS if whole else _FINE_NS
            if asked < newest.setdefault(whole, asked) - reach:
                continue
            plain, moved = kept.setdefault(asked, ([], []))
            if given == asked:
                plain.append(checksum)
            else:
                moved.append((given - asked, checksum))
        return {
            str(asked): [base64.b64encode(struct.pack(f"<{len(plain)}I", *plain)).decode(), moved]
            for asked, (plain, moved) in kept.items()
        }

    def _backwards(self) -> Iterator[tuple[int, int, int]]:
        """Yield the time asked for, the time given, and the checksum, the newest first."""
        for one in reversed(self._log):
            yield from zip(reversed(one.asked), reversed(one.given), reversed(one.checksums), strict=True)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Know what a snapshot knew; called before anything is settled. Raises StateError, changing nothing."""
        asked: list[int] = []
        given: list[int] = []
        checksums: list[int] = []
        try:
            for name, (plain, moved) in sorted(saved.items(), key=_number):
                content = base64.b64decode(plain, validate=True)
                for checksum in struct.unpack(f"<{len(content) // 4}I", content):
                    asked.append(int(name))
                    given.append(int(name))
                    checksums.append(checksum)
                for distance, checksum in moved:
                    asked.append(int(name))
                    given.append(int(name) + distance)
                    checksums.append(checksum)
            self._note(asked, given, checksums)
        except (ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise StateError(f"the saved times are unusable: {error!r}") from error
        self._newest = max(given, default=0)
        if len(set(given)) < len(given):
            self._turn_coarse()


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])
