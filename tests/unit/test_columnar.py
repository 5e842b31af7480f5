"""Records in columns are records to whoever looks at them."""

from __future__ import annotations

import operator

import pytest

from sidecar import columnar
from sidecar.loki import encoder, stamps
from tests.support import records

ROWS = records.records(9, start_ns=100)


@pytest.fixture
def made():
    return records.in_columns(ROWS)


def same(found, expected):
    """Say whether these are the very same records."""
    return len(found) == len(expected) and all(map(operator.is_, found, expected))


def test_they_are_a_sequence_of_records(made):
    assert len(made) == 9
    assert list(made) == ROWS
    assert made[2] == ROWS[2]
    assert made[-1] == ROWS[-1]


def test_a_record_is_made_once(made):
    assert same(list(made), list(made))
    assert made[3] is made[3]


@pytest.mark.parametrize("indexes", [[], [4], [7, 0, 3], range(9)])
def test_what_is_picked_is_the_same_record(made, indexes):
    assert same(list(columnar.pick(made, indexes)), [made[index] for index in indexes])
    assert list(columnar.lines(columnar.pick(made, indexes))) == [ROWS[index].line for index in indexes]


def test_a_part_holds_the_same_records(made):
    part = made[2:5]

    assert isinstance(part, columnar.Records)
    assert same(list(part), [made[2], made[3], made[4]])
    assert same(list(part[1:][:1]), [made[3]])


def test_joined_batches_hold_the_same_records(made):
    joined = columnar.join([made[:4], made[4:]])

    assert isinstance(joined, columnar.Records)
    assert same(list(joined), list(made))
    assert list(columnar.times_ns(joined)) == [record.time_ns for record in ROWS]


@pytest.mark.parametrize("other", [records.in_columns(records.records(2, format="zap")), records.records(2)])
def test_batches_that_differ_are_joined_record_by_record(made, other):
    assert same(columnar.join([made, other]), [*made, *other])


def test_a_single_batch_stays_as_it_is(made):
    assert columnar.join([made]) is made
    assert columnar.join([ROWS]) is ROWS


@pytest.mark.parametrize("spans", [["00f067aa0ba902b7"] * 3, [""] * 3, ["", "00f067aa0ba902b7", ""]])
@pytest.mark.parametrize("times", [(5, 6, 7), (7, 5, 6), (5, 5, 5)])
@pytest.mark.parametrize("services", [("a", "a", "a"), ("a", "b", "a")])
def test_loki_is_sent_the_same_bytes(spans, times, services):
    columns = zip(spans, times, services, strict=True)
    rows = [records.record("x", span_id=span, time_ns=at, service_name=name) for span, at, name in columns]
    bodies, again = (
        [(push.stream, push.body, list(push.records)) for push in encode(each)]
        for each in (rows, records.in_columns(rows))
    )

    assert again == bodies


def encode(made):
    one = encoder.Encoder(
        {}, sink="loki", telemetry=records.quiet_telemetry(), now_ns=lambda: stamps.GRACE_NS, max_bytes=1 << 20
    )
    return one.encode(made, one.settle(made))
