"""Pushes that wait for their turn: which one to send next, and when.

One lane per stream of the destination, first in, first out: what is older goes first and is never overtaken by what is
newer in its stream, while streams do not wait for each other. Pure: no I/O, no clock of its own (`now` is passed in).
Promise: pauses grow from half a second to thirty with full jitter and without a limit on tries, and end with the first
success; the end of the process makes them shorter, so that a destination that is back is not missed. A destination that
is down is asked once, not once per lane; a lane that alone is in trouble rests alone.
After trouble a lane sends what has piled up at less than 1 MB/s, because a stream that is faster is split by Loki,
which undoes its protection against duplicates; the bound yields when it would itself keep the lane behind.
Poison, a push that makes the destination fail while it takes others, is halved until it stands alone, and then given
up: nothing behind it may wait for it for ever.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar

from sidecar import columnar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.model import Push

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LONGEST_WISH = 300.0  # a destination that asks for a longer pause is asked again after this one
_SLOW_PAUSE = 8.0  # where a human has to do something first; from here on as usual
SLOW_REASONS = frozenset({"credentials", "not_found", "blocked", "redirect"})
_LANE_REASONS = frozenset({"server_error", "timeout"})  # may be this push's fault: others have their turn first

_HURRIED_TRIES = 8  # as many at least fit into the time that is left at the end

_TRIES = 5  # so many server errors make a push a suspect
_RATE_TRIES = 6  # so many rate limits for one push: perhaps it is larger than the burst

CATCH_UP_BYTES_PER_SECOND = 800_000.0
_ENTRY_BYTES = 150  # what metadata adds to a line, as Loki counts
_PATIENCE = 60.0  # seconds of catching up, beside ten times the outage, after which the bound is too low

Ticket = TypeVar("Ticket")


class Suspicion(Enum):
    """What to do with a push beside trying it again."""

    NONE = auto()
    DIVIDE = auto()
    GIVE_UP = auto()


@dataclass(slots=True, eq=False)
class Parcel(Generic[Ticket]):
    """One push on its way, with what its owner needs when it has arrived."""

    push: Push
    ticket: Ticket
    number: int = 0  # by age; halves share it
    tries: int = 0  # server errors of these bytes
    limited: int = 0  # rate limits of these bytes
    first_try: int = 0  # successes of the destination when these bytes first failed
    family_try: int | None = None  # likewise of the push this one is a part of


@dataclass(slots=True)
class Backoff:
    """Grows with each failure in a row."""

    failures: int = 0
    until: float = 0.0

    def fail(
        self,
        now: float,
        chance: float,
        *,
        after: float | None = None,
        slow: bool = False,
        longest: float = _LONGEST_PAUSE,
    ) -> float:
        """Return the pause; `chance` is a random number in [0, 1)."""
        limit = min(longest, (_SLOW_PAUSE if slow else _FIRST_PAUSE) * 2.0 ** min(self.failures, 16))
        self.failures += 1
        pause = chance * limit if not slow else limit * (0.5 + chance / 2)
        if after is not None:
            pause = max(pause, min(after, _LONGEST_WISH))
        self.until = now + pause
        return pause

    def reset(self) -> None:
        self.failures = 0
        self.until = 0.0


@dataclass(slots=True, eq=False)
class _Lane(Generic[Ticket]):
    parcels: deque[Parcel[Ticket]] = field(default_factory=deque)
    held: Parcel[Ticket] | None = None  # a suspect set aside while its successor is tried
    backoff: Backoff = field(default_factory=Backoff)
    catching_up: bool = False
    free_at: float = 0.0  # when the bound on catching up lets it send again
    tried_at: float = float("-inf")

    def ready_at(self) -> float:
        return max(self.backoff.until, self.free_at)


class Outbox(Generic[Ticket]):
    """The lanes of one destination."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._lanes: dict[str, _Lane[Ticket]] = {}
        self._destination = Backoff()
        self._number = 0
        self._successes = 0
        self._down_since: float | None = None
        self._outage = 0.0  # length of the last one
        self._rate = CATCH_UP_BYTES_PER_SECOND
        self._rate_since = 0.0
        self._longest_pause = _LONGEST_PAUSE
        self.retrying = ""  # why the destination, or some lane, is being tried again

    def __len__(self) -> int:
        return sum(len(lane.parcels) + (lane.held is not None) for lane in self._lanes.values())

    def __iter__(self) -> Iterator[Parcel[Ticket]]:
        for lane in self._lanes.values():
            if lane.held is not None:
                yield lane.held
            yield from lane.parcels

    def add(self, push: Push, ticket: Ticket) -> None:
        """Append a push to its lane."""
        self._number += 1
        self._lane(push.stream).parcels.append(Parcel(push, ticket, self._number))

    def next(self, now: float) -> Parcel[Ticket] | None:
        """Return what to send now; None when nothing is there or everything has to wait."""
        if now < self._destination.until:
            return None
        ready = [lane for lane in self._lanes.values() if lane.parcels and lane.ready_at() <= now]
        if not ready:
            return None
        if self._destination.failures:  # after a failure each lane has its turn: the fault may lie in one of them
            lane = min(ready, key=lambda lane: (lane.tried_at, lane.parcels[0].number))
        else:
            lane = min(ready, key=lambda lane: lane.parcels[0].number)
        lane.tried_at = now
        return lane.parcels[0]

    def ready_at(self) -> float | None:
        """Return when `next` will have something; None while there is nothing."""
        times = [lane.ready_at() for lane in self._lanes.values() if lane.parcels]
        return max(self._destination.until, min(times)) if times else None

    def resting(self, now: float) -> bool:
        """Say whether the destination itself has to be left alone now."""
        return now < self._destination.until

    def hurry(self, seconds: float) -> None:
        """Say that only so much time is left: what rests may be tried at once, and then several times more.

        A pause that the destination asks for from now on is kept all the same.
        """
        self._longest_pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, seconds / _HURRIED_TRIES))
        for backoff in (self._destination, *(lane.backoff for lane in self._lanes.values())):
            backoff.reset()

    def caught_up(self) -> None:
        """Say that nothing waits any more but what has just come in."""
        for stream, lane in list(self._lanes.items()):
            lane.catching_up = False
            lane.free_at = 0.0
            if not lane.parcels and not lane.backoff.failures:
                del self._lanes[stream]
        self._rate = CATCH_UP_BYTES_PER_SECOND
        self._outage = 0.0

    def delivered(self, parcel: Parcel[Ticket], now: float) -> None:
        """The destination has answered for good: take the push out."""
        self._successes += 1
        if self._down_since is not None:
            self._outage, self._down_since, self._rate_since = now - self._down_since, None, now
        self._destination.reset()
        lane = self._take(parcel)
        lane.backoff.reset()
        if lane.catching_up:
            if now - self._rate_since > 10 * self._outage + _PATIENCE:
                self._rate *= 2  # live traffic is faster than the bound
                self._rate_since = now
            lane.free_at = max(lane.free_at, now) + _decoded_bytes(parcel.push) / self._rate
        if not any(lane.backoff.failures for lane in self._lanes.values()):
            self.retrying = ""

    def refused(self, parcel: Parcel[Ticket]) -> None:
        """The destination will never take it, or it is given up: take the push out."""
        self._take(parcel).backoff.reset()

    def replace(self, parcel: Parcel[Ticket], pushes: Sequence[Push]) -> None:
        """Put other pushes in the place of one; those of another stream go to the end of their own lane."""
        lane = self._lane(parcel.push.stream)
        place = lane.parcels.index(parcel)
        del lane.parcels[place]
        family = parcel.first_try if parcel.tries and parcel.family_try is None else parcel.family_try
        for push in pushes:
            part = Parcel(push, parcel.ticket, parcel.number, family_try=family)
            if push.stream == parcel.push.stream:
                lane.parcels.insert(place, part)
                place += 1
            else:
                other = self._lane(push.stream)
                other.catching_up = other.catching_up or lane.catching_up
                other.parcels.append(part)
        self._resume_order(lane)

    def failed(
        self,
        parcel: Parcel[Ticket],
        now: float,
        reason: str,
        *,
        after: float | None = None,
        stream_only: bool = False,
    ) -> tuple[float, Suspicion]:
        """Note that a push was not taken now; return how long its lane rests and what to do with it besides."""
        self.retrying = reason
        lane = self._lane(parcel.push.stream)
        lane.catching_up = True
        slow = reason in SLOW_REASONS
        if stream_only:
            pause = lane.backoff.fail(now, self._chance(), after=after, slow=slow, longest=self._longest_pause)
        else:
            if self._down_since is None:
                self._down_since = now
            for other in self._lanes.values():
                other.catching_up = True
            pause = self._destination.fail(now, self._chance(), after=after, slow=slow, longest=self._longest_pause)
            if reason in _LANE_REASONS and len(self._lanes) > 1:
                pause = max(pause, lane.backoff.fail(now, self._chance(), longest=self._longest_pause))
        if reason == "rate_limited":
            parcel.limited += 1
            return pause, Suspicion.NONE if parcel.limited % _RATE_TRIES else Suspicion.DIVIDE
        if reason == "server_error":
            return pause, self._suspect(lane, parcel)
        self._resume_order(lane)
        return pause, Suspicion.NONE

    def _suspect(self, lane: _Lane[Ticket], parcel: Parcel[Ticket]) -> Suspicion:
        """Judge a push that made the destination fail."""
        if not parcel.tries:
            parcel.first_try = self._successes
        parcel.tries += 1
        self._resume_order(lane)
        proved = self._successes > parcel.first_try  # it has taken others since
        related = parcel.family_try is not None and self._successes > parcel.family_try
        divisible = len(parcel.push.records) > 1
        if divisible:
            return Suspicion.DIVIDE if related or parcel.tries >= _TRIES else Suspicion.NONE
        if parcel.tries < _TRIES:
            return Suspicion.NONE
        if proved:
            return Suspicion.GIVE_UP
        if len(lane.parcels) > 1 and lane.parcels[0] is parcel:
            lane.held = lane.parcels.popleft()  # the next one shows whether it is the push or the destination
        return Suspicion.NONE

    def _resume_order(self, lane: _Lane[Ticket]) -> None:
        if lane.held is not None:
            lane.parcels.appendleft(lane.held)
            lane.held = None

    def _take(self, parcel: Parcel[Ticket]) -> _Lane[Ticket]:
        lane = self._lane(parcel.push.stream)
        lane.parcels.remove(parcel)
        self._resume_order(lane)
        return lane

    def _lane(self, stream: str) -> _Lane[Ticket]:
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = _Lane()
            lane.catching_up = self._down_since is not None
        return lane


def _decoded_bytes(push: Push) -> int:
    return sum(map(len, columnar.lines(push.records))) + _ENTRY_BYTES * len(push.records)
