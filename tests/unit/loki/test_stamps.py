"""A record keeps its time unless Loki would take it for another one or could not store it."""

from __future__ import annotations

import orjson
import pytest

from sidecar.errors import StateError
from sidecar.loki.stamps import GRACE_NS, Stamps
from tests.support import records

NOW = 1_795_000_000 * 10**9


@pytest.fixture
def stamps():
    return Stamps(lambda: NOW)


def at(time_ns, text="same", **fields):
    return records.record(text, time_ns=time_ns, **fields)


def test_distinct_times_stay(stamps):
    assert stamps.settle([at(5), at(3), at(9)]) == [5, 3, 9]
    assert stamps.settle([]) == []


def test_one_time_for_different_lines_stays(stamps):
    assert stamps.settle([at(5, "a"), at(5, "b"), at(5, "c")]) == [5, 5, 5]
    assert stamps.settle([at(5, "d")]) == [5]


def test_equal_records_move_by_single_nanoseconds(stamps):
    assert stamps.settle([at(5), at(5), at(5)]) == [5, 6, 7]
    assert stamps.moved == 2


def test_what_was_sent_before_is_remembered(stamps):
    assert stamps.settle([at(5)]) == [5]
    assert stamps.settle([at(5)]) == [6]
    assert stamps.settle([at(6)]) == [7]


def test_metadata_that_differs_keeps_two_apart(stamps):
    assert stamps.settle([at(5, format="gin"), at(5, format="canonical")]) == [5, 5]


def test_a_move_never_lands_on_another(stamps):
    assert stamps.settle([at(5), at(6), at(5), at(5)]) == [5, 6, 7, 8]


def test_a_storm_of_equals_takes_linear_time(stamps):
    made = [at(5)] * 20_000

    assert stamps.settle(made) == list(range(5, 20_005))


def test_what_was_sent_within_a_second_of_a_busy_service_is_remembered(stamps):
    first = [at(10**9 * n, "tick") for n in range(1, 3)]
    stamps.settle(first)
    stamps.settle([at(10**9, f"other {n}") for n in range(10_000)])

    assert stamps.settle([at(10**9, "tick")]) == [10**9 + 1]


def test_memory_is_bounded(stamps):
    for start in range(0, 100_000, 1000):
        stamps.settle([at(7, str(start + n)) for n in range(1000)])

    assert len(stamps._hashes) + len(stamps._older_hashes) < 40_000


def test_times_that_never_repeat_are_remembered_in_a_bounded_way(stamps):
    for start in range(0, 40_000, 1000):
        stamps.settle([at(start + n + 1, str(n)) for n in range(1000)])

    assert sum(len(one.given) for one in stamps._log) < 4000


def test_times_that_go_back_are_looked_up(stamps):
    assert stamps.settle([at(8), at(5)]) == [8, 5]
    assert stamps.settle([at(7), at(9)]) == [7, 9]
    assert stamps.settle([at(5), at(6)]) == [6, 10]


@pytest.mark.parametrize("time_ns", [0, -1, -(10**19), -62135596800 * 10**9])
def test_times_before_1970_become_the_present(stamps, time_ns):
    assert stamps.settle([at(time_ns), at(5)]) == [NOW, 5]
    assert stamps.clamped_past == 1


@pytest.mark.parametrize("time_ns", [NOW + GRACE_NS + 1, 253402300799 * 10**9, 10**30])
def test_times_in_the_future_become_the_present(stamps, time_ns):
    assert stamps.settle([at(time_ns), at(time_ns, "b")]) == [NOW, NOW + 1]
    assert stamps.clamped_future == 2


def test_ten_minutes_ahead_are_taken(stamps):
    assert stamps.settle([at(NOW + GRACE_NS)]) == [NOW + GRACE_NS]


def goes_on(stamps, settled):
    """Return what the next process knows."""
    following = Stamps(lambda: NOW)
    following.restore(orjson.loads(orjson.dumps(stamps.snapshot(settled))))
    return following


SECOND = 10**9


def test_the_next_process_gives_no_time_that_is_taken(stamps):
    assert stamps.settle([at(SECOND), at(SECOND), at(SECOND)]) == [SECOND, SECOND + 1, SECOND + 2]

    assert goes_on(stamps, 3).settle([at(SECOND), at(SECOND, "other")]) == [SECOND + 3, SECOND]


def test_what_is_settled_again_gets_the_time_it_had(stamps):
    """A crash: the watermark stood behind the first two of four."""
    given = stamps.settle([at(SECOND)] * 4)

    assert goes_on(stamps, 2).settle([at(SECOND)] * 2) == given[2:]


def test_one_line_before_and_one_behind_a_restart_are_two(stamps):
    """No time had repeated until then."""
    stamps.settle([at(SECOND - 5, "a"), at(SECOND)])

    assert goes_on(stamps, 2).settle([at(SECOND)]) == [SECOND + 1]


def test_a_restart_after_a_restart_forgets_nothing(stamps):
    stamps.settle([at(SECOND)] * 3)
    second = goes_on(stamps, 3)
    third = goes_on(second, 0)

    assert third.settle([at(SECOND)]) == [SECOND + 3]
    assert goes_on(third, 1).settle([at(SECOND)]) == [SECOND + 4]


def test_a_snapshot_holds_what_may_come_again_and_little_else(stamps):
    for start in range(0, 20_000, 500):
        stamps.settle([at(SECOND * 7 + (start + n) * 1_000_003, str(n)) for n in range(500)])

    assert len(orjson.dumps(stamps.snapshot(20_000))) < 2000


def test_a_snapshot_of_a_busy_second_is_bounded(stamps):
    for start in range(0, 50_000, 500):
        stamps.settle([at(SECOND, str(start + n)) for n in range(500)])

    assert len(orjson.dumps(stamps.snapshot(50_000))) < 50_000


def test_the_next_process_forgets_nothing_of_a_busy_second(stamps):
    busy = [at(SECOND, str(n)) for n in range(6000)]
    stamps.settle(busy)
    following = goes_on(stamps, len(busy))

    following.settle([at(SECOND + 1)])

    assert following.settle([at(SECOND, "0")]) == [SECOND + 1]


@pytest.mark.parametrize("saved", [{"x": ["", []]}, {"1": ["!", []]}, {"1": ["AAA=", []]}, {"1": [[], 5]}, {"1": 7}])
def test_a_snapshot_that_makes_no_sense_changes_nothing(stamps, saved):
    with pytest.raises(StateError, match="saved times"):
        stamps.restore(saved)

    assert stamps.settle([at(5)]) == [5]
