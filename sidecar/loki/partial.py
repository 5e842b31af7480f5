"""Which entries of a push that Loki took in part are missing.

Loki tells for each reason how many entries it left out and where the limit lies, in whole seconds. Entries go in
ascending order of time and every limit on time is a threshold, so the missing ones are the first or the last of them,
and the count makes that exact. Where count and limit contradict each other, what lies in the second of the limit is
`unsure`: sending it again does no harm, since Loki drops what it has.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.loki.answers import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.loki.answers import Missing

_SECOND = 10**9


@dataclass(slots=True, frozen=True)
class Sent:
    """One entry of a push as Loki counts it; a record whose line was sent in parts has several."""

    record: int  # index of its record
    time: int
    line_bytes: int
    pairs: int  # of structured metadata
    metadata_bytes: int


@dataclass(slots=True)
class Found:
    """Indexes of the records that are not stored, by what can be done about them. Disjoint."""

    too_old: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)  # a stream of their own would take them
    too_new: set[int] = field(default_factory=set)
    long: set[int] = field(default_factory=set)
    fat: set[int] = field(default_factory=set)  # too much structured metadata
    unsure: set[int] = field(default_factory=set)
    max_line_bytes: int = 0  # learned, where `long` is not empty

    def everything(self) -> set[int]:
        return self.too_old | self.late | self.too_new | self.long | self.fat | self.unsure


def sort_out(sent: Sequence[Sent], missing: Iterable[Missing]) -> Found:
    """Return which records are missing, given all entries of the push in ascending order of time."""
    found = Found()
    for part in missing:
        if part.fault is Fault.TOO_OLD:
            _first(found.too_old, found.unsure, sent, 0, part)
        elif part.fault is Fault.TOO_FAR_BEHIND:
            before = max(0, len(sent) - part.arrived) if part.arrived is not None else 0
            if _first(found.late, found.unsure, sent, before, part):
                found.too_old.update(entry.record for entry in sent[:before])
        elif part.fault is Fault.TOO_NEW:
            count = len(sent) if part.count is None else min(part.count, len(sent))
            (found.unsure if part.count is None else found.too_new).update(
                entry.record for entry in sent[len(sent) - count :]
            )
        elif part.fault is Fault.LONG_LINE:
            found.long.update(entry.record for entry in sent if entry.line_bytes > part.limit)
            found.max_line_bytes = part.limit
        elif part.fault is Fault.METADATA:
            found.fat.update(entry.record for entry in sent if entry.metadata_bytes > part.limit)
        elif part.fault is Fault.METADATA_PAIRS:
            found.fat.update(entry.record for entry in sent if entry.pairs > part.limit)
    # Loki checks age first, then the future, then the line, and names the first it finds.
    taken = found.too_old | found.late | found.unsure
    for group in (found.too_new, found.long, found.fat):
        group.difference_update(taken)
        taken |= group
    return found


def _first(lost: set[int], unsure: set[int], sent: Sequence[Sent], before: int, part: Missing) -> bool:
    """Add the entries below a limit on age, of which the first `before` were left out already; say whether exactly."""
    times = [entry.time for entry in sent]
    surely, at_most = bisect_left(times, part.limit * _SECOND), bisect_left(times, (part.limit + 1) * _SECOND)
    if part.count is not None and surely <= before + part.count <= at_most:
        lost.update(entry.record for entry in sent[before : before + part.count])
        return True
    lost.update(entry.record for entry in sent[:surely])
    unsure.update(entry.record for entry in sent[surely:at_most])
    return False
