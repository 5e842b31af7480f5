"""Reads a source and holds it to its word: chunks are bounded, positions join up, an ended log stays ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model import Chunk, Position
    from sidecar.sources import Source

CHUNK_BYTES = 256 * 1024


class Reader:
    """What a source gave, by log and in all."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.data = b""
        self.logs: dict[str, bytes] = {}
        self.ended: list[str] = []
        self.chunks: list[Chunk] = []
        self.at_end = False
        self._next: dict[str, int] = {}

    @property
    def positions(self) -> dict[str, Position]:
        """Where delivery stands when all of this is delivered."""
        return {
            chunk.start.log: type(chunk.start)(chunk.start.log, chunk.start.offset + len(chunk.data))
            for chunk in self.chunks
        }

    async def once(self, wait: float = 0.05) -> Chunk | None:
        async with asyncio.timeout(PATIENCE):
            chunk = await self.source.read(wait)
        if chunk is None:
            self.at_end = True
            return None
        assert not self.at_end, "nothing follows the end"
        log, offset = chunk.start.log, chunk.start.offset
        assert len(chunk.data) <= CHUNK_BYTES
        if chunk.data or chunk.end_of_log:
            assert log not in self.ended, "an ended log does not grow"
            assert self._next.setdefault(log, offset) <= offset, "nothing is read twice"
            self._next[log] = offset + len(chunk.data)
            self.chunks.append(chunk)
            self.data += chunk.data
            self.logs[log] = self.logs.get(log, b"") + chunk.data
            if chunk.end_of_log:
                self.ended.append(log)
        return chunk

    async def until(self, enough: Callable[[], bool]) -> None:
        """Read until a condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not enough():
                assert await self.once() is not None, "the source has ended"

    async def expect(self, data: bytes) -> None:
        """Read until so many bytes came, and compare them."""
        have = len(self.data)
        async with asyncio.timeout(PATIENCE):
            while len(self.data) < have + len(data):
                assert await self.once() is not None, f"ended after {self.data[have:]!r}"
        assert self.data[have:] == data

    async def silence(self, times: int = 2) -> None:
        """Expect nothing but silence, so many times in a row."""
        for _ in range(times):
            chunk = await self.once(0.02)
            assert chunk is not None
            assert not chunk.data, f"came unasked: {chunk.data!r}"

    async def ends(self, log: str) -> None:
        """Read until the end of a log is told, and expect no bytes on the way."""
        have = len(self.data)
        await self.until(lambda: log in self.ended)
        assert self.data[have:] == b""

    async def rest(self) -> bytes:
        """Read to the end and return what came."""
        have = len(self.data)
        async with asyncio.timeout(PATIENCE):
            while await self.once() is not None:
                pass
        return self.data[have:]
