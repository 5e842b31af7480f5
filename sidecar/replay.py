"""`sidecar replay`: send dead letters, or any NDJSON of records, to the configured sinks again.

A line is a dead letter (`{"time", "reason", "record"}`) or a record itself. Every line's fate is told: those that were
delivered by their number, each other one by its place and the reason; progress shows on a terminal. A destination that
takes nothing for `drain_seconds` ends the replay: what is left is said and nothing is lost, the files stay as they are.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from sidecar import console, delivery, gotext, jsontext, outlets, times, validation
from sidecar.model import Batch, Outcome, Record
from sidecar.telemetry import Log, Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.config import Config

_BATCH = 1000


class _Letters:
    """Takes what a sink refuses, instead of a dead-letter file, and remembers which lines those are."""

    def __init__(self, report: _Report) -> None:
        self._report = report

    def write(self, records: Sequence[Record], reason: str, detail: str = "") -> int:
        for record in records:
            self._report.refused(record, reason, detail)
        return len(records)

    async def sync(self) -> None:
        """Nothing waits to be written."""


class _Report:
    """Which line met which fate."""

    def __init__(self) -> None:
        self.fates: Counter[str] = Counter()
        self._where: dict[int, str] = {}

    def read(self, record: Record, where: str) -> None:
        self._where[id(record)] = where

    def where(self, record: Record) -> str:
        return self._where.get(id(record), "?")

    def refused(self, record: Record, reason: str, detail: str) -> None:
        self.fates[f"refused: {reason}"] += 1
        self.show(f"{self.where(record)}: refused: {reason}: {console.printable(detail, 200)}")

    def broken(self, where: str) -> None:
        self.fates["not a record"] += 1
        self.show(f"{where}: not a record: expected one JSON object, a record or a dead letter")

    def show(self, text: str) -> None:
        sys.stderr.write(text + "\n")


class _Ack:
    """Tells when a batch is done."""

    def __init__(self, parts: int) -> None:
        self._left = parts
        self.finished = asyncio.Event()

    @property
    def passed(self) -> bool:
        return self.finished.is_set()

    def done(self) -> None:
        self._left -= 1
        if not self._left:
            self.finished.set()


def run(files: Sequence[str], config: Config) -> int:
    """Replay files to the configured sinks. Returns 0 when every line was delivered. Raises ConfigError, OSError."""
    return asyncio.run(_replay(files, config))


async def _replay(files: Sequence[str], config: Config) -> int:
    names = outlets.sink_names(config)
    telemetry = Telemetry(log=Log(), sinks=names)
    schema = validation.load(config.schema)
    report = _Report()
    sinks = [outlets.make_sink(name, config, telemetry) for name in names]
    deliveries = [
        delivery.Delivery(
            sink,
            policy="block",
            max_bytes=4 << 20,
            telemetry=telemetry,
            batch_bytes=config.sinks.loki.batch.max_bytes,
            dead_letters=_Letters(report),
        )
        for sink in sinks
    ]
    progress = console.Progress(sys.stderr, " records")
    sent = 0
    loops = [asyncio.ensure_future(each.run()) for each in deliveries]
    try:
        batches = _batches(files, schema, report)
        for records in batches:
            ack = _Ack(len(deliveries))
            for each in deliveries:
                await each.put(Batch(records, ack))
            if not await _finished(ack, deliveries, config.drain_seconds):
                left = max(each.status().pending_records for each in deliveries)
                sent += len(records) - left
                where = report.where(records[0])
                report.show(
                    f"{where}: nothing was taken for drain_seconds: gave up among this line and those behind it"
                )
                report.fates["not delivered"] += left + sum(map(len, batches))
                break
            sent += len(records)
            progress.show(sent)
    finally:
        progress.clear()
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
        for sink in sinks:
            await sink.close()
        telemetry.log.flush()
    delivered = sent - sum(count for fate, count in report.fates.items() if fate.startswith("refused"))
    _say(delivered, report)
    return 1 if report.fates else 0


async def _finished(ack: _Ack, deliveries: Sequence[delivery.Delivery], seconds: float) -> bool:
    """Wait until a batch is done; give up when for so long nothing of it was."""
    while True:
        before = [each.status().pending_records for each in deliveries]
        try:
            async with asyncio.timeout(seconds):
                await ack.finished.wait()
        except TimeoutError:
            if before == [each.status().pending_records for each in deliveries]:
                return False
        else:
            return True


def _batches(files: Sequence[str], schema: validation.Schema, report: _Report) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for name in files:
        with Path(name).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                record = _record(line, schema)
                if record is None:
                    report.broken(f"{name}:{number}")
                    continue
                report.read(record, f"{name}:{number}")
                batch.append(record)
                if len(batch) >= _BATCH:
                    yield batch
                    batch = []
    if batch:
        yield batch


def _record(line: bytes, schema: validation.Schema) -> Record | None:
    """Make a record of a line that is one, or a dead letter that holds one."""
    value = jsontext.parse(line.strip())
    if value is not None and isinstance(value.get("record"), dict) and "reason" in value:
        value = value["record"]  # type: ignore[assignment]
        line = orjson.dumps(value)
    if value is None:
        return None
    violations = schema.violations(value)
    stamp = times.timestamp(value.get("timestamp"))

    def text(key: str) -> str:
        found = value.get(key)
        return found if isinstance(found, str) else ""

    return Record(
        time_ns=stamp.ns if stamp else 0,
        outcome=Outcome.INVALID if violations else Outcome.VALID,
        format="replay",
        level=gotext.level(value.get("level")) or "info",
        service_name=text("service_name") or "unknown_service",
        trace_id=text("trace_id"),
        span_id=text("span_id"),
        line=line.strip(),
        violations=violations,
    )


def _say(delivered: int, report: _Report) -> None:
    out = sys.stderr
    out.write(f"{delivered} delivered\n")
    for fate, count in report.fates.most_common():
        out.write(f"{count} {fate}\n")
