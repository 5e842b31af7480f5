"""Law: whatever came, was delivered, and is served again, each line is told exactly as often as it was read."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.sources import seen

SECOND = seen.SECOND
START = 1_700_000_000 * SECOND

# a step of the clock, backwards too, and one of few contents
rows = st.lists(st.tuples(st.integers(-SECOND // 2, SECOND), st.integers(0, 2)), max_size=60)


def log(steps):
    """Return (end, ns, key) of each line; a line never is more than a second older than one before it."""
    now, newest, lines = START, START, []
    for number, (step, content) in enumerate(steps):
        now = max(now + step, newest - SECOND // 2)
        newest = max(newest, now)
        lines.append(((number + 1) * 10, now, hash((now, content)) & (2**64 - 1)))
    return lines


def served(lines, since):
    return [key for _, ns, key in lines if since is None or ns >= since * SECOND]


@given(rows, st.integers(0, 60), st.integers(0, 60))
def test_what_is_asked_for_again_leaves_exactly_the_lines_that_were_not_delivered(steps, read, delivered):
    lines = log(steps)
    memory = seen.Seen()
    for line in lines[:read]:
        memory.add(*line)
    known = lines[: min(delivered, read)]

    again = seen.Seen.from_state(memory.state(len(known) * 10))
    new = Counter(served(lines, again.since())) - again.expected()

    assert new == Counter(key for _, _, key in lines[len(known) :])


@given(rows, st.integers(0, 60), st.lists(st.integers(0, 60), max_size=4))
def test_saving_forgets_nothing_that_the_open_log_can_repeat(steps, read, saves):
    lines = log(steps)
    memory = seen.Seen()
    for line in lines[:read]:
        memory.add(*line)
    for delivered in sorted(saves):
        memory.state(min(delivered, read, len(lines)) * 10)

    new = Counter(served(lines, memory.since())) - memory.expected()

    assert new == Counter(key for _, _, key in lines[read:])


def test_memory_is_bounded_where_nobody_saves_and_a_late_save_loses_nothing():
    memory = seen.Seen()
    memory.add(10, START, 1)
    state = memory.state(10)
    for number in range(250_000):
        memory.add(20 + number * 10, START + number * 10**6, number)

    assert len(memory._keys) <= 100_000
    assert memory.state(30) == state
    assert seen.Seen.from_state(memory.state(2_500_010)).since() == (START + 249_999 * 10**6) // SECOND - 1


@pytest.mark.parametrize(
    "state", [{}, {"newest_ns": -1, "keys": ""}, {"newest_ns": 1, "keys": "§"}, {"newest_ns": 1, "keys": "AAAA"}]
)
def test_a_state_that_makes_no_sense_is_refused(state):
    with pytest.raises(ValueError, match=r".+"):
        seen.Seen.from_state(state)
