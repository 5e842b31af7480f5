"""Feeding one sink: batches in, pushes out, each batch acknowledged once somebody durable has it.

Promise: records reach the sink in the order they came, encoded once; what the sink does not take now is tried until it
does, and never holds up another stream; what it will never take is counted and kept as dead letters where there are
any, and never holds up what follows. The queue is bounded, and what is done at the bound is the policy: `block` makes
the pump wait, `drop` counts and forgets, `spool` writes to disk; the last two make it wait only for a sink that is
taking pushes, and for a tenth of a second at most for what fits the bound at once. A batch is acknowledged exactly
once, and only when each of its records was delivered, spooled to disk, refused and recorded, or dropped and counted.
Refused: starting tasks (`run` is one, owned by app), more than one push in flight, giving up after so many tries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sidecar import columnar
from sidecar.delivery import backlog, outbox
from sidecar.delivery.settling import Settler
from sidecar.delivery.state import Refusal, Status, Unsent
from sidecar.errors import SinkRefused, SinkRetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.delivery.backlog import Item
    from sidecar.delivery.outbox import Parcel
    from sidecar.model import Batch, Push, Receipt, Record
    from sidecar.sinks import Sink
    from sidecar.spool import Spool
    from sidecar.telemetry import Telemetry

__all__ = ["Delivery", "Letters", "Policy", "Refusal", "Status", "Unsent"]

Policy = Literal["block", "drop", "spool"]

_MAX_BATCHES = 4096  # a bound for batches of next to nothing
_MOMENT_SECONDS = 0.1


class Letters(Protocol):
    """Where refused records are kept: deadletter.DeadLetters."""

    def write(self, records: Sequence[Record], reason: str, detail: str = "") -> int:
        """Keep records and return how many were kept."""

    async def sync(self) -> None:
        """Wait until they are safe."""


@dataclass(slots=True, eq=False)
class _Group:
    """Items that were encoded together."""

    items: list[Item]
    left: int = 0  # pushes not done yet
    numbers: dict[int, int] = field(default_factory=dict)  # id of record → number in the spool


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
        dead_letters: Letters | None = None,
        spool: Spool | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` must be that of the event loop; `chance` spreads the pauses; `spool` belongs to its policy."""
        if (policy == "spool") != (spool is not None):
            raise ValueError("a spool belongs to the policy of that name")
        self._sink = sink
        self._policy = policy
        self._max_bytes = max_bytes
        # What is lost at the bound is lost in parts of it, and so is what is kept; a source that waits needs none.
        self._part_bytes = spool.part_bytes if spool is not None else max_bytes // 8 if policy == "drop" else None
        self._telemetry = telemetry
        self._dead_letters = dead_letters
        self._spool = spool
        self._clock = clock
        self._wall = wall
        self._settler = Settler(sink)
        self._backlog = backlog.Backlog(
            enough_bytes=min(batch_bytes, max_bytes // 2),
            max_wait=max_wait,
            settle=self._settler.settle,
            wall=wall,
            spool=spool,
        )
        self._outbox: outbox.Outbox[_Group] = outbox.Outbox(chance)
        self._groups: dict[_Group, None] = {}  # encoded and not done, oldest first
        self._pending = spool.pending if spool is not None else 0
        if self._pending:  # what a former process left is offered again: the accounts begin with this one
            telemetry.sink_offered(sink.name, self._pending)
        self._ended = False
        self._pressed = False  # the pump waits: what has come together so far must do
        self._stir = asyncio.Event()  # something for run() to look at
        self._room = asyncio.Event()  # something for put() to look at
        self._last_success: float | None = None
        self._last_success_at: float | None = None
        self._last_refusal: Refusal | None = None
        self._last_drop_at: float | None = None
        self.lost: Counter[str] = Counter()  # why → records that are neither delivered nor kept anywhere

    @property
    def name(self) -> str:
        """The sink's."""
        return self._sink.name

    # the pump's side

    async def put(self, batch: Batch) -> None:
        """Take a batch; waits, drops or spools at the bound. Called by one task only."""
        count = len(batch.records)
        if not count:
            batch.ack.done()
            return
        self._telemetry.sink_offered(self._sink.name, count)
        self._pending += count
        in_time = True
        for item in backlog.parts(batch, self._clock(), self._part_bytes):
            if self._policy == "block":
                await self._await_room(item.size, None)
            elif in_time and not self._outbox.retrying:
                # A sink that is taking pushes gets a moment: a short wait costs less than a loss, or a way over the
                # disk. A sink that has not used it gets no other for the same batch.
                in_time = await self._await_room(item.size, _MOMENT_SECONDS)
            if self._policy == "drop" and self._full(item.size):
                self._drop(item, "the queue is full")
            elif self._backlog.admit(item):
                self._stir.set()
            else:
                self._drop(item, "the spool is full")
        if self._spool is not None:
            await self._sync_when_due(self._spool)

    async def _await_room(self, size: int, seconds: float | None) -> bool:
        """Wait until an item of this size fits, or for so many seconds; say whether it fits."""
        if not self._crowded(size):
            return True
        self._pressed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._crowded(size):
                    self._stir.set()
                    self._room.clear()
                    await self._room.wait()
        self._pressed = False
        return not self._crowded(size)

    def _drop(self, item: Item, why: str) -> None:
        self._lose(len(item.records), why)
        self._backlog.forget(item)

    def _lose(self, count: int, why: str) -> None:
        self._pending -= count
        self._telemetry.sink_dropped(self._sink.name, count, why)
        self._last_drop_at = self._wall()
        self.lost[why] += count

    def hurry(self, seconds: float) -> None:
        """Say that the process ends in so many seconds: a sink that is left alone is tried at once."""
        self._outbox.hurry(seconds)
        self._stir.set()

    def snapshot(self) -> Mapping[str, Any]:
        """Return what the sink's next process has to know, as plain JSON: of this moment's watermark."""
        return self._settler.snapshot()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Know what a snapshot knew; called before the first batch. Raises StateError, changing nothing."""
        self._sink.restore(saved)

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
            spool_bytes=self._spool.waiting_bytes if self._spool is not None else 0,
            last_refusal=self._last_refusal,
            last_drop_at=self._last_drop_at,
            retrying=self._outbox.retrying or None,
        )

    def unsent(self) -> Unsent:
        """Return what is not delivered; with a spool, bytes are those on disk."""
        if self._spool is not None:
            return Unsent(self._backlog.unacknowledged, self._pending, self._spool.waiting_bytes)
        size = self._backlog.held_bytes - backlog.RECORD_OVERHEAD * self._pending
        return Unsent(self._backlog.unacknowledged, self._pending, size)

    def report(self) -> None:
        """Set the gauges; to be called before a scrape."""
        status = self.status()
        self._telemetry.sink_state(
            self._sink.name, oldest_unsent_seconds=status.oldest_unsent_seconds, spool_bytes=status.spool_bytes
        )

    # the deliverer

    async def run(self) -> None:
        """Deliver until everything is delivered after `close`.

        Cancelled, it leaves unacknowledged what is neither delivered nor in the spool. Raises StateError.
        """
        try:
            while await self._turn():
                pass
        finally:
            self._backlog.sync_now()

    async def _turn(self) -> bool:
        """Do the next thing there is to do, or wait for one; False when all is done."""
        if self._spool is not None:
            await self._sync_when_due(self._spool)
            self._refill(self._spool)
        now = self._clock()
        parcel = self._outbox.next(now)
        if parcel is not None:
            await self._send(parcel)
            await asyncio.sleep(0)  # a sink that never waits must not keep the loop to itself
        elif not self._outbox.resting(now) and self._due(now):
            self._encode_group()
        elif self._ended and not len(self._backlog) and not len(self._outbox) and not self._backlog.behind:
            return False
        else:
            if not len(self._outbox):
                self._outbox.caught_up()  # what waits, if anything, has only just come in
            await self._pause(now)
        return True

    def _due(self, now: float) -> bool:
        return self._backlog.due(now) or (len(self._backlog) > 0 and (self._ended or self._pressed))

    async def _sync_when_due(self, spool: Spool) -> None:
        due = self._backlog.sync_at()
        if due is not None and due <= self._clock():
            await self._backlog.sync(spool)

    def _refill(self, spool: Spool) -> None:
        if self._backlog.refill(self._clock()) and (lost := self._pending - spool.pending) > 0:
            self._lose(lost, "the spool is damaged")

    async def _pause(self, now: float) -> None:
        """Wait until something may have become due."""
        times = [self._outbox.ready_at(), self._backlog.sync_at()]
        if not self._outbox.resting(now):
            times.append(self._backlog.due_at())
        due = min((time for time in times if time is not None), default=None)
        self._stir.clear()
        if due is None:
            await self._stir.wait()
            return
        with suppress(TimeoutError):
            # Never less than a millisecond: a timer that fires a hair early must not become a busy loop.
            async with asyncio.timeout(max(0.001, due - now)):
                await self._stir.wait()

    def _encode_group(self) -> None:
        """Encode what has waited long enough, in the order it came."""
        group = _Group(self._backlog.take())
        records = columnar.join([item.records for item in group.items])
        times: list[int] = []
        for item in group.items:
            if item.times is None:
                item.times = self._settler.settle(item)
            else:
                group.numbers.update(zip(map(id, item.records), item.numbers, strict=True))
            times.extend(item.times)
        pushes = self._sink.encode(records, times)
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
        left = {id(record) for push in receipt.again for record in push.records}
        done = parcel.push.records
        if left:
            done = [record for record in done if id(record) not in left]
        sent = len(done) - len(receipt.refused)
        if sent:
            self._last_success, self._last_success_at = now, self._wall()
            self._telemetry.sink_done(self._sink.name, "sent", sent)
        if receipt.refused:
            await self._refuse(receipt.refused, receipt.reason, receipt.detail)
        self._settle_accounts(parcel.ticket, done)
        if receipt.again:
            self._replace(parcel, receipt.again)
        else:
            self._outbox.delivered(parcel, now)
            self._finish(parcel.ticket)

    async def _give_up(self, parcel: Parcel[_Group], reason: str, detail: str) -> None:
        await self._refuse(parcel.push.records, reason, detail)
        self._settle_accounts(parcel.ticket, parcel.push.records)
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
            self.lost[f"refused: {reason}"] += len(records) - kept
        self._last_refusal = Refusal(reason, detail, self._wall())

    def _settle_accounts(self, group: _Group, records: Sequence[Record]) -> None:
        """Note that records are done, in memory and in the spool."""
        self._pending -= len(records)
        if self._spool is not None:
            self._spool.finish(sorted(group.numbers[id(record)] for record in records))

    def _replace(self, parcel: Parcel[_Group], pushes: Sequence[Push]) -> None:
        parcel.ticket.left += len(pushes) - 1
        self._outbox.replace(parcel, pushes)

    def _finish(self, group: _Group) -> None:
        """One push of a group is done; the last one acknowledges its batches."""
        group.left -= 1
        if group.left:
            return
        del self._groups[group]
        self._backlog.release(group.items)
        self._room.set()

    def _full(self, size: int) -> bool:
        held = self._backlog.held_bytes
        if not held:
            return False  # one item always fits
        return held + size > self._max_bytes or self._backlog.unacknowledged >= _MAX_BATCHES

    def _crowded(self, size: int) -> bool:
        """Say whether one more item would have to be dropped, or could not be kept in memory."""
        return self._full(size) if self._spool is None else self._backlog.crowded(size)

    def _oldest_seconds(self, now: float) -> float:
        """Return for how long the oldest unsent record has waited."""
        oldest = next(iter(self._groups)).items[0] if self._groups else self._backlog.oldest
        return max(0.0, now - oldest.arrived) if oldest is not None else 0.0
