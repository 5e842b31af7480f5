"""Law: the watermark equals the longest fully acknowledged prefix, whatever the order of acknowledgements."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import acks
from sidecar.model import Position

logs = st.sampled_from(["a", "b", "c"])


@settings(deadline=None)
@given(data=st.data(), batches=st.lists(st.tuples(logs, st.integers(0, 3)), max_size=12))
def test_the_watermark_is_the_longest_acknowledged_prefix(data: st.DataObject, batches: list[tuple[str, int]]) -> None:
    """Opening and acknowledging are interleaved at random; a list of counts is the model."""
    tracker = acks.Tracker()
    opened: list[acks.Ack] = []
    left: list[int] = []
    to_open = list(enumerate(batches))

    while to_open or any(left):
        unfinished = [index for index, count in enumerate(left) if count]
        if to_open and (not unfinished or data.draw(st.booleans())):
            index, (log, parts) = to_open.pop(0)
            opened.append(tracker.open(Position(log, index), parts))
            left.append(parts)
        else:
            index = data.draw(st.sampled_from(unfinished))
            opened[index].done()
            left[index] -= 1

        prefix = next((index for index, count in enumerate(left) if count), len(left))
        finished = [Position(batches[index][0], index) for index in range(prefix)]
        assert tracker.watermark == (finished[-1] if finished else None)
        assert tracker.watermarks == {position.log: position for position in finished}
        assert len(tracker) == len(left) - prefix
