"""Laws of the times under which records are sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.loki.stamps import Stamps
from tests.support import records

NOW = 1_000_000

small = st.builds(
    records.record,
    st.sampled_from(["a", "b"]),
    time_ns=st.integers(1, 6),
    format=st.sampled_from(["gin", "zap"]),
)


@given(st.lists(st.lists(small, max_size=8), max_size=6))
def test_no_two_entries_are_taken_for_one_and_nothing_moves_without_need(batches):
    stamps = Stamps(lambda: NOW)
    seen = set()

    for batch in batches:
        for record, time in zip(batch, stamps.settle(batch), strict=True):
            identity = (record.line, record.format)
            assert (time, *identity) not in seen
            if time != record.time_ns:
                assert time > record.time_ns
                taken = range(record.time_ns, time)
                assert all((other, *identity) in seen for other in taken)
            seen.add((time, *identity))


@given(st.lists(small, max_size=20), st.integers(1, 5))
def test_the_times_depend_on_the_sequence_and_not_on_how_it_was_cut(made, size):
    whole = Stamps(lambda: NOW).settle(made)
    cut = Stamps(lambda: NOW)

    assert [time for start in range(0, len(made), size) for time in cut.settle(made[start : start + size])] == whole
