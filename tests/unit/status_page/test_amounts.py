"""How amounts are written for people."""

from __future__ import annotations

import math

import pytest

from sidecar.status_page import amounts


def plain(text):
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999, "999"), (1000, "1 000"), (12_345_678, "12 345 678")])
def test_counts_come_in_groups_of_three(number, text):
    assert plain(amounts.count(number)) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "–"),
        (0, 10, "0 %"),
        (1, 3, "33.3 %"),
        (1, 2, "50 %"),
        (10, 10, "100 %"),
        (1, 100_000, "< 0.1 %"),
        (99_999, 100_000, "> 99.9 %"),
        (1, 1000, "0.1 %"),
    ],
)
def test_only_none_is_0_percent_and_only_all_is_100(part, whole, text):
    assert plain(amounts.share(part, whole)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "–"),
        (0.0, "0.0 ms"),
        (0.082, "82.0 µs"),
        (0.4, "400 µs"),
        (12.5, "12.5 ms"),
        (180.2, "180 ms"),
        (1423.0, "1 423 ms"),
        (18_400.0, "18 s"),
        (64_000.0, "1 min 4 s"),
    ],
)
def test_durations_have_the_unit_that_reads_best(value, text):
    assert plain(amounts.milliseconds(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3661, "1 h 1 min"),
        (86_400, "1 d"),
        (900_000, "10 d 10 h"),
    ],
)
def test_spans_have_their_two_largest_units(seconds, text):
    assert plain(amounts.span(seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (118_000_000, "113 MiB"),
        (5 << 30, "5 GiB"),
        (3 << 50, "3072 TiB"),
    ],
)
def test_sizes_have_binary_units(count, text):
    assert plain(amounts.size(count)) == text
