"""Records into pushes: one stream each, ascending in time, no larger than the destination takes.

Promise: `encode` and `part` are pure given what the destination has taught (`plain`, `max_bytes`, `max_line_bytes`),
so that a part of a push carries its entries exactly as the whole did. What had to be changed is counted by rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sidecar import columnar
from sidecar.loki import protobuf, stamps, streams, wire
from sidecar.model import Outcome, Push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sidecar.model import Record
    from sidecar.telemetry import Telemetry

_outcome = attrgetter("outcome")


@dataclass(slots=True)
class LokiPush(Push):
    """A push with what is needed to write a part of it again."""

    times: Sequence[int] = ()  # parallel to records, ascending
    labels: streams.Stream = field(kw_only=True)
    entries: int = 0  # more than there are records where a line is sent in parts
    plain: bool = False  # without structured metadata
    repeated: bool = False  # sent again because an answer had left it unsure


class Encoder:
    """Writes pushes for one destination and remembers what it takes."""

    def __init__(
        self,
        labels: Mapping[str, str],
        *,
        sink: str,
        telemetry: Telemetry,
        now_ns: Callable[[], int],
        max_bytes: int,
        encoding: str = "json",
    ) -> None:
        self._sink = sink
        self._telemetry = telemetry
        self._stamps = stamps.Stamps(now_ns)
        self._streams = streams.Streams(labels)
        self._body = protobuf.body if encoding == "protobuf" else wire.json_body
        self._adjustments: dict[str, int] = {}  # rule → how many telemetry knows
        self.max_bytes = min(max_bytes, wire.MAX_REQUEST_BYTES)
        self.max_line_bytes = wire.MAX_LINE_BYTES
        self.plain = False

    def settle(self, records: Sequence[Record]) -> list[int]:
        times = self._stamps.settle(records)
        self._count("past_time", self._stamps.clamped_past)
        self._count("future_time", self._stamps.clamped_future)
        self._count("same_time", self._stamps.moved)
        return times

    def snapshot(self, settled: int) -> dict[str, Any]:
        """Return the times to be remembered behind the first `settled` records, as plain JSON."""
        return self._stamps.snapshot(settled)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Remember these times. Raises StateError, changing nothing."""
        self._stamps.restore(saved)

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        pushes: list[Push] = []
        for stream, mine, settled in self._partition(records, times):
            if stream.cut:
                self._telemetry.sink_adjusted(self._sink, "label", len(mine))
            ordered, ascending = mine, sorted(settled)
            if ascending != settled:
                ordered = columnar.pick(mine, sorted(range(len(mine)), key=settled.__getitem__))
            for start, end in wire.cuts(ordered, self.max_bytes):
                push = self.push(stream, ordered[start:end], ascending[start:end], plain=self.plain)
                self.count_long(push)
                pushes.append(push)
        return pushes

    def push(self, stream: streams.Stream, records: Sequence[Record], times: Sequence[int], *, plain: bool) -> LokiPush:
        """Return one push of records that belong to one stream, in ascending order of their times."""
        made = self.entries(stream, records, times, plain=plain)
        return LokiPush(
            self._body(stream, made),
            records,
            stream.key,
            times,
            labels=stream,
            entries=len(made),
            plain=plain,
        )

    def count_long(self, push: LokiPush) -> None:
        """Count records that are sent in parts, once, when that is decided."""
        if push.entries > len(push.records):
            long = sum(len(line) > self.max_line_bytes for line in columnar.lines(push.records))
            self._telemetry.sink_adjusted(self._sink, "long_line", long)

    def entries(
        self, stream: streams.Stream, records: Sequence[Record], times: Sequence[int], *, plain: bool
    ) -> list[wire.Entry]:
        return wire.entries(stream, records, times, plain=plain, max_line_bytes=self.max_line_bytes)

    def pick(self, push: LokiPush, indexes: Sequence[int]) -> LokiPush:
        """Return a push of some records of a push, each exactly as it was there."""
        times = [push.times[index] for index in indexes]
        return self.push(push.labels, columnar.pick(push.records, indexes), times, plain=push.plain)

    def divide(self, push: LokiPush) -> list[LokiPush]:
        middle = len(push.records) // 2
        if not middle:
            return []
        return [self.pick(push, range(middle)), self.pick(push, range(middle, len(push.records)))]

    def replay(self, push: LokiPush, indexes: Sequence[int]) -> LokiPush:
        """Return a push of some records for the stream that takes what is too late for their own."""
        picked = self.pick(push, indexes)
        return self.push(self._streams.replay(push.labels), picked.records, picked.times, plain=push.plain)

    def reduced(self, push: LokiPush) -> LokiPush:
        """Return the same with as few and as short labels as tell streams apart."""
        self._telemetry.sink_adjusted(self._sink, "label", len(push.records))
        return self.push(self._streams.reduced(push.labels), push.records, push.times, plain=push.plain)

    def _partition(
        self, records: Sequence[Record], times: Sequence[int]
    ) -> Iterator[tuple[streams.Stream, Sequence[Record], list[int]]]:
        """Yield each stream with its records and their times."""
        services = set(columnar.service_names(records))
        invalid = 0 if columnar.all_valid(records) else list(map(_outcome, records)).count(Outcome.INVALID)
        if len(services) == 1 and invalid in (0, len(records)):
            yield self._stream(services.pop(), valid=not invalid, count=len(records)), records, list(times)
            return
        found: dict[str, tuple[streams.Stream, list[int]]] = {}
        for index, record in enumerate(records):
            stream = self._stream(record.service_name, valid=record.outcome is not Outcome.INVALID, count=1)
            found.setdefault(stream.key, (stream, []))[1].append(index)
        for stream, indexes in found.values():
            yield stream, columnar.pick(records, indexes), [times[index] for index in indexes]

    def _stream(self, service_name: str, *, valid: bool, count: int) -> streams.Stream:
        before = self._streams.overflowed
        stream = self._streams.of(service_name, valid=valid, count=count)
        if self._streams.overflowed > before:
            self._telemetry.label_overflowed("stream", self._streams.overflowed - before)
        return stream

    def _count(self, rule: str, total: int) -> None:
        if total > (known := self._adjustments.get(rule, 0)):
            self._telemetry.sink_adjusted(self._sink, rule, total - known)
            self._adjustments[rule] = total
