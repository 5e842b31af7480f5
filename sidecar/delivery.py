"""Feeding one sink: batches in, pushes out, each batch acknowledged once somebody durable has it.

Promise: records reach the sink in the order they came, encoded once; what the sink does not take now is tried until it
does, and never holds up another stream; what it will never take is counted and kept as dead letters where there are
any, and never holds up what follows. The queue is bounded, and what is done at the bound is the policy: `block` makes
the pump wait, `drop` counts and forgets, `spool` writes to disk. A batch is acknowledged exactly once, and only when
each of its records was delivered, spooled to disk, refused and recorded, or dropped and counted.
Refused: starting tasks (`run` is one, owned by app), more than one push in flight, giving up after so many tries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sidecar import outbox
from sidecar.errors import SinkRefused, SinkRetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.deadletter import DeadLetters
    from sidecar.model import Batch, Push, Receipt, Record
    from sidecar.outbox import Parcel
    from sidecar.sinks import Sink
    from sidecar.telemetry import Telemetry

Policy = Literal["block", "drop", "spool"]

RECORD_OVERHEAD = 400  # bytes that a record takes in memory beside its line
_MAX_BATCHES = 4096  # a bound for batches of next to nothing
_GROUP_BATCHES = 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the destination said when it refused records for good."""

    reason: str
    detail: str
    at: float  # epoch seconds


@dataclass(frozen=True, slots=True)
class Status:
    """How a sink is doing, for /health and the status page."""

    sink: str
    last_success: float | None  # by `clock`
    last_success_at: float | None  # epoch seconds
    oldest_unsent_seconds: float
    pending_records: int
    spool_bytes: int
    last_refusal: Refusal | None
    retrying: str | None  # the reason, while the sink is being tried again


@dataclass(frozen=True, slots=True)
class Unsent:
    """What has not been delivered."""

    batches: int
    records: int
    bytes: int


@dataclass(slots=True, eq=False)
class _Group:
    """Batches that were encoded together."""

    batches: list[Batch]
    size: int
    arrived: float  # the oldest of them
    left: int = 0  # pushes not done yet


@dataclass(slots=True)
class _Waiting:
    batch: Batch
    size: int
    arrived: float = field(default=0.0)


class Delivery:
    """One sink's queue and the loop that empties it."""

    def __init__(
        self,
        sink: Sink,
        *,
        policy: Policy,
        max_bytes: int,
        telemetry: Telemetry,
        batch_bytes: int = 256 << 10,
        max_wait: float = 0.0,
        dead_letters: DeadLetters | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` must be that of the event loop; `chance` spreads the pauses."""
        self._sink = sink
        self._policy = policy
        self._max_bytes = max_bytes
        self._batch_bytes = batch_bytes
        self._max_wait = max_wait
        self._telemetry = telemetry
        self._dead_letters = dead_letters
        self._clock = clock
        self._wall = wall
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._outbox: outbox.Outbox[_Group] = outbox.Outbox(chance)
        self._groups: dict[_Group, None] = {}  # encoded and not done, oldest first
        self._queued_bytes = 0  # waiting and encoded
        self._queued_batches = 0
        self._pending = 0
        self._ended = False
        self._stir = asyncio.Event()  # something for run() to look at
        self._room = asyncio.Event()  # something for put() to look at
        self._last_success: float | None = None
        self._last_success_at: float | None = None
        self._last_refusal: Refusal | None = None

    # the pump's side

    async def put(self, batch: Batch) -> None:
        """Take a batch; waits, drops or spools at the bound. Called by one task only."""
        count = len(batch.records)
        if not count:
            batch.ack.done()
            return
        self._telemetry.sink_offered(self._sink.name, count)
        self._pending += count
        size = sum([len(record.line) for record in batch.records]) + RECORD_OVERHEAD * count
        while self._full(size):
            if self._policy == "drop":
                self._done(count)
                self._telemetry.sink_dropped(self._sink.name, count, "the queue is full")
                batch.ack.done()
                return
            self._room.clear()
            await self._room.wait()
        self._waiting.append(_Waiting(batch, size, self._clock()))
        self._waiting_bytes += size
        self._queued_bytes += size
        self._queued_batches += 1
        self._stir.set()

    def close(self) -> None:
        """Say that no batch will come any more: `run` delivers what is there and returns."""
        self._ended = True
        self._stir.set()

    def status(self) -> Status:
        now = self._clock()
        return Status(
            sink=self._sink.name,
            last_success=self._last_success,
            last_success_at=self._last_success_at,
            oldest_unsent_seconds=self._oldest_seconds(now),
            pending_records=self._pending,
            spool_bytes=0,
            last_refusal=self._last_refusal,
            retrying=self._outbox.retrying or None,
        )

    def unsent(self) -> Unsent:
        return Unsent(self._queued_batches, self._pending, self._queued_bytes - RECORD_OVERHEAD * self._pending)

    def report(self) -> None:
        """Set the gauges; to be called before a scrape."""
        self._telemetry.sink_state(self._sink.name, oldest_unsent_seconds=self._oldest_seconds(self._clock()))

    # the deliverer

    async def run(self) -> None:
        """Deliver until everything is delivered after `close`. Cancelled, it leaves what is unsent unacknowledged."""
        while True:
            now = self._clock()
            parcel = self._outbox.next(now)
            if parcel is None and not self._outbox.resting(now) and self._group_due(now):
                self._encode_group()
                continue
            if parcel is not None:
                await self._send(parcel)
                await asyncio.sleep(0)  # a sink that never waits must not keep the loop to itself
                continue
            if not self._waiting and not len(self._outbox):
                if self._ended:
                    return
                self._outbox.caught_up()
            elif not len(self._outbox):
                self._outbox.caught_up()  # what waits has only just come in
            await self._pause(now)

    def _group_due(self, now: float) -> bool:
        return bool(self._waiting) and (
            self._ended
            or self._waiting_bytes >= self._batch_bytes
            or len(self._waiting) >= _GROUP_BATCHES
            or now - self._waiting[0].arrived >= self._max_wait
        )

    async def _pause(self, now: float) -> None:
        """Wait until something may have become due."""
        times = []
        if (ready := self._outbox.ready_at()) is not None:
            times.append(ready)
        if self._waiting and not self._outbox.resting(now):
            times.append(self._waiting[0].arrived + self._max_wait)
        self._stir.clear()
        if not times:
            await self._stir.wait()
            return
        try:
            # Never less than a millisecond: a timer that fires a hair early must not become a busy loop.
            async with asyncio.timeout(max(0.001, min(times) - now)):
                await self._stir.wait()
        except TimeoutError:
            pass

    def _encode_group(self) -> None:
        """Encode the batches that have waited long enough, in the order they came."""
        group = _Group([], 0, self._waiting[0].arrived)
        records: list[Record] = []
        while self._waiting and (group.size < self._batch_bytes or not group.batches):
            waiting = self._waiting.popleft()
            group.batches.append(waiting.batch)
            group.size += waiting.size
            records.extend(waiting.batch.records)
        self._waiting_bytes -= group.size
        pushes = self._sink.encode(records, self._sink.settle(records))
        group.left = len(pushes)
        self._groups[group] = None
        for push in pushes:
            self._outbox.add(push, group)

    async def _send(self, parcel: Parcel[_Group]) -> None:
        push, name = parcel.push, self._sink.name
        try:
            receipt = await self._sink.send(push)
        except SinkRetry as retry:
            self._telemetry.sink_pushed(name, retry.status or retry.reason)
            pause, suspicion = self._outbox.failed(
                parcel, self._clock(), retry.reason, after=retry.after, stream_only=retry.stream_only
            )
            self._telemetry.sink_retried(name, retry.reason, retry.detail, pause)
            if suspicion is outbox.Suspicion.GIVE_UP:
                await self._give_up(parcel, "poison", retry.detail)
            elif suspicion is outbox.Suspicion.DIVIDE and (parts := self._sink.divide(push)):
                self._replace(parcel, parts)
        except SinkRefused as refused:
            self._telemetry.sink_pushed(name, refused.status or refused.reason)
            await self._give_up(parcel, refused.reason, refused.detail)
        else:
            self._telemetry.sink_pushed(name, receipt.status)
            await self._accept(parcel, receipt)

    async def _accept(self, parcel: Parcel[_Group], receipt: Receipt) -> None:
        now = self._clock()
        again = sum(len(push.records) for push in receipt.again)
        sent = len(parcel.push.records) - again - len(receipt.refused)
        if sent:
            self._last_success, self._last_success_at = now, self._wall()
            self._telemetry.sink_done(self._sink.name, "sent", sent)
            self._done(sent)
        if receipt.refused:
            await self._refuse(receipt.refused, receipt.reason, receipt.detail)
        if receipt.again:
            self._replace(parcel, receipt.again)
        else:
            self._outbox.delivered(parcel, now)
            self._finish(parcel.ticket)

    async def _give_up(self, parcel: Parcel[_Group], reason: str, detail: str) -> None:
        await self._refuse(parcel.push.records, reason, detail)
        self._outbox.refused(parcel)
        self._finish(parcel.ticket)

    async def _refuse(self, records: Sequence[Record], reason: str, detail: str) -> None:
        """Record what will never be delivered."""
        kept = 0
        if self._dead_letters is not None:
            kept = self._dead_letters.write(records, reason, detail)
            await self._dead_letters.sync()
        if kept:
            self._telemetry.sink_refused(self._sink.name, kept, reason, detail, dead_lettered=True)
        if kept < len(records):
            self._telemetry.sink_refused(self._sink.name, len(records) - kept, reason, detail)
        self._last_refusal = Refusal(reason, detail, self._wall())
        self._done(len(records))

    def _replace(self, parcel: Parcel[_Group], pushes: Sequence[Push]) -> None:
        parcel.ticket.left += len(pushes) - 1
        self._outbox.replace(parcel, pushes)

    def _finish(self, group: _Group) -> None:
        """One push of a group is done; the last one acknowledges its batches."""
        group.left -= 1
        if group.left:
            return
        del self._groups[group]
        self._queued_bytes -= group.size
        self._queued_batches -= len(group.batches)
        for batch in group.batches:
            batch.ack.done()
        self._room.set()

    def _done(self, count: int) -> None:
        self._pending -= count

    def _full(self, size: int) -> bool:
        if not self._queued_batches:
            return False  # one batch always fits
        return self._queued_bytes + size > self._max_bytes or self._queued_batches >= _MAX_BATCHES

    def _oldest_seconds(self, now: float) -> float:
        oldest = [next(iter(self._groups)).arrived] if self._groups else []
        if self._waiting:
            oldest.append(self._waiting[0].arrived)
        return max(0.0, now - min(oldest)) if oldest else 0.0
