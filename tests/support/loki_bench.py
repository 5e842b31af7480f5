"""A delivery to a fake Loki in virtual time: everything between a batch and what is stored, without sockets."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sidecar.acks import Tracker
from sidecar.deadletter import DeadLetters
from sidecar.delivery import Delivery
from sidecar.model import Batch, Position
from sidecar.sinks.loki import BatchConfig, Config, Loki
from sidecar.spool import Spool
from tests.support import records, virtual_time
from tests.support.fake_loki import Direct, FakeLoki, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sidecar.model import Record


class LokiBench:
    """One sidecar's end of the wire and the Loki at the other."""

    def __init__(
        self,
        *,
        loki: FakeLoki | None = None,
        limits: Limits | None = None,
        directory: Path | None = None,
        spool: bool = False,
        max_bytes: int = 64 << 20,
        push_bytes: int = 256 << 10,
        max_wait: float = 1.0,
        chance: random.Random | None = None,
        **config: Any,
    ) -> None:
        self.loki = loki if loki is not None else FakeLoki(limits, now_ns=virtual_time.now_ns)
        self.telemetry = records.quiet_telemetry()
        self.sink = Loki(
            Config(url="http://loki", batch=BatchConfig(max_bytes=push_bytes, max_wait=max_wait), **config),
            telemetry=self.telemetry,
            identity={"namespace": "shop", "pod": "orders-1", "container": "app"},
            now_ns=virtual_time.now_ns,
            transport=Direct(self.loki),
        )
        self.letters = (
            DeadLetters(directory / "loki.ndjson", max_bytes=1 << 20, telemetry=self.telemetry) if directory else None
        )
        self.spool = (
            Spool(directory / "spool", max_bytes=max_bytes, telemetry=self.telemetry, wall=virtual_time.wall)
            if directory and spool
            else None
        )
        self.tracker = Tracker()
        self.offered = 0
        self.delivery = Delivery(
            self.sink,
            policy="spool" if self.spool else "block",
            max_bytes=max_bytes,
            batch_bytes=push_bytes,
            max_wait=max_wait,
            telemetry=self.telemetry,
            dead_letters=self.letters,
            spool=self.spool,
            clock=virtual_time.clock,
            wall=virtual_time.wall,
            chance=(chance or random.Random(1)).random,
        )

    async def put(self, made: Sequence[Record]) -> None:
        """Offer records as one batch."""
        self.offered += len(made)
        await self.delivery.put(Batch(made, self.tracker.open(Position("log", self.offered), 1)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Deliver; at the end, everything."""
        task = asyncio.create_task(self.delivery.run())
        try:
            yield task
            self.delivery.close()
            await task
        finally:
            task.cancel()
            self.close()

    def close(self) -> None:
        if self.letters:
            self.letters.close()
        if self.spool:
            self.spool.close()

    async def deliver(self, *batches: Sequence[Record]) -> None:
        """Offer batches and wait until everything is done."""
        async with self.running():
            for batch in batches:
                await self.put(batch)

    @property
    def watermark(self) -> int:
        return self.tracker.watermark.offset if self.tracker.watermark else 0

    @property
    def log(self) -> str:
        return self.telemetry.log._stream.getvalue()  # type: ignore[attr-defined]

    def ledger(self) -> dict[str, int]:
        return records.ledger(self.telemetry, "loki")

    def value(self, name: str, **labels: str) -> float:
        return records.value(self.telemetry, name, **{"sink": "loki", **labels})
