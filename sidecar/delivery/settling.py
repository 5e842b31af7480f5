"""The times that a sink gives to records, and what of them must outlive the process.

A sink decides a record's time from what it has sent before, so that no two of them are taken for one; the next process
has to know what this one knew when the last record was settled that will not be read again. Later ones will be, and
have to get the times that they got here. Promise: `snapshot` is of the very moment of the watermark.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.delivery.backlog import Item
    from sidecar.model import Ack
    from sidecar.sinks import Sink


class Settler:
    """Settles the items of one sink, in the order they came."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._settled = 0  # records
        self._passed = 0  # of these, up to the watermark
        self._open: deque[tuple[Ack, int]] = deque()  # batches the watermark has not passed, with `_settled` after them

    def settle(self, item: Item) -> list[int]:
        """Return the time of each record of an item."""
        self._settled += len(item.records)
        if item.batch is not None:
            self._open.append((item.batch.ack, self._settled))
        self._follow()
        return self._sink.settle(item.records)

    def snapshot(self) -> Mapping[str, Any]:
        """Return what the sink knew at the watermark, as plain JSON."""
        self._follow()
        return self._sink.snapshot(self._passed)

    def _follow(self) -> None:
        while self._open and self._open[0][0].passed:
            self._passed = self._open.popleft()[1]
