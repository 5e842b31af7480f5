"""An application's log writer, with everything that loggers and log rotation do to a file.

Every act is one system call where the real one is, so that a reader sees the same states in between. A rotation
proves that it made a new file: a test of rotation that renames a file onto itself tests nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self


class LogWriter:
    """Writes to one path through one held descriptor, as a logger does."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = True) -> None:
        self.path = Path(path)
        self._append = append
        self._descriptor = -1
        self._rest = b""
        self.reopen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inode(self) -> int:
        """The inode written to, whatever the path names by now."""
        return os.fstat(self._descriptor).st_ino

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def write(self, content: bytes) -> None:
        """Write in one call."""
        assert not self._rest, "a torn write is not mended"
        self._write(content)

    def lines(self, *texts: str) -> bytes:
        """Write each text as a line with a call of its own, and return what was written."""
        for text in texts:
            self.write(text.encode() + b"\n")
        return b"".join(text.encode() + b"\n" for text in texts)

    def tear(self, content: bytes, at: int) -> None:
        """Write only the first `at` bytes; `mend` writes the rest."""
        self.write(content[:at])
        self._rest = content[at:]

    def mend(self) -> None:
        rest, self._rest = self._rest, b""
        self._write(rest)

    def rename(self, suffix: str = ".1") -> Path:
        """Give the file another name, shifting older ones where the suffix counts, as logrotate does.

        The writer goes on in it until it reopens the path.
        """
        self._shift(suffix)
        target = self.path.with_name(self.path.name + suffix)
        self.path.rename(target)
        return target

    def reopen(self) -> None:
        """Open what the path names now, making it where it names nothing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if self._append else 0)
        descriptor = os.open(self.path, flags, 0o644)
        self.close()
        self._descriptor = descriptor

    def rotate(self, suffix: str = ".1") -> Path:
        """Rename and reopen."""
        before = self.inode
        target = self.rename(suffix)
        self.reopen()
        assert self.inode != before, "a rotation makes a new file"
        assert target.stat().st_ino == before, "and keeps the old one"
        return target

    def truncate(self, size: int = 0) -> None:
        """Cut the file under its name. Without O_APPEND the next write leaves a hole in front."""
        before = self.inode
        os.truncate(self.path, size)
        assert self.path.stat().st_ino == before, "a truncation keeps the file"

    def copytruncate(self, suffix: str = ".1") -> Path:
        """Copy the file aside and empty it under the writer."""
        self._shift(suffix)
        target = self.path.with_name(self.path.name + suffix)
        target.write_bytes(self.path.read_bytes())
        assert target.stat().st_ino != self.inode, "a copy is a new file"
        self.truncate()
        return target

    def delete(self) -> None:
        """Remove the name. The writer goes on in the file that has none."""
        self.path.unlink()
        assert os.fstat(self._descriptor).st_nlink == 0, "the file has no other name"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, content: bytes) -> None:
        written = os.write(self._descriptor, content)
        assert written == len(content), "the disk took all of it"

    def _shift(self, suffix: str) -> None:
        """Make room for `.1`: `.2` becomes `.3`, `.1` becomes `.2`. Other suffixes are expected to be new."""
        if not suffix[1:].isdigit():
            assert not self.path.with_name(self.path.name + suffix).exists()
            return
        number = int(suffix[1:])
        target = self.path.with_name(f"{self.path.name}.{number}")
        if target.exists():
            self._shift(f".{number + 1}")
            target.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))


def replace(path: Path, content: bytes) -> None:
    """What an editor does: another file, in its place in one step."""
    before = path.stat().st_ino
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.rename(path)
    assert path.stat().st_ino != before
