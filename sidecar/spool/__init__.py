"""A bounded queue on disk in front of one sink: what it does not take now waits here and survives a crash.

Promise: what `append` took is found again after a `kill -9`, and after a power cut once `sync` has returned; records
come back in order, each with the time it was given first; what is done stays done across a restart, record by record;
the files never take more than `max_bytes`. A torn tail is cut off, a damaged frame is skipped, its bytes counted.
Refused: sharing the directory with another process (it is locked), and deciding what to do when there is no room.

On disk, in one directory:
`<number of the first record, 20 digits>.seg`: frames (see `frames`) one after the other. A number that is in no frame
    was delivered, or damaged beyond reading.
`cursor`: two slots of 4 KiB, written in turn; the valid one with the higher generation counts. A slot is one line:
    CRC-32 in hex, a space, and JSON `{"generation": n, "done": [[0, m], [a, b], …]}`: half-open ranges of done records.
`lock`: held by the process that uses the directory.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from sidecar.errors import StateError
from sidecar.spool import frames
from sidecar.spool.ranges import Ranges, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sidecar.model import Record
    from sidecar.telemetry import Telemetry

_SLOT = 4096
_CURSOR_BYTES = 2 * _SLOT
_MAX_RANGES = 120  # what fits a slot; what is done beyond is sent again after a crash
_LARGEST_SEGMENT = 4 << 20
_SMALLEST_SEGMENT = 16 << 10
_WORTH_DELETING = 256 << 10  # an empty queue's last segment from this size on: unlinked before it is ever written back


@dataclass(slots=True)
class Frame:
    """What one `append` took, as far as it is not done."""

    numbers: Sequence[int]  # of the records, ascending
    records: list[Record]
    times: list[int]
    put_at: float  # epoch seconds


@dataclass(slots=True)
class _Segment:
    first: int  # number of its first record
    path: Path
    size: int
    descriptor: int = -1
    dirty: bool = False


class Spool:
    """The queue of one sink. One reader, one writer, the same task or two of one event loop."""

    def __init__(
        self, directory: Path, *, max_bytes: int, telemetry: Telemetry, wall: Callable[[], float] = time.time
    ) -> None:
        """Open the directory, which may hold what a former process left. Raises StateError."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max(_SMALLEST_SEGMENT, min(_LARGEST_SEGMENT, max_bytes // 8))
        self._telemetry = telemetry
        self._wall = wall
        self._segments: deque[_Segment] = deque()
        self._done = Ranges()
        self._next = 0  # number of the next record to be written
        self._read_number = 0  # the reader goes on with the first frame at or after this
        self._read_segment: _Segment | None = None
        self._read_offset = 0
        self._generation = 0
        self._damaged: set[tuple[int, int]] = set()  # segment and offset of what was reported at the start
        self._closed = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cursor = os.open(directory / "cursor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._load()
        except BlockingIOError as error:
            raise StateError(f"the spool {directory} is in use by another process") from error
        except OSError as error:
            raise StateError(f"cannot use the spool {directory}: {error.strerror or error}") from error

    @property
    def size(self) -> int:
        """Return how many bytes the files take."""
        return sum(segment.size for segment in self._segments) + _CURSOR_BYTES

    @property
    def part_bytes(self) -> int:
        """Return how much one `append` should take at most, so that room becomes free as soon as it can."""
        return self._segment_bytes

    def fits(self, size: int) -> bool:
        """Say whether there is room for so many bytes."""
        return self.size + size <= self._max_bytes

    @property
    def crowded(self) -> bool:
        """Say whether more than half of the room is taken."""
        return self.size > self._max_bytes // 2

    @property
    def waiting_bytes(self) -> int:
        """Return how many bytes are on disk because something waits."""
        return sum(segment.size for segment in self._segments) if self.pending else 0

    @property
    def pending(self) -> int:
        """Return how many records are not done."""
        return self._next - self._done.count

    @property
    def end(self) -> int:
        """Return the number that the next record will have."""
        return self._next

    def append(self, records: Sequence[Record], times: Sequence[int], *, compress: bool) -> int | None:
        """Write records and return the number of the first; None, and nothing is written, when there is no room."""
        frame = frames.write(self._next, records, times, self._wall(), compress=compress)
        if not compress and len(frame) + _CURSOR_BYTES > self._max_bytes:  # as it is, it would never have room
            frame = frames.write(self._next, records, times, self._wall(), compress=True)
        if not self.fits(len(frame)) and not self.pending:
            self._remove_all()
        if not self.fits(len(frame)):
            return None
        try:
            segment = self._writable(len(frame))
            written = os.pwrite(segment.descriptor, frame, segment.size)
        except OSError:
            return None
        if written < len(frame):
            with suppress(OSError):
                os.ftruncate(segment.descriptor, segment.size)
            return None
        segment.size += len(frame)
        segment.dirty = True
        first = self._next
        self._next += len(records)
        return first

    def skip(self) -> None:
        """Move the reader to the end: its user holds in memory what was written so far."""
        self._read_number = self._next
        self._read_segment = self._segments[-1] if self._segments else None
        self._read_offset = self._read_segment.size if self._read_segment else 0

    def read(self) -> Frame | None:
        """Return the next frame that is not done; None at the end of what was written. Raises StateError."""
        try:
            while (segment := self._reading()) is not None:
                frame = self._read_frame(segment)
                if frame is not None:
                    return frame
        except OSError as error:
            raise StateError(f"cannot read the spool {self._directory}: {error.strerror}") from error
        self._done.add(self._read_number, self._next)  # damaged, were there any
        self._read_number = self._next
        return None

    def finish(self, numbers: Sequence[int]) -> None:
        """Note that records, in ascending order, are done for good. Raises StateError."""
        for start, end in runs(numbers):
            self._done.add(start, end)
        self._remove_finished()
        try:
            self._write_cursor()
        except OSError as error:
            raise StateError(f"cannot write {self._directory / 'cursor'}: {error.strerror}") from error

    async def sync(self) -> int:
        """Wait until what was written is on disk; return the number below which everything is. Raises StateError."""
        end = self._next
        dirty = [segment for segment in self._segments if segment.dirty]
        for segment in dirty:
            segment.dirty = False
        try:
            # Duplicates: what is synced may be finished, unlinked and closed in the meantime.
            descriptors = [os.dup(segment.descriptor) for segment in dirty]
            if descriptors:
                await asyncio.to_thread(_sync, descriptors, str(self._directory))
        except OSError as error:
            raise StateError(f"cannot write the spool {self._directory}: {error.strerror}") from error
        return end

    def sync_now(self) -> int:
        """Do as `sync` does, without giving way to others; for the end of the process. Raises StateError."""
        dirty = [segment for segment in self._segments if segment.dirty]
        for segment in dirty:
            segment.dirty = False
        try:
            _sync([os.dup(segment.descriptor) for segment in dirty], str(self._directory))
        except OSError as error:
            raise StateError(f"cannot write the spool {self._directory}: {error.strerror}") from error
        return self._next

    def close(self) -> None:
        """Release the files. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for segment in self._segments:
            if segment.descriptor >= 0:
                os.close(segment.descriptor)
        os.close(self._cursor)
        os.close(self._lock)

    # writing

    def _writable(self, size: int) -> _Segment:
        current = self._segments[-1] if self._segments else None
        if current is not None and (not current.size or current.size + size <= self._segment_bytes):
            return current
        path = self._directory / f"{self._next:020}.seg"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        segment = _Segment(self._next, path, 0, descriptor)
        self._segments.append(segment)
        return segment

    def _remove_finished(self) -> None:
        """Unlink segments in which everything is done."""
        low = self._done.low
        while len(self._segments) > 1 and self._segments[1].first <= low:
            self._remove(self._segments.popleft())
        if len(self._segments) == 1 and low == self._next and self._segments[0].size >= _WORTH_DELETING:
            self._remove(self._segments.popleft())

    def _remove_all(self) -> None:
        """Unlink what is left of a queue in which nothing waits."""
        while self._segments:
            self._remove(self._segments.popleft())

    def _remove(self, segment: _Segment) -> None:
        with suppress(FileNotFoundError):
            segment.path.unlink()
        os.close(segment.descriptor)
        if segment is self._read_segment:
            self._read_segment, self._read_offset = None, 0

    def _write_cursor(self) -> None:
        self._generation += 1
        text = orjson.dumps({"generation": self._generation, "done": self._done.ranges[:_MAX_RANGES]})
        line = b"%08x %b\n" % (zlib.crc32(text), text)
        os.pwrite(self._cursor, line.ljust(_SLOT, b" "), (self._generation % 2) * _SLOT)

    # reading

    def _reading(self) -> _Segment | None:
        """Return the segment that the reader is in; None at the end."""
        segment = self._read_segment
        if segment is None or self._read_offset >= segment.size:
            later = (other for other in self._segments if segment is None or other.first > segment.first)
            following = next(later, None)
            if following is None:
                return None
            self._read_segment, self._read_offset = following, 0
        return self._read_segment

    def _load(self) -> None:
        """Find out what a former process left, and mend it."""
        for start in (0, _SLOT):
            self._load_slot(os.pread(self._cursor, _SLOT, start))
        self._next = self._done.low
        for path in sorted(self._directory.glob("*.seg")):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            segment = _Segment(int(path.stem), path, os.fstat(descriptor).st_size, descriptor)
            self._segments.append(segment)
            self._examine(segment)
            if not segment.size:
                # Of a torn tail nothing is left. Its name is of a number that may be given again: to another file.
                self._remove(self._segments.pop())
        self._pass_over(self._done.high)  # what a torn tail took with it was done, or was never acknowledged
        self._remove_finished()

    def _pass_over(self, number: int) -> None:
        """Go on with a number; those before it that were in no frame will never be asked for."""
        self._done.add(self._next, number)
        self._next = max(self._next, number)

    def _load_slot(self, slot: bytes) -> None:
        checksum, _, text = slot.rstrip().partition(b" ")
        try:
            if int(checksum, 16) != zlib.crc32(text):
                return
            content = orjson.loads(text)
        except ValueError:
            return
        if content["generation"] > self._generation:
            self._generation = content["generation"]
            self._done = Ranges()
            for start, end in content["done"]:
                self._done.add(start, end)

    def _examine(self, segment: _Segment) -> None:
        """Check every frame of a segment and cut off a torn tail."""
        data = os.pread(segment.descriptor, segment.size, 0)
        offset = lost = 0
        while offset < len(data):
            head = frames.header(data[offset : offset + frames.HEADER_BYTES])
            if head is None or not frames.proved(head, data[offset + frames.HEADER_BYTES : offset + head.size]):
                following = frames.find(data, offset + 1)
                lost += (len(data) if following is None else following) - offset
                if following is None:
                    os.ftruncate(segment.descriptor, offset)
                    segment.size = offset
                    break
                self._damaged.add((segment.first, offset))
                offset = following
                continue
            self._pass_over(head.first)
            self._next = max(self._next, head.end)
            offset += head.size
        if lost:
            self._report_damage(segment, lost)

    def _read_frame(self, segment: _Segment) -> Frame | None:
        """Return the frame at the reader's place, None where there is nothing to do, and move on."""
        data = os.pread(segment.descriptor, frames.HEADER_BYTES, self._read_offset)
        head = frames.header(data)
        payload = b"" if head is None else os.pread(segment.descriptor, head.length, self._read_offset + len(data))
        if head is None or not frames.proved(head, payload):
            rest = os.pread(segment.descriptor, segment.size - self._read_offset, self._read_offset)
            following = frames.find(rest, 1)
            lost = len(rest) if following is None else following
            if (segment.first, self._read_offset) not in self._damaged:
                self._report_damage(segment, lost)
            self._read_offset += lost
            return None
        self._read_offset += head.size
        if head.end <= self._read_number:
            return None  # the user has it already
        self._done.add(self._read_number, head.first)  # what lay between was damaged
        self._read_number = max(self._read_number, head.end)
        if self._done.covers(head.first, head.end):
            return None
        numbers: Sequence[int] = range(head.first, head.end)
        records, times = frames.read(payload)
        if self._done.touches(head.first, head.end):
            left = [index for index, number in enumerate(numbers) if number not in self._done]
            numbers = [head.first + index for index in left]
            records, times = [records[index] for index in left], [times[index] for index in left]
        return Frame(numbers, records, times, head.put_at)

    def _report_damage(self, segment: _Segment, lost: int) -> None:
        self._telemetry.bytes_lost("spool_damaged", lost, f"{segment.path.name} holds frames that cannot be read")


def _sync(descriptors: list[int], directory: str) -> None:
    try:
        for descriptor in descriptors:
            os.fdatasync(descriptor)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
