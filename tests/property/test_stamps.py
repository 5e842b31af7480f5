"""Laws of the times under which records are sent."""

from __future__ import annotations

import orjson
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


SECOND = 10**9

# Two clocks of one application, both going forward: whole seconds, and milliseconds that lines reach a little late.
moments = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(["gin", "zap"]), st.sampled_from(["a", "b"])),
    max_size=40,
)


lives = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4)


@given(moments, lives, st.integers(1, 10))
def test_who_goes_on_at_the_watermark_gives_every_record_the_time_it_would_have_had(steps, lives, size):
    made, now = [], 7 * SECOND
    for seconds, late, name, text in steps:
        now += seconds * SECOND // 4
        time = now // SECOND * SECOND if name == "gin" else now - late * 1_000_000
        made.append(records.record(text, time_ns=time, format=name))
    whole = Stamps(lambda: NOW * SECOND).settle(made)

    times, watermark, saved = [], 0, {}
    for settled, passed in [*lives, (len(made), len(made))]:
        stamps = Stamps(lambda: NOW * SECOND)
        stamps.restore(saved)
        reached = made[watermark : watermark + settled]
        for start in range(0, len(reached), size):
            times[watermark + start :] = stamps.settle(reached[start : start + size])
        through = min(passed, len(reached))
        saved = orjson.loads(orjson.dumps(stamps.snapshot(through), option=orjson.OPT_SORT_KEYS))
        watermark += through
        assert times == whole[: len(times)]

    assert times == whole
