"""Records as bytes in a spool: frames that prove themselves, so that a torn or damaged one is noticed and passed over.

A frame is a header of 32 bytes, little endian (magic "SPL1" · u64 number of its first record · u32 count · u32 bytes
of payload · f64 when it was put, epoch seconds · u32 CRC-32 of all else), and a payload: a JSON array of columns (sent
time ns, own time ns where it differs, outcome, format, level, service_name, trace_id, span_id, line, violations),
gzipped where the writer chose so.
Measured per record of 360 bytes: 0.4 µs to write as it is, 1.0 µs gzipped, to a sixth; 2.5 µs to read.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from isal import igzip

from sidecar.model import Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = struct.Struct("<4sQIIdI")
HEADER_BYTES = _HEADER.size
_MAGIC = b"SPL1"
_GZIP = b"\x1f\x8b"
_OUTCOMES = (Outcome.VALID, Outcome.NORMALIZED, Outcome.INVALID)  # in frames by their index
_VALID = 0


@dataclass(slots=True, frozen=True)
class Header:
    """What a frame says of itself."""

    first: int
    count: int
    length: int  # of the payload
    put_at: float
    checksum: int

    @property
    def end(self) -> int:
        """Return the number after its last record."""
        return self.first + self.count

    @property
    def size(self) -> int:
        return HEADER_BYTES + self.length


def write(first: int, records: Sequence[Record], times: Sequence[int], put_at: float, *, compress: bool) -> bytes:
    """Return a frame."""
    payload = _pack(records, times)
    if compress:
        payload = igzip.compress(payload, 1, mtime=0)
    head = (_MAGIC, first, len(records), len(payload), put_at)
    checksum = zlib.crc32(payload, zlib.crc32(_HEADER.pack(*head, 0)))
    return _HEADER.pack(*head, checksum) + payload


def header(data: bytes) -> Header | None:
    """Return the header at the start of data, unproved; None where there is none."""
    if len(data) < HEADER_BYTES:
        return None
    magic, first, count, length, put_at, checksum = _HEADER.unpack_from(data)
    return Header(first, count, length, put_at, checksum) if magic == _MAGIC else None


def proved(head: Header, payload: bytes) -> bool:
    """Say whether header and payload are what was written."""
    packed = _HEADER.pack(_MAGIC, head.first, head.count, head.length, head.put_at, 0)
    return len(payload) == head.length and head.checksum == zlib.crc32(payload, zlib.crc32(packed))


def find(data: bytes, start: int) -> int | None:
    """Return where the next sound frame begins."""
    while (start := data.find(_MAGIC, start)) >= 0:
        head = header(data[start : start + HEADER_BYTES])
        if head is not None and proved(head, data[start + HEADER_BYTES : start + head.size]):
            return start
        start += 1
    return None


def read(payload: bytes) -> tuple[list[Record], list[int]]:
    """Return the records of a proved payload, and the times they are sent under."""
    if payload[:2] == _GZIP:
        payload = igzip.decompress(payload)  # type: ignore[no-untyped-call]
    times, own, outcomes, formats, levels, services, traces, spans, lines, violations = orjson.loads(payload)
    nothing = [None] * len(times)
    columns = zip(
        times,
        own or nothing,
        outcomes,
        formats,
        levels,
        services,
        traces,
        spans,
        lines,
        violations or nothing,
        strict=True,
    )
    records = [
        Record(
            time if mine is None else int(mine),
            _OUTCOMES[outcome],
            name,
            level,
            service,
            trace,
            span,
            line.encode(),
            tuple((field, rule) for field, rule in problems or ()),
        )
        for time, mine, outcome, name, level, service, trace, span, line, problems in columns
    ]
    return records, times


def _pack(records: Sequence[Record], times: Sequence[int]) -> bytes:
    own = [record.time_ns for record in records]
    try:
        lines = [record.line.decode() for record in records]
    except UnicodeDecodeError:
        lines = [record.line.decode(errors="replace") for record in records]
    return orjson.dumps(
        [
            times,
            # Beyond 64 bits a time is no JSON number; and as a rule it is the one it is sent under.
            None
            if own == times
            else [None if time == sent else str(time) for time, sent in zip(own, times, strict=True)],
            [_VALID if record.outcome is Outcome.VALID else _OUTCOMES.index(record.outcome) for record in records],
            [record.format for record in records],
            [record.level for record in records],
            [record.service_name for record in records],
            [record.trace_id for record in records],
            [record.span_id for record in records],
            lines,
            [record.violations for record in records] if any(record.violations for record in records) else None,
        ]
    )
