"""One life of a sidecar after another, each a fork that can be killed at any moment, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import aiohttp

from tests.support.patience import PATIENCE
from tests.support.running import Metrics

ROOT = Path(__file__).parents[2]
SINKS = ("sidecar_sink_", "sidecar_checkpoint_", "sidecar_collector_", "sidecar_merge_")  # begin with the process


class Lives:
    """One life after another."""

    def __init__(self, directory, settings):
        self.directory, self.settings = directory, settings
        self.pid = 0  # of the life there is
        self.scraped = {}

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.lives", "drain_seconds=1m", *self.settings,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *error):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # a test that failed leaves it running
        self.process.stdin.close()
        await self.session.close()
        await self.process.wait()

    async def begin(self):
        (self.directory / "port").unlink(missing_ok=True)
        self.process.stdin.write(f"{self.directory}\n".encode())
        self.pid = int(await self.process.stdout.readline())

    async def end(self, number):
        os.kill(self.pid, number)
        code = os.waitstatus_to_exitcode(int(await self.process.stdout.readline()))
        self.pid = 0
        return code

    async def scrape(self):
        """Scrape, and compare with what any life has shown before."""
        port = (self.directory / "port").read_text()
        async with self.session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = Metrics(await answer.text())
        for name, samples in metrics.samples.items():
            if name.startswith(SINKS) or not name.endswith(("_total", "_count", "_bucket", "_sum")):
                continue
            for labels, value in samples:
                key = (name, *sorted(labels.items()))
                assert value >= self.scraped.get(key, 0), f"{key} went back"
                self.scraped[key] = value
        seen = {(name, *sorted(labels.items())) for name, samples in metrics.samples.items() for labels, _ in samples}
        assert self.scraped.keys() <= seen, "a series has gone"
        return metrics

    async def listening(self):
        async with asyncio.timeout(PATIENCE):
            while not (self.directory / "port").exists():
                await asyncio.sleep(0.005)
