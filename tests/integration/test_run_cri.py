"""The whole sidecar with `source.kind=cri`: pieces, restarts and rotations become the right records; the books balance."""

from __future__ import annotations

import asyncio

import pytest

from sidecar import checkpoint, telemetry
from tests.support.kubelet import Container
from tests.support.running import Sidecar, assert_balanced


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path / "pod")
    made.start()
    yield made
    made.exit()


def settings(tmp_path, *more):
    return [
        f"source.path={tmp_path / 'pod'}",
        "source.kind=cri",
        "source.container=app",
        "http.port=0",
        "http.host=127.0.0.1",
        "source.idle_flush=50ms",
        *more,
    ]


def messages(sidecar):
    return [record["message"] for record in sidecar.records()]


async def test_pieces_of_two_streams_two_files_and_two_starts(tmp_path, container):
    """F02, F03, F04, F05, H01."""
    async with Sidecar(settings(tmp_path), stdin=None) as sidecar:
        container.line("one, ", tag="P")
        container.line("from stderr", stream="stderr")
        container.line("whole", tag="F")
        await sidecar.until("sidecar_records_total", 2)
        container.line("begun before the rotation, ", tag="P")
        container.rotate()
        container.line("finished behind it")
        await sidecar.until("sidecar_records_total", 3)
        container.line("last words without end", tag="P")
        container.start()
        container.line("of another start")
        metrics = await sidecar.until("sidecar_records_total", 5)
        assert_balanced(metrics)
        assert metrics.total("sidecar_lost_bytes_total") == metrics.total("sidecar_log_gaps_total") == 0
        assert metrics.total("sidecar_rotations_total") == 1
        (started,) = sidecar.events("source_started")
        sidecar.process.terminate()
        assert await sidecar.finish() == 0

    assert sorted(messages(sidecar)) == [
        "begun before the rotation, finished behind it",
        "from stderr",
        "last words without end",
        "of another start",
        "one, whole",
    ]
    assert [record.get("partial") for record in sidecar.records() if "last" in record["message"]] == [True]
    assert {"container", "uid", "gid", "mode", "lossless", "why"} <= set(started)


async def test_f11_rule_14_a_line_that_no_runtime_writes_is_kept_and_counted(tmp_path, container):
    async with Sidecar(settings(tmp_path), stdin=None) as sidecar:
        container.line("before")
        container.raw(b"2026-10-06T09:05:03.1Z stdo\n")
        container.line("behind")
        metrics = await sidecar.until("sidecar_records_total", 3)
        assert_balanced(metrics)
        assert metrics.total("sidecar_malformed_lines_total") == 1
        sidecar.process.terminate()
        assert await sidecar.finish() == 0

    assert messages(sidecar) == ["before", "2026-10-06T09:05:03.1Z stdo", "behind"]


async def test_h03_g04_what_is_unfinished_at_the_end_is_finished_by_the_next_process(tmp_path, container):
    state = f"state.dir={tmp_path / 'state'}"
    container.line("first")
    container.line("half a line, ", tag="P")
    async with Sidecar(settings(tmp_path, state), stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 1)
        container.line("written just before the end", stream="stderr")
        sidecar.process.terminate()
        assert await sidecar.finish() == 0
    assert "half a line, " not in messages(sidecar)
    before = messages(sidecar)

    container.rotate()
    container.line("and its other half")
    container.rotate()
    container.line("last")
    async with Sidecar(settings(tmp_path, state), stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 4)
        sidecar.process.terminate()
        assert await sidecar.finish() == 0

    everything = [*before, *messages(sidecar)]
    assert set(everything) == {"first", "written just before the end", "half a line, and its other half", "last"}


async def test_rule_24_what_had_ended_at_a_sigterm_is_neither_sent_nor_counted_again(tmp_path, container):
    """Rotated files and dead starts stay on the node for a while, and so does the state beside a restarted sidecar."""
    state = f"state.dir={tmp_path / 'state'}"
    container.line("rotated")
    container.rotate()
    container.line("of a dead start")
    container.start()
    container.line("active")
    async with Sidecar(settings(tmp_path, state), stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 3)
        async with asyncio.timeout(20.0):
            while ended(tmp_path / "state") != [True, True, False]:
                await sidecar.metrics()  # which saves
        sidecar.process.terminate()
        assert await sidecar.finish() == 0
    before = messages(sidecar)

    async with Sidecar(settings(tmp_path, state), stdin=None) as sidecar:
        container.line("later")
        metrics = await sidecar.until("sidecar_records_total", 4)
        assert metrics.total("sidecar_records_total") == 4
        assert metrics.total("sidecar_rotations_total") == 0
        sidecar.process.terminate()
        assert await sidecar.finish() == 0

    assert [*before, *messages(sidecar)] == ["rotated", "of a dead start", "active", "later"]


def ended(directory):
    """Say of each generation in the checkpoint whether its end was told."""
    saved = checkpoint.Checkpoint(directory / "checkpoint.json", telemetry.Telemetry()).load()
    return [one["ended"] for one in saved["source"]["generations"]]


async def test_f01_f09_the_runtimes_time_is_that_of_a_line_without_one(tmp_path, container):
    container.raw(b"2026-07-02T12:00:00.5-03:00 stdout F plain\n")
    async with Sidecar(settings(tmp_path), stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.terminate()
        assert await sidecar.finish() == 0

    assert sidecar.records()[0]["timestamp"].startswith("2026-07-02T15:00:00.5")
