"""What looks at files: which to hold, what comes next in them, and when to look again.

The problem: a regular file is always ready, so nothing wakes a reader, and looking all the time costs every pod of a
node. The promise: what grows is looked at every `poll` seconds, what rests every `idle_poll`, and what rests where the
kernel has told of everything so far every `watched`; as soon as something stirs in any case.
All of it is the work of one thread (`polling`), and may wait for a disk. Refused: to know how it is waited, and where
files lie (`_discover`) or what a truncation leaves elsewhere (`_rescue`): those are the subclass's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from sidecar.sources import filesystem, succession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model import Chunk, Position
    from sidecar.sources.generation import Generation
    from sidecar.sources.wake import Wake
    from sidecar.telemetry import Telemetry

_NAP_GROWTH = 1.25


class Saved(Protocol):
    """What a checkpoint keeps of one moment, as soon as it is known what is delivered. Compares by value."""

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        """Return it, JSON-able."""


class Tail(ABC):
    """Follows one log or several. The times are those of one clock, which never goes back."""

    timing: succession.Timing
    attached = False  # what is followed can be read, or is waited for
    at_end = False  # nothing comes any more, although nobody has told us to stop
    surprised = False  # by what the last look found, of which the kernel had not told
    discovered_at = 0.0

    @property
    @abstractmethod
    def look_at(self) -> float:
        """When to look again."""

    @abstractmethod
    def begin(self, now: float) -> None:
        """Find what there is, and what was followed in an earlier life. Raises SourceError."""

    @abstractmethod
    def stir(self, now: float) -> None:
        """Look sooner: something has stirred."""

    @abstractmethod
    def look(self, now: float) -> Chunk | None:
        """Return what comes next, None where there is nothing. Raises SourceError."""

    @abstractmethod
    def keep(self, now: float) -> None:
        """Hold at least what has appeared: it may be gone when somebody reads again. Raises SourceError."""

    @abstractmethod
    def stop(self, now: float) -> None:
        """Let `look` give what is there now, and then None for ever."""

    @abstractmethod
    def unread(self) -> int:
        """Return how many bytes wait."""

    @abstractmethod
    def saved(self) -> Saved:
        """Return what a checkpoint keeps of this moment."""

    def settle(self, delivered: Mapping[str, Position]) -> None:  # noqa: B027  most have nothing to do
        """Learn what is delivered."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Say what is followed and what can be promised."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Idempotent."""


class LogTail(Tail):
    """Reads the generations of one log. A subclass finds them."""

    def __init__(self, telemetry: Telemetry, wake: Wake, timing: succession.Timing) -> None:
        self.timing = timing
        self._telemetry = telemetry
        self._wake = wake
        self._succession = succession.Succession(telemetry, timing, self._rescue, self._knows_all)
        self._look_at = 0.0
        self._rested_at = 0.0  # not before: a file that was just read gets time to grow
        self._nap = timing.poll
        self._stirred = False  # since the last look
        self._watched = False  # the kernel tells of what happens where the log lies
        self._relying = False  # it is all that ends the rest in time
        self._stopping = False

    @abstractmethod
    def _discover(self, now: float) -> None:
        """Hold what has appeared. Raises SourceError where it must not be followed."""

    @abstractmethod
    def _rescue(self, truncated: Generation) -> list[Generation]:
        """Let a truncated generation adopt its copy; return what was written between copy and truncation."""

    def _knows_all(self) -> bool:
        """Whether the last look at the files missed none."""
        return True

    def _before(self, newest: Generation, now: float) -> None:
        """Hold what must come before the first byte of the newest generation."""

    @property
    def look_at(self) -> float:
        return self._look_at

    def stir(self, now: float) -> None:
        self._stirred = True
        self._look_at = min(self._look_at, max(now, self._rested_at))

    def look(self, now: float) -> Chunk | None:
        if self._stopping:
            return self._succession.turn(now)
        told, self._stirred = self._stirred, False
        if told or now - self.discovered_at >= self.timing.poll:
            self.discovered_at = now
            self._discover(now)
        self._hold_before(now)
        chunk = self._succession.turn(now)
        newest = self._succession.newest
        of_newest = chunk is not None and newest is not None and chunk.start.log == newest.log
        self.surprised = self._relying and of_newest and not told
        if chunk is None:
            self._relying = self._watched and self._wake.reliable and self._rests()
            longest = self.timing.watched if self._relying else self.timing.idle_poll
            self._nap = longest if self._relying else min(self._nap * _NAP_GROWTH, longest)
            self._look_at = now + self._nap
            self._rested_at = now
        else:
            # A file read to its end gets time to grow: one batch per look, not one per line.
            drained = of_newest and newest is not None and newest.offset >= newest.size
            self._look_at = self._rested_at = now + self.timing.poll if drained and chunk.data else now
            self._nap = self.timing.poll
            self._relying = False
        return chunk

    def keep(self, now: float) -> None:
        self._stirred = False
        self.discovered_at = now
        self._discover(now)
        self._succession.verify(now)  # the copy of a truncated file may be gone when somebody reads again

    def stop(self, now: float) -> None:
        self.keep(now)  # a rotation since the last look is part of what is there
        self._hold_before(now)
        self._succession.freeze()
        self._stopping = True

    def unread(self) -> int:
        return self._succession.unread()

    def close(self) -> None:
        self._succession.close()

    def _rests(self) -> bool:
        """Whether nothing will come but by a write, or by a new file."""
        return self._succession.rests and self._knows_all() and not self._succession.unread()

    def _hold_before(self, now: float) -> None:
        unbegun = self._succession.unbegun
        if unbegun is not None:
            self._before(unbegun, now)

    def _ground(self, directory: str) -> dict[str, object]:
        """Say at start-up what a source of files stands on."""
        return {"file_system": filesystem.kind(directory), "inotify": self._wake.watching}
