"""What is missing from a push that Loki took in part is known exactly, or sent again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.loki.answers import Fault, Missing
from sidecar.loki.partial import Sent, sort_out

SECOND = 10**9


def sent(*times, line_bytes=10):
    return [Sent(index, time, line_bytes, 4, 90) for index, time in enumerate(times)]


def test_the_count_makes_the_second_of_the_limit_exact():
    times = (9 * SECOND, 10 * SECOND + 1, 10 * SECOND + 5, 11 * SECOND)

    found = sort_out(sent(*times), [Missing(Fault.TOO_OLD, 2, 10)])

    assert (found.too_old, found.unsure) == ({0, 1}, set())


def test_a_count_that_contradicts_the_limit_makes_that_second_unsure():
    times = (9 * SECOND, 10 * SECOND + 1, 10 * SECOND + 5, 11 * SECOND)

    for count in (None, 0, 4):
        found = sort_out(sent(*times), [Missing(Fault.TOO_OLD, count, 10)])
        assert (found.too_old, found.unsure) == ({0}, {1, 2})


def test_what_did_not_arrive_at_the_ingester_was_too_old():
    times = [n * SECOND for n in range(10)]

    found = sort_out(sent(*times), [Missing(Fault.TOO_FAR_BEHIND, 3, 5, arrived=8)])

    assert (found.too_old, found.late) == ({0, 1}, {2, 3, 4})


def test_the_newest_are_too_new():
    assert sort_out(sent(1, 2, 3, 4), [Missing(Fault.TOO_NEW, 2)]).too_new == {2, 3}


def test_long_lines_are_those_beyond_the_limit():
    entries = [Sent(0, 1, 100, 4, 90), Sent(1, 2, 101, 4, 90)]

    found = sort_out(entries, [Missing(Fault.LONG_LINE, 1, 100)])

    assert (found.long, found.max_line_bytes) == ({1}, 100)


def test_metadata_is_measured_by_what_the_limit_is_about():
    entries = [Sent(0, 1, 10, 4, 90), Sent(1, 2, 10, 6, 200)]

    assert sort_out(entries, [Missing(Fault.METADATA, 1, 100)]).fat == {1}
    assert sort_out(entries, [Missing(Fault.METADATA_PAIRS, 1, 5)]).fat == {1}


def test_a_record_is_missing_when_a_part_of_it_is():
    entries = [Sent(0, 1, 100, 4, 90), Sent(0, 1, 30, 4, 90), Sent(1, 2, 10, 4, 90)]

    assert sort_out(entries, [Missing(Fault.LONG_LINE, 1, 50)]).long == {0}


def test_age_goes_before_everything_else():
    entries = [Sent(0, 1, 100, 4, 90), Sent(1, 20 * SECOND, 100, 4, 90)]

    found = sort_out(entries, [Missing(Fault.TOO_OLD, 1, 10), Missing(Fault.LONG_LINE, 1, 50)])

    assert (found.too_old, found.long) == ({0}, {1})


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 40), st.booleans())
def test_what_is_missing_is_never_taken_for_stored(quarters, cutoff, counted):
    """Times in quarters of a second, a limit that Loki knows exactly and tells in whole seconds."""
    times = sorted(quarter * SECOND // 4 for quarter in quarters)
    limit = cutoff * SECOND // 4
    rejected = {index for index, time in enumerate(times) if time < limit}
    count = len(rejected) if counted else None

    found = sort_out(sent(*times), [Missing(Fault.TOO_OLD, count, limit // SECOND)])

    assert rejected <= found.everything()
    assert found.too_old <= rejected
    if counted:
        assert found.too_old == rejected
