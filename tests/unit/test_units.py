"""Five units of duration, one metric."""

from __future__ import annotations

import pytest

from sidecar import units
from sidecar.units import Reading, Sticky, Unit


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("latency_ms", Unit.MS),
        ("durationMs", Unit.MS),
        ("elapsedMillis", Unit.MS),
        ("took_msec", Unit.MS),
        ("latency_ns", Unit.NS),
        ("duration_nanos", Unit.NS),
        ("latency_us", Unit.US),
        ("elapsed_micros", Unit.US),
        ("duration_s", Unit.S),
        ("duration_seconds", Unit.S),
        ("durationSeconds", Unit.S),
        ("latency", None),
        ("items", None),
        ("response_times", None),
        ("Ms", None),
        ("ms", None),
    ],
)
def test_rule_10_a_key_may_name_its_unit(key, unit):
    assert units.of_key(key) is unit


@pytest.mark.parametrize(
    ("value", "unit", "ms"),
    [
        (0.00227065, Unit.S, 2.27065),
        (0.002193856, Unit.S, 2.193856),
        (1, Unit.S, 1000),
        (2216109, Unit.NS, 2.216109),
        (2_000_000, Unit.NS, 2),
        (1500, Unit.US, 1.5),
        (12.5, Unit.MS, 12.5),
        (12, Unit.MS, 12),
        (63.7, Unit.MS, 63.7),
    ],
)
def test_numbers_become_milliseconds_without_noise(value, unit, ms):
    assert units.milliseconds(value, unit) == ms


@pytest.mark.parametrize(
    ("value", "reading"),
    [
        ("2.21ms", Reading(ms=2.21)),
        ("1h", Reading(ms=3_600_000)),
        ("-5µs", Reading(rejected="negative")),
        ("25h", Reading(rejected="too_long")),
        (float("nan"), Reading(rejected="not_finite")),
        (float("inf"), Reading(rejected="not_finite")),
        (-1, Reading(rejected="negative")),
        (True, Reading(rejected="not_a_number")),
        ("12.5", Reading(ms=12.5)),
        ("fast", None),
        ([], None),
        ("1_0", None),
    ],
)
def test_rule_09_rule_10_a_duration_is_read_or_rejected_with_a_reason(value, reading):
    assert units.read(value, Unit.MS) == reading


def test_one_large_integer_means_nanoseconds():
    sticky = Sticky()

    assert sticky.show(300, matched=True) is None
    assert sticky.show(100_000, matched=True) is Unit.NS
    assert sticky.show(2, matched=True) is Unit.NS


def test_fifty_small_integers_mean_milliseconds():
    sticky = Sticky()

    seen = [sticky.show(number % 40, matched=True) for number in range(50)]

    assert seen == [None] * 49 + [Unit.MS]


def test_unmatched_routes_decide_nothing():
    sticky = Sticky()

    assert {sticky.show(80, matched=False) for _ in range(200)} == {None}


def test_rule_10_numbers_in_between_stay_open():
    sticky = Sticky()

    assert {sticky.show(5_000, matched=True) for _ in range(500)} == {None}
