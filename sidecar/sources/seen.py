"""Which lines of a container's log were read, and up to where they are delivered.

The problem: the API resumes at a second, not at a line, so every new connection repeats lines; a runtime gives many
lines the same time, and times of stdout and stderr may be out of order by a little. The promise: a line is
known again by the digest of its time and content, as often as it was read and no more often (a multiset), whatever the
order; what is saved with a delivered position knows exactly the delivered lines that can come again. 24 bytes a line,
of the newest seconds and of what is not delivered yet. Refused: to drop a line because of its time.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND = 1_000_000_000
OVERLAP_SECONDS = 1  # stdout and stderr are stamped before they are written: later lines may have earlier times
_MOST = 100_000  # lines kept when nobody asks for a position: 2.4 MB


class Seen:
    """The lines of one container instance."""

    def __init__(self, newest_ns: int = 0, keys: array[int] | None = None) -> None:
        """Begin with lines that were delivered in an earlier life."""
        self.newest_ns = newest_ns
        self._keys = keys if keys is not None else array("Q")
        self._ends = array("Q", [0] * len(self._keys))  # where each ends in the log; ascending
        self._times = array("q", [newest_ns] * len(self._keys))
        self._delivered_ns = newest_ns
        self._forgotten = 0  # the end of the last line that was forgotten before it was known to be delivered
        self._saved = (newest_ns, array("Q", self._keys))

    def add(self, end: int, ns: int, key: int) -> None:
        """Remember a line that was read; it ends at `end` in the log."""
        self._ends.append(end)
        self._times.append(ns)
        self._keys.append(key)
        self.newest_ns = max(self.newest_ns, ns)
        if len(self._ends) > _MOST:
            self._forget()

    def since(self) -> int | None:
        """Return the second from which to ask again; None where nothing was read: from the beginning."""
        return self.newest_ns // SECOND - OVERLAP_SECONDS if self.newest_ns else None

    def expected(self) -> Counter[int]:
        """Return how often each known line will come when asked for since `since`."""
        cut = _cut(self.newest_ns)
        return Counter(key for key, ns in zip(self._keys, self._times, strict=True) if ns >= cut)

    def continued(self) -> Seen:
        """Return the memory for a log that begins where this one turned out to have ended."""
        return Seen(self.newest_ns, array("Q", self.expected().elements()))

    def state(self, offset: int) -> dict[str, object]:
        """Return what a checkpoint keeps when everything before `offset` is delivered; forgets what that makes old."""
        if offset >= self._forgotten:  # else: resuming behind what was last known is late, and loses nothing
            delivered = bisect_right(self._ends, offset)
            self._delivered_ns = max(self._delivered_ns, max(self._times[:delivered], default=0))
            cut = _cut(self._delivered_ns)
            kept = [index for index in range(delivered) if self._times[index] >= cut]
            if len(kept) < delivered:
                for name in ("_ends", "_times", "_keys"):
                    column: array[int] = getattr(self, name)
                    setattr(self, name, array(column.typecode, [column[index] for index in kept]) + column[delivered:])
            self._saved = (self._delivered_ns, self._keys[: len(kept)])
        newest, keys = self._saved
        return {"newest_ns": newest, "keys": base64.b64encode(keys.tobytes()).decode()}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """Read what `state` wrote. Raises ValueError where it is something else."""
        newest, text = state.get("newest_ns"), state.get("keys")
        if not isinstance(newest, int) or newest < 0 or not isinstance(text, str):
            raise ValueError("newest_ns, keys: expected a time and digests")
        keys = array("Q")
        try:
            keys.frombytes(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise ValueError("keys: expected base64") from error
        return cls(newest, keys)

    def _forget(self) -> None:
        """Drop the oldest tenth: positions before its end are answered with the last one known."""
        count = _MOST // 10
        self._forgotten = max(self._forgotten, self._ends[count - 1])
        for column in (self._ends, self._times, self._keys):
            del column[:count]


def _cut(newest_ns: int) -> int:
    return (newest_ns // SECOND - OVERLAP_SECONDS) * SECOND
