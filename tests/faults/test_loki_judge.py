"""
Property: every record ends in exactly one place: in Loki, in its stream, in order, once; or among the dead letters.
Fault:    hours of whatever a Loki and a network do, restarts of the sidecar in between, seeded.
Expect:   the judge, who knows what was produced, finds all of it; the ledger adds up; the source was told of all.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from itertools import count

import orjson
import pytest

from sidecar.model import Outcome
from tests.support import fake_loki, records, virtual_time
from tests.support.fake_loki import FakeLoki, Limits, status
from tests.support.loki_bench import LokiBench

SECONDS = float(os.environ.get("FAULT_SECONDS", "30"))  # of the longest test; FAULT_SECONDS=60 for a minute
SECOND = 10**9
HALF_AN_HOUR = 1800.0
TROUBLES = (
    status(429, "ingestion rate limit exceeded for user fake"),
    status(429, "Per stream rate limit exceeded"),
    status(500, "empty ring"),
    status(503, "busy", Retry_After="3"),
    status(502, "<html>bad gateway</html>"),
    status(260, "ingestion blocked for user fake until …"),
    status(401, "no org id"),
    status(404, "404 page not found"),
    status(302, ""),
    status(413, "<html>Request Entity Too Large</html>"),
    fake_loki.lost_answer(),
    fake_loki.lost_answer(),
    fake_loki.Fault("hang"),
    fake_loki.Fault("reset"),
    fake_loki.Fault("reset_mid_body"),
)


class Producer:
    """Writes records of several services, most of them ordinary; remembers each by its number."""

    def __init__(self, chance):
        self.chance = chance
        self.number = 0
        self.fate = {}  # number → "stored" or "too_old"

    def batch(self, size):
        return [self._record(offset) for offset in range(size)]

    def _record(self, offset):
        chance, number = self.chance, self.number
        self.number += 1
        self.fate[number] = "stored"
        fields = {"service_name": chance.choice(("orders", "carts"))}
        time_ns = virtual_time.now_ns() + offset * 1000
        kind = chance.random()
        if kind < 0.02:
            self.fate[number] = "too_old"
            time_ns -= 9 * 86400 * SECOND
            fields["service_name"] = "ancient"  # late ones among live ones would be refused for being late
        elif kind < 0.021:
            fields["filler"] = "é" * 150_000
        elif kind < 0.04:
            time_ns = 253402300799 * SECOND
        elif kind < 0.06:
            fields |= {"outcome": Outcome.INVALID, "violations": (("trace_id", "required"),)}
        elif kind < 0.3:
            time_ns -= time_ns % SECOND  # a coarse clock
        elif kind < 0.32:
            time_ns -= 2 * 3600 * SECOND  # out of order by more than the window
        return records.record(str(number), time_ns=time_ns, **fields)


async def disturb(loki, chance, end):
    """Let one trouble follow another, with peace in between."""
    while virtual_time.clock() < end:
        await asyncio.sleep(chance.expovariate(1 / 60))
        kind = chance.random()
        if kind < 0.3:
            loki.down = True
        elif kind < 0.8:
            trouble, share = chance.choice(TROUBLES), chance.choice((0.3, 1.0))
            loki.fault = lambda request, trouble=trouble, share=share: trouble if chance.random() < share else None
        else:
            loki.limits.max_streams = 1
        await asyncio.sleep(chance.expovariate(1 / 90))
        loki.down, loki.fault, loki.limits.max_streams = False, None, 5000


async def live(bench, producer, chance, seconds):
    """Run one process for a while; end it gracefully or, with a spool, as at a deadline that passes."""
    task = asyncio.create_task(bench.delivery.run())
    end = virtual_time.clock() + seconds
    while virtual_time.clock() < end:
        await bench.put(producer.batch(chance.randrange(1, 12)))
        assert sum(bench.ledger().values()) == bench.value("sidecar_sink_offered_records_total")
        await asyncio.sleep(chance.expovariate(1 / 8))
    return task


def half_an_hour(directory, seed, policy):
    """Produce for half an hour of trouble, then let it be calm, and judge."""

    async def main():
        chance = random.Random(seed)
        producer = Producer(chance)
        loki = FakeLoki(Limits(), now_ns=virtual_time.now_ns)
        trouble = asyncio.create_task(disturb(loki, chance, HALF_AN_HOUR))
        lives = 3 if policy == "spool" else 1
        for life in range(lives):
            bench = LokiBench(loki=loki, directory=directory, spool=policy == "spool", push_bytes=20_000, chance=chance)
            offered = producer.number
            task = await live(bench, producer, chance, HALF_AN_HOUR / lives)
            if life < lives - 1:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert bench.watermark == producer.number - offered  # what is in the spool is acknowledged
            else:
                await trouble
                bench.delivery.close()
                await task
                assert bench.ledger()["pending"] == 0
                assert bench.ledger()["dropped"] == 0
                assert bench.watermark == producer.number - offered
            bench.close()
        judge(producer, loki, directory)

    virtual_time.run(main())


@pytest.mark.parametrize("policy", ["spool", "block"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_record_ends_in_exactly_one_place(tmp_path, seed, policy):
    half_an_hour(tmp_path, seed, policy)


@pytest.mark.slow
def test_every_record_ends_in_exactly_one_place_for_as_long_as_there_is_time(tmp_path):
    began, seeds = time.monotonic(), count(1000)
    while time.monotonic() - began < SECONDS:
        for policy in ("spool", "block"):
            seed = next(seeds)
            directory = tmp_path / str(seed)
            directory.mkdir()
            try:
                half_an_hour(directory, seed, policy)
            except AssertionError as error:
                error.add_note(f"seed {seed}, policy {policy}")
                raise
            shutil.rmtree(directory)


def judge(producer, loki, directory):
    stored = {}
    for labels in loki.streams():
        numbers = {}
        for entry in loki.stream(labels):
            part = dict(entry.metadata).get("part", "1/1").split("/")
            if part[0] == "1":
                number = int(entry.line.split('"message":"')[1].split('"')[0])
                numbers[number] = numbers.get(number, 0) + 1
        assert set(numbers.values()) <= {1}, "stored twice"
        assert not stored.keys() & numbers.keys(), "stored in two streams"
        stored |= numbers
    letters = [orjson.loads(line) for line in (directory / "loki.ndjson").read_bytes().splitlines()]
    dead = {}
    for letter in letters:
        dead.setdefault(letter["reason"], []).append(int(letter["record"]["message"]))
    # A gateway that says 413 to a single record, for as long as a trouble lasts, means it.
    too_large = set(dead.pop("too_large", []))

    assert len(letters) == len(too_large) + sum(map(len, dead.values()))
    assert dead.keys() <= {"too_old"}
    too_old = {number for number, fate in producer.fate.items() if fate == "too_old"}
    assert set(dead.get("too_old", [])) == too_old - too_large
    assert stored.keys() == producer.fate.keys() - too_old - too_large
