"""A replay gives up where a destination takes nothing for so long, and waits where it takes little by little."""

from __future__ import annotations

import asyncio

import pytest

from sidecar import delivery, replay
from sidecar.errors import SinkRetry
from sidecar.model import Batch
from tests.support import records, virtual_time
from tests.support.scripted_sink import ScriptedSink

SECONDS = 0.8


def finished(*answers):
    """Say whether six pushes that are answered like this are waited for, and for how long."""

    async def main():
        sink = ScriptedSink(push_records=1)
        sink.script(*answers)
        one = delivery.Delivery(
            sink,
            policy="block",
            max_bytes=1 << 20,
            telemetry=records.quiet_telemetry(),
            clock=virtual_time.clock,
            wall=virtual_time.wall,
        )
        running = asyncio.create_task(one.run())
        ack = replay._Ack(1)
        await one.put(Batch(records.records(6), ack))
        waited = await replay._finished(ack, [one], SECONDS)
        running.cancel()
        await asyncio.wait([running])
        return waited, virtual_time.clock()

    return virtual_time.run(main())


def test_a_destination_that_takes_little_by_little_is_waited_for():
    waited, seconds = finished(*[0.3] * 6)

    assert waited
    assert seconds > 2 * SECONDS


@pytest.mark.parametrize("taken", [0, 3])
def test_a_destination_that_takes_nothing_any_more_is_given_up(taken):
    waited, seconds = finished(*[0.3] * taken, *[SinkRetry("connection")] * 1000)

    assert not waited
    assert SECONDS <= seconds < 0.3 * taken + 1.0 + 2 * SECONDS
