"""The generations of one log in the order they were written, and whose turn it is to be read.

The problem: at a rotation the writer still holds the old file, for milliseconds or for ever, while the new one grows.
The promise: an old generation is read to its end, twice, before its successor begins; then it is polled for late
bytes and its end is told after five quiet seconds; its descriptor is held for as long as it has a name, so that
bytes that come later still are read. Nothing held is closed with unread bytes, except deleted files beyond 8 or
200 MiB, which would fill the node's disk: they are counted to the byte. One busy generation starves no other.
Refused: to know directories. The owner finds files and says what a truncated one left elsewhere.
Pure in time: `now` comes from the caller.
"""

from __future__ import annotations

import contextlib
import copy
import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.model import Chunk, Position
from sidecar.sources import generation

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import stat_result

    from sidecar.sources.generation import Generation, Identity
    from sidecar.telemetry import Telemetry

_HELD = 8  # old generations that are held with nothing left to read, or deleted with something
_HELD_BYTES = 200 << 20  # unread bytes of deleted generations
_REMEMBERED = 64  # closed generations whose last lines may not be delivered yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds. The defaults are the product's; tests are in more of a hurry."""

    poll: float = 0.1  # between two looks at a growing file
    idle_poll: float = 0.15  # likewise at a quiet one
    watched: float = 1.0  # likewise at a quiet one of which the kernel tells when it grows
    rest: float = 0.05  # from one word of the kernel to the next: what stirs all the time wakes nobody more often
    settle: float = 0.1  # between the two looks that must find an old generation at its end
    grace: float = 5.0  # of quiet, after which an old generation's end is told
    discovery: float = 1.0  # between two looks where nothing is expected: ended files; the name, while nobody reads
    # Whether an old generation's end is told as soon as its successor may begin. A runtime that writes whole lines may
    # finish in the new file what it began in the old one, and who joins the two must have heard of the end by then.
    end_when_settled: bool = False
    last_words: float = 1.0  # of quiet, after which then a start of the container is over that another one followed


class Succession:
    """Generations, oldest first. The last one is the newest known."""

    def __init__(
        self,
        telemetry: Telemetry,
        timing: Timing,
        rescue: Callable[[Generation], list[Generation]],
        knows_all: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `rescue`: it lets a truncated generation adopt its copy and returns what was written in between.

        `knows_all` says whether every generation that exists is here: a directory that changes is not listed at one
        moment. The last known one of a start waits for that: another one may begin with the end of its last line.
        """
        self.generations: list[Generation] = []
        self.past: deque[Generation] = deque(maxlen=_REMEMBERED)  # closed; kept until the last line is delivered
        self.serial = 0  # how many logs have been named
        self.prefix = ""  # of their names, where several successions name logs side by side
        self._telemetry = telemetry
        self._timing = timing
        self._rescue = rescue
        self._knows_all = knows_all
        self._served: Generation | None = None
        self._stopping = False

    @property
    def newest(self) -> Generation | None:
        return self.generations[-1] if self.generations else None

    @property
    def rests(self) -> bool:
        """Whether nothing comes with time alone: the newest goes on, and of every other one the end is told."""
        newest = self.newest
        goes_on = newest is None or (bool(newest.links) and not newest.complete and newest.superseded_at is None)
        return goes_on and all(one.ended for one in self.generations[:-1])

    @property
    def unbegun(self) -> Generation | None:
        """The newest generation where its first byte may be read next."""
        newest = self.newest
        if newest is None or newest.offset:
            return None
        try:
            waits = any(not one.settled and one.look() for one in self.generations[:-1])
            return newest if newest.look() and not waits else None
        except OSError:
            return None

    @property
    def finished(self) -> bool:
        """Whether every generation is deleted, read, and its end told."""
        return all(one.descriptor < 0 or (one.ended and not one.links and not one.look()) for one in self.generations)

    def name(self, place: tuple[int, int]) -> str:
        """Return the name of a new log in the file at `place`: no two logs share one, over restarts too."""
        self.serial += 1
        return f"{self.prefix}{place[0]}:{place[1]}:{self.serial}"

    def held(self, status: stat_result) -> Generation | None:
        """Return the held generation that is this file, if one is."""
        place = (status.st_dev, status.st_ino)
        return next((one for one in reversed(self.generations) if one.place == place and one.descriptor >= 0), None)

    def add(self, new: Generation, now: float, before: Generation | None = None) -> None:
        """Put a generation behind all others, or before one that is younger."""
        new.grew_at = now
        if before is None:
            self.generations.append(new)
        else:
            self.generations.insert(self.generations.index(before), new)
        for one in self.generations[:-1]:
            _supersede(one, now)
        self._shed()

    def revive(self, again: Generation, now: float) -> None:
        """Make an old generation the newest: it got its name back."""
        self.generations.remove(again)
        again.superseded_at = again.end_met_at = None
        again.settled = False
        self.add(again, now)

    def turn(self, now: float) -> Chunk | None:
        """Return the next chunk: bytes, or the news that a log has ended. None if there is nothing now."""
        self._release(now)
        order = self._order(now)
        for one in order:
            was_settled = one.settled
            try:
                data = one.read()
            except OSError as error:
                self._unreadable(one, error, now)
                continue
            if data is None:
                self._replace(one, now)
                return self.turn(now)
            self._count(one)
            chunk = self._chunk(one, data, now)
            if chunk is not None:
                self._served = one
                return chunk
            if one.settled and not was_settled:
                place = self.generations.index(one) + 1
                order += self.generations[place : place + 1]
        return None

    def verify(self, now: float) -> None:
        """Notice truncations now: the copy of a file that was then renamed looks like one that nobody has seen."""
        for one in list(self.generations):
            try:
                if not one.proves():
                    one.read()  # counts what was seen and is gone
                    self._replace(one, now)
            except OSError:
                continue  # its turn will tell

    def freeze(self) -> None:
        """Read no further than what is there now, oldest first."""
        self._stopping = True
        for one in self.generations:
            try:
                one.limit = one.offset + one.look()
            except OSError:
                one.limit = one.offset

    def unread(self) -> int:
        """Return how many bytes wait in all generations."""
        waiting = 0
        for one in self.generations:
            try:
                waiting += one.look()
            except OSError:
                continue
        return waiting

    def written(self) -> list[Generation]:
        """Return the held and the closed generations, oldest first: one is closed before an older one often enough."""
        ordered = list(self.generations)
        for one in reversed(self.past):
            ordered.insert(ordered.index(one.behind) + 1 if one.behind in ordered else 0, one)
        return ordered

    def remembered(self) -> list[Identity]:
        """Return who the closed generations were."""
        return [one.identity for one in self.past]

    def close(self) -> None:
        for one in self.generations:
            one.close()

    def _order(self, now: float) -> list[Generation]:
        """Return whose turn it is: the settled ones and the first that is not, beginning after the one served last."""
        if self._stopping:
            return list(self.generations)
        ready: list[Generation] = []
        after = 0
        for one in self.generations:
            rests = one.ended and self._quiet(one, now, self._timing.grace)
            if rests and one.links and now - one.looked_at < self._timing.discovery:
                continue
            one.looked_at = now
            ready.append(one)
            if one is self._served:
                after = len(ready)
            if not one.settled:
                break
        return ready[after:] + ready[:after]

    def _chunk(self, one: Generation, data: bytes, now: float) -> Chunk | None:
        if data:
            if one.ended:
                self._begin_again(one, len(data))
            one.grew_at = now
            one.end_met_at = None
            if one.offset >= one.size and not (one.complete and self._timing.end_when_settled):
                self._settle(one, now)
            return self._made(one, data)
        if one.offset < one.size and not self._stopping:
            return None  # NULs were skipped, more waits
        if one.end_met_at is None and one.superseded_at is not None:
            one.end_met_at = now
        self._settle(one, now)
        if self._has_ended(one, now):
            one.told = one.offset
            return self._made(one, b"", end_of_log=True, final=self._is_final(one))
        return None

    def _made(self, one: Generation, data: bytes, *, end_of_log: bool = False, final: bool = False) -> Chunk:
        return Chunk(
            data,
            Position(one.log, one.offset - len(data)),
            end_of_log=end_of_log,
            final=final,
            writer=f"{self.prefix}{one.instance}",
            continues=self._begin(one),
        )

    def _begin(self, one: Generation) -> str:
        """Return the log that this one goes on with; nothing where that is known, or there is none."""
        if one.begun:
            return ""
        one.begun = True
        before = self._before(one)
        if before is None:
            return ""
        before.continued = True
        return before.log

    def _before(self, one: Generation) -> Generation | None:
        """Return the generation of the same start that was written right before this one, and is told of in this life.

        One that an earlier life ended, and that was empty, is not told of again: pieces go past it.
        """
        if one.late:
            return None
        written = self.written()
        for other in reversed(written[: written.index(one)]):
            if other.instance == one.instance and not other.late and (other.begun or not other.ended or other.told):
                return other
        return None

    def _settle(self, one: Generation, now: float) -> None:
        """Let the successor of a generation begin that is read to its end, for now."""
        if one.superseded_at is not None and not one.settled:
            met = one.end_met_at is not None and now - one.end_met_at >= self._timing.settle
            one.settled = ((one.complete or met) and (not self._is_last(one) or self._knows_all())) or (
                # For a writer that never rests: its successor must not wait for ever, only for what was there before.
                one.offset >= one.owed and now - one.superseded_at >= self._timing.grace
            )

    def _has_ended(self, one: Generation, now: float) -> bool:
        if one.ended:
            return False
        if one.superseded_at is None and (one.complete or one.links):
            return one.complete
        told_early = self._timing.end_when_settled and not one.late
        if told_early and not self._is_last(one):
            return one.settled or self._stopping  # its successor begins with the next turn
        if one.complete:
            return one.settled
        if self._stopping:
            return False
        return self._quiet(one, now, self._timing.last_words if told_early and one.settled else self._timing.grace)

    def _quiet(self, one: Generation, now: float, seconds: float) -> bool:
        return now - max(one.grew_at, one.superseded_at or 0.0) >= seconds

    def _is_last(self, one: Generation) -> bool:
        """Whether no younger generation of the same start is known."""
        place = self.generations.index(one) + 1
        return all(other.instance != one.instance for other in self.generations[place:])

    def _is_final(self, one: Generation) -> bool:
        """Whether no younger generation begins with the rest of a line that this one began."""
        if one.archived and one.superseded_at is None:
            return one.severed  # its successor is there, and between two names just now
        return one.severed or one.continued or self._is_last(one)

    def _begin_again(self, one: Generation, grown: int) -> None:
        """Give late bytes of an ended log a log of their own: what was promised of the old one stays true."""
        before = copy.copy(one)
        before.descriptor = -1
        self._remember(before, one)
        one.log = self.name(one.place)
        one.origin = one.offset - grown
        one.told = None
        one.late = one.severed = True
        one.begun = True

    def _replace(self, old: Generation, now: float) -> None:
        """Start at 0 in a file whose content was replaced, after what can still be had of the old content."""
        new = old.replaced(self.name(old.place))
        place = self.generations.index(old) + 1
        self.generations.insert(place, new)  # held, before anybody looks for files that are not
        between = self._rescue(old)
        old.severed = old.descriptor < 0
        if old.descriptor >= 0 or (between and not old.offset):
            old.shrunk = 0  # the copy has it; of a file that was not begun, the copy is a file nobody has seen
        self._telemetry.file_truncated(old.path, old.shrunk)
        old.shrunk = 0
        new.grew_at = now
        new.superseded_at = old.superseded_at
        if self._stopping:
            new.limit = new.size
        self.generations[place : place + 1] = [
            *(one for one in between if one.modified_ns <= new.modified_ns),
            new,
            *(one for one in between if one.modified_ns > new.modified_ns),  # it was rotated away meanwhile
        ]
        for one in self.generations[:-1]:
            _supersede(one, now)

    def _release(self, now: float) -> None:
        """Close what has ended and has no name any more, or is one too many."""
        over = [one for one in self.generations if one.ended and (one.superseded_at is not None or one.complete)]
        for position, one in enumerate(over):
            gone = not one.links and self._quiet(one, now, self._timing.grace)
            if one.complete or gone or len(over) - position > _HELD:
                self._drop(one)

    def _shed(self) -> None:
        """Give up the oldest deleted generations that nobody had time to read."""
        pinned = []
        for one in self.generations[:-1]:
            try:
                waiting = one.look()
            except OSError:
                continue
            if waiting and not one.links:
                pinned.append((one, waiting))
        total = sum(waiting for _, waiting in pinned)
        while pinned and (len(pinned) > _HELD or total > _HELD_BYTES):
            one, waiting = pinned.pop(0)
            total -= waiting
            self._lose(one, "generation_cap", waiting, "too many deleted files wait to be read")

    def _unreadable(self, one: Generation, error: OSError, now: float) -> None:
        self._telemetry.source_waiting(one.path, error)
        if one.superseded_at is not None and now - one.superseded_at >= self._timing.grace:
            one.settled = True  # it is tried again, and its successors wait no longer
        if error.errno in {errno.ESTALE, errno.EBADF} and not one.reopen():  # the descriptor is of no use any more
            self._lose(one, "read_error", max(0, one.size - one.offset), generation.problem_of(error))

    def _lose(self, one: Generation, reason: str, count: int, why: str) -> None:
        self._telemetry.bytes_lost(reason, count, f"{one.path}: {why}")
        one.close()
        one.complete = True
        if one.superseded_at is None:
            one.superseded_at = one.grew_at  # nothing will come of it: its name is looked up anew

    def _drop(self, one: Generation) -> None:
        one.close()
        self._remember(one, one)
        self.generations.remove(one)

    def _remember(self, closed: Generation, place: Generation) -> None:
        index = self.generations.index(place)
        closed.behind = self.generations[index - 1] if index else None
        self.past.append(closed)

    def _count(self, one: Generation) -> None:
        if one.shrunk:
            self._telemetry.file_truncated(one.path, one.shrunk)
            one.shrunk = 0
        if one.nuls:
            self._telemetry.bytes_lost("nuls", one.nuls, f"{one.path}: a hole of NULs, left by a truncation")
            one.nuls = 0


def _supersede(old: Generation, now: float) -> None:
    if old.superseded_at is None:
        old.superseded_at = now
        with contextlib.suppress(OSError):
            old.owed = old.offset + old.look()
