"""The pump: read → frame → assemble → normalize → observe → hand to every sink. One task, one batch at a time.

Promise: each physical line is counted when its record leaves, so lines read = records + joined + skipped at any
moment; a batch is acknowledged by every sink before its position may be saved; a full queue stops the reading, never
the event loop: after each slice of work (at most 768 lines, 4 to 15 ms) other tasks have their turn.
At each such turn `snapshot` says exactly which lines have been counted, so that a process that goes on from a snapshot
and the metrics of the same moment counts no line twice and misses none, whatever was delivered by then.
Refused: to know how a source finds its bytes or a sink its destination.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar import acks, columnar, framing, multiline, observed, passages
from sidecar.errors import SidecarError, StateError
from sidecar.model import Chunk, Lines, Position, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sidecar.dispatch import Dispatch
    from sidecar.normalize import Normalizer
    from sidecar.sources import Source
    from sidecar.telemetry import Telemetry

_MOST_MARKS = 256  # logs that are read or not delivered yet; a source holds a few dozen at most
_SLICE = 768  # lines between two turns of the event loop: a chunk of ordinary ones, 4 ms; 15 ms of the slowest format


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How the pump cuts and waits."""

    max_line_bytes: int
    idle_flush: float  # seconds
    keep_unfinished: bool  # at the end: leave an unfinished line for the next start instead of emitting it


_Source = tuple[str, str]  # writer and stream, whose lines may belong together


@dataclass(slots=True)
class _Lane:
    """Where lines become records: lines that count, or lines that an earlier process counted."""

    normalizer: Normalizer
    counts: bool
    assemblers: dict[_Source, multiline.Assembler] = field(default_factory=dict)


class Pump:
    """Moves everything from one source to the sinks.

    After a crash the source gives again what was not delivered. What of it was counted (`observed`) takes a lane of
    its own, to the sinks only, with a normalizer made by `again` for as long as that lasts.
    """

    def __init__(
        self,
        *,
        source: Source,
        normalizer: Normalizer,
        dispatch: Dispatch,
        tracker: acks.Tracker,
        telemetry: Telemetry,
        limits: Limits,
        again: Callable[[], Normalizer] | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._source = source
        self._dispatch = dispatch
        self._tracker = tracker
        self._telemetry = telemetry
        self._limits = limits
        self._make_again = again
        self._clock = clock
        self._clock_ns = clock_ns
        self._framers: dict[tuple[str, str], framing.Framer] = {}
        self._counting = _Lane(normalizer, counts=True)
        self._repeating: _Lane | None = None
        self._repeated: list[Record] = []  # of it, for the next batch
        self._passages = passages.Passages()
        self._writer = ""  # of the log in turn
        self._log = ""  # that log: positions are in it
        self._read = 0  # where its newest chunk ended
        self._open: dict[str, tuple[str, int]] = {}  # logs that have not ended → writer, and where the newest chunk did
        self._marks: dict[str, observed.Mark] = {}  # of each log, where there are positions to come back to
        self._closed: dict[str, int] = {}  # logs whose end has been opened: their marks go when it is delivered
        self._again: set[str] = set()  # logs in which lines may come that were counted
        self._blocks: dict[_Source, Mapping[str, Any]] = {}  # the open blocks of an earlier process
        self._newest_ns = 0  # time of the newest record
        self._heard = clock()  # when bytes last came
        telemetry.lag_from(source.unread, self._lag_seconds)
        self.alive = True
        self.broken = False  # by a mistake of ours: what is counted and what is not is not known any more

    # what a checkpoint keeps

    def quiet_seconds(self) -> float:
        """Return for how long nothing has come."""
        return self._clock() - self._heard

    def snapshot(self) -> dict[str, Any]:
        """Return what has been counted, as plain JSON; exact whenever somebody else has the turn."""
        for log, end in list(self._closed.items()):
            delivered = self._tracker.watermarks.get(log)
            if delivered is not None and delivered.offset >= end:
                del self._closed[log]
                self._marks.pop(log, None)
        while len(self._marks) > _MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        pending = {log: set(mark.pending) for log, mark in self._marks.items()}
        for (_, stream), assembler in self._counting.assemblers.items():
            for log, start in assembler.pending_places:
                if log in pending:
                    pending[log].add((stream, start))
        for (log, _), framer in self._framers.items():
            mark = self._marks.get(log)
            if mark is not None:
                mark.encoding = framer.encoding
                if log not in self._again:
                    pending[log].update(line for line in framer.joining if line[1] < mark.to)
        blocks = {_named(source): one.continuing() for source, one in self._counting.assemblers.items()}
        return {
            "logs": {log: {**mark.state(), "pending": sorted(pending[log])} for log, mark in self._marks.items()},
            "blocks": {name: block for name, block in blocks.items() if block is not None},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where a snapshot stood; called before `run`. Raises StateError, changing nothing."""
        try:
            marks = {str(log): observed.Mark.from_state(mark) for log, mark in saved["logs"].items()}
            blocks: dict[_Source, Mapping[str, Any]] = {
                _source(name): dict(block) for name, block in saved["blocks"].items()
            }
            for block in blocks.values():
                multiline.Assembler(idle=0).resume(block)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the saved account of counted lines is unusable: {error!r}") from error
        self._marks = marks
        self._again = set(marks)
        self._blocks = blocks

    # reading

    async def run(self) -> None:
        """Pump until the source has ended, then flush what is unfinished. Raises SourceError."""
        try:
            while (chunk := await self._source.read(self._limits.idle_flush / 2)) is not None:
                if chunk.data or chunk.end_of_log:
                    await self._chunk(chunk)
                else:
                    await self._idle()
            await self._end()
        except (asyncio.CancelledError, SidecarError):
            raise
        except BaseException:
            self.broken = True
            raise
        finally:
            self.alive = False

    async def _chunk(self, chunk: Chunk) -> None:
        self._heard = self._clock()
        log = chunk.start.log
        self._open[log] = chunk.writer, chunk.start.offset + len(chunk.data)
        self._turn_to(log)
        key = (log, chunk.stream)
        mark = self._mark(chunk.start) if self._source.resumable else None
        framer = self._framers.get(key)
        if framer is None:
            if not chunk.continues or log not in self._again:
                self._close_repeated(self._sources(self._repeating))
            known = mark.encoding if mark is not None else None
            # An earlier process that got behind its first line has delivered the pieces in front of it.
            delivered = log in self._again and chunk.start.offset > 0
            carried = self._passages.enter(key, chunk.start.offset, chunk.continues, delivered=delivered)
            framer = self._framers[key] = framing.Framer(
                max_line_bytes=self._limits.max_line_bytes,
                encoding=framing.Encoding(known) if known else None,
                carried=carried,
                start=chunk.start.offset,
            )
        if mark is not None and (log in self._again or chunk.start.offset < mark.read):
            for data, start in mark.cuts(chunk.data, chunk.start.offset):
                await self._part_again(data, start, mark, framer, chunk.stream)
        elif chunk.data:
            self._telemetry.bytes_read(len(chunk.data))
            if mark is not None:
                mark.read = self._read
            await self._physical(framer.feed(chunk.data, chunk.start.offset), framer, chunk.stream)
        if chunk.end_of_log:
            if not chunk.final:
                # pieces of a line that the runtime finishes in the next generation of the log go with it
                start = framer.boundary
                self._passages.leave(key, framer.carry(), start)
            del self._framers[key]
            self._passages.end(log, self._read)
            await self._flush(framer, chunk.stream)
            self._again.discard(log)
            if not self._again or chunk.final:
                self._close_repeated(self._sources(self._repeating))
            if self._repeated:
                await self._logical(Lines([]), self._boundary(), self._counting)
            del self._open[log]
            if chunk.final and not any(writer == chunk.writer for writer, _ in self._open.values()):
                await self._close_writer()
            self._finish_logs()

    def _turn_to(self, log: str) -> None:
        self._log = log
        self._writer, self._read = self._open[log]

    def _turn_to_block(self, assembler: multiline.Assembler) -> None:
        """Turn to the log of a block's last line: when it is handed over, that log's position moves."""
        for log, _ in assembler.pending_places[-1:]:
            if log in self._open:
                self._turn_to(log)
            elif log in self._passages.ended:
                self._log, self._read = log, self._passages.ended[log]

    def _sources(self, lane: _Lane | None) -> list[_Source]:
        """Return the sources of a lane that the writer in turn has."""
        return [] if lane is None else [source for source in lane.assemblers if source[0] == self._writer]

    async def _close_writer(self) -> None:
        """Hand over the open blocks of a writer that is over: nothing goes on in them."""
        for source in self._sources(self._counting):
            await self._logical(self._counting.assemblers.pop(source).flush(), self._boundary(), self._counting)

    def _mark(self, start: Position) -> observed.Mark:
        mark = self._marks.get(start.log)
        if mark is None:
            mark = self._marks[start.log] = observed.Mark(start.offset, start.offset, start.offset)
        return mark

    async def _part_again(
        self, data: bytes, start: int, mark: observed.Mark, framer: framing.Framer, stream: str
    ) -> None:
        """Take a part of a chunk that an earlier process has read."""
        fresh = start >= mark.read
        if fresh:
            self._telemetry.bytes_read(len(data))
            mark.read = start + len(data)
        if self._log in self._again and start >= mark.fed:
            self._again.discard(self._log)
            mark.pending = set()  # what is left of it are pieces that the framer holds
        lines = framer.feed(data, start)
        if not fresh:
            lines.joined = 0  # pieces count with the chunk that ends their line, even while the line waits in a block
        lane = self._counting
        if self._log in self._again and lines.texts:
            lane = self._lane_of(lines, mark, framer, stream)
        await self._physical(lines, framer, stream, lane, fresh=fresh)

    def _lane_of(self, lines: Lines, mark: observed.Mark, framer: framing.Framer, stream: str) -> _Lane:
        """Return the lane of lines that all were counted or all were not: `Mark.cuts` sees to that."""
        starts = lines.starts or framer.starts()
        name = (lines.streams if isinstance(lines.streams, str) else lines.streams[0]) or stream
        if mark.counted(name, starts[0]):
            if self._repeating is None:
                make = self._make_again
                self._repeating = _Lane(make() if make is not None else self._counting.normalizer, counts=False)
            return self._repeating
        mark.pending.discard((name, starts[0]))
        return self._counting

    def _close_repeated(self, sources: Iterable[_Source]) -> None:
        """End the open blocks of counted lines: what comes next of these sources was not counted.

        A block may go on in the log that continues its own, where its lines were counted too. Without waiting, because
        the lines that come next stand between two states that a snapshot may see: the records leave with theirs.
        """
        lane = self._repeating
        if lane is None:
            return
        for source in sources:
            assembler = lane.assemblers.get(source)
            if assembler is not None and assembler.pending:
                lines = assembler.flush()
                self._passages.blocks(lines.blocks)
                made = lane.normalizer.normalize(lines).records if lines.texts else []
                self._repeated += self._dispatch.forwarded(made, counts=False)
        if not self._again and not any(one.pending for one in lane.assemblers.values()):
            self._repeating = None

    async def _flush(self, framer: framing.Framer, stream: str) -> None:
        """Hand over the unfinished lines of a framer."""
        lines = framer.flush()
        mark = self._marks.get(self._log)
        lane = self._counting
        if lines.texts and mark is not None and self._log in self._again:
            lane = self._lane_of(lines, mark, framer, stream)
            if lane.counts:
                mark.to = mark.fed = framer.complete
        await self._physical(lines, framer, stream, lane, fresh=lane.counts)

    def _finish_logs(self) -> None:
        """Open the last position of each log that is over, behind everything that was handed over of it."""
        for log, end in self._passages.over(self._pending_places(), self._framers):
            self._closed[log] = end
            self._tracker.open(Position(log, end), 0)  # reached when all of that is acknowledged

    def _pending_places(self) -> list[tuple[str, int]]:
        """Return the log and the start of each line in open blocks."""
        return [
            place
            for lane in self._lanes()
            for assembler in lane.assemblers.values()
            if assembler.pending
            for place in assembler.pending_places
        ]

    def _lanes(self) -> list[_Lane]:
        return [self._counting] if self._repeating is None else [self._repeating, self._counting]

    async def _physical(
        self, lines: Lines, framer: framing.Framer, stream: str, lane: _Lane | None = None, *, fresh: bool = True
    ) -> None:
        """Assemble physical lines, a slice at a time."""
        lane = lane or self._counting
        if lines.lost_bytes and fresh:
            cut = sum(mark == "truncated" for mark in lines.marks.values())
            self._telemetry.lines_truncated(cut, lines.lost_bytes)
        if lines.malformed and fresh:
            self._telemetry.lines_malformed(lines.malformed)
        lines.log = self._log
        self._passages.pieces(self._log, lines.spans)
        if self._source.resumable and lines.starts is None:
            lines.starts = framer.starts()
        count = len(lines.texts)
        if lane.counts and count:
            names = {lines.streams} if isinstance(lines.streams, str) else {*lines.streams}
            self._close_repeated([(self._writer, name or stream) for name in names])
        for start in range(0, count, _SLICE):
            part = lines if count <= _SLICE else lines.part(start, start + _SLICE)
            boundary = self._stand(lines, start + _SLICE, framer, stream)
            await self._assemble(part, stream, boundary, lane)
        if not count and lines.joined:
            await self._logical(lines, framer.boundary, lane)

    def _stand(self, lines: Lines, following: int, framer: framing.Framer, stream: str) -> int:
        """Note that all lines before the one at `following` count now; return before which offset none is left.

        The assembler has not seen them yet, and they are not counted yet: both happen before anybody else has a turn.
        """
        starts = lines.starts
        rest = starts[following:] if starts is not None else []
        plain = isinstance(lines.streams, str)
        boundary = framer.boundary
        if rest:
            boundary = rest[0] if plain else min(boundary, *rest)
        mark = self._marks.get(self._log)
        if mark is None or self._log in self._again:
            return boundary
        mark.to = mark.fed = rest[0] if rest and plain else framer.complete
        mark.pending = set()
        if rest and starts is not None and not plain:
            # Where pieces are mixed, a line that ends later may begin earlier than one that has been handed over.
            latest = max(starts[:following])
            mark.to = min((start for start in rest if start > latest), default=framer.complete)
            named = zip(lines.streams[following:], rest, strict=True)
            mark.pending = {(name or stream, start) for name, start in named if start < mark.to}
        return boundary

    async def _assemble(self, lines: Lines, stream: str, boundary: int, lane: _Lane) -> None:
        """Give each run of lines of one stream to the assembler of that stream, in order."""
        now = self._clock()
        reach = max(lines.starts, default=-1) if lines.starts is not None else -1
        if isinstance(lines.streams, str):
            name = lines.streams or stream
            done = self._assembler(name, lane).feed(lines, now)
        else:
            done = Lines([], stamps=[] if lines.stamps is not None else None)
            done.joined = lines.joined
            lines.joined = 0
            start = 0
            for end in [*_changes(lines.streams), len(lines.texts)]:
                run = lines.part(start, end)
                done.append(self._assembler(lines.streams[start] or stream, lane).feed(run, now))
                start = end
        await self._logical(done, boundary, lane, reach)

    def _assembler(self, stream: str, lane: _Lane) -> multiline.Assembler:
        source = self._writer, stream
        assembler = lane.assemblers.get(source)
        if assembler is None:
            assembler = lane.assemblers[source] = multiline.Assembler(idle=self._limits.idle_flush)
            if lane.counts and source in self._blocks:
                assembler.resume(self._blocks.pop(source))
        return assembler

    async def _idle(self) -> None:
        """Emit what waited long enough for a continuation that does not come."""
        now = self._clock()
        if not self._source.resumable and now - self._heard >= self._limits.idle_flush:
            # a prompt or a progress bar on a pipe: no newline, and nothing to come back to
            for (log, stream), framer in list(self._framers.items()):
                if framer.pending:
                    self._turn_to(log)
                    await self._physical(framer.flush(), framer, stream)
        for lane in self._lanes():
            for assembler in list(lane.assemblers.values()):
                self._turn_to_block(assembler)
                done = assembler.idle_flush(now)
                if done is not None:
                    await self._logical(done, self._boundary(), lane)

    async def _end(self) -> None:
        """The source has ended: nothing more will finish what is unfinished."""
        if not self._limits.keep_unfinished:
            for (log, stream), framer in list(self._framers.items()):
                self._turn_to(log)
                await self._physical(framer.flush(), framer, stream)
            for stream, carried in self._passages.waiting:
                framer = framing.Framer(max_line_bytes=self._limits.max_line_bytes, carried=carried)
                await self._physical(framer.flush(), framer, stream)
        for lane in self._lanes():
            for assembler in list(lane.assemblers.values()):
                self._turn_to_block(assembler)
                await self._logical(assembler.flush(), self._boundary(), lane)
        if self._repeated:
            await self._logical(Lines([]), self._boundary(), self._counting)
        if not self._limits.keep_unfinished:
            self._dispatch.count(self._counting.normalizer.finish())

    def _boundary(self) -> int:
        """Say up to where the log has been handed over, multi-line blocks aside."""
        open_here = [framer.boundary for (log, _), framer in self._framers.items() if log == self._log]
        return min(open_here, default=self._read)

    async def _logical(self, lines: Lines, boundary: int, lane: _Lane, reach: int = -1) -> None:
        """Turn logical lines into records, count them, and hand them to the sinks.

        Until the first sink is waited for nobody else has a turn: at any other moment all of this has happened, or
        nothing of it.
        """
        result = lane.normalizer.normalize(lines) if lines.texts else None
        self._passages.blocks(lines.blocks)
        if lane.counts and lines.physical:
            self._telemetry.lines_read(lines.physical, joined=lines.joined, blank=lines.blank)
        records: Sequence[Record]
        records, self._repeated = self._repeated, []
        if result is not None:
            if lane.counts:
                self._dispatch.count(result)
            self._newest_ns = columnar.times_ns(result.records)[-1]
            made = self._dispatch.forwarded(result.records, counts=lane.counts)
            records = [*records, *made] if records else made
        # Of a block that began in an older log, the first line in this one is what must not be passed.
        starts = [start for log, start in self._pending_places() if log == self._log]
        position = Position(self._log, self._passages.outside(self._log, min([boundary, *starts])))
        ack = self._tracker.open(position, self._dispatch.sinks, reach)
        # At once: the end of a log must not wait for another turn once what began in it is acknowledged.
        self._finish_logs()
        await self._dispatch.offer(records, ack)
        await asyncio.sleep(0)

    def _lag_seconds(self) -> float:
        """Return the age of the newest line while there is something to read."""
        if not self._newest_ns or not self._source.unread():
            return 0.0
        return max(0.0, (self._clock_ns() - self._newest_ns) / 1e9)


def _named(source: _Source) -> str:
    """Return a source as a key of plain JSON."""
    writer, stream = source
    return f"{writer}:{stream}" if writer else stream


def _source(name: str) -> _Source:
    writer, _, stream = name.rpartition(":")
    return writer, stream


def _changes(streams: list[str]) -> list[int]:
    """Return the indexes at which the stream changes."""
    return [index for index in range(1, len(streams)) if streams[index] != streams[index - 1]]
