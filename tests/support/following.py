"""The sources `file` and `cri` in a hurry, with what it told about itself at hand."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar import telemetry
from sidecar.sources import cri, file, globbed, polling, succession, wake
from tests.support.clock import Clock
from tests.support.reading import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sidecar.sources.tail import Tail

HURRY = succession.Timing(
    poll=0.001, idle_poll=0.002, watched=0.01, rest=0.0005, settle=0.003, grace=0.02, discovery=0.005
)
PATIENT = replace(HURRY, grace=3600.0)


HURRY_POD = replace(HURRY, end_when_settled=True, last_words=0.003)
PATIENT_POD = replace(PATIENT, end_when_settled=True, last_words=0.003)


class Follower:
    """Makes sources that follow one path; their telemetry is one."""

    inotify = True  # tests/integration/conftest.py runs whole files with and without

    def __init__(self, path: Path, *, timing: succession.Timing = PATIENT, start_at: str = "beginning") -> None:
        self.path = path
        self.timing = timing
        self.start_at = start_at
        self._stream = io.StringIO()
        # What repeats is said once: the log's clock stands still.
        self.telemetry = telemetry.Telemetry(log=telemetry.Log(self._stream, Clock()))

    def source(
        self, saved: dict[str, Any] | None = None, *, kernel: Callable[[], wake.Kernel] = wake.Linux
    ) -> polling.Polling:
        make = partial(self.make(), start_at=self.start_at, saved=saved, timing=self.timing)
        return polling.Polling(make, self.telemetry, inotify=self.inotify, kernel=kernel)

    def make(self) -> Callable[..., Tail]:
        """Return what makes the tail of this path."""
        return partial(file.File, str(self.path))

    @asynccontextmanager
    async def following(self, saved: dict[str, Any] | None = None) -> AsyncIterator[Reader]:
        source = self.source(saved)
        try:
            await source.start()
            yield Reader(source)
        finally:
            await source.close()

    def saved(self, reader: Reader) -> dict[str, Any]:
        """Return the state when all that was read is delivered, as it comes back from a checkpoint."""
        return json.loads(json.dumps(reader.source.snapshot(reader.positions)))

    def counted(self, name: str, **labels: str) -> float:
        value = self.telemetry.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value

    @property
    def rotations(self) -> float:
        return self.counted("sidecar_rotations_total")

    @property
    def truncations(self) -> float:
        return self.counted("sidecar_file_truncations_total")

    @property
    def lost(self) -> dict[str, float]:
        """Bytes lost by reason, without the reasons that lost none."""
        lost = {reason: self.counted("sidecar_lost_bytes_total", reason=reason) for reason in telemetry.catalogue.LOST}
        return {reason: count for reason, count in lost.items() if count}

    @property
    def gaps(self) -> dict[str, float]:
        gaps = {reason: self.counted("sidecar_log_gaps_total", reason=reason) for reason in telemetry.catalogue.GAPS}
        return {reason: count for reason, count in gaps.items() if count}

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._stream.getvalue().splitlines()]


class PodFollower(Follower):
    """Likewise for a container of a pod, whose log directory the path is."""

    def __init__(
        self,
        path: Path,
        container: str = "app",
        *,
        timing: succession.Timing = PATIENT_POD,
        start_at: str = "beginning",
    ) -> None:
        super().__init__(path, timing=timing, start_at=start_at)
        self.container = container

    def make(self) -> Callable[..., Tail]:
        return partial(cri.Cri, str(self.path), self.container)


class GlobFollower(Follower):
    """Likewise for every file that a glob names."""

    def make(self) -> Callable[..., Tail]:
        return partial(globbed.Globbed, str(self.path))


async def look(reader: Reader) -> None:
    """Wait until the source has looked at everything that is there now."""
    lookout = reader.source._lookout  # type: ignore[attr-defined]
    looks = lookout.looks + 2  # one may be under way
    async with asyncio.timeout(10.0):
        while lookout.looks < looks:
            await asyncio.sleep(0.001)
