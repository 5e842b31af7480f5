"""Where a log passes into the next: the pieces of a line that go along, and when all of a log has been handed over.

The problem: a runtime begins a line in one file and ends it in the next, and a position must not lie among its pieces:
whoever began to read there would take the rest for a line of its own.
The promise: pieces go to the log that says it continues theirs, whatever is read in between; a log is over once nothing
that began in it is pending, here or in a log behind it. Refused: to hold text; that is the framers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sidecar.framing import Carried, Framer

Input = tuple[str, str]  # log and stream


class Passages:
    """The ends and the beginnings of logs."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}  # logs that will not grow, with their end, until they are over
        self._carried: dict[Input, Carried] = {}  # the last pieces of a log that has ended
        # Where a log began with such pieces, at which their line counts, and the logs they are from.
        self._begun_by: dict[Input, tuple[int, set[str]]] = {}
        self._spans: dict[str, list[tuple[int, int]]] = {}  # log → lines of pieces that a position may be inside of

    @property
    def waiting(self) -> Iterator[tuple[str, Carried]]:
        """The pieces whose continuation has not come, by stream."""
        return ((stream, carried) for (_, stream), carried in self._carried.items())

    def leave(self, source: Input, carried: Carried) -> None:
        """Keep the pieces at the end of a log for the one that continues it."""
        if carried:
            self._carried[source] = carried

    def enter(self, source: Input, start: int, continues: str, *, delivered: bool) -> Carried | None:
        """Return the pieces that a log goes on with; `delivered` says that an earlier process has delivered them."""
        before = continues, source[1]
        carried = self._carried.pop(before, None)
        if carried is None or delivered:
            return None
        _, earlier = self._begun_by.get(before, (0, set[str]()))
        self._begun_by[source] = start, {continues, *earlier}
        return carried

    def end(self, log: str, at: int) -> None:
        """Take note that a log has ended."""
        self.ended[log] = at

    def pieces(self, log: str, spans: list[tuple[int, int]]) -> None:
        """Take note of lines made of pieces: start, and the last piece's start."""
        if spans:
            self._spans.setdefault(log, []).extend(spans)

    def outside(self, log: str, position: int) -> int:
        """Return the last position, up to this one, that is not among the pieces of a line.

        Another stream's open block may end a position there.
        """
        spans = self._spans.get(log)
        if spans is None:
            return position
        while inside := [start for start, last in spans if start < position <= last]:
            position = min(inside)
        spans = self._spans[log] = [span for span in spans if span[1] >= position]
        if not spans:
            del self._spans[log]
        return position

    def over(self, pending: Iterable[tuple[str, int]], framers: Mapping[Input, Framer]) -> list[tuple[str, int]]:
        """Return the logs that are over now, each with its end. `pending` are lines in open blocks: log and start.

        A line that goes on in the next log is pending until it is handed over: its first pieces are in this one.
        """
        places = [*pending]
        begun = {log for log, _ in [*places, *self._carried]}
        for source, (first, logs) in list(self._begun_by.items()):
            framer = framers.get(source)
            if (
                source in self._carried
                or (framer is not None and framer.carries)
                or (source[0], first) in places
                or any(start == first for start, _ in self._spans.get(source[0], ()))
            ):
                begun |= logs
            else:
                del self._begun_by[source]
        over = [(log, end) for log, end in self.ended.items() if log not in begun]
        for log, _ in over:
            del self.ended[log]
            self._spans.pop(log, None)
        return over
