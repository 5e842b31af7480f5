"""The API's stream as lines in CRI form."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.sources import stamped

STREAM = (
    b"2025-01-02T03:04:05.000000001Z one\n"
    b"2025-01-02T03:04:05.123456789+02:00 two with 2025-01-02T03:04:05Z in it\r\n"
    b"2025-01-02T03:04:06.000000000Z \n"
    b"no time\n"
    b"rpc error: code = NotFound\n"
    b"2025-01-02T03:04:07.000000000Z \xff\x00\n"
)


def texts(lines):
    return [line.text for line in lines]


def test_each_line_gets_the_form_of_the_runtime_and_keeps_its_content():
    lines = stamped.Splitter(1000).feed(STREAM)

    assert texts(lines) == [
        b"2025-01-02T03:04:05.000000001Z stdout F one\n",
        b"2025-01-02T03:04:05.123456789+02:00 stdout F two with 2025-01-02T03:04:05Z in it\r\n",
        b"2025-01-02T03:04:06.000000000Z stdout F \n",
        b"2025-01-02T03:04:06.000000000Z stdout F no time\n",
        b"",
        b"2025-01-02T03:04:07.000000000Z stdout F \xff\x00\n",
    ]
    assert lines[0].ns == 1_735_787_045_000_000_001
    assert lines[1].ns == lines[0].ns - 7200 * 10**9 + 123_456_788
    assert lines[4].complaint == "rpc error: code = NotFound"


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_where_the_stream_is_cut_makes_no_difference(cuts):
    splitter = stamped.Splitter(1000)
    places = [0, *sorted(cuts), len(STREAM)]
    lines = [line for begin, end in itertools.pairwise(places) for line in splitter.feed(STREAM[begin:end])]

    assert lines == stamped.Splitter(1000).feed(STREAM)
    assert splitter.rest() is None


def test_half_a_line_is_held_and_given_up_when_asked():
    splitter = stamped.Splitter(1000)

    assert splitter.feed(STREAM[:33]) == []
    rest = splitter.rest()
    assert rest is not None
    assert rest.text == b"2025-01-02T03:04:05.000000001Z stdout F on"
    assert splitter.rest() is None


@pytest.mark.parametrize("pieces", [1, 10])
def test_a_line_without_end_is_held_in_bounded_memory_and_its_rest_counted(pieces):
    splitter = stamped.Splitter(1000)
    long = b"2025-01-02T03:04:05.000000001Z " + b"x" * 100_000
    size = len(long) // pieces + 1
    for begin in range(0, len(long), size):
        splitter.feed(long[begin : begin + size])
        assert len(splitter._held) <= 1064
    (line,) = splitter.feed(b"\n")

    content = line.text.removeprefix(b"2025-01-02T03:04:05.000000001Z stdout F ").removesuffix(b"\n")
    assert len(content) > 1000, "framing sees that it is too long"
    assert len(content) + line.lost == 100_000
