"""Delivery in virtual time: order, acknowledgement, policies, backoff, drain."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from sidecar.acks import Tracker
from sidecar.delivery import Delivery
from sidecar.delivery.backlog import RECORD_OVERHEAD
from sidecar.errors import SinkRefused, SinkRetry
from sidecar.model import Batch, Position, Receipt
from tests.support import records, virtual_time
from tests.support.scripted_sink import ScriptedSink


class Bench:
    """A delivery with its sink, its telemetry and the acks it was given."""

    def __init__(self, **options):
        self.sink = options.pop("sink", None) or ScriptedSink()
        self.telemetry = records.quiet_telemetry()
        self.tracker = Tracker()
        self.count = 0
        self.delivery = Delivery(
            self.sink,
            telemetry=self.telemetry,
            clock=virtual_time.clock,
            wall=virtual_time.wall,
            **{"policy": "block", "max_bytes": 1 << 20, "max_wait": 1.0, "chance": lambda: 1.0} | options,
        )

    def batch(self, size=1, **fields):
        made = [records.record(str(self.count + n), time_ns=self.count + n + 1, **fields) for n in range(size)]
        self.count += size
        return Batch(made, self.tracker.open(Position("log", self.count), 1))

    async def put(self, *sizes, **fields):
        for size in sizes:
            await self.delivery.put(self.batch(size, **fields))

    @property
    def watermark(self):
        return self.tracker.watermark.offset if self.tracker.watermark else 0

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.delivery.run())
        try:
            yield task
        finally:
            self.delivery.close()
            await task

    def ledger(self):
        return records.ledger(self.telemetry, "loki")


def virtual(test):
    """Run an async test in virtual time."""

    def run():
        virtual_time.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_records_arrive_in_order_and_every_batch_is_acknowledged():
    bench = Bench()

    async with bench.running():
        await bench.put(3, 2, 4)

    assert bench.sink.stored == [str(n) for n in range(9)]
    assert bench.watermark == 9
    assert bench.ledger() == {"sent": 9, "refused": 0, "dropped": 0, "dead_lettered": 0, "pending": 0}


@virtual
async def test_batches_that_come_close_together_leave_in_one_push():
    bench = Bench(max_wait=1.0)

    async with bench.running():
        await bench.put(1, 1)
        await asyncio.sleep(0.5)
        await bench.put(1)

    assert bench.sink.attempts == [(0.5, ["0", "1", "2"])]


@virtual
async def test_a_push_leaves_when_its_oldest_record_has_waited_long_enough():
    bench = Bench(max_wait=1.0)

    async with bench.running():
        await bench.put(1)
        await asyncio.sleep(5)

        assert bench.sink.attempts == [(1.0, ["0"])]


@virtual
async def test_a_push_leaves_at_once_when_enough_has_come_together():
    lines = [records.record(str(n), time_ns=n + 1).line for n in range(10)]
    bench = Bench(batch_bytes=sum(map(len, lines)), max_wait=60.0)

    async with bench.running():
        await bench.put(10)
        await asyncio.sleep(1)

        assert bench.sink.attempts == [(0.0, [str(n) for n in range(10)])]


@virtual
async def test_without_records_a_batch_is_acknowledged_at_once():
    bench = Bench()

    await bench.put(0)

    assert bench.tracker.watermark == Position("log", 0)


@virtual
async def test_nothing_is_acknowledged_before_it_is_delivered():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: 5.0

    async with bench.running():
        await bench.put(2)
        await asyncio.sleep(4)
        assert bench.watermark == 0

        await asyncio.sleep(2)
        assert bench.watermark == 2


@virtual
async def test_a_batch_is_acknowledged_when_its_last_stream_is_delivered():
    bench = Bench(max_wait=0.0)
    bench.sink.script(None, SinkRetry("timeout"), None)
    batch = bench.batch(1, service_name="a")
    batch.records = [*batch.records, records.record("other", service_name="b")]

    async with bench.running():
        await bench.delivery.put(batch)
        await asyncio.sleep(0.1)
        assert bench.sink.stored == ["0"]
        assert bench.watermark == 0

    assert bench.watermark == 1


@virtual
async def test_a_push_that_is_tried_again_has_the_same_bytes_and_was_encoded_once():
    bench = Bench()
    bench.sink.script(*[SinkRetry("connection")] * 20)

    async with bench.running():
        await bench.put(5)

    assert len(set(bench.sink.bodies)) == 1
    assert bench.sink.encoded == 5
    assert records.value(bench.telemetry, "sidecar_sink_retries_total", sink="loki", reason="connection") == 20


@virtual
async def test_pauses_double_from_half_a_second_to_thirty_without_end():
    bench = Bench(max_wait=0.0)
    bench.sink.script(*[SinkRetry("connection")] * 30)

    async with bench.running():
        await bench.put(1)

    times = [at for at, _ in bench.sink.attempts]
    assert [later - earlier for earlier, later in pairwise(times)] == [0.5, 1, 2, 4, 8, 16, *[30] * 24]


@virtual
async def test_the_first_success_ends_the_backoff():
    bench = Bench(max_wait=0.0)
    bench.sink.script(*[SinkRetry("connection")] * 8, None, SinkRetry("connection"))

    async with bench.running():
        await bench.put(1)
        await asyncio.sleep(200)
        await bench.put(1)

    (first, _), (second, _) = bench.sink.attempts[-2:]
    assert second - first == 0.5


@virtual
async def test_a_pause_the_destination_asks_for_is_kept():
    bench = Bench(max_wait=0.0)
    bench.sink.script(SinkRetry("rate_limited", after=17.0))

    async with bench.running():
        await bench.put(1)

    assert [at for at, _ in bench.sink.attempts] == [0.0, 17.0]


@virtual
async def test_what_is_refused_is_counted_and_never_holds_up_what_follows():
    bench = Bench(max_wait=0.0)
    bench.sink.script(SinkRefused("malformed", "no good", status="400"))

    async with bench.running():
        await bench.put(3)
        await asyncio.sleep(0.1)
        await bench.put(2)

    assert bench.sink.stored == ["3", "4"]
    assert bench.watermark == 5
    assert bench.ledger() == {"sent": 2, "refused": 3, "dropped": 0, "dead_lettered": 0, "pending": 0}
    assert (refusal := bench.delivery.status().last_refusal)
    assert (refusal.reason, refusal.detail) == ("malformed", "no good")


@virtual
async def test_a_receipt_sorts_out_what_was_taken_refused_and_must_go_again():
    bench = Bench(max_wait=0.0)
    batch = bench.batch(5)
    first, second, third, *_ = batch.records

    def once(push):
        bench.sink.answer = lambda push: None
        again = bench.sink.encode([second, third], [])
        return Receipt("400", refused=[first], reason="too_old", again=again)

    bench.sink.answer = once

    async with bench.running():
        await bench.delivery.put(batch)

    assert bench.sink.stored == ["3", "4", "1", "2"]
    assert bench.watermark == 5
    assert bench.ledger() == {"sent": 4, "refused": 1, "dropped": 0, "dead_lettered": 0, "pending": 0}


@virtual
async def test_block_makes_the_pump_wait_until_there_is_room():
    bench = Bench(max_bytes=2000, max_wait=0.0)
    bench.sink.answer = lambda push: 10.0

    async with bench.running():
        await bench.put(3)
        async with asyncio.timeout(60):
            await bench.put(3)

    assert asyncio.get_running_loop().time() >= 10
    assert bench.ledger()["sent"] == 6


@virtual
async def test_a_pump_that_waits_makes_waiting_for_company_end():
    """Otherwise a small bound and a long `max_wait` would stand still together."""
    bench = Bench(max_bytes=1200, max_wait=3600.0, batch_bytes=100_000)

    async with bench.running():
        await bench.put(1, 2, 2, 2)
        assert asyncio.get_running_loop().time() < 1


@virtual
async def test_a_batch_larger_than_the_bound_still_fits_alone():
    bench = Bench(max_bytes=10)

    async with bench.running():
        await bench.put(50)

    assert bench.ledger()["sent"] == 50


@virtual
async def test_drop_counts_and_acknowledges_what_does_not_fit():
    bench = Bench(policy="drop", max_bytes=2000, max_wait=0.0)
    bench.sink.answer = lambda push: 10.0

    async with bench.running():
        for _ in range(5):
            await bench.put(3)

    assert bench.ledger() == {"sent": 4, "refused": 0, "dropped": 11, "dead_lettered": 0, "pending": 0}
    assert bench.watermark == 15


@virtual
async def test_of_a_batch_larger_than_the_bound_what_fits_is_kept_and_no_more():
    bench = Bench(policy="drop", max_bytes=8000, max_wait=3600.0)

    async with bench.running():
        bench.sink.answer = lambda push: SinkRetry("connection")
        await bench.put(1)
        await asyncio.sleep(4000)  # it is in trouble: nobody waits
        await bench.put(100)
        kept = bench.delivery.status().pending_records
        bench.sink.answer = lambda push: None

    size = len(records.record("50").line) + RECORD_OVERHEAD
    assert 8000 // size - 1 <= kept <= 8000 // size + 1
    assert bench.sink.stored == [str(n) for n in range(kept)]
    assert bench.watermark == 101


@virtual
async def test_a_sink_that_keeps_up_gets_all_of_a_batch_larger_than_the_bound():
    bench = Bench(policy="drop", max_bytes=8000, max_wait=3600.0)
    bench.sink.answer = lambda push: 0.01
    most = 0

    async with bench.running() as task:
        putting = asyncio.create_task(bench.put(500))
        while not putting.done():
            most = max(most, bench.delivery.unsent().bytes)
            await asyncio.sleep(0.001)
        assert not task.done()

    assert most <= 8000
    assert bench.ledger()["sent"] == 500
    assert bench.watermark == 500


@virtual
async def test_a_sink_that_does_not_use_its_moment_gets_no_second_one_for_the_same_batch():
    bench = Bench(policy="drop", max_bytes=8000, max_wait=0.0)
    bench.sink.answer = lambda push: 60.0

    async with bench.running():
        await bench.put(10)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await bench.put(500)
        assert asyncio.get_running_loop().time() - began < 0.2


@virtual
async def test_a_sink_that_is_taking_pushes_gets_a_moment_before_anything_is_dropped():
    bench = Bench(policy="drop", max_bytes=3000, max_wait=0.0)
    bench.sink.answer = lambda push: 0.03

    async with bench.running():
        for _ in range(100):
            await bench.put(3)

    assert bench.ledger()["sent"] == 300


@virtual
async def test_a_sink_that_is_in_trouble_never_makes_the_pump_wait():
    bench = Bench(policy="drop", max_bytes=3000, max_wait=0.0)
    bench.sink.answer = lambda push: SinkRetry("connection") if asyncio.get_running_loop().time() < 60 else None

    async with bench.running():
        await bench.put(3)
        await asyncio.sleep(1)
        for _ in range(1000):
            await bench.put(3)
        assert asyncio.get_running_loop().time() == 1
        assert bench.ledger()["dropped"] >= 2990


@virtual
async def test_one_push_is_in_flight_at_a_time():
    bench = Bench(sink=ScriptedSink(push_records=2), max_wait=0.0)
    bench.sink.answer = lambda push: 0.1

    async with bench.running():
        await bench.put(10)
        await bench.put(10, service_name="other")

    assert bench.sink.most_in_flight == 1


@virtual
async def test_a_stream_in_trouble_does_not_hold_up_another():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: (
        SinkRetry("stream_limited", stream_only=True)
        if push.stream == "a" and asyncio.get_running_loop().time() < 100
        else None
    )

    async with bench.running():
        await bench.put(1, service_name="a")
        await bench.put(1, service_name="b")
        await asyncio.sleep(1)
        assert bench.sink.stored == ["1"]
        assert bench.delivery.status().retrying == "stream_limited"

    assert bench.sink.stored == ["1", "0"]
    assert bench.delivery.status().retrying is None


@virtual
async def test_a_dead_destination_is_asked_once_and_not_once_per_stream():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: SinkRetry("connection") if asyncio.get_running_loop().time() < 600 else None

    async with bench.running():
        for name in "abcdefghij":
            await bench.put(1, service_name=name)
        await asyncio.sleep(600)
        assert len(bench.sink.attempts) <= 6 + 600 / 30 + 1

    assert len(bench.sink.stored) == 10


@virtual
async def test_a_hurry_tries_at_once_whatever_pause_was_asked_for_and_again_in_what_is_left():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: (
        SinkRetry("server_error", after=60.0) if virtual_time.clock() < 100 else SinkRetry("connection")
    )

    async with bench.running():
        await bench.put(1)
        await asyncio.sleep(100.5)
        before = len(bench.sink.attempts)
        bench.delivery.hurry(8.0)
        await asyncio.sleep(8.0)
        tries = [at for at, _ in bench.sink.attempts[before:]]
        bench.sink.answer = lambda push: None

    assert tries[0] == 100.5
    assert 8 <= len(tries) <= 10
    assert bench.watermark == 1


@virtual
async def test_a_pause_that_is_asked_for_during_a_hurry_is_kept():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: SinkRetry("server_error", after=60.0)

    async with bench.running():
        await bench.put(1)
        await asyncio.sleep(10)
        bench.delivery.hurry(8.0)
        await asyncio.sleep(8.0)
        assert [at for at, _ in bench.sink.attempts] == [0.0, 10.0]
        bench.sink.answer = lambda push: None


@virtual
async def test_what_is_unsent_at_the_deadline_stays_unacknowledged_and_is_told():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: SinkRetry("connection")
    task = asyncio.create_task(bench.delivery.run())
    await bench.put(3, 4)
    bench.delivery.close()

    await asyncio.sleep(100)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    unsent = bench.delivery.unsent()
    assert (unsent.batches, unsent.records) == (2, 7)
    assert unsent.bytes == sum(len(records.record(str(n)).line) for n in range(7))
    assert bench.watermark == 0
    assert bench.ledger()["pending"] == 7


@virtual
async def test_closing_flushes_what_still_waits_for_company():
    bench = Bench(max_wait=3600.0)

    async with bench.running():
        await bench.put(2)
        await asyncio.sleep(1)

    assert bench.sink.attempts == [(1.0, ["0", "1"])]


@virtual
async def test_status_tells_how_old_the_oldest_unsent_record_is():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: SinkRetry("timeout") if asyncio.get_running_loop().time() < 50 else None

    async with bench.running():
        await bench.put(2)
        await asyncio.sleep(40)
        await bench.put(1)
        status = bench.delivery.status()
        assert (status.oldest_unsent_seconds, status.pending_records, status.retrying) == (40.0, 3, "timeout")
        assert status.last_success is None
        await asyncio.sleep(60)

    status = bench.delivery.status()
    assert (status.oldest_unsent_seconds, status.pending_records, status.retrying) == (0.0, 0, None)
    assert status.last_success_at == virtual_time.EPOCH + status.last_success


@virtual
async def test_an_idle_delivery_sleeps():
    """Nothing to do means no turn of the loop: virtual time would otherwise creep on in small steps."""
    bench = Bench()
    turns = 0
    loop = asyncio.get_running_loop()
    advance = loop.advance

    def counted(seconds):
        nonlocal turns
        turns += 1
        advance(seconds)

    loop.advance = counted

    async with bench.running():
        await bench.put(1)
        await asyncio.sleep(3600)
        assert turns <= 10


@virtual
async def test_poison_is_found_among_others_and_given_up():
    bench = Bench(max_wait=0.0, batch_bytes=100_000)
    bench.sink.answer = lambda push: (
        SinkRetry("server_error", "panic") if any(b'"37"' in record.line for record in push.records) else None
    )

    async with bench.running():
        await bench.put(100)
        await bench.put(20)

    assert sorted(map(int, bench.sink.stored)) == [n for n in range(120) if n != 37]
    assert bench.ledger()["refused"] == 1
    assert bench.delivery.status().last_refusal.reason == "poison"
    assert bench.watermark == 120


@virtual
async def test_an_outage_of_server_errors_is_never_taken_for_poison():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: (
        SinkRetry("server_error", "empty ring") if asyncio.get_running_loop().time() < 7200 else None
    )

    async with bench.running():
        await bench.put(100)
        await asyncio.sleep(3600)
        await bench.put(100)
        await bench.put(1)

    assert bench.ledger()["sent"] == 201
    assert sorted(map(int, bench.sink.stored)) == list(range(201))


@virtual
async def test_a_snapshot_is_of_the_watermark_and_not_of_what_was_settled():
    bench = Bench(max_wait=0.0)
    bench.sink.answer = lambda push: 10.0 if b'"3"' in push.body else None
    other = bench.tracker.open(Position("log", 0), 1)  # an older batch, which some sink is not done with

    async with bench.running():
        await bench.put(3)
        await asyncio.sleep(1)
        assert bench.delivery.snapshot() == {"settled": 0}
        other.done()
        assert bench.delivery.snapshot() == {"settled": 3}
        await bench.put(5)
        await asyncio.sleep(1)
        assert bench.delivery.snapshot() == {"settled": 3}

    assert bench.delivery.snapshot() == {"settled": 8}
