"""What every sink must do. A sink's test gives the four fixtures' worth of knowledge and inherits the suite.

class TestContract(SinkContract):
    async def start(self): ...      # return (sink, received): a working sink and a way to see what arrived
"""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import orjson

from sidecar.model import Outcome
from tests.support import records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sidecar.sinks import Sink

    Received = Callable[[], Awaitable[list[bytes]]]


class SinkContract:
    """Subclass as `Test…`."""

    @abstractmethod
    def started(self) -> AbstractAsyncContextManager[tuple[Sink, Received]]:
        """Return a context with a working sink and an async function that returns the lines received, in order."""

    async def test_what_is_sent_arrives_byte_for_byte_and_in_order(self):
        made = records.records(500)

        async with self.started() as (sink, received):
            for push in sink.encode(made, sink.settle(made)):
                await sink.send(push)

            assert await received() == [record.line for record in made]

    async def test_every_record_is_in_exactly_one_push(self):
        made = records.records(300) + records.records(
            200, outcome=Outcome.INVALID, violations=(("trace_id", "required"),)
        )

        async with self.started() as (sink, _):
            pushes = sink.encode(made, sink.settle(made))

            carried = sorted(id(record) for push in pushes for record in push.records)
            assert carried == sorted(map(id, made))

    async def test_encoding_is_pure(self):
        made = records.records(50)

        async with self.started() as (sink, _):
            times = sink.settle(made)

            assert [push.body for push in sink.encode(made, times)] == [push.body for push in sink.encode(made, times)]

    async def test_records_that_come_again_get_their_times_again_from_who_knows_what_was_known(self):
        """The next process, after a crash behind which some records are read a second time."""
        made = [records.record("tick", time_ns=time.time_ns() // records.SECOND * records.SECOND)] * 6

        async with self.started() as (sink, _):
            times = sink.settle(made)
            saved = orjson.loads(orjson.dumps(sink.snapshot(4)))
        async with self.started() as (sink, _):
            sink.restore(saved)
            assert sink.settle(made[4:]) == times[4:]

    async def test_nothing_makes_no_push(self):
        async with self.started() as (sink, _):
            assert sink.encode([], sink.settle([])) == []

    async def test_a_whole_push_gives_a_receipt_without_remainder(self):
        made = records.records(3)

        async with self.started() as (sink, _):
            (push,) = sink.encode(made, sink.settle(made))
            receipt = await sink.send(push)

        assert receipt.status
        assert not receipt.refused
        assert not receipt.again

    async def test_a_divided_push_carries_the_same_records_in_the_same_order(self):
        made = records.records(7)

        async with self.started() as (sink, _):
            (push,) = sink.encode(made, sink.settle(made))
            parts = sink.divide(push)

        assert parts == [] or [record for part in parts for record in part.records] == made

    async def test_one_record_cannot_be_divided(self):
        made = records.records(1)

        async with self.started() as (sink, _):
            (push,) = sink.encode(made, sink.settle(made))

            assert sink.divide(push) == []

    async def test_closing_twice_is_closing_once(self):
        async with self.started() as (sink, _):
            await sink.close()
            await sink.close()
