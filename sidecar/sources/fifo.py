"""Follows a named pipe that the application writes its log to.

The problem: a FIFO has no memory and two ends; a reader that goes away blocks the writer or kills it, and a writer that
goes away looks like the end. The promise: it is opened for reading and writing, so there is no end and no hang-up to
spin on while nobody writes, and what is in it outlives the application; it is made as large as it may be, and
made at all where it does not exist, writable for those who may write to its directory. A FIFO that is
deleted or replaced is read until its last writer has gone. Refused: regular files (`source.kind: file` follows
those), and promises about what was read and not delivered when the sidecar dies: a FIFO cannot be read again.

The application should open it O_RDWR|O_NONBLOCK on a descriptor other than 1 and 2, and drop what does not fit: a
blocking writer waits when 1 MiB is full, a Go program whose stdout it is dies when nobody reads it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import generation, pipe

if TYPE_CHECKING:
    from sidecar.telemetry import Telemetry

_LOOK_SECONDS = 1.0
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Fifo(pipe.Pipes):
    """The source `fifo`."""

    def __init__(self, path: str, telemetry: Telemetry, *, look_seconds: float = _LOOK_SECONDS) -> None:
        """`look_seconds` is how often the path is looked at, for a FIFO that was replaced."""
        super().__init__()
        self._path = path
        self._telemetry = telemetry
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._current: pipe.Pipe | None = None  # the one that has the name now; the other pipes have lost it
        self._place = (0, 0)  # device and inode of the current one
        self._opened = 0
        self._last = Position(path, 0)

    async def start(self) -> None:
        """Open the FIFO, made if need be. Raises SourceError where something else has its name."""
        status = self._status()
        if status is not None and not stat.S_ISFIFO(status.st_mode):
            raise SourceError(f"{self._path} is {_kind(status.st_mode)}: expected a named pipe, or nothing yet")
        self._look(asyncio.get_running_loop().time())

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            now = loop.time()
            if now >= self._look_at and not self._stopping:
                self._look(now)
            readable = [one for one in self._pipes if one.readable()]
            if readable:
                if not self._stopping:
                    await pipe.gather(readable, self._wake)
                chunk = self._take(readable[0])
                if chunk is not None:
                    return chunk
            elif self._stopping:
                return None
            elif now >= deadline:
                return Chunk(b"", self._last)
            else:
                await pipe.wait(self._pipes, min(deadline, self._look_at), self._wake)

    def describe(self) -> dict[str, object]:
        described: dict[str, object] = {
            "source": "fifo",
            "path": self._path,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": False,
            "why": "what was read from the named pipe and is not delivered when the sidecar dies cannot be read again; "
            "what the application drops because the pipe is full is its own to count",
        }
        status = self._status()
        if status is not None:
            described["mode"] = stat.filemode(status.st_mode)
            described["owner"] = f"{status.st_uid}:{status.st_gid}"
        return described

    async def close(self) -> None:
        """Let go of the pipes. What is in them is lost only if no writer holds them open."""
        self.stop()
        for one in self._pipes:
            os.close(one.descriptor)
        self._pipes.clear()
        self._current = None
        self.attached = False

    def _take(self, one: pipe.Pipe) -> Chunk | None:
        self._pipes.remove(one)
        self._pipes.append(one)  # another one is asked first next time
        try:
            chunk = one.read()
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {generation.problem_of(error)}") from error
        if one.ended:  # it lost its name, and its last writer is gone
            self._pipes.remove(one)
            os.close(one.descriptor)
        if chunk is not None:
            self._last = Position(chunk.start.log, chunk.start.offset + len(chunk.data))
        return chunk

    def _status(self) -> os.stat_result | None:
        try:
            return Path(self._path).stat()
        except OSError:
            return None

    def _look(self, now: float) -> None:
        """Make sure that what has the name is held."""
        self._look_at = now + self._look_seconds
        try:
            status = self._find()
            if (status.st_dev, status.st_ino) == self._place and self._current is not None:
                self.attached = True
                return
            if not stat.S_ISFIFO(status.st_mode):
                self.attached = False
                self._telemetry.source_waiting(self._path, f"it is {_kind(status.st_mode)}, not a named pipe")
                return
            descriptor = os.open(self._path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            self.attached = True  # its directory does not exist yet, or it was deleted this instant
            self._telemetry.source_waiting(self._path, "it does not exist", "missing")
            return
        except OSError as error:
            self.attached = False
            self._telemetry.source_waiting(self._path, error)
            return
        self._hold(descriptor)

    def _find(self) -> os.stat_result:
        """Return the status of what has the name; make a FIFO where nothing has. Raises OSError."""
        try:
            return Path(self._path).stat()
        except FileNotFoundError:
            directory = Path(self._path).parent.stat().st_mode
            # Whoever may put a file there may write to this one: reading too, as opening O_RDWR asks for both.
            mode = 0o600 | (0o060 if directory & stat.S_IWGRP else 0) | (0o006 if directory & stat.S_IWOTH else 0)
            with contextlib.suppress(FileExistsError):  # the application was faster
                os.mkfifo(self._path, 0o600)
                Path(self._path).chmod(mode)  # whatever the umask
            return Path(self._path).stat()

    def _hold(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISFIFO(status.st_mode):  # it changed between the two looks
            os.close(descriptor)
            return
        try:
            generation.refuse_own_output(status, self._path)
        except SourceError:
            os.close(descriptor)
            raise
        if self._current is not None:
            self._retire(self._current)
        self._opened += 1
        self._current = pipe.Pipe(descriptor, self._path if self._opened == 1 else f"{self._path}#{self._opened}")
        self._current.enlarge()
        self._place = (status.st_dev, status.st_ino)
        self._last = self._current.position
        self._pipes.append(self._current)
        self.attached = True

    def _retire(self, one: pipe.Pipe) -> None:
        """Give up the writing end of a FIFO without a name, so that the end of its last writer is its end.

        Closing it would kill that writer. Where the descriptor cannot be opened again it is kept as it is.
        """
        with contextlib.suppress(OSError):
            only = os.open(f"/proc/self/fd/{one.descriptor}", os.O_RDONLY | _FLAGS)
            os.dup2(only, one.descriptor, inheritable=False)
            os.close(only)


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a regular file (source.kind file follows those)"
    return "a directory" if stat.S_ISDIR(mode) else "a device or socket"
