"""The pump with a source and an outbox in memory: what goes in, what comes out, and the books."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from sidecar import acks, dispatch, normalize, pipeline, routes, validation
from sidecar.metrics import durations
from sidecar.model import Batch, Chunk, Position, Record
from sidecar.telemetry import Log, Telemetry
from tests.support.running import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence


class Nowhere:
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@dataclass
class MemorySource:
    """Hands over chunks that were made before."""

    chunks: list[Chunk]
    resumable: bool = True

    async def read(self, wait: float) -> Chunk | None:
        return self.chunks.pop(0) if self.chunks else None

    def unread(self) -> int:
        return sum(len(chunk.data) for chunk in self.chunks)


@dataclass
class MemoryOutbox:
    """Keeps records; acknowledges at once."""

    records: list[Record] = field(default_factory=list)

    async def put(self, batch: Batch) -> None:
        self.records += batch.records
        batch.ack.done()


@dataclass
class Pumped:
    """What became of some chunks."""

    records: list[Record]
    metrics: Metrics
    tracker: acks.Tracker
    requests: durations.Requests


def cut(data: bytes, sizes: Sequence[int], log: str = "log") -> list[Chunk]:
    """Cut bytes into chunks of these sizes, again and again."""
    chunks, offset, turn = [], 0, 0
    while offset < len(data):
        size = max(1, sizes[turn % len(sizes)]) if sizes else len(data)
        chunks.append(Chunk(data[offset : offset + size], Position(log, offset)))
        offset += size
        turn += 1
    return chunks


_SCHEMA = validation.load(validation.Config())


def pump(
    chunks: list[Chunk], *, max_line_bytes: int = 1 << 20, keep_unfinished: bool = False, resumable: bool = True
) -> Pumped:
    """Pump everything and return what came of it."""
    told = Telemetry(log=Log(Nowhere()), sinks=["memory"])
    requests = durations.Requests(durations.Config(), routes.Table([]), told)
    outbox = MemoryOutbox()
    tracker = acks.Tracker()
    one = pipeline.Pump(
        source=MemorySource(list(chunks), resumable),
        normalizer=normalize.Normalizer(normalize.Config(), _SCHEMA, service_name="shop", clock_ns=lambda: 1),
        dispatch=dispatch.Dispatch(observer=requests, outboxes=[outbox], telemetry=told),
        tracker=tracker,
        telemetry=told,
        limits=pipeline.Limits(max_line_bytes=max_line_bytes, idle_flush=1.0, keep_unfinished=keep_unfinished),
    )
    asyncio.run(one.run())
    return Pumped(outbox.records, Metrics(generate_latest(told.registry).decode()), tracker, requests)
