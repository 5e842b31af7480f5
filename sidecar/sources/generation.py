"""A generation: one file under one content, held open, with its identity and how far it was read.

The problem: a log's name says nothing about which bytes are behind it. Rotation gives the name to another file,
truncation empties a file under the same name, and a deleted file's inode is handed out again (20 of 20 times on ext4).
The promise: a descriptor that is held keeps the bytes and the inode; every read first proves that what lies just
before the offset is still what was read there; a file met again is the known one only if its head and the mark
behind the offset say so. Another file that has the known one's name and content (an editor wrote it and renamed it over
the log) is taken for its continuation only where these bytes tell a time: a program that starts anew may write the same
banner again, which would be lost, and no start writes the same time twice. Without a time it is read from its start,
and its lines come twice. Refused: opening by name to go on reading, and trusting an inode alone.
Which generation is read when is `succession`'s affair; where they lie in a directory, `siblings`'.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from sidecar.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model import Position

CHUNK_BYTES = 256 * 1024  # one turn: more would starve other generations and the event loop

PROOF_BYTES = 256  # of the head, and of the mark behind the offset

_SAMPLE_BYTES = 64 * 1024  # of either end, to know a file that was written anew with the content of another
_TIME = re.compile(rb"\d\d:\d\d:\d\d|\b(?:ts|time|timestamp)\"?[:=] ?\"?\d{10}")  # of day, or since the epoch


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a file the one we know: where it lies, and what it says in two places.

    Content is held as digests, because a checkpoint must not hold a log line's secrets. Gin's debug banner makes the
    heads of many logs equal, so a head alone proves nothing; the mark at `end`, how far the file was read, does.
    """

    device: int
    inode: int
    head_bytes: int
    head: str
    end: int
    mark: str
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result, head: bytes, mark: bytes, end: int) -> Self:
        """Identify a file by what was read of it."""
        place = (status.st_dev, status.st_ino)
        return cls(*place, len(head), _digest(head), end, _digest(mark), status.st_mtime_ns)

    @property
    def place(self) -> tuple[int, int]:
        """Where it lies; the kernel reuses it, so it is a hint."""
        return self.device, self.inode

    def same_content(self, descriptor: int) -> bool:
        """Whether the file behind `descriptor` begins as this one did and reads the same just before `end`."""
        head, mark = self._proof(descriptor)
        return self.begins(head) and self.ends(mark)

    def continued_by(self, descriptor: int) -> bool:
        """Whether another file under this one's name has its content and goes on: what proves it tells a time."""
        return self.same_content(descriptor) and any(map(_TIME.search, self._proof(descriptor)))

    def _proof(self, descriptor: int) -> tuple[bytes, bytes]:
        behind = min(PROOF_BYTES, self.end)
        return os.pread(descriptor, self.head_bytes, 0), os.pread(descriptor, behind, self.end - behind)

    def begins(self, head: bytes) -> bool:
        """Whether content that begins so, and perhaps goes on, begins as this does."""
        return len(head) >= self.head_bytes and _digest(head[: self.head_bytes]) == self.head

    def ends(self, mark: bytes) -> bool:
        """Whether this is what stands just before `end`."""
        return _digest(mark) == self.mark

    def headed(self, head: bytes) -> Identity:
        """Return who this is when it begins so, of which less had been read."""
        return replace(self, head_bytes=len(head), head=_digest(head))

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps; `from_state` reads it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """Read what `state` wrote. Raises ValueError where it is something else."""
        return cls(
            device=number(state, "device"),
            inode=number(state, "inode"),
            head_bytes=number(state, "head_bytes"),
            head=str(state.get("head")),
            end=number(state, "end"),
            mark=str(state.get("mark")),
            modified_ns=number(state, "modified_ns"),
        )


@dataclass(frozen=True, slots=True)
class View:
    """What a checkpoint keeps of a generation: who it was at one moment, and where it stood."""

    identity: Identity
    log: str
    path: str
    origin: int
    told: int | None
    instance: int
    size: int  # once it is closed: how long it is, or says it is
    closed: bool

    def offset(self, delivered: Mapping[str, Position]) -> int:
        """Return up to where it is delivered."""
        position = delivered.get(self.log)
        return self.origin if position is None else position.offset

    def done(self, delivered: Mapping[str, Position]) -> bool:
        """Whether all of it is delivered, and it will not be met again."""
        return self.closed and self.told is not None and self.offset(delivered) >= self.told

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        return {
            **self.identity.state(),
            "log": self.log,
            "path": self.path,
            "offset": self.offset(delivered),
            "ended": self.told is not None,
        }


class Generation:
    """One held file and how far it was read. The times are `succession`'s, on its clock."""

    def __init__(self, descriptor: int, path: str, log: str, offset: int = 0, *, hollow: bool = False) -> None:
        """Take over `descriptor`. `hollow` says that a writer may have left a hole of NULs before its next byte."""
        self.descriptor = descriptor  # -1 once it is closed
        self.path = path  # the name it was found under; for people
        self.log = log  # the name its positions carry
        self.origin = offset  # where reading began in this process
        self.offset = offset  # the next byte to read
        self.limit: int | None = None  # where reading ends, once the source was told to stop
        self.nuls = 0  # skipped at the start of a hollow file, and not yet counted
        self.shrunk = 0  # bytes that were seen, never read, and are gone; not yet counted

        self.superseded_at: float | None = None  # since when a successor is known
        self.owed = 0  # how long it was then
        self.end_met_at: float | None = None  # the first time at its end since then, without a byte after it
        self.grew_at = 0.0  # the last byte
        self.looked_at = 0.0
        self.settled = False  # its successor may be read; late bytes are still welcome
        self.complete = False  # cannot grow: a copy, or content that is gone
        self.archived = False  # compressed, which happens to a file that has a successor
        self.begun = False  # something was told of it
        self.told: int | None = None  # where its end was told; it may grow all the same
        self.late = False  # what came behind an end that was told
        self.severed = False  # what it leaves unfinished, nothing finishes
        self.continued = False  # the one behind it has begun
        self.instance = 0  # which start of the container wrote it; 0 where nobody counts
        self.behind: Generation | None = None  # once closed: the one before it that was still held
        self.proven: Identity | None = None  # what an earlier process had read, which may be more

        status = os.fstat(descriptor)
        self.place = (status.st_dev, status.st_ino)
        self.size = status.st_size
        self.links = status.st_nlink
        self.modified_ns = status.st_mtime_ns
        self._head = os.pread(descriptor, min(PROOF_BYTES, offset), 0)
        behind = min(PROOF_BYTES, offset)
        self._tail = os.pread(descriptor, behind, offset - behind)
        self._hollow = hollow
        self._view: View | None = None  # the last one

    @property
    def identity(self) -> Identity:
        """Who this is, by as much as anybody has read of it: after a restart that is more than was delivered."""
        proven = self.proven
        if proven is not None and (proven.end > self.offset or not self._at_offset):
            return replace(proven, device=self.place[0], inode=self.place[1], modified_ns=self.modified_ns)
        return Identity(
            *self.place,
            head_bytes=len(self._head),
            head=_digest(self._head),
            end=self.offset,
            mark=_digest(self._tail),
            modified_ns=self.modified_ns,
        )

    @property
    def recognized(self) -> Identity:
        """Who this is, by how the file begins even where nobody has read that: for who comes when it is compressed."""
        identity = self.identity
        if self.descriptor < 0 or self.archived or identity.head_bytes >= PROOF_BYTES:
            return identity
        head = os.pread(self.descriptor, PROOF_BYTES, 0)
        return identity.headed(head) if identity.begins(head) else identity

    def view(self, *, recognized: bool = False) -> View:
        """Return what a checkpoint keeps of it now."""
        closed, last = self.descriptor < 0, self._view
        if closed and last is not None and last.closed and last.told == self.told:
            return last
        identity = self.recognized if recognized else self.identity
        size = self.whole() if closed else 0
        self._view = View(identity, self.log, self.path, self.origin, self.told, self.instance, size, closed)
        return self._view

    @property
    def _at_offset(self) -> bool:
        """Whether the bytes before the offset have been seen by this process."""
        return True

    @property
    def ended(self) -> bool:
        return self.told is not None

    def look(self) -> int:
        """Return how many bytes wait, as of now."""
        if self.descriptor < 0:
            return 0
        status = os.fstat(self.descriptor)
        self.links = status.st_nlink
        return max(0, status.st_size - self.offset)

    def whole(self) -> int:
        """Return how long the content is, as of now."""
        return self.offset + self.look()

    def proves(self) -> bool:
        """Whether the content is still the one that was read."""
        if self.descriptor < 0:
            return True
        behind = len(self._tail)
        if not behind:
            seen, size = self.size, os.fstat(self.descriptor).st_size
            self.size = max(seen, size)
            return size >= seen
        return os.pread(self.descriptor, behind, self.offset - behind) == self._tail

    def read(self) -> bytes | None:
        """Return what comes next, at most one turn's worth; nothing at the end; None if the content was replaced.

        The proof and the new bytes come from one `pread`, so that no truncation slips in between. A file that is
        emptied and written again past our offset between two looks is found out by nothing else.
        """
        if self.descriptor < 0:
            return b""
        status = os.fstat(self.descriptor)
        self.links = status.st_nlink
        end = status.st_size if self.limit is None else min(self.limit, status.st_size)
        if self._hollow:
            self._jump(status.st_size)
        behind = len(self._tail)
        ahead = max(0, min(CHUNK_BYTES, end - self.offset))
        got = os.pread(self.descriptor, behind + ahead, self.offset - behind)
        seen, self.size = self.size, status.st_size
        if not got.startswith(self._tail) or (not self._tail and self.size < seen):
            self.shrunk += max(0, seen - self.offset)  # a copy may still have them
            return None
        self.shrunk += max(0, seen - self.size)
        self.modified_ns = status.st_mtime_ns
        data = got[behind:]
        if len(self._head) == self.offset:
            self._head += data[: PROOF_BYTES - len(self._head)]
        self.offset += len(data)
        self._tail = got[-PROOF_BYTES:]
        return self._fill(data) if self._hollow else data

    def replaced(self, log: str) -> Generation:
        """Hand the descriptor over to the content that took this one's place; what is left here is the memory."""
        descriptor, self.descriptor = self.descriptor, -1
        self.size = self.offset
        self.complete = True
        new = Generation(descriptor, self.path, log, hollow=True)
        new.instance = self.instance
        return new

    def adopt(self, descriptor: int, path: str) -> None:
        """Go on in a copy of this content, which does not grow."""
        status = os.fstat(descriptor)
        self.descriptor = descriptor
        self.path = path
        self.place = (status.st_dev, status.st_ino)
        self.size = status.st_size
        self.links = status.st_nlink
        self.limit = None
        self.complete = True

    def is_replaced_by(self, descriptor: int) -> bool:
        """Whether this file has no name any more, and the other was made from it: its content, and perhaps more."""
        if self.descriptor < 0 or self.ended or not self.offset or os.fstat(self.descriptor).st_nlink:
            return False
        end = os.fstat(self.descriptor).st_size
        if end < self.offset or not self.proves() or not same_beginning(self.descriptor, descriptor, end):
            return False
        return any(
            _TIME.search(os.pread(self.descriptor, min(_SAMPLE_BYTES, end), begin))
            for begin in (0, max(0, end - _SAMPLE_BYTES))
        )

    def move(self, descriptor: int, path: str) -> None:
        """Go on at the same offset in the file that took this one's place."""
        status = os.fstat(descriptor)
        os.close(self.descriptor)
        self.descriptor = descriptor
        self.path = path
        self.place = (status.st_dev, status.st_ino)
        self.links = status.st_nlink
        self.modified_ns = status.st_mtime_ns

    def reopen(self) -> bool:
        """Go on through another descriptor where this one went bad; say whether the path still names the file."""
        try:
            descriptor = open_log(self.path)
        except OSError:
            return False
        status = os.fstat(descriptor)
        if self.archived or (status.st_dev, status.st_ino) != self.place or not self.identity.same_content(descriptor):
            os.close(descriptor)
            return False
        self.move(descriptor, self.path)
        return True

    def close(self) -> None:
        """Release the descriptor; the identity stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self.size = self.offset

    def _jump(self, size: int) -> None:
        """Skip a hole without reading it: after a truncation it is as long as the old log was."""
        try:
            start = os.lseek(self.descriptor, self.offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a file system that knows no holes: its NULs are read and stripped
                return
            start = size  # nothing but a hole
        if start > self.offset:
            self.nuls += start - self.offset
            self.offset = start
            self._head = bytes(min(PROOF_BYTES, start))
            self._tail = bytes(min(PROOF_BYTES, start))

    def _fill(self, data: bytes) -> bytes:
        """Strip NULs up to the first byte that is none, which ends the hole."""
        kept = data.lstrip(b"\0")
        self.nuls += len(data) - len(kept)
        self._hollow = not kept
        return kept


def open_log(path: str) -> int:
    """Open a log file for reading and return the descriptor.

    Raises OSError where it cannot be read (yet), SourceError where it must not be.
    """
    # Non-blocking, so that a FIFO found under the name does not hold the event loop until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)  # noqa: TRY301  closed below
        refuse_own_output(status, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def same_beginning(descriptor: int, other: int, end: int) -> bool:
    """Whether both files say the same up to `end`: compared at either end of it."""
    if os.fstat(other).st_size < end:
        return False
    for begin in (0, max(0, end - _SAMPLE_BYTES)):
        count = min(_SAMPLE_BYTES, end - begin)
        if os.pread(descriptor, count, begin) != os.pread(other, count, begin):
            return False
    return True


def refuse_own_output(status: os.stat_result, name: str) -> None:
    """Raise SourceError where `status` is our own stdout or stderr: every record would come back as a line."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        return  # a terminal or a socket has two directions
    for descriptor, label in ((1, "stdout"), (2, "stderr")):
        try:
            own = os.fstat(descriptor)
        except OSError:
            continue  # closed: nothing goes there
        if os.path.samestat(own, status):
            raise SourceError(f"{name} is the sidecar's own {label}: expected another file; it would read itself")


def problem_of(error: OSError) -> str:
    """Say what the operating system said, without the path, which the sentence around it names."""
    return error.strerror or str(error)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def number(state: Mapping[str, object], name: str) -> int:
    """Return a count of a saved state. Raises ValueError where it is none."""
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}: expected a number that is not negative, got {value!r}")
    return value
