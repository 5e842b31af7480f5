"""Delivery with a spool: the source never waits, nothing is acknowledged that a crash would lose, order stays."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.acks import Tracker
from sidecar.delivery import Delivery
from sidecar.errors import SinkRetry
from sidecar.model import Batch, Position
from sidecar.spool import Spool
from tests.support import records, virtual_time
from tests.support.scripted_sink import ScriptedSink


class Process:
    """A delivery over a spool; another one over the same directory is the next process."""

    def __init__(self, directory, *, max_bytes=1 << 20, sink=None, first=0):
        self.sink = sink or ScriptedSink()
        self.telemetry = records.quiet_telemetry()
        self.spool = Spool(directory, max_bytes=max_bytes, telemetry=self.telemetry, wall=virtual_time.wall)
        self.tracker = Tracker()
        self.count = first
        self.acknowledged = []
        self.delivery = Delivery(
            self.sink,
            policy="spool",
            max_bytes=max_bytes,
            max_wait=0.5,
            batch_bytes=20_000,
            telemetry=self.telemetry,
            spool=self.spool,
            clock=virtual_time.clock,
            wall=virtual_time.wall,
            chance=lambda: 1.0,
        )
        self.task = asyncio.create_task(self.delivery.run())

    async def put(self, size=10, text="", **fields):
        made = [
            records.record(f"{self.count + n}", time_ns=virtual_time.now_ns() + n, filler=text, **fields)
            for n in range(size)
        ]
        self.count += size
        await self.delivery.put(Batch(made, self.tracker.open(Position("log", self.count), 1)))

    @property
    def watermark(self):
        return self.tracker.watermark.offset if self.tracker.watermark else 0

    async def end(self):
        """Drain and close."""
        self.delivery.close()
        await self.task
        self.spool.close()

    async def stop(self):
        """Give up at once, as at the drain deadline."""
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        self.spool.close()

    def ledger(self):
        return records.ledger(self.telemetry, "loki")


def down(push):
    return SinkRetry("connection")


def numbers(messages):
    return [int(message) for message in messages]


def test_while_the_sink_keeps_up_nothing_stays_on_disk(tmp_path):
    async def main():
        process = Process(tmp_path)
        for _ in range(20):
            await process.put()
            await asyncio.sleep(1)
        assert process.spool.pending == 0
        assert process.delivery.status().spool_bytes == 0
        await process.end()
        assert numbers(process.sink.stored) == list(range(200))
        assert process.watermark == 200

    virtual_time.run(main())


def test_a_sink_that_is_down_never_makes_the_source_wait(tmp_path):
    async def main():
        process = Process(tmp_path, max_bytes=4 << 20)
        process.sink.answer = down
        await asyncio.sleep(1)
        started = virtual_time.clock()
        for _ in range(300):
            await process.put(20, "x" * 300)
        assert virtual_time.clock() - started < 1
        assert process.delivery.status().pending_records == 6000
        await process.stop()

    virtual_time.run(main())


def test_what_is_undelivered_is_acknowledged_once_it_is_on_disk(tmp_path):
    async def main():
        process = Process(tmp_path)
        process.sink.answer = down
        await process.put()
        assert process.watermark == 0
        await asyncio.sleep(2)
        assert process.watermark == 10
        await process.stop()

    virtual_time.run(main())


def test_after_an_outage_everything_arrives_once_and_in_order(tmp_path):
    async def main():
        process = Process(tmp_path, max_bytes=8 << 20)
        process.sink.answer = down
        for _ in range(150):
            await process.put(20, "x" * 300)
            await asyncio.sleep(0.3)
        process.sink.answer = lambda push: None
        for _ in range(50):
            await process.put(20, "x" * 300)
            await asyncio.sleep(0.3)
        await process.end()
        assert numbers(process.sink.stored) == list(range(4000))
        assert process.ledger()["sent"] == 4000
        assert process.watermark == 4000

    virtual_time.run(main())


def test_the_next_process_goes_on_at_the_very_record(tmp_path):
    async def main():
        first = Process(tmp_path)
        first.sink.answer = down
        for _ in range(10):
            await first.put()
        await asyncio.sleep(5)
        first.sink.script(None, SinkRetry("connection"), *[SinkRetry("connection")] * 1000)
        first.sink._push_records = 100
        await asyncio.sleep(60)
        await first.stop()
        second = Process(tmp_path, first=100)
        assert second.delivery.status().pending_records == 100 - len(first.sink.stored)
        await second.put()
        await second.end()

        assert numbers(first.sink.stored + second.sink.stored) == list(range(110))
        assert second.ledger() == {
            "sent": 110 - len(first.sink.stored),
            "refused": 0,
            "dropped": 0,
            "dead_lettered": 0,
            "pending": 0,
        }

    virtual_time.run(main())


def test_a_push_that_was_half_done_by_streams_is_not_repeated_whole(tmp_path):
    """Two streams in one group: the one that was delivered stays delivered across a restart."""

    async def main():
        first = Process(tmp_path)
        first.sink.answer = lambda push: None if push.stream == "a" else SinkRetry("stream_limited", stream_only=True)
        await first.put(5, service_name="a")
        await first.put(5, service_name="b")
        await asyncio.sleep(5)
        await first.stop()
        second = Process(tmp_path, first=10)
        await second.end()

        assert first.sink.stored == list("01234")
        assert second.sink.stored == list("56789")

    virtual_time.run(main())


def test_the_spool_never_grows_beyond_its_bound_and_counts_what_it_drops(tmp_path):
    async def main():
        process = Process(tmp_path, max_bytes=128 << 10)
        process.sink.answer = down
        largest = 0
        for _ in range(300):
            await process.put(20, "x" * 300)
            largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
            await asyncio.sleep(0.01)
        assert largest <= 128 << 10
        dropped = process.ledger()["dropped"]
        assert dropped > 0
        process.sink.answer = lambda push: None
        await process.end()
        assert process.ledger() == {
            "sent": 6000 - dropped,
            "refused": 0,
            "dropped": dropped,
            "dead_lettered": 0,
            "pending": 0,
        }
        assert numbers(process.sink.stored) == sorted(numbers(process.sink.stored))
        assert process.watermark == 6000

    virtual_time.run(main())


def test_a_burst_larger_than_the_spool_goes_through_while_the_sink_takes_it(tmp_path):
    async def main():
        process = Process(tmp_path, max_bytes=64 << 10)
        for _ in range(4):
            await process.put(500, "x" * 100)
        await process.end()
        assert numbers(process.sink.stored) == list(range(2000))
        assert process.watermark == 2000

    virtual_time.run(main())


def test_of_a_burst_larger_than_the_spool_its_bounds_worth_is_kept(tmp_path):
    async def main():
        process = Process(tmp_path, max_bytes=64 << 10)
        process.sink.answer = down
        await process.put(1)
        await asyncio.sleep(2)
        await process.put(2000, "x" * 100)
        kept = process.delivery.status().pending_records
        assert kept * len(records.record("1000", filler="x" * 100).line) > 32 << 10
        assert process.delivery.status().spool_bytes <= 64 << 10
        process.sink.answer = lambda push: None
        await process.end()
        assert process.ledger()["sent"] == kept
        assert process.watermark == 2001

    virtual_time.run(main())


def test_records_of_half_the_spool_each_find_room_again_and_again(tmp_path):
    """What is left on disk of a queue in which nothing waits takes no room from the next one."""

    async def main():
        process = Process(tmp_path, max_bytes=64 << 10)
        for _ in range(5):
            await process.put(1, "x" * (40 << 10))
            await asyncio.sleep(1)
        await process.put(1, "x" * (100 << 10))
        await process.end()
        assert numbers(process.sink.stored) == list(range(6))

    virtual_time.run(main())


def test_at_the_deadline_what_is_in_the_spool_is_acknowledged(tmp_path):
    async def main():
        process = Process(tmp_path)
        process.sink.answer = down
        await process.put()
        await asyncio.sleep(0.1)
        await process.stop()

        assert process.watermark == 10
        assert process.delivery.unsent().records == 10

    virtual_time.run(main())
