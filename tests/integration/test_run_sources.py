"""Whole sidecars that follow a named pipe and the Kubernetes API: books balanced, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest

from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.patience import PATIENCE
from tests.support.running import Sidecar, assert_balanced

ACCESS = b'[GIN] 2025/11/25 - 10:00:00 | 200 |     1.5ms |       10.0.0.9 | GET      "/orders/%d"\n'


def losses(metrics):
    return {**metrics.by("sidecar_lost_bytes_total", "reason"), **metrics.by("sidecar_log_gaps_total", "reason")}


async def test_a_fifo_from_its_making_to_the_end(tmp_path):
    path = tmp_path / "log"
    async with Sidecar(["source.kind=fifo", f"source.path={path}"], stdin=None) as sidecar:
        await sidecar.until("sidecar_build_info", 1)
        for writer in range(3):
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            os.write(descriptor, b"".join(ACCESS % (writer * 100 + number) for number in range(100)))
            metrics = await sidecar.until("sidecar_records_total", (writer + 1) * 100)
            os.close(descriptor)
        assert_balanced(metrics)
        assert metrics.total("http_requests_total") == 300
        assert losses(metrics) == {}
        status, _ = await sidecar.get("/readyz")
        assert status == 200
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 0
    assert len(sidecar.records()) == 300
    (started,) = sidecar.events("source_started")
    assert started["source"] == "fifo"


@pytest.fixture
async def fake(tmp_path):
    async with FakeKubernetes(tmp_path) as made:
        yield made


def following(fake, *settings):
    settings = ["source.kind=kubernetes", "source.container=app", *settings]
    return Sidecar(settings, stdin=None, environ=fake.environ, program=["tests.support.leisurely"])


async def test_r18_kubernetes_through_cuts_a_restart_and_a_sigterm(fake):
    async with following(fake) as sidecar:
        fake.write(b"".join(ACCESS % number for number in range(100)))
        await sidecar.until("sidecar_records_total", 100)
        fake.cut()
        fake.write(b"".join(ACCESS % number for number in range(100, 200)))
        await sidecar.until("sidecar_records_total", 200)
        fake.restart()
        fake.write(b"".join(ACCESS % number for number in range(200, 300)))
        metrics = await sidecar.until("sidecar_records_total", 300)
        assert_balanced(metrics)
        assert metrics.total("http_requests_total") == 300
        assert losses(metrics) == {}
        fake.write(ACCESS % 300)
        fake.die()
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 0
    paths = Counter(record["path"] for record in sidecar.records())
    assert paths == Counter(f"/orders/{number}" for number in range(301))


async def test_kubernetes_goes_on_after_a_sigkill_without_counting_twice(fake, tmp_path):
    state = f"state.dir={tmp_path / 'state'}"
    async with following(fake, state) as first:
        fake.write(b"".join(ACCESS % number for number in range(50)))
        await first.until("sidecar_checkpoint_saves_total", 1)
        await first.until("sidecar_records_total", 50)
        first.process.kill()
        await first.finish()
    fake.write(b"".join(ACCESS % number for number in range(50, 80)))
    async with following(fake, state) as second:
        metrics = await second.until("sidecar_records_total", 80)
        requests = metrics.total("http_requests_total")
        second.process.send_signal(signal.SIGTERM)
        assert await second.finish() == 0
    assert requests == 80
    delivered = {record["path"] for record in [*first.records(), *second.records()]}
    assert delivered == {f"/orders/{number}" for number in range(80)}


async def test_kubernetes_without_a_role_is_not_ready_and_says_which(fake):
    fake.logs_forbidden = True
    async with following(fake) as sidecar:
        async with asyncio.timeout(PATIENCE):
            while not any("bind it to a Role" in said["message"] for said in sidecar.events("source_waiting")):
                await sidecar.metrics()
        status, _ = await sidecar.get("/readyz")
        assert status == 503
        fake.logs_forbidden = False
        fake.write(ACCESS % 1)
        await sidecar.until("sidecar_records_total", 1)
        status, _ = await sidecar.get("/readyz")
        assert status == 200
