"""A followed log as lines: source and framing put together as the pump does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidecar import framing
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from sidecar.model import Chunk, Lines, Mark
    from tests.support.reading import Reader


class Framed:
    """A followed file as lines, a framer for each of its logs, as the pump has them."""

    def __init__(self, reader: Reader, limit: int = 1 << 20) -> None:
        self.reader = reader
        self.limit = limit
        self.texts: list[bytes] = []
        self.marks: list[Mark | None] = []
        self.stamps: list[int] = []  # where the log has some
        self.lost_bytes = self.malformed = 0
        self._framers: dict[str, framing.Framer] = {}
        self._carried: dict[str, framing.Carried] = {}

    async def once(self) -> Chunk:
        chunk = await self.reader.once(0.02)
        assert chunk is not None
        log = chunk.start.log
        framer = self._framers.get(log)
        if framer is None:
            framer = self._framers[log] = framing.Framer(
                max_line_bytes=self.limit, start=chunk.start.offset, carried=self._carried.pop(chunk.continues, None)
            )
        if chunk.data:
            self._take(framer.feed(chunk.data, chunk.start.offset))
        if chunk.end_of_log:
            if not chunk.final:
                self._carried[log] = framer.carry()
            self._take(framer.flush())
        return chunk

    def _take(self, lines: Lines) -> None:
        self.marks += [lines.marks.get(index) for index in range(len(lines.texts))]
        self.texts += lines.texts
        self.stamps += lines.stamps or []
        self.lost_bytes += lines.lost_bytes
        self.malformed += lines.malformed

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(PATIENCE):
            while len(self.texts) < count:
                await self.once()
        return self.texts
