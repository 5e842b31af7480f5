"""What has come in for a sink and is not encoded yet: in memory, and on disk where there is a spool.

Promise: items come out in the order they went in, each is acknowledged exactly once. With a spool everything is
written there first, which a crash of the process survives at once; it is made to survive a power cut, and only then
acknowledged, when it has not been delivered within a second. So a sink that keeps up costs writes to the page cache
and hardly any to the disk, and a source is never kept waiting for one that does not.
While little waits, memory holds it too, and nothing is read back; beyond that it lies on disk alone, compressed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sidecar import columnar
from sidecar.model import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.model import Ack, Record
    from sidecar.spool import Spool

RECORD_OVERHEAD = 400  # bytes that a record takes in memory beside its line
_ENOUGH_ITEMS = 1024  # to be worth a push, however small they are
_WINDOW_BYTES = 1 << 20  # of what is in the spool, as much is kept in memory too
_SYNC_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Item:
    """The records of one batch, or of one frame of the spool."""

    records: Sequence[Record]
    arrived: float
    batch: Batch | None = None  # None: acknowledged
    times: Sequence[int] | None = None  # None: not settled yet
    numbers: Sequence[int] = ()  # in the spool
    line_bytes: int = 0
    size: int = 0  # in memory

    def __post_init__(self) -> None:
        self.line_bytes = sum(map(len, columnar.lines(self.records)))
        self.size = self.line_bytes + RECORD_OVERHEAD * len(self.records)


class _Share:
    """The ack of a batch that is taken in parts: the last one to be done acknowledges it."""

    def __init__(self, ack: Ack, parts: int) -> None:
        self._ack = ack
        self._left = parts

    @property
    def passed(self) -> bool:
        return self._ack.passed

    def done(self) -> None:
        self._left -= 1
        if not self._left:
            self._ack.done()


def parts(batch: Batch, arrived: float, max_bytes: int | None) -> list[Item]:
    """Return a batch as items of at most so many bytes, or of one record each where that is larger."""
    whole = Item(batch.records, arrived, batch)
    if max_bytes is None or whole.size <= max_bytes or len(batch.records) == 1:
        return [whole]
    cuts, size = [0], 0
    for index, record in enumerate(batch.records):
        more = len(record.line) + RECORD_OVERHEAD
        if size and size + more > max_bytes:
            cuts.append(index)
            size = 0
        size += more
    share = _Share(batch.ack, len(cuts))
    pieces = [batch.records[start:end] for start, end in pairwise([*cuts, len(batch.records)])]
    return [Item(piece, arrived, Batch(piece, share)) for piece in pieces]


class Backlog:
    """The items of one sink, oldest first."""

    def __init__(
        self,
        *,
        enough_bytes: int,
        max_wait: float,
        settle: Callable[[Item], list[int]],
        wall: Callable[[], float],
        spool: Spool | None = None,
    ) -> None:
        """`enough_bytes` are worth a push, `max_wait` seconds make any; `settle` gives records their times."""
        self._enough_bytes = enough_bytes
        self._max_wait = max_wait
        self._settle = settle
        self._wall = wall
        self._spool = spool
        self._items: deque[Item] = deque()
        self._line_bytes = 0  # of `_items`
        self._window_bytes = max(_WINDOW_BYTES, 4 * enough_bytes)
        self._unsynced: deque[Item] = deque()  # in the spool, not known to be on disk
        self._syncing = False
        self.held_bytes = 0  # in memory, waiting or taken and not released
        self.unacknowledged = 0
        self.behind = spool is not None and spool.pending > 0  # the newest is on disk only

    def __len__(self) -> int:
        return len(self._items)

    @property
    def oldest(self) -> Item | None:
        return self._items[0] if self._items else None

    def admit(self, item: Item) -> bool:
        """Take an item in; False when the spool has no room, and nothing was taken."""
        if self._spool is None:
            self.unacknowledged += 1
            self._enqueue(item)
            return True
        item.times = self._settle(item)
        behind = self.behind or self._window_full(item.size)
        first = self._spool.append(item.records, item.times, compress=behind)
        if first is None:
            return False
        self.unacknowledged += 1
        item.numbers = range(first, self._spool.end)
        self._unsynced.append(item)
        self.behind = behind
        if behind:
            item.records = item.times = ()  # read again when its turn comes
        else:
            self._spool.skip()
            self._enqueue(item)
        return True

    def crowded(self, size: int) -> bool:
        """Say whether an item would fall behind, or take one of the last places in the spool, or find none."""
        if self._spool is not None and self.behind:
            return self._spool.crowded
        # Without anything in memory nothing is on its way, and there is nothing to wait for.
        no_place = self.held_bytes > 0 and self._spool is not None and not self._spool.fits(size)
        return no_place or self._window_full(size)

    def _window_full(self, size: int) -> bool:
        return self.held_bytes > 0 and self.held_bytes + size > self._window_bytes

    def refill(self, now: float) -> bool:
        """Bring what lies on disk alone to memory, as long as there is room; say whether all of it just was."""
        while self._spool is not None and self.behind and self.held_bytes < self._window_bytes // 2:
            frame = self._spool.read()
            if frame is None:
                self.behind = False
                return True
            arrived = now - max(0.0, self._wall() - frame.put_at)
            self._enqueue(Item(frame.records, arrived, None, frame.times, frame.numbers))
        return False

    def due(self, now: float) -> bool:
        """Say whether enough has come together, or waited long enough, to be worth a push."""
        return bool(self._items) and (
            self._line_bytes >= self._enough_bytes
            or len(self._items) >= _ENOUGH_ITEMS
            or now - self._items[0].arrived >= self._max_wait
        )

    def due_at(self) -> float | None:
        """Return when what waits will be due at the latest."""
        return self._items[0].arrived + self._max_wait if self._items else None

    def take(self) -> list[Item]:
        """Return the oldest items, as many as fit a push, one at least; they count as held until released."""
        taken: list[Item] = []
        size = 0
        while self._items and (not size or size + self._items[0].line_bytes <= self._enough_bytes):
            taken.append(self._items.popleft())
            size += taken[-1].line_bytes
        self._line_bytes -= size
        return taken

    def release(self, items: Sequence[Item]) -> None:
        """Say that items are done for good."""
        for item in items:
            self.held_bytes -= item.size
            self.acknowledge(item)
        while self._unsynced and self._unsynced[0].batch is None:
            self._unsynced.popleft()  # delivered before it had to be on disk

    def forget(self, item: Item) -> None:
        """Acknowledge an item that was not taken in."""
        batch, item.batch = item.batch, None
        if batch is not None:
            batch.ack.done()

    def acknowledge(self, item: Item) -> None:
        """Acknowledge an item's batch unless that was done."""
        batch, item.batch = item.batch, None
        if batch is not None:
            self.unacknowledged -= 1
            batch.ack.done()

    def sync_at(self) -> float | None:
        """Return when something must be made to survive a power cut."""
        return self._unsynced[0].arrived + _SYNC_SECONDS if self._unsynced and not self._syncing else None

    async def sync(self, spool: Spool) -> None:
        """Make what has been written survive a power cut, and acknowledge it."""
        self._syncing = True
        try:
            self._acknowledge_synced(await spool.sync())
        finally:
            self._syncing = False

    def sync_now(self) -> None:
        """Do the same at the end of the process, without giving way to others."""
        if self._spool is not None:
            self._acknowledge_synced(self._spool.sync_now())

    def _acknowledge_synced(self, end: int) -> None:
        while self._unsynced and self._unsynced[0].numbers[-1] < end:
            self.acknowledge(self._unsynced.popleft())

    def _enqueue(self, item: Item) -> None:
        self._items.append(item)
        self._line_bytes += item.line_bytes
        self.held_bytes += item.size
