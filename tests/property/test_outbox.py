"""Laws of turns: whatever fails, a stream keeps its order and nothing is lost or doubled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.delivery.outbox import Outbox, Suspicion
from sidecar.model import Push
from tests.support import records

reasons = st.sampled_from(
    ["ok", "ok", "ok", "connection", "server_error", "timeout", "rate_limited", "stream_limited", "refused"]
)


def numbered(stream, numbers):
    return Push(b"", [records.record(str(number)) for number in numbers], stream)


def divide(push):
    middle = len(push.records) // 2
    return [Push(b"", push.records[:middle], push.stream), Push(b"", push.records[middle:], push.stream)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=12),
    st.lists(reasons, max_size=150),
)
def test_every_record_leaves_once_and_streams_keep_their_order(pushes, answers):
    box, number, sequence = Outbox(chance=lambda: 0.5), 0, {}
    for stream, count in pushes:
        made = numbered(stream, range(number, number + count))
        sequence.update({id(record): number + n for n, record in enumerate(made.records)})
        number += count
        box.add(made, None)
    pending, left, now, delivered, suspected = iter(answers), True, 0.0, {}, set()

    while len(box):
        now = max(now, box.ready_at())
        parcel = box.next(now)
        assert parcel is not None
        answer = next(pending, "ok")
        stream = parcel.push.stream
        if answer in ("ok", "refused"):
            delivered.setdefault(stream, []).extend(sequence[id(record)] for record in parcel.push.records)
            box.delivered(parcel, now) if answer == "ok" else box.refused(parcel)
            continue
        _, verdict = box.failed(parcel, now, answer, stream_only=answer == "stream_limited")
        suspected |= {stream} if parcel.tries >= 5 else set()
        if verdict is Suspicion.GIVE_UP:
            delivered.setdefault(stream, []).extend(sequence[id(record)] for record in parcel.push.records)
            box.refused(parcel)
        elif verdict is Suspicion.DIVIDE and len(parcel.push.records) > 1:
            box.replace(parcel, divide(parcel.push))

    assert left
    assert sorted(n for numbers in delivered.values() for n in numbers) == list(range(number))
    for stream, numbers in delivered.items():
        if stream not in suspected:  # a suspect lets one other go before it
            assert numbers == sorted(numbers)
