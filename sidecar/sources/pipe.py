"""The readable end of a pipe, terminal or socket, and waiting until there is something in it.

The problem: whoever writes must never wait for us, and the descriptor is shared with other programs.
The promise: descriptors stay blocking as they were found (O_NONBLOCK belongs to the open file, not to us: the shell
behind a terminal would inherit it) and are read only when the kernel says that a read will not wait. A writer
of one line at a time costs one turn per 10 ms, not per line, as long as its pipe has room.
Refused: to change anything that the other side can see, but for the pipe's size.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import select
import termios
from typing import TYPE_CHECKING

from sidecar.model import Chunk, Position
from sidecar.sources import generation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PIPE_BYTES = 1 << 20  # what an unprivileged process may ask for by default
_GATHER_SECONDS = 0.01
_GATHER_BYTES = 16 * 1024  # of the 64 KiB a pipe has at least: who fills the rest in time is not kept waiting


class Pipe:
    """One input without positions to come back to; its offset counts what was read."""

    def __init__(self, descriptor: int, log: str, stream: str = "") -> None:
        self.descriptor = descriptor
        self.ended = False
        self._log = log
        self._stream = stream
        self._offset = 0
        self._left: int | None = None  # what may still be read, once the source was told to stop
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @property
    def position(self) -> Position:
        return Position(self._log, self._offset)

    def silence(self) -> Chunk:
        """Return the chunk that says that nothing came."""
        return Chunk(b"", self.position, self._stream)

    def enlarge(self) -> None:
        """Give the writer more room. A pipe of the other side, a full quota or no pipe at all: it stays as it is."""
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
                fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def readable(self) -> bool:
        """Whether a read returns at once: there are bytes, or the end."""
        return not self.ended and self._left != 0 and bool(self._poll.poll(0))

    def trickles(self) -> bool:
        """Whether waiting a little would gather more into one read."""
        events = self._poll.poll(0)
        return bool(events) and events[0][1] == select.POLLIN and 0 < self.pending() < _GATHER_BYTES

    def pending(self) -> int:
        """Return how many bytes wait, 0 where the descriptor cannot tell."""
        if self.ended:
            return 0
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self.descriptor, termios.FIONREAD, count)
        except OSError:
            return 0
        return count[0]

    def read(self) -> Chunk | None:
        """Read once and return the bytes, or the news of the end. Only when `readable`. None: there was nothing."""
        limit = generation.CHUNK_BYTES if self._left is None else min(generation.CHUNK_BYTES, self._left)
        start = self.position
        try:
            data = os.read(self.descriptor, limit)
        except BlockingIOError:
            return None  # somebody who shares the pipe, and made it non-blocking, was faster
        self._offset += len(data)
        if self._left is not None:
            self._left -= len(data)
        self.ended = not data
        return Chunk(data, start, self._stream, end_of_log=self.ended)

    def freeze(self) -> None:
        """Read no further than what is there now."""
        if self._left is None:
            self._left = self.pending()


class Pipes:
    """What sources that read pipes have in common: told to stop, they read what is there now, and save nothing."""

    resumable = False

    def __init__(self) -> None:
        self.attached = False
        self._pipes: list[Pipe] = []
        self._wake = asyncio.Event()
        self._stopping = False

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            for one in self._pipes:
                one.freeze()
        self._wake.set()

    def unread(self) -> int:
        return sum(one.pending() for one in self._pipes)

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:  # noqa: ARG002  the protocol's
        return {}


async def wait(pipes: Iterable[Pipe], until: float, wake: asyncio.Event) -> None:
    """Wait until a pipe is readable, `wake` is set, or the loop's clock says `until`. Leaves `wake` clear."""
    loop = asyncio.get_running_loop()
    watched = [pipe.descriptor for pipe in pipes if not pipe.ended]
    for descriptor in watched:
        loop.add_reader(descriptor, wake.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await wake.wait()
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)
    wake.clear()


async def gather(readable: Iterable[Pipe], wake: asyncio.Event) -> None:
    """Give a writer of single lines the time to write some more, unless woken."""
    if all(pipe.trickles() for pipe in readable):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await wake.wait()
