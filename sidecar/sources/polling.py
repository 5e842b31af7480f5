"""The loop of every source that looks at files again and again: read, nap, look, and look on while nobody reads.

The problem: a regular file is always ready, so nothing wakes a reader, and a reader that a full queue holds up must
not miss the files that come and go meanwhile: the disk is the buffer only as long as we hold it.
The promise: what grows is looked at every `poll` seconds, what rests every `idle_poll`; while nobody reads, the
discovery of files goes on by the loop's timer. Refused: threads, inotify, and to know where files lie (`_discover`)
or what a truncation leaves elsewhere (`_rescue`): those are the subclass's.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import succession

if TYPE_CHECKING:
    from sidecar.sources.generation import Generation
    from sidecar.telemetry import Telemetry

_NAP_GROWTH = 1.25


class Polling(ABC):
    """Reads the generations of one log. A subclass finds them."""

    resumable = True

    def __init__(self, telemetry: Telemetry, timing: succession.Timing) -> None:
        self.attached = False
        self._telemetry = telemetry
        self._timing = timing
        self._succession = succession.Succession(telemetry, timing, self._rescue)
        self._discovered_at = 0.0
        self._look_at = 0.0
        self._nap = timing.poll
        self._stopping = asyncio.Event()
        self._failure: SourceError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _discover(self, now: float) -> None:
        """Hold what has appeared. Raises SourceError where it must not be followed."""

    @abstractmethod
    def _rescue(self, truncated: Generation) -> list[Generation]:
        """Let a truncated generation adopt its copy; return what was written between copy and truncation."""

    def _begin(self) -> float:
        """Start the timer; return the time."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._timing.discovery, self._tick)
        return self._loop.time()

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if self._failure is not None:
                raise self._failure
            now = loop.time()
            if self._stopping.is_set():
                return self._succession.turn(now)
            due = min(self._look_at, deadline)
            if now < due:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._stopping.wait()
                continue
            chunk = self._look(now)
            if chunk is not None:
                return chunk
            if now >= deadline:
                newest = self._succession.newest
                return Chunk(b"", Position(newest.log, newest.offset) if newest is not None else Position("", 0))

    def stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._loop is not None:
            self._try_to_discover(self._loop.time())  # a rotation since the last look is part of what is there
        self._succession.freeze()

    def unread(self) -> int:
        return self._succession.unread()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._succession.close()

    def _look(self, now: float) -> Chunk | None:
        if now - self._discovered_at >= self._timing.poll:
            self._discovered_at = now
            self._discover(now)
        chunk = self._succession.turn(now)
        newest = self._succession.newest
        if chunk is None:
            self._look_at = now + self._nap
            self._nap = min(self._nap * _NAP_GROWTH, self._timing.idle_poll)
        else:
            # A file read to its end gets time to grow: one batch per look, not one per line.
            drained = newest is not None and chunk.start.log == newest.log and newest.offset >= newest.size
            self._look_at = now + self._timing.poll if drained and chunk.data else now
            self._nap = self._timing.poll
        return chunk

    def _tick(self) -> None:
        """Keep discovering while nobody reads."""
        assert self._loop is not None
        now = self._loop.time()
        if not self._stopping.is_set() and now - self._discovered_at >= self._timing.discovery:
            self._try_to_discover(now)
        self._timer = self._loop.call_later(self._timing.discovery, self._tick)

    def _try_to_discover(self, now: float) -> None:
        self._discovered_at = now
        try:
            self._discover(now)
        except SourceError as error:
            self._failure = error  # the reader's to raise
