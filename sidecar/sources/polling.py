"""A source whose input is files: a thread looks at them (`lookout`), and the event loop never waits for a disk.

The problem: a loop that waits answers nobody, /health least of all; and what a thread changes while others look at it
is of no one moment. The promise: each report of the thread, a chunk, what there is to tell of it and the state that
goes with both, is taken in within one turn of the loop, and nothing else is shared; so what is saved is exact, and as
of the last report. A disk that does not answer is told of, and holds up neither the loop nor the end of the process.
Refused: to know what is looked at (`tail`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from sidecar.model import Chunk, Position
from sidecar.sources import lookout, wake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.sources.tail import Tail
    from sidecar.telemetry import Telemetry

_LAST_SECONDS = 1.0  # for a look that has not come back when all is over


class Polling:
    """The sources `file` and `cri`, and `stdin` where that is a file."""

    resumable = True

    def __init__(
        self,
        make: Callable[[Telemetry, wake.Wake], Tail],
        telemetry: Telemetry,
        *,
        inotify: bool = True,
        kernel: Callable[[], wake.Kernel] = wake.Linux,
    ) -> None:
        """Take `make`: it makes what looks."""
        self._telemetry = telemetry
        self._lookout = lookout.Lookout(make, self._report, inotify=inotify, kernel=kernel)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known = lookout.Report()
        self._asked = False  # and not answered yet
        self._chunks: deque[Chunk] = deque()  # that nobody took: one, after a read that was cancelled or cut short
        self._ended = False
        self._news = asyncio.Event()
        self._gone = asyncio.Event()

    @property
    def attached(self) -> bool:
        return self._known.attached and not self._lookout.hangs

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lookout.start()
        while self._known.saved is None:
            await self._hear(None)

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if self._chunks:
                return self._chunks.popleft()
            if self._ended:
                return None
            if not self._asked:
                self._asked = True
                self._lookout.ask()
            if loop.time() >= deadline:
                if self._lookout.hangs:
                    self._telemetry.source_waiting(self._name(), "its disk does not answer", "io")
                return Chunk(b"", Position("", 0))
            await self._hear(deadline)

    def stop(self) -> None:
        self._lookout.stop()

    def unread(self) -> int:
        """Return how many bytes waited at the last look."""
        return self._known.unread + sum(len(one.data) for one in self._chunks)

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        if self._known.saved is None:
            return {}
        self._lookout.delivered = dict(delivered)
        return self._known.saved.state(delivered)

    def describe(self) -> dict[str, object]:
        return self._lookout.describe()

    async def close(self) -> None:
        self._lookout.close()
        if self._loop is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SECONDS):
                    await self._gone.wait()
            self._lookout.close()

    async def _hear(self, until: float | None) -> None:
        """Wait for news. Raises what ended the thread."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()
        self._news.clear()
        if self._known.failure is not None:
            raise self._known.failure

    def _name(self) -> str:
        described = self._known.described
        return str(described.get("path", described["source"]))

    def _report(self, report: lookout.Report | None) -> None:
        """Hand a report over: the thread calls this, and has nobody to tell once the loop is gone."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, report)

    def _take(self, report: lookout.Report | None) -> None:
        if report is None:
            self._gone.set()
            return
        for event, what, more in report.notes:
            getattr(self._telemetry, event)(*what, **more)
        self._known = report
        if report.chunk is not None:
            self._chunks.append(report.chunk)
        self._ended = self._ended or report.at_end
        if report.chunk is not None or report.at_end:
            self._asked = False
        self._news.set()
