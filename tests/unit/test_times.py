"""Times are read as loggers write them, to the nanosecond, and written in UTC."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from sidecar import times
from sidecar.times import Stamp


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("1970-01-01T00:00:00Z", Stamp(0, 0)),
        ("2026-10-06T09:05:03.1Z", Stamp(1791277503_100_000_000, 1)),
        ("2026-10-06T09:05:03.123456789Z", Stamp(1791277503_123_456_789, 9)),
        ("2026-10-06T11:05:03+02:00", Stamp(1791277503_000_000_000, 0)),
        ("2026-10-06t09:05:03.000z", Stamp(1791277503_000_000_000, 3)),
        ("2026-10-06T09:05:03-00:00", Stamp(1791277503_000_000_000, 0)),
        ("2026-12-31T23:59:60Z", Stamp(1798761600_000_000_000, 0)),
        ("2027-01-01T01:59:60+02:00", Stamp(1798761600_000_000_000, 0)),
        ("0000-02-29T00:00:00Z", Stamp(-62162121600_000_000_000, 0)),
        ("9999-12-31T23:59:59Z", Stamp(253402300799_000_000_000, 0)),
        ("2024-02-29T00:00:00Z", Stamp(1709164800_000_000_000, 0)),
    ],
)
def test_rfc3339_is_read_to_the_nanosecond(text, stamp):
    assert times.rfc3339(text) == stamp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-10-06",
        "2026-10-06T09:05:03",
        "2026-10-06 09:05:03Z",
        "2026-10-06T09:05:03.Z",
        "2026-10-06T09:05:03.1234567890Z",
        "2026-10-06T09:05:03,5Z",
        "2026-10-06T09:05:03+0200",
        "2026-10-06T09:05:03+24:00",
        "2026-10-06T09:05:03+02:60",
        "2026-13-06T09:05:03Z",
        "2026-02-29T09:05:03Z",
        "2026-10-06T24:00:00Z",
        "2026-10-06T09:60:03Z",
        "2026-10-06T09:05:60Z",
        "2026-10-06T09:05:61Z",
        "２026-10-06T09:05:03Z",
        "2026-10-06T09:05:03.٣Z",
        "2026-10-06T09:05:03Z\n",
        "2026-10-06T09:05:03ZZ",
        "1790000000",
    ],
)
def test_what_is_not_rfc3339_is_none(text):
    assert times.rfc3339(text) is None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1795438979.0901833, "2026-11-23T13:02:59.0901833Z"),
        (1790000000, "2026-09-21T14:13:20Z"),
        (1790000000.0, "2026-09-21T14:13:20Z"),
        (1795440129569.5374, "2026-11-23T13:22:09.5695374Z"),
        (1795440129585, "2026-11-23T13:22:09.585Z"),
        (1795440129585123, "2026-11-23T13:22:09.585123Z"),
        (1795440129571920382, "2026-11-23T13:22:09.571920382Z"),
        ("1.7954400761938422e+09", "2026-11-23T13:21:16.1938422Z"),
        ("1795440129585", "2026-11-23T13:22:09.585Z"),
        ("2026-11-23T15:22:09.708+0200", "2026-11-23T13:22:09.708Z"),
        ("2026-11-23 15:22:09.708", "2026-11-23T15:22:09.708Z"),
        ("2026-11-23 15:22:09,708", "2026-11-23T15:22:09.708Z"),
        ("2026/11/23 - 13:22:09", "2026-11-23T13:22:09Z"),
        ("2026/11/23 13:22:09.638342", "2026-11-23T13:22:09.638342Z"),
        ("Mon, 23 Nov 2026 13:22:09 UTC", "2026-11-23T13:22:09Z"),
        ("Mon, 23 Nov 2026 13:22:09 +0200", "2026-11-23T11:22:09Z"),
        ("23 Nov 26 13:22 UTC", "2026-11-23T13:22:00Z"),
        ("Mon Jan  2 15:04:05 2006", "2006-01-02T15:04:05Z"),
        ("Mon Jan 02 15:04:05 -0700 2006", "2006-01-02T22:04:05Z"),
        ("23/Nov/2026:13:22:09 +0000", "2026-11-23T13:22:09Z"),
        ("2026-11-23 13:22:09.5 +0200 CEST m=+0.1", "2026-11-23T11:22:09.5Z"),
    ],
)
def test_a_time_keeps_its_precision_in_utc(value, written):
    stamp = times.timestamp(value)

    assert stamp is not None
    assert times.format_time(stamp) == written


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        "3:04PM",
        "tomorrow",
        float("nan"),
        float("inf"),
        0,
        10**30,
        [],
        {},
        "2026-02-30 10:00:00",
        "x" * 200,
    ],
)
def test_what_is_no_time_is_none(value):
    assert times.timestamp(value) is None


def test_a_time_without_zone_is_in_the_configured_one_summer_and_winter():
    berlin = ZoneInfo("Europe/Berlin")

    assert times.timestamp("2026/07/01 12:00:00", berlin) == times.timestamp("2026-07-01T10:00:00Z")
    assert times.timestamp("2026/12/01 12:00:00", berlin) == times.timestamp("2026-12-01T11:00:00Z")
    assert times.timestamp("Tue, 01 Dec 2026 12:00:00 CET", berlin) == times.timestamp("2026-12-01T11:00:00Z")
    assert times.timestamp("2026-12-01 12:00:00Z", berlin) == times.timestamp("2026-12-01T12:00:00Z")


def test_years_beyond_the_calendar_come_out_at_its_ends():
    assert times.format_time(Stamp(10**22, 0)) == "9999-12-31T23:59:59Z"
    assert times.format_time(Stamp(-(10**22), 0)) == "0000-01-01T00:00:00Z"
