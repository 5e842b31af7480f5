"""Where a position may lie, and where a log passes into the next.

The problem: what belongs together (the pieces of a line, the lines of a block) may lie apart, with lines of another
stream between them, and may begin in one file and end in the next. A position among them, where the other stream's open
block holds it, would make whoever begins to read there take the rest for something of its own.
The promise: `outside` moves a position before what it is inside of; pieces go to the log that says it continues theirs,
whatever is read in between; a log is over once nothing that began in it is pending, or may be read again, here or in a
log behind it. Refused: to hold text; that is the framers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sidecar.framing import Carried, Framer

Input = tuple[str, str]  # log and stream
Place = tuple[str, int]  # log and the start of a line
_Span = tuple[int, int, frozenset[str]]  # its first and last place in a log, and the earlier logs that it began in


class Passages:
    """The ends and the beginnings of logs."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}  # logs that will not grow, with their end, until they are over
        self._carried: dict[Input, Carried] = {}  # the last pieces of a log that has ended
        self._left: dict[str, int] = {}  # where such pieces begin, until their log is over
        # Where a log began with such pieces, at which their line counts, and the logs they are from.
        self._begun_by: dict[Input, tuple[int, set[str]]] = {}
        self._spans: dict[str, list[_Span]] = {}  # log → lines of pieces, and blocks, that a position may be inside of

    @property
    def waiting(self) -> Iterator[tuple[str, Carried]]:
        """The pieces whose continuation has not come, by stream."""
        return ((stream, carried) for (_, stream), carried in self._carried.items())

    def leave(self, source: Input, carried: Carried, start: int) -> None:
        """Keep the pieces at the end of a log, which begin at `start`, for the one that continues it."""
        if carried:
            self._carried[source] = carried
            self._left[source[0]] = min(start, self._left.get(source[0], start))

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
        for first, last in spans:
            self._join(log, first, last)

    def blocks(self, blocks: list[list[Place]]) -> None:
        """Take note of blocks that are handed over: the places of their lines."""
        for places in blocks:
            log, last = places[-1]
            first = next(start for other, start in places if other == log)
            earlier = frozenset(other for other, _ in places if other != log)
            self._join(log, first, last, earlier)

    def _join(self, log: str, first: int, last: int, earlier: frozenset[str] = frozenset()) -> None:
        """Note a span; one that overlaps the span before it makes it longer, or a busy log would have ever more."""
        spans = self._spans.setdefault(log, [])
        if spans and first < spans[-1][1] and spans[-1][0] < last:
            start, end, logs = spans.pop()
            first, last, earlier = min(first, start), max(last, end), earlier | logs
        spans.append((first, last, earlier))

    def outside(self, log: str, position: int) -> int:
        """Return the last position, up to this one, that is not inside of a line of pieces or a block."""
        position = min(position, self._left.get(log, position))
        spans = self._spans.get(log)
        if spans is None:
            return position
        while inside := [start for start, last, _ in spans if start < position <= last]:
            position = min(inside)
        spans = self._spans[log] = [span for span in spans if span[1] >= position]
        if not spans:
            del self._spans[log]
        return position

    def over(self, pending: Iterable[Place], framers: Mapping[Input, Framer]) -> list[Place]:
        """Return the logs that are over now, each with its end. `pending` are lines in open blocks.

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
                or any(start == first for start, _, _ in self._spans.get(source[0], ()))
            ):
                begun |= logs
            else:
                del self._begun_by[source]
        while True:  # what a log that is not over holds up, may hold up others
            kept = [spans for log, spans in self._spans.items() if log in begun or log not in self.ended]
            more = {log for spans in kept for _, _, earlier in spans for log in earlier}
            if more <= begun:
                break
            begun |= more
        over = [(log, end) for log, end in self.ended.items() if log not in begun]
        for log, _ in over:
            del self.ended[log]
            self._left.pop(log, None)
            self._spans.pop(log, None)
        return over
