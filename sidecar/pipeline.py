"""The pump: read → frame → assemble → normalize → observe → hand to every sink. One task, one batch at a time.

Promise: each physical line is counted when its record leaves, so lines read = records + joined + skipped at any
moment; a batch is acknowledged by every sink before its position may be saved; a full queue stops the reading, never
the event loop: after each slice of work (at most 512 lines, about 10 ms) other tasks have their turn.
Refused: to know how a source finds its bytes or a sink its destination.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sidecar import acks, framing, multiline
from sidecar.model import Batch, Chunk, Lines, Outcome, Position, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model import RequestGroup, RequestKey
    from sidecar.normalize import Normalized, Normalizer
    from sidecar.sources import Source
    from sidecar.telemetry import Telemetry

_SLICE = 512  # lines between two turns of the event loop: about 10 ms of the slowest format


class Observer(Protocol):
    """What takes the requests of a batch: durations.Requests."""

    def observe(self, groups: Mapping[RequestKey, RequestGroup]) -> None: ...

    def learn(self, method: str, template: str) -> None: ...


class Outbox(Protocol):
    """What takes a batch for one sink: delivery.Delivery."""

    async def put(self, batch: Batch) -> None: ...


class Quarantine(Protocol):
    """Where records that stay invalid go instead of the sinks: deadletter.DeadLetters."""

    def write(self, records: Sequence[Record], reason: str, detail: str = "") -> int: ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How the pump cuts and waits."""

    max_line_bytes: int
    idle_flush: float  # seconds
    keep_unfinished: bool  # at the end: leave an unfinished line for the next start instead of emitting it


class Pump:
    """Moves everything from one source to the sinks."""

    def __init__(
        self,
        *,
        source: Source,
        normalizer: Normalizer,
        observer: Observer,
        outboxes: Sequence[Outbox],
        tracker: acks.Tracker,
        telemetry: Telemetry,
        limits: Limits,
        on_invalid: str = "forward",
        quarantine: Quarantine | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._source = source
        self._normalizer = normalizer
        self._observer = observer
        self._outboxes = outboxes
        self._tracker = tracker
        self._telemetry = telemetry
        self._limits = limits
        self._on_invalid = on_invalid
        self._quarantine = quarantine
        self._clock = clock
        self._clock_ns = clock_ns
        self._framers: dict[tuple[str, str], framing.Framer] = {}
        self._assemblers: dict[str, multiline.Assembler] = {}
        self._carried: dict[str, framing.Carried] = {}
        self._log = ""  # the log of the newest chunk: positions are in it
        self._read = 0  # where that chunk ended
        self._ended: dict[str, int] = {}  # logs that will not grow, with their end, until all of them is handed over
        self._newest_ns = 0  # time of the newest record
        self._heard = clock()  # when bytes last came
        self.alive = True

    async def run(self) -> None:
        """Pump until the source has ended, then flush what is unfinished. Raises SourceError."""
        try:
            while (chunk := await self._source.read(self._limits.idle_flush / 2)) is not None:
                if chunk.data or chunk.end_of_log:
                    await self._chunk(chunk)
                else:
                    await self._idle()
                self._lag()
            await self._end()
        finally:
            self.alive = False

    async def _chunk(self, chunk: Chunk) -> None:
        self._heard = self._clock()
        self._log = chunk.start.log
        self._read = chunk.start.offset + len(chunk.data)
        key = (chunk.start.log, chunk.stream)
        framer = self._framers.get(key)
        if framer is None:
            framer = self._framers[key] = framing.Framer(
                max_line_bytes=self._limits.max_line_bytes, carried=self._carried.pop(chunk.stream, None)
            )
        if chunk.data:
            self._telemetry.bytes_read(len(chunk.data))
            lines = framer.feed(chunk.data, chunk.start.offset)
            await self._physical(lines, framer, chunk.stream)
        if chunk.end_of_log:
            # pieces of a line that the runtime finishes in the next generation of the log go with it
            self._carried[chunk.stream] = framer.carry()
            del self._framers[key]
            self._ended[self._log] = self._read
            await self._physical(framer.flush(), framer, chunk.stream)
            self._finish_logs()

    def _finish_logs(self) -> None:
        """Open the last position of each log that has ended, once nothing pending began in it."""
        begun = {each.pending_log for each in self._assemblers.values() if each.pending}
        for log in self._ended.keys() - begun:
            # it stands behind everything that was handed over of the log: reached when that is acknowledged
            self._tracker.open(Position(log, self._ended.pop(log)), 0)

    async def _physical(self, lines: Lines, framer: framing.Framer, stream: str) -> None:
        """Assemble physical lines, a slice at a time."""
        if lines.lost_bytes:
            cut = sum(mark == "truncated" for mark in lines.marks.values())
            self._telemetry.lines_truncated(cut, lines.lost_bytes)
        lines.log = self._log
        if self._source.resumable and lines.starts is None:
            lines.starts = framer.starts()
        count = len(lines.texts)
        for start in range(0, count, _SLICE):
            part = lines if count <= _SLICE else _part(lines, start, start + _SLICE)
            boundary = framer.boundary
            if start + _SLICE < count and lines.starts is not None:
                boundary = lines.starts[start + _SLICE]
            await self._assemble(part, stream, boundary)
        if not count and lines.joined:
            await self._logical(lines, framer.boundary)

    async def _assemble(self, lines: Lines, stream: str, boundary: int) -> None:
        """Give each run of lines of one stream to the assembler of that stream, in order."""
        now = self._clock()
        if isinstance(lines.streams, str):
            name = lines.streams or stream
            done = self._assembler(name).feed(lines, now)
        else:
            done = Lines([], stamps=[] if lines.stamps is not None else None)
            done.joined = lines.joined
            lines.joined = 0
            start = 0
            for end in [*_changes(lines.streams), len(lines.texts)]:
                run = _part(lines, start, end)
                _append(done, self._assembler(lines.streams[start]).feed(run, now))
                start = end
        await self._logical(done, boundary)

    def _assembler(self, stream: str) -> multiline.Assembler:
        assembler = self._assemblers.get(stream)
        if assembler is None:
            assembler = self._assemblers[stream] = multiline.Assembler(idle=self._limits.idle_flush)
        return assembler

    async def _idle(self) -> None:
        """Emit what waited long enough for a continuation that does not come."""
        now = self._clock()
        if not self._source.resumable and now - self._heard >= self._limits.idle_flush:
            # a prompt or a progress bar on a pipe: no newline, and nothing to come back to
            for (_, stream), framer in list(self._framers.items()):
                if framer.pending:
                    await self._physical(framer.flush(), framer, stream)
        for assembler in list(self._assemblers.values()):
            done = assembler.idle_flush(now)
            if done is not None:
                await self._logical(done, self._boundary())

    async def _end(self) -> None:
        """The source has ended: nothing more will finish what is unfinished."""
        if not self._limits.keep_unfinished:
            for (_, stream), framer in list(self._framers.items()):
                await self._physical(framer.flush(), framer, stream)
            for stream, carried in self._carried.items():
                framer = framing.Framer(max_line_bytes=self._limits.max_line_bytes, carried=carried)
                await self._physical(framer.flush(), framer, stream)
        for assembler in list(self._assemblers.values()):
            await self._logical(assembler.flush(), self._boundary())
        self._observe(self._normalizer.finish())

    def _boundary(self) -> int:
        """Say up to where the log has been handed over, multi-line blocks aside."""
        open_here = [framer.boundary for (log, _), framer in self._framers.items() if log == self._log]
        return min(open_here, default=self._read)

    async def _logical(self, lines: Lines, boundary: int) -> None:
        """Turn logical lines into records, count them, and hand them to the sinks."""
        if lines.physical:
            self._telemetry.lines_read(lines.physical, joined=lines.joined, blank=lines.blank)
        if lines.texts:
            result = self._normalizer.normalize(lines)
            self._observe(result)
            self._newest_ns = result.records[-1].time_ns
            records = self._forwarded(result.records)
        else:
            records = []
        parts = len(self._outboxes)
        pending = [(each.pending_log, each.pending_start) for each in self._assemblers.values() if each.pending]
        starts = [start for log, start in pending if log == self._log and start is not None]
        ack = self._tracker.open(Position(self._log, min([boundary, *starts])), parts)
        if records:
            batch = Batch(records, ack)
            for outbox in self._outboxes:
                await outbox.put(batch)
        else:
            for _ in self._outboxes:
                ack.done()
        self._finish_logs()
        await asyncio.sleep(0)

    def _observe(self, result: Normalized) -> None:
        self._telemetry.records(result.outcomes, result.formats, result.levels, result.violations)
        for reason, count in result.rejected.items():
            self._telemetry.observations_rejected(reason, count)
        if result.deduplicated:
            self._telemetry.requests_deduplicated(result.deduplicated)
        for method, template in result.routes:
            self._observer.learn(method, template)
        if result.requests:
            self._observer.observe(result.requests)

    def _forwarded(self, records: list[Record]) -> list[Record]:
        """Return what sinks are offered: everything, or everything but the records that stay invalid."""
        if self._on_invalid == "forward":
            return records
        kept = [record for record in records if record.outcome is not Outcome.INVALID]
        withheld = len(records) - len(kept)
        if withheld and self._on_invalid == "drop":
            self._telemetry.records_withheld("dropped_invalid", withheld)
        elif withheld and self._quarantine is not None:
            by_reason: dict[str, list[Record]] = {}
            for record in records:
                if record.outcome is Outcome.INVALID:
                    by_reason.setdefault(_reason(record), []).append(record)
            for reason, bad in by_reason.items():
                self._quarantine.write(bad, reason)
            self._telemetry.records_withheld("quarantined", withheld)
        return kept

    def _lag(self) -> None:
        unread = self._source.unread()
        age = max(0.0, (self._clock_ns() - self._newest_ns) / 1e9) if unread and self._newest_ns else 0.0
        self._telemetry.lag(unread, age)


def _reason(record: Record) -> str:
    return ",".join(f"{field}:{rule}" for field, rule in record.violations[:10])


def _changes(streams: list[str]) -> list[int]:
    """Return the indexes at which the stream changes."""
    return [index for index in range(1, len(streams)) if streams[index] != streams[index - 1]]


def _part(lines: Lines, start: int, end: int) -> Lines:
    """Return some of the lines; what counts for all of them stays with the first part."""
    return Lines(
        lines.texts[start:end],
        streams=lines.streams if isinstance(lines.streams, str) else lines.streams[start:end],
        log=lines.log,
        stamps=lines.stamps[start:end] if lines.stamps is not None else None,
        starts=lines.starts[start:end] if lines.starts is not None else None,
        marks={index - start: mark for index, mark in lines.marks.items() if start <= index < end},
        joined=lines.joined if start == 0 else 0,
        blank=lines.blank if start == 0 else 0,
    )


def _append(done: Lines, more: Lines) -> None:
    offset = len(done.texts)
    done.texts += more.texts
    if done.stamps is not None and more.stamps is not None:
        done.stamps += more.stamps
    done.marks.update({index + offset: mark for index, mark in more.marks.items()})
    done.kinds.update({index + offset: kind for index, kind in more.kinds.items()})
    done.joined += more.joined
    done.blank += more.blank
