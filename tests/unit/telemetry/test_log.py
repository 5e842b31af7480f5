"""The sidecar's own log: lines at a limited rate that together tell everything."""

from __future__ import annotations

import io

import orjson
import pytest

from sidecar.telemetry import Log, Telemetry
from tests.support import records
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def log(stream, clock):
    return Log(stream, clock)


def said(stream):
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def lose(log, count, key="full"):
    log.limited("error", "lost", key, lambda sums: f"{sums['records']} lost", sums={"records": count}, why=key)


def test_the_first_line_of_a_kind_is_written_at_once(log, stream):
    lose(log, 3)
    lose(log, 4, "other")

    assert [(one["message"], one["records"], one["why"]) for one in said(stream)] == [
        ("3 lost", 3, "full"),
        ("4 lost", 4, "other"),
    ]
    assert "repeated" not in said(stream)[0]


def test_amounts_of_lines_that_were_held_back_are_in_the_next_one(log, stream, clock):
    for count in (1, 20, 300):
        lose(log, count)
    clock.now = 10.0
    lose(log, 4000)

    assert [(one["message"], one.get("repeated")) for one in said(stream)] == [("1 lost", None), ("4320 lost", 2)]


def test_what_was_held_back_is_written_when_its_time_is_over_though_nothing_more_happens(log, stream, clock):
    lose(log, 1)
    lose(log, 20)
    clock.now = 9.9
    log.catch_up()
    assert len(said(stream)) == 1

    clock.now = 10.0
    log.catch_up()
    log.catch_up()

    assert [one["message"] for one in said(stream)] == ["1 lost", "20 lost"]


def test_at_the_end_everything_has_been_told(log, stream):
    for count in range(100):
        lose(log, count, str(count % 3))
    log.flush()
    log.flush()

    assert sum(one["records"] for one in said(stream)) == sum(range(100))
    assert len(said(stream)) == 6


def test_keys_without_end_cost_no_memory_and_lose_no_amount(log, stream):
    for number in range(5000):
        lose(log, 1, str(number))
        lose(log, 1, str(number))
    log.flush()

    assert sum(one["records"] for one in said(stream)) == 10_000
    assert len(log._slots) <= 1000


def test_every_loss_of_records_and_bytes_adds_up_in_the_log(stream, clock):
    telemetry = Telemetry(log=Log(stream, clock), sinks=["loki"])
    for count in (5, 7, 9):
        telemetry.sink_dropped("loki", count, "the queue is full")
        telemetry.sink_refused("loki", count, "too_old", "older than a week")
        telemetry.sink_refused("loki", count, "too_old", "older than a week", dead_lettered=True)
        telemetry.bytes_lost("deleted", count, "gone")
        telemetry.lines_truncated(1, count)
    telemetry.log.flush()

    sums = {}
    for one in said(stream):
        for name in ("records", "bytes", "lost_bytes"):
            sums[one["event"], name] = sums.get((one["event"], name), 0) + one.get(name, 0)
    assert sums["sink_dropped", "records"] == 21
    assert sums["sink_refused", "records"] == 42
    assert sums["bytes_lost", "bytes"] == 21
    assert sums["line_too_long", "lost_bytes"] == 21
    assert records.value(telemetry, "sidecar_sink_records_total", sink="loki", outcome="dropped") == 21
