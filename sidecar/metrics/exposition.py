"""What /metrics answers: text 0.0.4, OpenMetrics 1.0, or protobuf with native histograms.

Problem: a scrape may hold 10 000 lines, which the library writes in 100 ms while nothing else runs, and one bad label
or one failing collector costs it all.
Promise: the request families come in slices from `families`; everything else comes from the registry, collected in one
turn and last, so that whoever joined the scrape by then sees what happened before they asked, and is written by
prometheus_client a few families at a time.
A collector that fails takes only its own family with it and is counted. Concurrent scrapes share one run where it
began late enough for both.
Refused: answering HTTP (`server`), a cache that outlives the scrape, exemplars and `_created` in text 0.0.4.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar import prometheus
from sidecar.metrics import families, negotiation, protobuf

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator

    from sidecar.metrics.durations import Requests

Format = negotiation.Format
Kind = negotiation.Kind
TEXT = negotiation.TEXT
PROTOBUF = negotiation.PROTOBUF
negotiate = negotiation.negotiate
accepts_gzip = negotiation.accepts_gzip

_COMPRESSED_PER_TURN = 128 << 10
_FAMILIES_PER_TURN = 6  # of the registry
GZIP_LEVEL = 1  # 1.7 ms for 10 000 lines; level 6 takes twice that for a body a fifth smaller

_PROTOBUF_KINDS = {"counter": protobuf.COUNTER, "gauge": protobuf.GAUGE}


@dataclass(slots=True)
class _Run:
    """One rendering that others may wait for."""

    revision: int
    joinable: bool = True  # until the registry is asked
    done: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Only:
    """A registry with one family."""

    metric: prometheus.Metric

    def collect(self) -> Iterable[prometheus.Metric]:
        return (self.metric,)


def render(
    format: Format,  # noqa: A002  the word of the field
    registry: prometheus.CollectorRegistry,
    requests: Requests,
    names: Collection[str] | None = None,
    *,
    gzip: bool = False,
) -> bytes:
    """Return the whole exposition, or only the families and samples of these names where there are any."""
    return Renderer(registry, requests).render(format, names, gzip=gzip)


class Renderer:
    """Writes the metrics of one process; keep one, so that concurrent scrapes can share."""

    def __init__(self, registry: prometheus.CollectorRegistry, requests: Requests) -> None:
        self._registry = registry
        self._requests = requests
        self._running: dict[tuple[Kind, frozenset[str], bool], _Run] = {}
        self._families = families.Families(requests)

    def render(
        self,
        format: Format,  # noqa: A002
        names: Collection[str] | None = None,
        *,
        gzip: bool = False,
    ) -> bytes:
        """Return the exposition in one go."""
        steps = self._steps(_Run(0), format.kind, frozenset(names or ()), gzip=gzip)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return bytes(stop.value)

    async def render_async(
        self,
        format: Format,  # noqa: A002
        names: Collection[str] | None = None,
        *,
        gzip: bool = False,
    ) -> bytes:
        """Return the same with turns of the event loop in between; one rendering serves all who ask meanwhile.

        Whoever asks before anything was observed after the run began, and before the registry was asked, shares it.
        Whoever asks later waits for its end and shares the next one, so that any number of scrapers cause at most two
        runs, and nobody sees an older state than that of the moment they asked.
        """
        key = (format.kind, frozenset(names or ()), gzip)
        asked = self._requests.revision
        while (run := self._running.get(key)) is not None:
            in_time = run.joinable and run.revision >= asked
            await run.done.wait()
            if in_time and run.body is not None:
                return run.body
        run = self._running[key] = _Run(self._requests.revision)
        try:
            steps = self._steps(run, format.kind, key[1], gzip=gzip)
            while True:
                try:
                    next(steps)
                except StopIteration as stop:
                    run.body = bytes(stop.value)
                    return run.body
                await asyncio.sleep(0)
        finally:  # a scraper that hung up, too: one of those who wait begins anew
            del self._running[key]
            run.done.set()

    def _steps(self, run: _Run, kind: Kind, names: frozenset[str], *, gzip: bool) -> Generator[None, None, bytes]:
        began = time.perf_counter()
        parts = yield from self._families.write(kind, names)
        squeeze = zlib.compressobj(GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)
        if gzip:
            parts = yield from _squeezed(squeeze, parts)
        run.joinable = False
        others = yield from self._others(list(self._collected()), kind, names)
        if kind is Kind.OPENMETRICS:
            others.append(b"# EOF\n")
        if gzip:
            others = [squeeze.compress(b"".join(others)), squeeze.flush()]
        body = b"".join(parts + others)
        self._requests.telemetry.scraped(time.perf_counter() - began)
        return body

    def _others(
        self, metrics: Iterable[prometheus.Metric], kind: Kind, names: frozenset[str]
    ) -> Generator[None, None, list[bytes]]:
        write = {Kind.TEXT: _registry_text, Kind.OPENMETRICS: _registry_openmetrics, Kind.PROTOBUF: _registry_protobuf}
        parts: list[bytes] = []
        seen = set(families.NAMES)
        for metric in metrics:
            restricted = _restricted(metric, names)
            if restricted is None:
                continue
            try:
                if metric.name in seen:
                    raise ValueError(f"there is a family {metric.name} already")  # noqa: TRY301  handled like the others
                parts.append(write[kind](restricted))
            except Exception as error:  # noqa: BLE001  whatever it is, the other families must be served
                self._requests.telemetry.collector_failed(metric.name, repr(error))
            seen.add(metric.name)
            if not len(seen) % _FAMILIES_PER_TURN:
                yield
        return parts

    def _collected(self) -> Iterator[prometheus.Metric]:
        # The public collect() ends at the first collector that fails; hence one by one.
        for collector in list(self._registry._collector_to_names):  # noqa: SLF001
            try:
                metrics = list(collector.collect())
            except Exception as error:  # noqa: BLE001  likewise
                self._requests.telemetry.collector_failed(type(collector).__name__, repr(error))
                continue
            yield from metrics


def _squeezed(squeeze: zlib._Compress, parts: list[bytes]) -> Generator[None, None, list[bytes]]:
    out = []
    for part in parts:
        for start in range(0, len(part), _COMPRESSED_PER_TURN):
            out.append(squeeze.compress(part[start : start + _COMPRESSED_PER_TURN]))
            yield
    return out


def _restricted(metric: prometheus.Metric, names: frozenset[str]) -> prometheus.Metric | None:
    if not names or metric.name in names:
        return metric
    samples = [sample for sample in metric.samples if sample.name in names]
    if not samples:
        return None
    left = prometheus.Metric(metric.name, metric.documentation, metric.type, metric.unit)
    left.samples = samples
    return left


def _registry_text(metric: prometheus.Metric) -> bytes:
    return prometheus.text(_Only(metric))


def _registry_openmetrics(metric: prometheus.Metric) -> bytes:
    return prometheus.openmetrics(_Only(metric)).removesuffix(b"# EOF\n")


def _registry_protobuf(metric: prometheus.Metric) -> bytes:
    """Write counters and gauges as such, any other type sample by sample as untyped families."""
    by_name: dict[str, list[prometheus.Sample]] = {}
    for sample in metric.samples:
        by_name.setdefault(sample.name, []).append(sample)
    kind = _PROTOBUF_KINDS.get(metric.type, protobuf.UNTYPED)
    write = {protobuf.COUNTER: protobuf.counter, protobuf.GAUGE: protobuf.gauge}.get(kind, protobuf.untyped)
    return b"".join(
        protobuf.family(
            name, metric.documentation, kind, [write(protobuf.labels(one.labels), one.value) for one in samples]
        )
        for name, samples in by_name.items()
    )
