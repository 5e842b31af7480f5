"""The loop of every source that looks at files again and again: read, nap, look, and look on while nobody reads.

The problem: a regular file is always ready, so nothing wakes a reader, and a reader that a full queue holds up must
not miss the files that come and go meanwhile: the disk is the buffer only as long as we hold it.
The promise: what grows is looked at every `poll` seconds, what rests every `idle_poll`, or as soon as something stirs
(`wake`), which changes when a line is found and nothing else; while nobody reads, the discovery of files goes on by the
loop's timer, and when something stirs. Refused: threads, and to know where files lie (`_discover`) or what a
truncation leaves elsewhere (`_rescue`): those are the subclass's.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import filesystem, succession, wake

if TYPE_CHECKING:
    from sidecar.sources.generation import Generation
    from sidecar.telemetry import Telemetry

DISK_SECONDS = 0.002  # for what the kernel was asked to fetch

_NAP_GROWTH = 1.25


class Polling(ABC):
    """Reads the generations of one log. A subclass finds them."""

    resumable = True

    def __init__(
        self,
        telemetry: Telemetry,
        timing: succession.Timing,
        *,
        inotify: bool = True,
        shared: wake.Wake | None = None,
    ) -> None:
        """Take `shared`: who wakes the owner of several of these, which then waits for all of them."""
        self.attached = False
        self._telemetry = telemetry
        self._timing = timing
        self._succession = succession.Succession(telemetry, timing, self._rescue, self._knows_all)
        self._discovered_at = 0.0
        self._look_at = 0.0
        self._rested_at = 0.0  # not before: a file that was just read gets time to grow
        self._nap = timing.poll
        self._stirred = False  # since the last look
        self._waiting = False  # somebody, in `read`
        self._alarm = asyncio.Event()  # ends that
        self._wake = shared or wake.Wake(telemetry, self._stir, enabled=inotify, rest=timing.poll / 2)
        self._shares_wake = shared is not None
        self._stopping = False
        self._failure: SourceError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _discover(self, now: float) -> None:
        """Hold what has appeared. Raises SourceError where it must not be followed."""

    @abstractmethod
    def _rescue(self, truncated: Generation) -> list[Generation]:
        """Let a truncated generation adopt its copy; return what was written between copy and truncation."""

    def _knows_all(self) -> bool:
        """Whether the last look at the files missed none."""
        return True

    def _before(self, newest: Generation, now: float) -> None:  # noqa: B027  most have nothing to do
        """Hold what must come before the first byte of the newest generation."""

    def _begin(self) -> float:
        """Start the timer; return the time."""
        self._loop = asyncio.get_running_loop()
        self._wake.start()
        self._timer = self._loop.call_later(self._timing.discovery, self._tick)
        return self._loop.time()

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if self._failure is not None:
                raise self._failure
            now = loop.time()
            if self._stopping:
                return self._succession.turn(now)
            due = min(self._look_at, deadline)
            if now < due:
                await self._wait(due)
                continue
            chunk = self._look(now)
            if chunk is not None:
                return chunk
            if now >= deadline:
                newest = self._succession.newest
                return Chunk(b"", Position(newest.log, newest.offset) if newest is not None else Position("", 0))

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._alarm.set()
        if self._loop is not None:
            self._try_to_discover(self._loop.time())  # a rotation since the last look is part of what is there
            self._hold_before(self._loop.time())
        self._succession.freeze()

    @property
    def waits(self) -> bool:
        """Whether the disk is all that is waited for."""
        return self._succession.waits

    def unread(self) -> int:
        return self._succession.unread()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._shares_wake:
            self._wake.close()
        self._succession.close()

    async def _wait(self, until: float) -> None:
        """Wait, unless something stirs first or the source is told to stop."""
        self._waiting = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._alarm.wait()
        finally:
            self._waiting = False
        self._alarm.clear()

    def _hold_before(self, now: float) -> None:
        unbegun = self._succession.unbegun
        if unbegun is not None:
            self._before(unbegun, now)

    def _stir(self) -> None:
        """Look sooner. While nobody reads, hold at least what has appeared: it may be gone when somebody does."""
        assert self._loop is not None
        if self._stopping:
            return
        now = self._loop.time()
        self._stirred = True
        self._look_at = min(self._look_at, max(now, self._rested_at))
        self._alarm.set()
        if not self._waiting:
            self._try_to_discover(now)

    def _ground(self, directory: str) -> dict[str, object]:
        """Say at start-up what a source of files stands on."""
        return {"file_system": filesystem.kind(directory), "inotify": self._wake.watching}

    def _look(self, now: float) -> Chunk | None:
        if self._stirred or now - self._discovered_at >= self._timing.poll:
            self._stirred = False
            self._discovered_at = now
            self._discover(now)
        self._hold_before(now)
        chunk = self._succession.turn(now)
        newest = self._succession.newest
        if chunk is None:
            self._look_at = now + (DISK_SECONDS if self._succession.waits else self._nap)
            self._rested_at = now
            self._nap = min(self._nap * _NAP_GROWTH, self._timing.idle_poll)
        else:
            # A file read to its end gets time to grow: one batch per look, not one per line.
            drained = newest is not None and chunk.start.log == newest.log and newest.offset >= newest.size
            self._look_at = self._rested_at = now + self._timing.poll if drained and chunk.data else now
            self._nap = self._timing.poll
        return chunk

    def _tick(self) -> None:
        """Keep discovering while nobody reads."""
        assert self._loop is not None
        now = self._loop.time()
        if not self._stopping and now - self._discovered_at >= self._timing.discovery:
            self._try_to_discover(now)
        self._timer = self._loop.call_later(self._timing.discovery, self._tick)

    def _try_to_discover(self, now: float) -> None:
        self._discovered_at = now
        try:
            self._discover(now)
            self._succession.verify(now)  # the copy of a truncated file may be gone when somebody reads again
        except SourceError as error:
            self._failure = error  # the reader's to raise
