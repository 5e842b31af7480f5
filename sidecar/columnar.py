"""Records of one batch as columns, where all of them are of one format and valid as written: what most batches are.

Problem: an object for each record costs as much as parsing its line does, once all of its attributes have been read.
Promise: to whoever reads it, this is a sequence of records. They are made when somebody asks for one, all of them and
once: whoever tells records apart by identity may, in parts, picks and joined batches too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, overload

from sidecar.model import Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_line = attrgetter("line")
_time = attrgetter("time_ns")
_format = attrgetter("format")
_service_name = attrgetter("service_name")


class Records(Sequence[Record]):
    """Valid records of one format. No column is ever changed: batches share them."""

    def __init__(
        self,
        name: str,
        times_ns: Sequence[int],
        levels: Sequence[str],
        service_names: Sequence[str],
        trace_ids: Sequence[str],
        span_ids: Sequence[str],
        lines: Sequence[bytes],
        *,
        rows: Callable[[], Sequence[Record]] | None = None,
    ) -> None:
        """Take `rows`: what gives the records, where others than these columns know them."""
        self.format = name
        self.times_ns = times_ns
        self.levels = levels
        self.service_names = service_names
        self.trace_ids = trace_ids
        self.span_ids = span_ids
        self.lines = lines
        self._others = rows

    @cached_property
    def rows(self) -> Sequence[Record]:
        if self._others is not None:
            return self._others()
        times, levels, services, trace_ids, span_ids, texts = self.columns
        valid, name = repeat(Outcome.VALID), repeat(self.format)
        return list(map(Record, times, valid, name, levels, services, trace_ids, span_ids, texts))

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        return self.times_ns, self.levels, self.service_names, self.trace_ids, self.span_ids, self.lines

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        return self._each(itemgetter(index)) if isinstance(index, slice) else self.rows[index]

    def pick(self, indexes: Sequence[int]) -> Records:
        """Return some of the records, or all in another order."""
        # of a single index itemgetter makes no tuple
        return self._each(itemgetter(*indexes)) if len(indexes) > 1 else self[indexes[0] : indexes[0] + 1]

    def _each(self, take: Callable[[Sequence[Any]], Any]) -> Records:
        return Records(self.format, *map(take, self.columns), rows=lambda: take(self.rows))


def all_valid(records: Sequence[Record]) -> bool:
    """Say whether it is known without looking that all of them are valid as written."""
    return isinstance(records, Records)


def lines(records: Sequence[Record]) -> Sequence[bytes]:
    """Return the line of each record."""
    return records.lines if isinstance(records, Records) else list(map(_line, records))


def times_ns(records: Sequence[Record]) -> Sequence[int]:
    """Return the time of each record."""
    return records.times_ns if isinstance(records, Records) else list(map(_time, records))


def formats(records: Sequence[Record]) -> Iterable[str]:
    """Give the format of each record."""
    return repeat(records.format, len(records)) if isinstance(records, Records) else map(_format, records)


def service_names(records: Sequence[Record]) -> Sequence[str]:
    """Return the service name of each record."""
    return records.service_names if isinstance(records, Records) else list(map(_service_name, records))


def pick(records: Sequence[Record], indexes: Sequence[int]) -> Sequence[Record]:
    """Return some of the records, or all in another order."""
    if isinstance(records, Records) and indexes:
        return records.pick(indexes)
    return [records[index] for index in indexes]


def join(batches: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Return the records of several batches as one."""
    if len(batches) == 1:
        return batches[0]
    parts = [batch for batch in batches if isinstance(batch, Records)]
    if len(parts) < len(batches) or len({part.format for part in parts}) != 1:
        return [*chain.from_iterable(batches)]
    columns = (list(chain.from_iterable(each)) for each in zip(*(part.columns for part in parts), strict=True))
    return Records(parts[0].format, *columns, rows=lambda: [*chain.from_iterable(part.rows for part in parts)])
