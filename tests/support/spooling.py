"""A process that spools what it reads and pushes to a Loki: `python -m tests.support.spooling URL DIRECTORY`.

It reads lines `<number>` from standard input, ten at a time, offers them as records, and prints `<number>` for each
batch that was acknowledged. To be killed at any moment.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sidecar.delivery import Delivery
from sidecar.model import Batch
from sidecar.sinks.loki import BatchConfig, Config, Loki
from sidecar.spool import Spool
from tests.support import records

BASE_NS = 1000


class Spoken:
    """An ack that says so aloud."""

    passed = False

    def __init__(self, number: int) -> None:
        self.number = number

    def done(self) -> None:
        print(self.number, flush=True)


async def main(url: str, directory: str) -> None:
    telemetry = records.quiet_telemetry()
    sink = Loki(Config(url=url, batch=BatchConfig(max_bytes=3000, max_wait=0.01)), telemetry=telemetry)
    spool = Spool(Path(directory), max_bytes=1 << 20, telemetry=telemetry)
    delivery = Delivery(
        sink,
        policy="spool",
        max_bytes=1 << 20,
        telemetry=telemetry,
        batch_bytes=3000,
        max_wait=0.01,
        spool=spool,
        chance=lambda: 0.02,
    )
    running = asyncio.create_task(delivery.run())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while numbers := [line for _ in range(10) if (line := (await reader.readline()).strip())]:
        made = [records.record(number.decode()) for number in numbers]
        await delivery.put(Batch(made, Spoken(int(numbers[-1]))))
    delivery.close()
    await running
    await sink.close()
    spool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
