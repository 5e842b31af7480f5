"""The accounts that outlive the process: positions, counters and request metrics, taken at one moment, saved as one.

The problem: what a scrape has shown must never be taken back, and after a crash no line may be counted twice or missed,
so positions and metrics must be of the same moment, and on disk before the answer. The promise: a snapshot is taken
within one turn of the event loop, in which no line is half counted (`pipeline`); only what changed is encoded and
written, in a thread; scrapes that come while one is written share the next. A disk that fails or takes more than a
second delays nobody's answer further: that is logged and counted, and what it missed is in the next save.
Refused: to guess. A section that makes no sense is reported, and what it held begins at zero.

Sections: `source` (delivered positions), `observed` (what was counted), `normalizer`, `routes` (learned, [method,
template]), `sinks` (name → what it must know to go on behind the delivered positions), `counters` (metric → series),
`requests` (version and bounds), `series` ("method path" → what changes with each request), `slices` (likewise → what
changes with each slice of time).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sidecar.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.acks import Tracker
    from sidecar.checkpoint import Checkpoint
    from sidecar.delivery import Delivery
    from sidecar.metrics.durations import Requests
    from sidecar.normalize import Normalizer
    from sidecar.pipeline import Pump
    from sidecar.sources import Source
    from sidecar.telemetry import Telemetry

_PATIENCE = 1.0  # seconds that a scrape waits for the disk
_SLICES = ("closed", "past")


class Books:
    """What one process goes on with and leaves. Without a checkpoint nothing is kept, and nothing waits."""

    def __init__(self, checkpoint: Checkpoint | None, telemetry: Telemetry) -> None:
        self._checkpoint = checkpoint
        self._telemetry = telemetry
        self._saved: Mapping[str, Any] = (checkpoint.load() if checkpoint is not None else None) or {}
        self._lock = asyncio.Lock()
        self._taken = 0  # snapshots, as a clock
        self._cost = 0.0  # seconds of CPU that the last save took in its thread
        self._writing: asyncio.Future[bool] | None = None
        self._parts: tuple[Source, Tracker, Pump, Normalizer, Requests, Sequence[Delivery]] | None = None

    @property
    def source(self) -> Mapping[str, Any] | None:
        """What the source left."""
        found = self._saved.get("source")
        return found if isinstance(found, dict) else None

    def restore(self, requests: Requests) -> None:
        """Let the counters and the request metrics go on, before anybody can ask for them."""
        self._restore("counters", self._telemetry.restore)
        for route in self._saved.get("routes", []):
            if isinstance(route, list) and len(route) == 2:
                requests.learn(str(route[0]), str(route[1]))
        head = self._saved.get("requests")
        if isinstance(head, dict):
            slices = self._saved.get("slices", {})
            series = {name: {**one, **slices.get(name, {})} for name, one in self._saved.get("series", {}).items()}
            self._try("requests", requests.restore, {**head, "series": series})

    def restore_sinks(self, deliveries: Sequence[Delivery]) -> None:
        """Let each sink know what the last process knew of what it had sent."""
        saved = self._saved.get("sinks")
        for each in deliveries:
            if isinstance(saved, dict) and isinstance(saved.get(each.name), dict):
                self._try("sinks", each.restore, saved[each.name])

    def restore_normalizer(self, normalizer: Normalizer) -> Normalizer:
        """Let a normalizer know what the last one knew, and return it."""
        self._restore("normalizer", normalizer.restore)
        return normalizer

    def open(
        self,
        *,
        source: Source,
        tracker: Tracker,
        pump: Pump,
        normalizer: Normalizer,
        requests: Requests,
        deliveries: Sequence[Delivery],
    ) -> None:
        """Begin to keep these. Called when the source has started: only then it tells whether it goes on."""
        self._restore("observed", pump.restore, self._goes_on(source))
        # A pump that repeats lines makes a normalizer of its own later.
        self._saved = {name: saved for name, saved in self._saved.items() if name == "normalizer"}
        self._parts = (source, tracker, pump, normalizer, requests, deliveries)

    def _restore(self, name: str, take: Callable[[Any], None], wanted: bool = True) -> None:
        saved = self._saved.get(name)
        if saved is not None and wanted:
            self._try(name, take, saved)

    def _try(self, name: str, take: Callable[[Any], None], saved: object) -> None:
        try:
            take(saved)
        except StateError as error:
            self._telemetry.checkpoint_invalid("damaged", f"{name}: {error}")

    def _goes_on(self, source: Source) -> bool:
        """Say whether the source reads the logs of which is known what was counted: their names may come again."""
        before, now = self.source or {}, source.snapshot({})
        if any(before.get(name) != now.get(name) for name in ("kind", "path")):
            return False
        if before.get("kind") == "stdin":
            return _place(before) == _place(now)
        return int(str(now.get("serial", 0))) >= int(str(before.get("serial", 0)))

    # saving

    async def settle(self) -> None:
        """Return when everything that was visible at the call is on disk, or the disk has had its second."""
        if self._checkpoint is None or self._parts is None:
            return
        seen = self._taken
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._save(seen)
        except TimeoutError:
            self._telemetry.checkpoint_failed(f"a scrape was answered after {_PATIENCE:.0f} s without it")

    def pause(self, interval: float) -> float:
        """Return how long to wait before the next save: longer than asked where saves would take 5 % of a core."""
        return max(interval, 20 * self._cost)

    async def save(self) -> None:
        """Save what changed."""
        if self._checkpoint is not None and self._parts is not None:
            await self._save(self._taken)

    async def _save(self, seen: int) -> None:
        """Save a snapshot later than number `seen`, unless somebody did while we waited."""
        async with self._lock:
            if self._writing is not None:
                saved = await asyncio.shield(self._writing)  # of a caller that has gone
                if saved and self._taken > seen:
                    return
            assert self._checkpoint is not None
            assert self._parts is not None
            if self._parts[2].broken:
                return  # what was saved last is exact; what is here is not
            loop = asyncio.get_running_loop()
            write = self._snapshot(self._checkpoint)
            self._taken += 1
            self._writing = loop.run_in_executor(None, write)
            await asyncio.shield(self._writing)

    def _snapshot(self, checkpoint: Checkpoint) -> Callable[[], bool]:
        """Take everything of this moment; return what encodes and writes it, in a thread."""
        assert self._parts is not None
        source, tracker, pump, normalizer, requests, deliveries = self._parts
        take = requests.take()
        counters = self._telemetry.snapshot()
        sections = {
            "source": source.snapshot(tracker.watermarks),
            "observed": pump.snapshot(),
            "normalizer": normalizer.save(),
            "routes": requests.templates(),
            "sinks": {each.name: each.snapshot() for each in deliveries},
        }

        def write() -> bool:
            began = time.thread_time()
            changed = take()
            series, slices = {}, {}
            for name, one in changed.pop("series").items():
                series[name] = {key: value for key, value in one.items() if key not in _SLICES}
                if "past" in one:
                    slices[name] = {key: one[key] for key in _SLICES}
            entries = {"counters": counters, "series": series, "slices": slices}
            done = checkpoint.note({**sections, "requests": changed}, entries)
            self._cost = time.thread_time() - began
            return done

        return write


def _place(snapshot: Mapping[str, Any]) -> list[tuple[object, object]]:
    return [(one.get("inode"), one.get("offset")) for one in snapshot.get("generations", [])]
