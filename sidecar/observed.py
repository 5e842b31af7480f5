"""What of each log has been counted, to be saved beside what of it was delivered.

The problem: after a crash reading begins where delivery stood, in front of lines that metrics have counted already;
and what has been counted is no prefix of the log: a block that is open, or a line whose pieces are not all there, lies
in front of lines of another stream that have been handed over.
The promise: a `Mark` says of each line of its log, told by stream and start, whether it was counted, in a few numbers:
everything that begins before `to`, but for what is `pending`. So the next process reads the same bytes, lets counted
lines go to the sinks only, and gives pending ones to assemblers that stand where ours stood. No line's content is kept.
Refused: to keep what was pending itself. If the file is gone by then, those lines are lost, and counted as lost bytes.

Saved as plain JSON, log → {"to": offset, "fed": offset, "read": offset, "encoding": text or null,
"pending": [[stream, start], …]}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Line = tuple[str, int]  # stream and start: no two lines of a log share both


@dataclass(slots=True)
class Mark:
    """How far one log has been counted."""

    to: int  # lines that begin from here on have not been counted
    fed: int  # likewise lines that end from here on; `to` and this differ only where pieces of lines are mixed
    read: int  # bytes, and what was cut from long lines, have been counted up to here
    encoding: str | None = None  # how the runtime wraps lines, which only the log's first line tells
    pending: set[Line] = field(default_factory=set)  # begin before `to`, and have not been counted

    def counted(self, stream: str, start: int) -> bool:
        """Say whether a line has been counted."""
        return start < self.to and (stream, start) not in self.pending

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "to": self.to,
            "fed": self.fed,
            "read": self.read,
            "encoding": self.encoding,
            "pending": sorted(map(list, self.pending)),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read what `state` wrote. Raises KeyError, TypeError or ValueError where it is something else."""
        encoding = state["encoding"]
        return cls(
            to=int(state["to"]),
            fed=int(state["fed"]),
            read=int(state["read"]),
            encoding=None if encoding is None else str(encoding),
            pending={(str(stream), int(start)) for stream, start in state["pending"]},
        )

    def cuts(self, data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
        """Cut a chunk so that no part holds both lines that were counted and lines that were not.

        Parts are as large as they can be: only from the first pending line to `fed` each line has one of its own.
        """
        end = start + len(data)
        one_by_one = min([self.to, *(line for _, line in self.pending)])
        at = start
        while at < end:
            if at < one_by_one:
                stop = one_by_one
            elif at < self.fed:
                stop = min(self.fed, start + data.find(b"\n", at - start) + 1)
                if stop <= at:
                    stop = self.fed
            else:
                stop = self.read if at < self.read else end
            stop = min(stop, end)
            yield data[at - start : stop - start], at
            at = stop
