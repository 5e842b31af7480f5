"""Bytes become whole logical lines.

The problem: a read ends anywhere, a container runtime wraps each line and cuts long ones into pieces, an application
may write a line without end. The promise: however the bytes are cut into chunks, the same lines come out; everything
before `boundary` has been handed over; memory stays below `max_line_bytes` and one chunk, in time linear in the bytes;
no content, however broken, raises or changes how later content is read. Refused: reading, decoding text, recognizing
what a line says. Pure: no I/O, no clock.

How a log is wrapped (plain, CRI, docker json-file) is told by its first line alone and then fixed, so that a line an
application prints later cannot switch it. A plain log stays at the speed of `bytes.split`; a CRI log whose lines are
all whole is read by one regular expression per chunk; everything unusual takes the slow path, line by line.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate, repeat

import orjson

from sidecar.model import Lines, Mark


class Encoding(StrEnum):
    """How the runtime wraps lines."""

    PLAIN = "plain"
    CRI = "cri"
    DOCKER = "docker"


# What may stand around the content of one physical line. The CRI prefix is bounded by its pattern (108 bytes); docker
# cuts content at 16 KiB, at most 6 bytes each once escaped, and may add attributes.
_AROUND = {Encoding.PLAIN: 0, Encoding.CRI: 128, Encoding.DOCKER: 128 << 10}

_TIME = rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_CRI = re.compile(_TIME + rb" (stdout|stderr) ([^ \n]{1,64}) ")
_CRI_TAG = re.compile(rb"[A-Z](?::|$)")  # of a first line: no word that prose would have there
_CRI_LINES = re.compile(
    rb"^" + _TIME + rb" (stdout|stderr) ([^ \n]{1,64}) (.*)", re.MULTILINE
)  # [^\n]* takes four times as long
_DOCKER_TIME = re.compile(_TIME)
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_CR = 0x0D
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  the zone is a separate part of the pattern
_WITH_NEWLINE = (1).__add__  # called by map from C


@lru_cache(maxsize=256)  # neighbouring lines share their second: a hit costs 0.05 µs, a miss 1.5 µs
def _epoch_ns(second: bytes, zone: bytes) -> int | None:
    """Return the nanoseconds of a whole second; None for a day or hour that does not exist."""
    try:
        passed = datetime.fromisoformat(second.decode()) - _EPOCH
    except ValueError:
        return None
    seconds = passed.days * 86_400 + passed.seconds
    if zone != b"Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds += offset if zone.startswith(b"-") else -offset
    return seconds * 1_000_000_000


def _fraction_ns(digits: bytes) -> int:
    return int(digits.ljust(9, b"0"))


def _cut(head: bytes | bytearray, total: int, last: int, limit: int) -> tuple[bytes, int]:
    """Return a line's text and how many bytes it lost, given its head, its whole length and its last byte.

    One carriage return before the end belongs to the newline. The head holds `limit` bytes where there are so many.
    """
    length = total - (last == _CR)
    return bytes(head[: min(length, limit)]), max(0, length - limit)


class _Head:
    """Bytes that come in parts: the head is kept, the rest only measured. Appending is amortized, never quadratic."""

    __slots__ = ("kept", "last", "total")

    def __init__(self) -> None:
        self.kept = bytearray()
        self.total = 0
        self.last = -1  # the last byte

    def add(self, part: bytes, cap: int, total: int, last: int) -> None:
        """Append a part of `total` bytes, of which `part` is the head and `last` the last byte."""
        if not total:
            return
        room = cap - len(self.kept)
        if room > 0:
            self.kept += part[:room]
        self.total += total
        self.last = last


class _Joining:
    """A line whose last piece has not come."""

    __slots__ = ("carried", "head", "pieces", "stamp", "start")

    def __init__(self, stamp: int, start: int) -> None:
        self.carried = False  # begun in an earlier generation
        self.head = _Head()
        self.pieces = 0
        self.stamp = stamp
        self.start = start


class Carried:
    """Pieces that one generation of a log began and the next one finishes. Opaque, but false where there are none."""

    __slots__ = ("joining",)

    def __bool__(self) -> bool:
        return bool(self.joining)

    def __init__(self, joining: dict[str, _Joining]) -> None:
        self.joining = joining


class Framer:
    """Finds the logical lines of one log. A new generation of a file gets a new one.

    `encoding` fixes what the first line would tell, for reading that begins in the middle of a log.
    `carried` are the pieces that the log's previous generation left unfinished. `start` is where reading begins.
    """

    def __init__(
        self,
        *,
        max_line_bytes: int,
        encoding: Encoding | None = None,
        carried: Carried | None = None,
        start: int = 0,
    ) -> None:
        if max_line_bytes < 1:
            raise ValueError(f"max_line_bytes is {max_line_bytes}: expected at least 1")
        self.encoding = encoding
        self._limit = max_line_bytes
        self._held = _Head()  # the physical line whose newline has not come
        self._held_start = start
        self._end: int | None = None  # behind everything fed; None before the first feed
        self._joining: dict[str, _Joining] = carried.joining if carried is not None else {}  # by stream
        for line in self._joining.values():  # what they hold up here is this log, from its start
            line.start = start
            line.carried = True
        self._stamp = 0  # of the newest line, for a malformed one behind it
        # Where the lines of the last feed began, in what costs nothing to keep: see `starts`.
        self._starts: list[int] | None = []
        self._first_start: int | None = None
        self._split: tuple[list[int], int] = ([], 0)  # lengths of lines, where the first one begins

    @property
    def pending(self) -> int:
        """How many bytes are held; a piece counts one more, so that an empty one is not nothing."""
        return len(self._held.kept) + sum(len(line.head.kept) + line.pieces for line in self._joining.values())

    @property
    def boundary(self) -> int:
        """The offset behind the last complete logical line: everything before it has been handed over.

        Where two streams share a log, lines behind it may have been handed over too: see `boundary_of`.
        """
        return min((line.start for line in self._joining.values()), default=self._held_start)

    @property
    def complete(self) -> int:
        """The offset behind the last whole physical line; pieces before it may still wait for their end."""
        return self._held_start

    @property
    def joining(self) -> list[tuple[str, int]]:
        """The lines whose last piece has not come: stream and start."""
        return [(stream, line.start) for stream, line in self._joining.items()]

    @property
    def carries(self) -> bool:
        """Whether a line that an earlier generation began still waits for its end."""
        return any(line.carried for line in self._joining.values())

    def boundary_of(self, stream: str) -> int:
        """Return the offset before which everything of one stream has been handed over, and behind which nothing."""
        line = self._joining.get(stream)
        return self._held_start if line is None else line.start

    def feed(self, data: bytes, start: int) -> Lines:
        """Return the lines that end in `data`, whose offset in the log is `start`. Chunks are contiguous."""
        self._expect(start)
        self._end = start + len(data)
        self._starts = []
        lines = Lines([]) if self.encoding in (None, Encoding.PLAIN) else _columns()
        newline = data.find(b"\n")
        if newline < 0:
            self._hold(data)
            return lines
        self._first_start = None
        if self._held.total or self.encoding is None:
            self._hold(data[:newline])
            first, first_start, self._held = self._held, self._held_start, _Head()
            if self.encoding is None:
                self.encoding = self._detect(first)
                lines = Lines([]) if self.encoding is Encoding.PLAIN else _columns()
            if self.encoding is Encoding.PLAIN:
                self._first_start = first_start
            self._physical(lines, first.kept, first.total, first.last, first_start)
            data = data[newline + 1 :]
            start += newline + 1
        if self.encoding is Encoding.PLAIN:
            rest = self._plain(lines, data, start)
        else:
            rest = self._wrapped(lines, data, start)
            self._starts = lines.starts
        self._held_start = self._end - len(rest)
        self._hold(rest)
        return lines

    def flush(self) -> Lines:
        """Hand over what has no end, marked partial: nothing more of it will come. What is fed later is a new line."""
        lines = _columns()
        held, self._held = self._held, _Head()
        if held.total:
            if self.encoding is None:
                self.encoding = self._detect(held)
            self._physical(lines, held.kept, held.total, held.last, self._held_start)
            if lines.texts:
                lines.marks.setdefault(0, Mark.PARTIAL)
        self._held_start = self._end or 0
        for stream, line in self._joining.items():  # in the order in which they began
            lines.marks[len(lines.texts)] = Mark.PARTIAL
            self._finish(lines, stream, line)
        self._joining.clear()
        self._starts = lines.starts
        if self.encoding is Encoding.PLAIN or not lines.texts:
            lines.streams, lines.stamps = "", None
        return lines

    def carry(self) -> Carried:
        """Give up the pieces whose line has no end yet, for the Framer of the next generation.

        A runtime may begin a line in a file and finish it in the file that replaces it. `boundary` passes these
        pieces; whoever carries them must not forget them.
        """
        carried, self._joining = Carried(self._joining), {}
        return carried

    def starts(self) -> list[int]:
        """Return where each line of the last `feed` or `flush` begins in the log. Worked out only when asked."""
        if self._starts is None:
            lengths, start = self._split
            self._starts = list(accumulate(map(_WITH_NEWLINE, lengths), initial=start))
            self._starts.pop()  # of the rest
            if self._first_start is not None:
                self._starts.insert(0, self._first_start)
        return self._starts

    def _expect(self, start: int) -> None:
        if self._end is None:
            self._held_start = start
            for line in self._joining.values():
                line.start = start
        elif start != self._end:
            raise ValueError(f"chunk begins at {start}: expected {self._end}; chunks of one log are contiguous")

    def _cap(self, first: int) -> int:
        """Return how much of a physical line is kept; before the encoding is known, by the line's first byte."""
        encoding = self.encoding
        if encoding is None:
            encoding = Encoding.DOCKER if first == ord("{") else Encoding.CRI if 48 <= first < 58 else Encoding.PLAIN
        return self._limit + _AROUND[encoding]

    def _hold(self, part: bytes) -> None:
        if part:
            self._held.add(part, self._cap((self._held.kept or part)[0]), len(part), part[-1])

    def _detect(self, line: _Head) -> Encoding:
        match = _CRI.match(line.kept)
        if match and _CRI_TAG.match(match[5]) and _epoch_ns(match[1], match[3]) is not None:
            return Encoding.CRI
        if line.kept.startswith(b"{") and len(line.kept) == line.total and _docker(bytes(line.kept)):
            return Encoding.DOCKER
        return Encoding.PLAIN

    # plain

    def _plain(self, lines: Lines, data: bytes, start: int) -> bytes:
        """Split; return the rest behind the last newline. No work per line but where a line is over-long."""
        texts = data.split(b"\n")
        rest = texts.pop()
        lengths = list(map(len, texts))
        self._split, self._starts = (lengths, start), None
        if b"\r" in data:  # to look for the two together would cost more than the split
            texts = list(map(bytes.removesuffix, texts, repeat(b"\r")))
        before = len(lines.texts)
        if len(data) > self._limit and texts and max(lengths) > self._limit:
            for index, text in enumerate(texts):
                if len(text) > self._limit:
                    texts[index] = text[: self._limit]
                    lines.marks[before + index] = Mark.TRUNCATED
                    lines.lost_bytes += len(text) - self._limit
        if before:
            texts[:0] = lines.texts
        lines.texts = texts
        return rest

    # CRI and docker

    def _wrapped(self, lines: Lines, data: bytes, start: int) -> bytes:
        newline = data.rfind(b"\n")
        if newline < 0:
            return data
        pieces = data[:newline].split(b"\n")
        if self.encoding is not Encoding.CRI or not self._well_formed(lines, data, pieces, start):
            cap = self._cap(0)
            for piece in pieces:
                self._physical(lines, piece[:cap], len(piece), piece[-1] if piece else -1, start)
                start += len(piece) + 1
        return data[newline + 1 :]

    def _well_formed(self, lines: Lines, data: bytes, pieces: list[bytes], start: int) -> bool:
        """Read CRI lines at once; say no, having done nothing, where one is malformed or too long for this."""
        found = _CRI_LINES.findall(data, 0, data.rfind(b"\n"))
        if len(found) != len(pieces):
            return False
        seconds, fractions, zones, streams, tags, texts = zip(*found, strict=True)
        if len(data) > self._limit and max(map(len, texts)) > self._limit:
            return False
        bases: dict[tuple[bytes, bytes], int] = {}
        for moment in set(zip(seconds, zones, strict=True)):
            base = _epoch_ns(*moment)
            if base is None:
                return False
            bases[moment] = base
        stamps = [
            bases[second, zone] + int(digits.ljust(9, b"0"))
            for second, zone, digits in zip(seconds, zones, fractions, strict=True)
        ]
        starts = list(accumulate(map(_WITH_NEWLINE, map(len, pieces)), initial=start))
        starts.pop()
        names = [_STREAMS[stream] for stream in streams]
        self._stamp = stamps[-1]
        if not self._joining and tags.count(b"F") == len(tags):
            assert isinstance(lines.streams, list)
            assert lines.stamps is not None
            assert lines.starts is not None
            lines.texts += map(bytes.removesuffix, texts, repeat(b"\r")) if b"\r" in data else texts
            lines.streams += names
            lines.stamps += stamps
            lines.starts += starts
            return True
        for text, stream, stamp, tag, offset in zip(texts, names, stamps, tags, starts, strict=True):
            self._piece(lines, stream, stamp, offset, text, len(text), text[-1] if text else -1, ends=not _partial(tag))
        return True

    def _physical(self, lines: Lines, head: bytes | bytearray, total: int, last: int, start: int) -> None:
        """Read one physical line of any encoding, of which only the head may be here."""
        if self.encoding is Encoding.CRI:
            match = _CRI.match(head)
            base = _epoch_ns(match[1], match[3]) if match else None
            if match and base is not None:
                self._stamp = base + _fraction_ns(match[2] or b"")
                size = total - match.end()
                content = bytes(head[match.end() :])
                ends = not _partial(match[5])
                self._piece(lines, _STREAMS[match[4]], self._stamp, start, content, size, last, ends=ends)
                return
        elif self.encoding is Encoding.DOCKER:
            found = _docker(bytes(head)) if len(head) == total else None
            if found is not None:
                content, stream, self._stamp = found
                ends = content.endswith(b"\n")
                content = content[:-1] if ends else content
                last = content[-1] if content else -1
                self._piece(lines, stream, self._stamp, start, content, len(content), last, ends=ends)
                return
        else:
            self._emit(lines, "", 0, start, *_cut(head, total, last, self._limit))
            return
        lines.malformed += 1
        self._emit(lines, "", self._stamp, start, *_cut(head, total, last, self._limit))

    def _piece(
        self, lines: Lines, stream: str, stamp: int, start: int, content: bytes, total: int, last: int, *, ends: bool
    ) -> None:
        """Take one piece of a logical line, which mostly is all of it."""
        line = self._joining.get(stream)
        if line is None:
            if ends:
                self._emit(lines, stream, stamp, start, *_cut(content, total, last, self._limit))
                return
            line = self._joining[stream] = _Joining(stamp, start)
        line.head.add(content, self._limit, total, last)
        line.pieces += 1
        if ends:
            del self._joining[stream]
            lines.spans.append((line.start, start))
            self._finish(lines, stream, line)

    def _finish(self, lines: Lines, stream: str, line: _Joining) -> None:
        lines.joined += line.pieces - 1
        head = line.head
        self._emit(lines, stream, line.stamp, line.start, *_cut(head.kept, head.total, head.last, self._limit))

    def _emit(self, lines: Lines, stream: str, stamp: int, start: int, text: bytes, lost: int) -> None:
        if lost:
            lines.marks[len(lines.texts)] = Mark.TRUNCATED
            lines.lost_bytes += lost
        lines.texts.append(text)
        if isinstance(lines.streams, list) and lines.stamps is not None and lines.starts is not None:
            lines.streams.append(stream)
            lines.stamps.append(stamp)
            lines.starts.append(start)


def _partial(tag: bytes) -> bool:
    """Say whether a piece is not the last of its line: only the first tag counts, and an unknown one does not."""
    return tag == b"P" or tag.startswith(b"P:")


def _columns() -> Lines:
    return Lines([], streams=[], stamps=[], starts=[])


def _docker(line: bytes) -> tuple[bytes, str, int] | None:
    """Return content, stream and time of a json-file line; None where it is none."""
    try:
        parsed = orjson.loads(line)
    except ValueError:
        if b"\\u" not in line:
            return None
        try:
            parsed = json.loads(line.decode())  # takes lone surrogates, which orjson refuses
        except (ValueError, RecursionError):
            return None
    if not isinstance(parsed, dict) or len(parsed) != 3 + ("attrs" in parsed):
        return None
    log, stream, time = parsed.get("log"), parsed.get("stream"), parsed.get("time")
    if not isinstance(log, str) or stream not in ("stdout", "stderr") or not isinstance(time, str):
        return None
    match = _DOCKER_TIME.fullmatch(time.encode("ascii", "replace"))
    base = _epoch_ns(match[1], match[3]) if match else None
    if match is None or base is None:
        return None
    try:
        content = log.encode()
    except UnicodeEncodeError:
        content = log.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return content, stream, base + _fraction_ns(match[2] or b"")
