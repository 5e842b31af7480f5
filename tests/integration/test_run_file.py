"""Whole sidecars that follow a file: what is not acknowledged stays, and start-up says what it stands on."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import orjson
import pytest

from tests.support.fake_loki import FakeLoki, status
from tests.support.running import Sidecar, assert_balanced


def access(number):
    """Return a line of now: Loki refuses what is older than a week."""
    now = f"{datetime.now(UTC):%Y/%m/%d - %H:%M:%S}"
    return f'[GIN] {now} | 200 |     1.5ms |       10.0.0.9 | GET      "/orders/{number}"\n'


def losses(metrics):
    return {**metrics.by("sidecar_lost_bytes_total", "reason"), **metrics.by("sidecar_log_gaps_total", "reason")}


def saved_offsets(state):
    """Return how far the delivered position of each log has come, as the newest word on disk says."""
    sections = orjson.loads((state / "checkpoint.json").read_bytes())["sections"]
    journal = state / "checkpoint.journal"
    for line in journal.read_bytes().splitlines()[1:] if journal.exists() else []:
        sections |= orjson.loads(line.partition(b" ")[2])["sections"]
    return [one["offset"] for one in sections["source"]["generations"]]


async def test_i05_rule_22_a_sink_that_fails_again_and_again_holds_the_position_and_loses_nothing(tmp_path):
    path, state = tmp_path / "app.log", tmp_path / "state"
    path.write_text("".join(map(access, range(200))))
    settings = [
        "source.kind=file", f"source.path={path}", "source.idle_flush=50ms", f"state.dir={state}",
        "state.checkpoint_interval=100ms", "sinks.loki.batch.max_wait=50ms",
    ]  # fmt: skip
    async with FakeLoki() as loki:
        loki.script(*[status(503)] * 1000)
        async with Sidecar([*settings, f"sinks.loki.url={loki.url}"], stdin=None) as sidecar:
            await sidecar.until("sidecar_lines_read_total", 200)  # counted all the same
            metrics = await sidecar.until("sidecar_sink_retries_total", 3)
            assert_balanced(metrics)
            assert saved_offsets(state) == [0]
            sidecar.process.send_signal(signal.SIGKILL)
            await sidecar.finish()
        assert loki.lines() == []

    async with FakeLoki() as loki:
        async with Sidecar([*settings, f"sinks.loki.url={loki.url}"], stdin=None) as sidecar:
            metrics = await sidecar.until("sidecar_sink_records_total", 200, outcome="sent")
            requests = metrics.total("http_requests_total")
            sidecar.process.send_signal(signal.SIGTERM)
            assert await sidecar.finish() == 0
        lines = [orjson.loads(line) for line in loki.lines()]

    assert sorted(line["path"] for line in lines) == sorted(f"/orders/{number}" for number in range(200))
    assert requests == 200
    assert losses(metrics) == {}
    assert saved_offsets(state) == [path.stat().st_size]


@pytest.mark.parametrize("inotify", [True, False])
async def test_rule_37_start_up_says_what_the_source_stands_on(tmp_path, inotify):
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    settings = ["source.kind=file", f"source.path={path}", f"source.inotify={str(inotify).lower()}"]
    async with Sidecar(settings, stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 1)
        with path.open("ab") as file:
            file.write(b"two\n")
        metrics = await sidecar.until("sidecar_records_total", 2)
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 0

    (started,) = sidecar.events("source_started")
    assert {"path", "uid", "gid", "mode", "owner", "file_system", "lossless", "why"} <= set(started)
    assert started["inotify"] is inotify
    assert metrics.total("sidecar_inotify_failures_total") == 0
    assert losses(metrics) == {}


async def test_equal_lines_of_one_second_are_as_many_in_loki_whatever_comes_between_them(tmp_path):
    """A crash, after which half of them are read and sent again, and a restart."""
    path, state = tmp_path / "app.log", tmp_path / "state"
    line = f'[GIN] {datetime.now(UTC):%Y/%m/%d - %H:%M:%S} | 200 |     1.5ms |       10.0.0.9 | GET      "/"\n'
    settings = [
        "source.kind=file", f"source.path={path}", "source.idle_flush=50ms", f"state.dir={state}",
        "state.checkpoint_interval=1h", "sinks.loki.batch.max_wait=50ms",
    ]  # fmt: skip

    def write():
        with path.open("a") as file:
            file.write(line * 3)

    write()
    async with FakeLoki() as loki:
        settings.append(f"sinks.loki.url={loki.url}")
        async with Sidecar(settings, stdin=None) as sidecar:
            await sidecar.until("sidecar_sink_records_total", 3, outcome="sent")  # what was scraped is saved
            write()
            await loki.wait_for(lambda: len(loki.entries()) == 6)
            sidecar.process.send_signal(signal.SIGKILL)
            await sidecar.finish()
        write()
        async with Sidecar(settings, stdin=None) as sidecar:
            await sidecar.until("sidecar_sink_records_total", 6, outcome="sent")
            assert len(loki.entries()) == 9
            sidecar.process.send_signal(signal.SIGTERM)
            assert await sidecar.finish() == 0
        write()
        async with Sidecar(settings, stdin=None) as sidecar:
            await sidecar.until("sidecar_sink_records_total", 3, outcome="sent")
            assert len(loki.entries()) == 12
            sidecar.process.send_signal(signal.SIGTERM)
            assert await sidecar.finish() == 0
