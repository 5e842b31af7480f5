"""Laws of delivery: whatever the sink answers, every record ends in one place and every batch is acknowledged once."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.acks import Tracker
from sidecar.delivery import Delivery
from sidecar.errors import SinkRefused, SinkRetry
from sidecar.model import Batch, Position, Receipt
from tests.support import records, virtual_time
from tests.support.scripted_sink import ScriptedSink

answers = st.one_of(
    st.none(),
    st.none(),
    st.sampled_from(
        ["connection", "timeout", "server_error", "rate_limited", "stream_limited", "refused", "partly", "slow"]
    ),
)


class Chaos(ScriptedSink):
    """Answers as drawn, then takes everything; remembers what it refused."""

    def __init__(self, drawn):
        super().__init__(push_records=3)
        self.refused = []
        self.drawn = iter(drawn)
        self.answer = self.draw

    def draw(self, push):
        kind = next(self.drawn, None)
        if kind == "refused":
            self.refused += records.messages([record.line for record in push.records])
            return SinkRefused("malformed")
        if kind == "partly":
            gone, again = push.records[:1], push.records[2:]
            self.refused += records.messages([record.line for record in gone])
            return Receipt("400", refused=gone, reason="too_old", again=self.encode(again, []) if again else ())
        if kind == "slow":
            return 3.0
        return SinkRetry(kind, stream_only=kind == "stream_limited") if kind else None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=8), max_size=12),
    st.lists(answers, max_size=60),
    st.sampled_from(["block", "drop"]),
    st.sampled_from([800, 3000, 1 << 20]),
)
def test_every_record_ends_in_one_place(batches, drawn, policy, max_bytes):
    async def main():
        sink, telemetry, tracker, number = Chaos(drawn), records.quiet_telemetry(), Tracker(), 0
        delivery = Delivery(
            sink,
            policy=policy,
            max_bytes=max_bytes,
            batch_bytes=2000,
            max_wait=0.5,
            telemetry=telemetry,
            clock=virtual_time.clock,
            wall=virtual_time.wall,
            chance=lambda: 0.5,
        )
        running = asyncio.create_task(delivery.run())
        for services in batches:
            made = [records.record(str(number + n), service_name=name) for n, name in enumerate(services)]
            number += len(made)
            await delivery.put(Batch(made, tracker.open(Position("log", number), 1)))
            records.ledger(telemetry, "loki")
            await asyncio.sleep(0.1)
        delivery.close()
        await running

        account = records.ledger(telemetry, "loki")
        assert account["pending"] == 0
        assert account["sent"] == len(sink.stored)
        assert policy == "drop" or account["dropped"] == 0
        assert len(tracker) == 0, "a batch that nobody acknowledged"
        places = sink.stored + sink.refused
        # Poison is told by the ledger alone: the sink does not know that it was given up.
        assert len(places) == len(set(places))
        assert len(places) + account["dropped"] <= number
        assert delivery.unsent().records == 0
        assert delivery.status().oldest_unsent_seconds == 0

    virtual_time.run(main())
