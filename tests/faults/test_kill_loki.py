"""
Property: every line of a followed file reaches Loki, or the dead letters with its reason, whatever happens to both ends.
Fault:    SIGKILL of the whole sidecar at random moments, while Loki fails, hangs, resets and loses answers, at random.
Expect:   after some calm nothing is missing; what was sent twice is byte-identical, so that a log query finds it once;
          in every life the ledger adds up, and nothing was dropped.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from datetime import UTC, datetime

import orjson
import pytest

from tests.support import fake_loki
from tests.support.fake_loki import FakeLoki, status
from tests.support.killing import Lives
from tests.support.patience import PATIENCE

SECONDS = float(os.environ.get("FAULT_SECONDS", "15"))  # of trouble, for each policy; FAULT_SECONDS=60 for a minute
KILLS = 8  # at least, however slow the machine is
OLD = 9 * 86400 * 10**9
TROUBLES = (
    status(429, "ingestion rate limit exceeded for user fake"),
    status(429, "Per stream rate limit exceeded"),
    status(503, "busy"),
    status(260, "ingestion blocked for user fake until …"),
    status(401, "no org id"),
    fake_loki.Fault("hang"),
    fake_loki.Fault("slow", seconds=0.1),
    fake_loki.Fault("reset"),
    fake_loki.Fault("reset_mid_body"),
    fake_loki.Fault("drip"),
    fake_loki.Fault("wrong_length"),
    fake_loki.lost_answer(),
    fake_loki.lost_answer(),
)


class Producer:
    """Writes lines of several services in pieces that end anywhere, rotates, and knows what has to become of each."""

    def __init__(self, path, chance):
        self.path, self.chance = path, chance
        self.ready = b""
        self.lines = 0
        self.rotations = 0
        self.old = set()  # numbers of what Loki will never take

    def write(self):
        chance = self.chance
        for _ in range(chance.randrange(30)):
            self._line()
        size = chance.randrange(len(self.ready) + 1)
        self._put(size)
        if chance.random() < 0.05:
            self._put(self.ready.find(b"\n") + 1)
            self.rotations += 1
            self.path.rename(self.path.with_name(f"app.log.{10_000 - self.rotations}"))
            self.path.touch()

    def finish(self):
        """Write everything, and a last line that arrives."""
        self._line()
        while self.lines - 1 in self.old:
            self._line()
        self._put(len(self.ready))

    def _line(self):
        number, kind = self.lines, self.chance.random()
        self.lines += 1
        time_ns, service = time.time_ns(), self.chance.choice(("orders", "carts"))
        if kind < 0.02:
            self.old.add(number)
            time_ns, service = time_ns - OLD, "ancient"
        elif kind < 0.3:
            time_ns -= time_ns % 10**7  # a coarse clock: many lines of one moment
        seconds, nanoseconds = divmod(time_ns, 10**9)
        record = {
            "level": "info",
            "timestamp": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z",
            "service_name": service,
            "trace_id": f"{number + 1:032x}",
            "message": str(number),
        }
        if kind > 0.97:
            del record["trace_id"]  # invalid: a stream of its own
        self.ready += orjson.dumps(record) + b"\n"

    def _put(self, size):
        with self.path.open("ab") as file:
            file.write(self.ready[:size])
        self.ready = self.ready[size:]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["block", "spool"])
async def test_nothing_is_missing_and_nothing_is_there_twice_whenever_the_sidecar_is_killed(tmp_path, policy):
    chance = random.Random(f"20261125 {policy}")
    producer = Producer(tmp_path / "app.log", chance)
    producer.write()
    async with FakeLoki() as loki:
        settings = [
            "source.kind=file", f"source.path={tmp_path / 'app.log'}", "http.host=127.0.0.1", "http.port=0",
            f"state.dir={tmp_path / 'state'}", "state.checkpoint_interval=100ms", f"sinks.loki.when_full={policy}",
            f"sinks.loki.url={loki.url}", "sinks.loki.timeout=200ms", "sinks.loki.batch.max_wait=50ms",
            "sinks.loki.batch.max_bytes=4KiB",
        ]  # fmt: skip
        loki.fault = lambda request: chance.choice(TROUBLES) if chance.random() < 0.4 else None
        async with Lives(tmp_path, settings) as lives:
            began, killed = time.monotonic(), 0
            while killed < KILLS or time.monotonic() - began < SECONDS:
                await lives.begin()
                if chance.random() < 0.9:
                    await lives.listening()
                    for _ in range(chance.randrange(8)):
                        producer.write()
                        await asyncio.sleep(chance.random() * 0.1)
                    audit(await lives.scrape())
                else:
                    await asyncio.sleep(chance.random() * 0.1)
                await lives.end(signal.SIGKILL)
                killed += 1
                producer.write()
            assert len(loki.requests) > killed, "there was trouble, and more"

            loki.fault = None
            producer.finish()
            await lives.begin()
            await lives.listening()
            last = f'"{producer.lines - 1}"'
            await loki.wait_for(lambda: any(last in line for line in reversed(loki.lines())))
            async with asyncio.timeout(PATIENCE):
                while (metrics := await lives.scrape()).total("sidecar_sink_pending_records"):
                    await asyncio.sleep(0.02)
            audit(metrics)
            assert await lives.end(signal.SIGTERM) == 0

    assert metrics.total("sidecar_lines_read_total") == producer.lines
    assert metrics.total("sidecar_lost_bytes_total") == 0
    assert producer.old, "some were too old"
    judge(producer, loki, tmp_path / "state" / "dead-letter" / "loki.ndjson")


def audit(metrics):
    """Check the ledger of one life."""
    offered = metrics.total("sidecar_sink_offered_records_total", sink="loki")
    done = metrics.total("sidecar_sink_records_total", sink="loki")
    assert offered == done + metrics.total("sidecar_sink_pending_records", sink="loki")
    assert not metrics.total("sidecar_sink_records_total", outcome="dropped")
    assert not metrics.total("sidecar_sink_records_total", outcome="refused"), "a dead letter is kept of each"


def judge(producer, loki, dead_letters):
    stored = [int(orjson.loads(line)["message"]) for line in loki.lines()]
    letters = [orjson.loads(line) for line in dead_letters.read_bytes().splitlines()]
    dead = {}
    for letter in letters:
        number = int(letter["record"]["message"])
        assert letter["reason"] == "too_old"
        assert dead.setdefault(number, letter["record"]) == letter["record"]

    sent = sum(len(request.lines) for request in loki.requests)
    assert sent > len(stored) + len(dead), "killed as it was, it sent things twice"
    assert len(stored) == len(set(stored)), "a resend was not byte-identical"
    assert set(stored) == set(range(producer.lines)) - producer.old
    assert dead.keys() == producer.old
