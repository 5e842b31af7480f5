"""A generation that was compressed before anybody read it to its end: read once, by its decompressed offset.

The problem: after a downtime the rest of a log may lie in a `.gz`, behind an offset that counts bytes which are not
there any more. The promise: positions, head and mark are those of the content, so that a generation is known again
whether its file is compressed by now or not; all members are read; at most 256 KiB come from one turn, and what
leads to an offset is inflated a few MiB at a time. Refused: to follow one that grows. A damaged file is read up to
the damage; the rest is given up and counted, in compressed bytes, because nobody knows how many they were.
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

from sidecar.sources import generation

if TYPE_CHECKING:
    from sidecar.sources.generation import Identity

SUFFIX = ".gz"

_INPUT_BYTES = 64 * 1024
_SKIP_BYTES = 4 << 20  # inflated at a time on the way to an offset
_GZIP = 31  # zlib's word for a gzip member with the largest window
_LARGEST_RATIO = 1032  # of deflate; a trailer that claims more is none


class Reader:
    """Inflates one file from its start."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.position = 0  # in the content
        self.at_end = False
        self.rest = 0  # compressed bytes behind the damage, once there is some
        self._at = 0  # in the file
        self._input = b""
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False  # this member has given or taken something

    def read(self, count: int) -> bytes:
        """Return at most so many bytes of content, nothing at the end. Raises OSError (ESTALE) at damage."""
        parts: list[bytes] = []
        left = count
        while left and not self.at_end:
            try:
                part = self._inflate(left)
            except (zlib.error, EOFError) as error:
                if parts:
                    break  # what came before is good; the next read meets the damage again
                self.rest = max(0, os.fstat(self.descriptor).st_size - self._at + len(self._input))
                raise OSError(errno.ESTALE, f"it is damaged: {error}") from error
            parts.append(part)
            left -= len(part)
        content = b"".join(parts)
        self.position += len(content)
        return content

    def _inflate(self, count: int) -> bytes:
        if self._member.eof:
            self._input = self._member.unused_data.lstrip(b"\0")  # some archives are padded
            self._member = zlib.decompressobj(_GZIP)
            self._begun = False
        if not self._input:
            self._input = os.pread(self.descriptor, _INPUT_BYTES, self._at)
            self._at += len(self._input)
            if not self._begun:
                self._input = self._input.lstrip(b"\0") if self.position else self._input
        if not self._input:
            if self._begun:
                raise EOFError("it stops in the middle")
            self.at_end = True
            return b""
        self._begun = True
        part = self._member.decompress(self._input, count)
        self._input = b"" if self._member.eof else self._member.unconsumed_tail
        return part


def head(descriptor: int, count: int) -> bytes:
    """Return how the content begins, as far as it can be read."""
    try:
        return Reader(descriptor).read(count)
    except OSError:
        return b""


def content_bytes(descriptor: int) -> int:
    """Return how long the content says it is; the compressed length where that cannot be true.

    Right for one member below 4 GiB, which is what the kubelet and logrotate write.
    """
    size = os.fstat(descriptor).st_size
    claimed = int.from_bytes(os.pread(descriptor, 4, max(0, size - 4)), "little")
    return claimed if claimed <= size * _LARGEST_RATIO else size


def same_content(descriptor: int, identity: Identity) -> bool:
    """Whether the content begins as this generation did and reads the same just before its end."""
    if not identity.head_bytes:
        return False  # an empty file proves nothing
    reader = Reader(descriptor)
    first = kept = b""  # the head, and the last bytes that came
    try:
        while reader.position < identity.end or not first:
            before = reader.position
            part = reader.read(min(_SKIP_BYTES, max(identity.end, generation.PROOF_BYTES) - before))
            if not part:
                break
            if not first:
                first = part[: identity.head_bytes]
                if not identity.begins(first):
                    break
            if before < identity.end:
                kept = (kept + part[: identity.end - before])[-generation.PROOF_BYTES :]
    except OSError:
        return False
    return reader.position >= identity.end and identity.begins(first) and identity.ends(kept)


class Gzipped(generation.Generation):
    """One compressed file. It cannot grow."""

    def __init__(self, descriptor: int, path: str, log: str, offset: int = 0, known: Identity | None = None) -> None:
        """Take over `descriptor`. `known` is who it was when `offset` was read."""
        super().__init__(descriptor, path, log)
        self.origin = self.offset = offset
        self.complete = self.archived = True
        self.proven = known
        self._reader = Reader(descriptor)
        self._claimed = content_bytes(descriptor)
        self.size = max(self._claimed, offset + 1)

    @property
    def _at_offset(self) -> bool:
        return self._reader.position >= self.offset

    def look(self) -> int:
        if self.descriptor < 0 or self._reader.at_end:
            return 0
        self.links = os.fstat(self.descriptor).st_nlink
        return max(1, self.size - self.offset)

    def whole(self) -> int:
        return self._claimed

    def proves(self) -> bool:
        return True

    def read(self) -> bytes | None:
        if self.descriptor < 0:
            return b""
        self.links = os.fstat(self.descriptor).st_nlink
        try:
            data = self._read()
        except OSError:
            self.size = self.offset + self._reader.rest
            raise
        self.size = self.offset if self._reader.at_end else max(self.size, self.offset + 1)
        return data

    def _read(self) -> bytes:
        skipped = 0
        # Told to stop, there are no more turns to come back in.
        while self._reader.position < self.offset and (skipped < _SKIP_BYTES or self.limit is not None):
            part = self._reader.read(min(_SKIP_BYTES, self.offset - self._reader.position))
            if not part:
                self.offset = self._reader.position  # shorter than it was: nothing is left
                break
            skipped += len(part)
            self._remember(part)
        if self._reader.position < self.offset:
            return b""
        data = self._reader.read(generation.CHUNK_BYTES)
        self._remember(data)
        self.offset += len(data)
        return data

    def _remember(self, part: bytes) -> None:
        if len(self._head) < generation.PROOF_BYTES:
            self._head += part[: generation.PROOF_BYTES - len(self._head)]
        self._tail = (self._tail + part)[-generation.PROOF_BYTES :]
