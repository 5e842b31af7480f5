"""A sidecar as a process of its own: started, scraped, signalled, and its books checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Metrics:
    """One scrape in text 0.0.4, to be asked by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[sample.name].append((sample.labels, sample.value))

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that carry these labels."""
        return sum(value for has, value in self.samples[name] if labels.items() <= has.items())

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the samples by the values of some labels, zeros left out."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for has, value in self.samples[name]:
            if value:
                sums[tuple(has[label] for label in labels)] += value
        return dict(sums)


def assert_balanced(metrics: Metrics) -> None:
    """Check the identities of the contract, section 6."""
    records = metrics.total("sidecar_records_total")
    lines = records + metrics.total("sidecar_lines_joined_total") + metrics.total("sidecar_lines_skipped_total")
    assert metrics.total("sidecar_lines_read_total") == lines, "lines read = records + joined + skipped"
    assert metrics.total("sidecar_level_records_total") == records
    assert metrics.total("sidecar_format_records_total") == records
    offered = records - metrics.total("sidecar_records_withheld_total")
    for labels, value in metrics.samples["sidecar_sink_offered_records_total"]:
        sink = labels["sink"]
        done = metrics.total("sidecar_sink_records_total", sink=sink)
        pending = metrics.total("sidecar_sink_pending_records", sink=sink)
        assert value == offered, f"{sink}: offered = records - withheld"
        assert value == done + pending, f"{sink}: offered = sent + refused + dropped + dead lettered + pending"


@dataclass
class Sidecar:
    """`sidecar run` with some settings. Its port is free and its own; what it writes is collected."""

    settings: Sequence[str] = ()
    argv: Sequence[str] = ()  # COMMAND
    stdin: int | None = asyncio.subprocess.PIPE
    environ: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = ("sidecar",)  # the module, and what comes before `run`
    stdout_to: int | None = None  # a descriptor to write to; else what it writes is collected
    stdout: bytearray = field(default_factory=bytearray)
    log: list[dict[str, object]] = field(default_factory=list)
    address: str = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.finish()

    async def start(self) -> None:
        words = [sys.executable, "-m", *self.program, "run"]
        for setting in ("http.host=127.0.0.1", "http.port=0", "drain_seconds=1m", *self.settings):
            words += ["--set", setting]
        if self.argv:
            words += ["--", *self.argv]
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("SIDECAR_", "OTEL_", "CONTAINER_"))
        }
        self.process = await asyncio.create_subprocess_exec(
            *words,
            stdin=self.stdin,
            stdout=asyncio.subprocess.PIPE if self.stdout_to is None else self.stdout_to,
            stderr=asyncio.subprocess.PIPE,
            env={**kept, "OTEL_SERVICE_NAME": "shop", **self.environ},
        )
        self._listening = asyncio.Event()
        self._ended = False
        self._readers = [asyncio.ensure_future(self._read_stdout()), asyncio.ensure_future(self._read_log())]
        async with asyncio.timeout(PATIENCE):
            await self._listening.wait()

    async def _read_stdout(self) -> None:
        while self.process.stdout is not None and (data := await self.process.stdout.read(1 << 16)):
            self.stdout += data

    async def _read_log(self) -> None:
        async for row in self.process.stderr:
            try:
                said = orjson.loads(row)
            except orjson.JSONDecodeError:
                said = {"event": "not JSON", "message": row.decode()}
            self.log.append(said)
            if said["event"] == "listening":
                self.address = f"http://{said['host']}:{said['port']}"
                self._listening.set()
        self._listening.set()

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)

    def end_input(self) -> None:
        self.process.stdin.close()

    async def finish(self) -> int:
        """Wait for the end and return the exit code."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.address + path, headers=headers) as response:
            return response.status, await response.text()

    async def metrics(self) -> Metrics:
        status, text = await self.get("/metrics")
        assert status == 200
        return Metrics(text)

    async def until(self, name: str, at_least: float, **labels: str) -> Metrics:
        """Scrape until a metric has reached a value, and once more; scraping is the synchronisation.

        A scrape gives way while it is written: its families may stand a moment apart until all is at rest.
        """
        async with asyncio.timeout(PATIENCE):
            while (await self.metrics()).total(name, **labels) < at_least:
                pass
            return await self.metrics()

    def records(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in bytes(self.stdout).splitlines()]

    def events(self, event: str) -> list[dict[str, object]]:
        return [said for said in self.log if said["event"] == event]
