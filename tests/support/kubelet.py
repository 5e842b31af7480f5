"""A container's log as containerd writes it and the kubelet rotates it: the same calls in the same order.

Every rotation proves that it made a new file.
"""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Container:
    """One container of a pod, in its `restart`-th start."""

    def __init__(self, pod: Path, name: str = "app") -> None:
        self.directory = pod / name
        self.restart = -1
        self._descriptor = -1
        self._count = 0  # lines of all starts: their time
        self._rotations = 0

    @property
    def path(self) -> Path:
        return self.directory / f"{self.restart}.log"

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def start(self) -> None:
        """Begin a new start: a file of its own."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.exit()
        self.restart += 1
        self._descriptor = self._open()

    def exit(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def line(self, text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
        """Write one line as the runtime does, in one call, and return what was written."""
        return self.write_to(self._descriptor, text, stream=stream, tag=tag)

    def lines(self, *texts: str) -> bytes:
        return b"".join(self.line(text) for text in texts)

    def write_to(self, descriptor: int, text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
        """Write through a descriptor that `detach` gave."""
        self._count += 1
        second, fraction = divmod(self._count, 1000)
        written = (
            f"2026-07-02T12:{second // 60:02}:{second % 60:02}.{fraction:03}000001Z {stream} {tag} {text}\n".encode()
        )
        assert os.write(descriptor, written) == len(written)
        return written

    def raw(self, content: bytes) -> bytes:
        assert os.write(self._descriptor, content) == len(content)
        return content

    def rename(self, suffix: str = "") -> Path:
        """Step 4 of the kubelet: the runtime goes on in the renamed file."""
        self._rotations += 1
        target = self.directory / f"{self.restart}.log.20260702-12{self._rotations:04}{suffix}"
        assert not target.exists()
        self.path.rename(target)
        return target

    def detach(self) -> int:
        """Give away the descriptor: the runtime's old writer, which may not be done yet."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def reopen(self) -> None:
        """Step 5: the runtime opens the name anew."""
        before = -1 if self._descriptor < 0 else self.inode
        descriptor = self._open()
        self.exit()
        self._descriptor = descriptor
        assert self.inode != before, "a rotation makes a new file"

    def compress(self) -> list[Path]:
        """Step 3: every rotated file that is not compressed yet."""
        made = []
        for path in sorted(self.directory.glob(f"{self.restart}.log.*")):
            if path.suffix in {".gz", ".tmp"}:
                continue
            made.append(compress(path))
        return made

    def rotate(self) -> Path:
        """Do all of it."""
        self.compress()
        before = self.inode
        target = self.rename()
        self.reopen()
        assert target.stat().st_ino == before != self.path.stat().st_ino
        return target

    def delete(self, restart: int) -> None:
        """The garbage collector removes a dead start with all its files."""
        for path in self.directory.glob(f"{restart}.log*"):
            path.unlink()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def compress(path: Path, *, members: int = 1) -> Path:
    """X → X.tmp → X.gz, then X goes."""
    content = path.read_bytes()
    temporary = path.with_name(path.name + ".tmp")
    target = path.with_name(path.name + ".gz")
    size = len(content) // members + 1
    parts = [content[begin : begin + size] for begin in range(0, max(1, len(content)), size)]
    temporary.write_bytes(b"".join(gzip.compress(part) for part in parts))
    temporary.rename(target)
    path.unlink()
    return target


def damage(path: Path, how: str) -> None:
    """Spoil a compressed file and leave its times as they are: "cut" off, at the "head", or in the "middle"."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    match how:
        case "cut":
            content = content[: len(content) // 2]
        case "head":
            content[:10] = b"no gzip at"
        case "middle":
            content[len(content) // 2] ^= 0xFF
            content[len(content) // 2 + 1] ^= 0x55
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
