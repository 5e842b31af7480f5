"""Turns, pauses, catching up: the outbox decides, given the time."""

from __future__ import annotations

from sidecar.delivery.outbox import CATCH_UP_BYTES_PER_SECOND, Outbox, Suspicion
from sidecar.model import Push
from tests.support import records


def push(name="a", count=1, size=10):
    return Push(b"", [records.record("x" * size) for _ in range(count)], name)


def outbox(*names):
    made = Outbox(chance=lambda: 1.0)
    for name in names:
        made.add(push(name), None)
    return made


def test_the_oldest_goes_first_whatever_its_stream():
    box = outbox("b", "a", "b")
    order = []
    while (parcel := box.next(0.0)) is not None:
        order.append(parcel.push.stream)
        box.delivered(parcel, 0.0)

    assert order == ["b", "a", "b"]
    assert len(box) == 0


def test_the_whole_destination_rests_after_a_failure_that_concerns_it():
    box = outbox("a", "b")
    box.failed(box.next(0.0), 0.0, "connection")

    assert box.next(0.4) is None
    assert box.resting(0.4)
    assert box.ready_at() == 0.5
    assert box.next(0.5) is not None


def test_after_a_failure_each_lane_has_its_turn():
    box = outbox("a", "b")
    first = box.next(0.0)
    box.failed(first, 0.0, "connection")

    assert box.next(1.0).push.stream == "b"


def test_a_success_anywhere_ends_the_rest_of_the_destination():
    box = outbox("a", "b")
    for now in (0.0, 10.0, 20.0):
        box.failed(box.next(now), now, "connection")

    box.delivered(box.next(40.0), 40.0)
    pause, _ = box.failed(box.next(40.0), 40.0, "connection")

    assert pause == 0.5


def test_only_a_human_can_help_so_there_is_no_hurry():
    box = outbox("a")
    pauses = []
    for now in range(0, 1000, 100):
        pause, _ = box.failed(box.next(float(now)), float(now), "credentials")
        pauses.append(pause)

    assert pauses[0] == 8.0
    assert max(pauses) == 30.0


def test_full_jitter_spreads_over_the_whole_pause():
    chances = iter([0.0, 0.25, 0.5, 1.0])
    box = Outbox(chance=lambda: next(chances))
    box.add(push(), None)
    now, pauses = 0.0, []
    for _ in range(4):
        pause, _ = box.failed(box.next(now), now, "timeout")
        pauses.append(pause)
        now += 100

    assert pauses == [0.0, 0.25, 1.0, 4.0]


def test_a_wish_for_a_longer_pause_is_heard_within_reason():
    box = outbox("a")

    assert box.failed(box.next(0.0), 0.0, "rate_limited", after=90.0)[0] == 90.0
    assert box.failed(box.next(90.0), 90.0, "rate_limited", after=1e9)[0] == 300.0


def test_catching_up_stays_below_a_megabyte_a_second():
    box = Outbox(chance=lambda: 0.0)
    made = push(count=100, size=1000)
    for _ in range(100):
        box.add(made, None)
    box.failed(box.next(0.0), 0.0, "connection")
    now, size = 0.0, 0
    while len(box):
        now = max(now, box.ready_at())
        parcel = box.next(now)
        size += sum(len(record.line) + 100 for record in parcel.push.records)
        box.delivered(parcel, now)

    assert size > 10_000_000
    assert 0.5e6 < size / now < 1e6


def test_without_trouble_there_is_no_bound():
    box = outbox(*["a"] * 100)
    while (parcel := box.next(0.0)) is not None:
        box.delivered(parcel, 0.0)

    assert len(box) == 0


def test_what_has_caught_up_is_free_again():
    box = outbox("a", "a")
    box.failed(box.next(0.0), 0.0, "connection")
    box.delivered(box.next(1.0), 1.0)
    assert box.next(1.0) is None

    box.caught_up()

    assert box.next(1.0) is not None


def test_the_bound_yields_when_it_is_what_keeps_the_lane_behind():
    """An application that writes 2 MB/s would never be caught up with at 0.8."""
    box, made = Outbox(chance=lambda: 0.0), push(count=200, size=1000)
    box.add(made, None)
    box.failed(box.next(0.0), 0.0, "connection")
    now, sent_at = 0.0, []
    while now < 250:
        now = max(now, box.ready_at())
        parcel = box.next(now)
        box.add(made, None)
        box.delivered(parcel, now)
        sent_at.append(now)

    early = sum(1 for at in sent_at if at < 60)
    late = sum(1 for at in sent_at if 190 <= at < 250)
    assert early * 240_000 / 60 <= CATCH_UP_BYTES_PER_SECOND * 1.1
    assert late > 3 * early


def test_a_suspect_is_halved_and_its_relatives_sooner():
    box = Outbox(chance=lambda: 0.0)
    box.add(push(count=4), None)
    parcel = box.next(0.0)
    verdicts = [box.failed(parcel, 0.0, "server_error")[1] for _ in range(5)]
    assert verdicts == [Suspicion.NONE] * 4 + [Suspicion.DIVIDE]

    left, right = push(count=2), push(count=2)
    box.replace(parcel, [left, right])
    box.delivered(box.next(1.0), 1.0)
    guilty = box.next(100.0)

    assert guilty.push is right
    assert box.failed(guilty, 100.0, "server_error")[1] is Suspicion.DIVIDE


def test_one_record_is_given_up_only_when_the_destination_has_taken_another_since():
    box = outbox("a")
    suspect = box.next(0.0)
    for tries in range(50):
        assert box.failed(suspect, float(tries), "server_error")[1] is Suspicion.NONE
    box.add(push("b"), None)
    other = next(parcel for parcel in box if parcel.push.stream == "b")
    box.delivered(other, 60.0)

    assert box.failed(suspect, 61.0, "server_error")[1] is Suspicion.GIVE_UP


def test_a_suspect_lets_its_successor_try_and_goes_back_in_front():
    box = outbox("a", "a")
    suspect = box.next(0.0)
    for _ in range(5):
        box.failed(suspect, 0.0, "server_error")

    probe = box.next(1000.0)
    assert probe is not suspect
    box.failed(probe, 1000.0, "connection")

    assert box.next(2000.0) is suspect
    assert len(box) == 2


def test_a_push_that_is_always_over_the_rate_is_halved():
    box = Outbox(chance=lambda: 0.0)
    box.add(push(count=2), None)
    parcel = box.next(0.0)

    verdicts = [box.failed(parcel, 0.0, "rate_limited")[1] for _ in range(6)]

    assert verdicts[-1] is Suspicion.DIVIDE
    assert set(verdicts[:-1]) == {Suspicion.NONE}


def test_what_replaces_a_push_takes_its_place_or_its_own_lane():
    box = outbox("a", "a", "b")
    first, second = push("a"), push("c")

    box.replace(box.next(0.0), [second, first])
    order = []
    while (parcel := box.next(0.0)) is not None:
        order.append(parcel.push)
        box.delivered(parcel, 0.0)

    assert order.index(first) == 0 or order.index(second) == 0
    assert [push.stream for push in order].count("a") == 2
    assert order.index(first) < next(
        index for index, push in enumerate(order) if push.stream == "a" and push is not first
    )
