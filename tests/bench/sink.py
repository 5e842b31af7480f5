"""The Loki sink by itself: records that are there already, over HTTP, to a receiver in a process of its own.

It takes turns, portion by portion of what one push holds, with a yardstick that does the least that a client can do:
the JSON of the same entries written in one go, compressed, and posted over a kept connection. What the sink takes more
is what it costs to keep times apart, to tell streams apart, to bound a push, to read the answer and to learn the clock.
One request is in flight at a time, as the sink has it, so that a second of throughput holds the receiver's work too.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import orjson
from isal import igzip

from sidecar.sinks import loki
from tests.bench import stages
from tests.bench.report import BrokenError, Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Record
    from tests.bench.process import Receiver

_PORTION = 700  # records of one push: 256 KiB of canonical lines
_GROUP = "the Loki sink alone"
_YARDSTICK = "plain JSON client"
_PATH = "/loki/api/v1/push"

Send = Callable[["list[Record]"], Awaitable[None]]


@dataclass(slots=True)
class Took:
    """CPU and wall seconds of each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def measure(
    records: Sequence[Record], receiver: Receiver, rounds: int, say: Callable[[str], None]
) -> list[Measurement]:
    """Let both encodings and the yardstick take turns. Raises BrokenError where an entry did not arrive."""
    return asyncio.run(_measure(list(records), receiver, rounds, say))


async def _measure(
    records: list[Record], receiver: Receiver, rounds: int, say: Callable[[str], None]
) -> list[Measurement]:
    first, rest = records[:1], records[1:]  # the first one connects, and is no part of the measurement
    portions = [rest[start : start + _PORTION] for start in range(0, len(rest), _PORTION)]
    took = {name: Took() for name in (_YARDSTICK, "json", "protobuf")}
    for number in range(rounds):
        say(f"{_GROUP}, {number + 1} of {rounds}")
        receiver.reset()
        async with AsyncExitStack() as stack:
            connection = stack.enter_context(closing(http.client.HTTPConnection(urlsplit(receiver.url).netloc)))
            sends = {_YARDSTICK: _plainly(connection)}
            for name in ("json", "protobuf"):
                sink = _sink(receiver.url, name)
                stack.push_async_callback(sink.close)
                sends[name] = _through(sink)
            for send in sends.values():
                await send(first)
            spent = await _round(portions, sends)
        if (arrived := receiver.sums()["entries"]) != len(sends) * len(records):
            raise BrokenError(f"{_GROUP}: {arrived} of {len(sends) * len(records)} entries arrived")
        for name, (cpu, wall) in spent.items():
            took[name].cpu.append(cpu)
            took[name].wall.append(wall)
    return _tell(took, rest)


async def _round(portions: list[list[Record]], sends: dict[str, Send]) -> dict[str, tuple[float, float]]:
    """Let each send each portion in turn; return CPU and wall seconds."""
    spent = {name: [0.0, 0.0] for name in sends}
    gc.collect()
    gc.freeze()
    try:
        for portion in portions:
            for name, send in sends.items():
                cpu, wall = time.process_time(), time.perf_counter()
                await send(portion)
                spent[name][0] += time.process_time() - cpu
                spent[name][1] += time.perf_counter() - wall
    finally:
        gc.unfreeze()
    return {name: (cpu, wall) for name, (cpu, wall) in spent.items()}


def _tell(took: dict[str, Took], records: Sequence[Record]) -> list[Measurement]:
    count, size = len(records), sum(len(record.line) for record in records)
    yard = took[_YARDSTICK]
    found = []
    for name, each in took.items():
        slower = median(mine / theirs for mine, theirs in zip(each.cpu, yard.cpu, strict=True))
        faster = median(theirs / mine for mine, theirs in zip(each.wall, yard.wall, strict=True))
        for what, value, unit, ratio in (
            ("CPU", min(each.cpu) / count * 1e6, "µs/entry", slower),
            ("entries", count / min(each.wall), "entries/s", faster),
            ("bytes", size / min(each.wall) / 1e6, "MB/s of lines", faster),
        ):
            found.append(
                Measurement(group=_GROUP, name=f"{name}, {what}", value=value, unit=unit, ratio=ratio, to=_YARDSTICK)
            )
    return found


def _sink(url: str, encoding: str) -> loki.Loki:
    return loki.Loki(loki.Config(url=url, encoding=encoding), telemetry=stages.silent_telemetry())


def _through(sink: loki.Loki) -> Send:
    async def send(records: list[Record]) -> None:
        for push in sink.encode(records, sink.settle(records)):
            receipt = await sink.send(push)
            if receipt.again or receipt.refused:
                raise BrokenError(f"{_GROUP}: {receipt.status}")

    return send


def _plainly(connection: http.client.HTTPConnection) -> Send:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    async def send(records: list[Record]) -> None:
        values = [
            (
                str(record.time_ns),
                record.line.decode(),
                {
                    "trace_id": record.trace_id,
                    "span_id": record.span_id,
                    "detected_level": record.level,
                    "format": record.format,
                },
            )
            for record in records
        ]
        push = {"streams": [{"stream": {"service_name": "orders", "schema_valid": "true"}, "values": values}]}
        connection.request("POST", _PATH, cast("bytes", igzip.compress(orjson.dumps(push), 1, mtime=0)), headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 204:
            raise BrokenError(f"{_GROUP}: {answer.status}")

    return send
