"""The watermark stands where nothing before it is unfinished."""

from __future__ import annotations

import pytest

from sidecar import acks
from sidecar.model import Position


def at(offset: int, log: str = "a") -> Position:
    return Position(log, offset)


def test_there_is_no_watermark_before_the_first_ack() -> None:
    tracker = acks.Tracker()
    tracker.open(at(1), parts=1)

    assert tracker.watermark is None
    assert len(tracker) == 1


def test_a_batch_is_finished_when_every_sink_is_done_with_it() -> None:
    tracker = acks.Tracker()
    ack = tracker.open(at(1), parts=2)

    ack.done()
    assert tracker.watermark is None

    ack.done()
    assert tracker.watermark == at(1)
    assert len(tracker) == 0


def test_a_later_batch_waits_for_an_earlier_one() -> None:
    tracker = acks.Tracker()
    first, second = tracker.open(at(1), parts=1), tracker.open(at(2), parts=1)

    second.done()
    assert tracker.watermark is None
    assert len(tracker) == 2

    first.done()
    assert tracker.watermark == at(2)


def test_without_sinks_a_batch_is_finished_at_once_and_in_order() -> None:
    tracker = acks.Tracker()
    first = tracker.open(at(1), parts=1)
    tracker.open(at(2), parts=0)
    assert tracker.watermark is None

    first.done()
    assert tracker.watermark == at(2)


def test_one_ack_too_many_is_a_bug_and_says_so() -> None:
    ack = acks.Tracker().open(at(1), parts=1)
    ack.done()

    with pytest.raises(RuntimeError, match="already acknowledged"):
        ack.done()


def test_each_log_has_a_watermark_of_its_own() -> None:
    tracker = acks.Tracker()
    for position in (at(5, "old"), at(3, "new"), at(9, "old"), at(7, "new")):
        tracker.open(position, parts=0)
    pending = tracker.open(at(99, "old"), parts=1)

    assert tracker.watermark == at(7, "new")
    assert tracker.watermarks == {"old": at(9, "old"), "new": at(7, "new")}

    pending.done()
    assert tracker.watermarks["old"] == at(99, "old")


def test_a_process_that_sees_logs_for_months_forgets_the_oldest() -> None:
    tracker = acks.Tracker()
    for number in range(5000):
        tracker.open(at(1, "busy"), parts=0)
        tracker.open(at(1, f"log {number}"), parts=0)

    assert len(tracker.watermarks) == 4096
    assert "busy" in tracker.watermarks
    assert "log 4999" in tracker.watermarks
    assert "log 0" not in tracker.watermarks


def test_a_batch_is_passed_once_none_of_its_lines_would_be_read_again() -> None:
    """An open block of one stream holds up the position in front of later lines of the other."""
    tracker = acks.Tracker()
    mixed, last = tracker.open(at(100), parts=1, reach=500), tracker.open(at(700), parts=1, reach=600)

    mixed.done()
    assert tracker.watermark == at(100)
    assert not mixed.passed

    last.done()
    assert mixed.passed
    assert last.passed


def test_batches_are_passed_in_their_order() -> None:
    tracker = acks.Tracker()
    mixed, other = tracker.open(at(100), parts=1, reach=500), tracker.open(at(10, "b"), parts=1, reach=9)

    mixed.done()
    other.done()

    assert not other.passed, "what was settled before it may be read again"


def test_a_line_that_never_ends_keeps_no_more_than_some_batches() -> None:
    tracker = acks.Tracker()
    all_of_them = [tracker.open(at(1), parts=1, reach=number + 1) for number in range(5000)]

    for ack in all_of_them:
        ack.done()

    assert sum(not ack.passed for ack in all_of_them) == 4096
