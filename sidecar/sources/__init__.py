"""Where bytes come from: one module per input, one line each in the table below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sidecar.options import Duration, Size, option

if TYPE_CHECKING:
    from sidecar.model import Chunk


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `source`."""

    kind: str = option(
        "stdin",
        "Where lines come from.",
        choices=("stdin", "file", "cri", "fifo", "kubernetes", "command"),
    )
    path: str = option("", "`file`: a path or glob; `cri`: the pod's log directory; `fifo`: its path.")
    container: str = option("", "`cri`, `kubernetes`: which container of the pod.")
    start_at: str = option(
        "beginning",
        "Where to start in what exists at the first start; what appears later is read from its start.",
        choices=("beginning", "end"),
    )
    max_line_bytes: Size = option(Size(1 << 20), "Longer lines are cut there; what is cut is counted.", minimum=1024)
    idle_flush: Duration = option(
        Duration(1.0),
        "After this much silence an unfinished multi-line record, or the unterminated last line of a pipe, is emitted.",
        minimum=0.01,
    )
    at_end: str = option(
        "exit", "What to do when stdin or COMMAND has ended: exit, or keep serving.", choices=("exit", "serve")
    )


class Source(Protocol):
    """Reads bytes from one input. Created by app, read by one task only."""

    resumable: bool  # False for pipes: no position to come back to, and must never block the writer

    async def read(self, wait: float) -> Chunk | None:
        """Return the next chunk (at most 256 KiB), an empty one after `wait` seconds of silence, None at the end.

        Raises SourceError when the input cannot be read and never will be.
        """

    def stop(self) -> None:
        """Make `read` return what is already there, then None."""

    def unread(self) -> int:
        """Return how many bytes wait to be read, as far as the source can tell; 0 where it cannot."""

    def describe(self) -> dict[str, object]:
        """Say at start-up what this source follows and what it can promise (kind, path, lossless or not and why)."""

    async def close(self) -> None:
        """Release everything. Idempotent."""
