"""What observing, scraping and saving requests take, with as many label sets as there may be, their windows full."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from sidecar.metrics import durations
from sidecar.metrics.exposition import PROTOBUF, TEXT, Format, Renderer
from sidecar.model import RequestGroup
from tests.bench.report import Measurement
from tests.support.measured import OPENMETRICS, TRACE_ID, Measured

if TYPE_CHECKING:
    from collections.abc import Callable

_GROUP = "metrics of requests"
_REQUESTS = 1000  # of one batch
_SETS = durations.Config().max_series
_YARDSTICK = "Counter.inc()"  # what an observation is told in
_MOST_INCREMENTS = 4.0  # that an observation may cost
_TURN_MS, _SCRAPE_MS = 10.0, 100.0  # that a scrape may hold the loop for at a time, and take in all


def measure(rounds: int, say: Callable[[str], None]) -> list[Measurement]:
    """Measure CPU time: the least of the rounds, as a busy machine delays a round and makes none cheaper."""
    return [*_observing(rounds, say), *asyncio.run(_scraping(rounds, say))]


def _observing(rounds: int, say: Callable[[str], None]) -> list[Measurement]:
    counter = Counter("bench", "Increments.", registry=CollectorRegistry())

    def increment() -> None:
        for _ in range(_REQUESTS):
            counter.inc()

    found = []
    for keys in (_REQUESTS, _REQUESTS // 5, _REQUESTS // 20, 1):
        say(f"{_GROUP}, {_REQUESTS // keys} of a label set")
        generator = random.Random(29)
        measured = Measured(max_paths=_REQUESTS, max_series=_REQUESTS)
        groups = {("GET", f"/route/{key}", "", 200): _group(generator, _REQUESTS // keys) for key in range(keys)}
        measured.requests.observe(groups)
        times = [(_cpu(partial(measured.requests.observe, groups)), _cpu(increment)) for _ in range(10 * rounds)]
        each, least = (min(column) for column in zip(*times, strict=True))
        found.append(
            Measurement(
                group=_GROUP,
                name=f"observe, {_REQUESTS // keys} of a label set",
                value=each / least,
                unit=_YARDSTICK,
                budget=_MOST_INCREMENTS,
            )
        )
    return found


async def _scraping(rounds: int, say: Callable[[str], None]) -> list[Measurement]:
    say(f"{_GROUP}, filling {_SETS} windows")
    generator = random.Random(30)
    measured = Measured(max_paths=_SETS)
    for _ in range(6):
        measured.clock.pass_(120)
        for number in range(_SETS):
            measured.requests.observe({("GET", f"/api/v1/resource{number}/:id", "", 200): _group(generator, 60)})
    renderer = Renderer(measured.registry, measured.requests)
    found = []
    for name, form in (("text", TEXT), ("OpenMetrics", OPENMETRICS), ("protobuf", PROTOBUF)):
        say(f"{_GROUP}, a scrape as {name}")
        times = [await _scrape(renderer, form, measured) for _ in range(rounds)]
        for what, milliseconds, budget in (
            ("at a time", min(map(max, times)), _TURN_MS),
            ("in all", min(map(sum, times)), _SCRAPE_MS),
        ):
            found.append(
                Measurement(
                    group=_GROUP, name=f"scrape, {name}, {what}", value=1000 * milliseconds, unit="ms", budget=budget
                )
            )
    saving = []
    for _ in range(rounds):
        _observe_each(measured)
        saving.append((_cpu(measured.requests.changed), _cpu(measured.requests.snapshot)))
    changed, whole = (min(column) for column in zip(*saving, strict=True))
    found.append(
        Measurement(
            group=_GROUP, name="saving what changed", value=1000 * changed, unit="ms", ratio=changed / whole,
            to="saving everything",
        )
    )  # fmt: skip
    return found


async def _scrape(renderer: Renderer, form: Format, measured: Measured) -> list[float]:
    """Return the CPU seconds of each turn of the loop."""
    _observe_each(measured)
    scrape = asyncio.create_task(renderer.render_async(form, gzip=True))
    turns = []
    while not scrape.done():
        began = time.process_time()
        await asyncio.sleep(0)
        turns.append(time.process_time() - began)
    scrape.result()
    return turns


def _observe_each(measured: Measured) -> None:
    for one in measured.requests.all():
        measured.observe(1.0, route=one.path)


def _group(generator: random.Random, count: int) -> RequestGroup:
    return RequestGroup([generator.lognormvariate(3, 1) for _ in range(count)], [TRACE_ID] * count)


def _cpu(function: Callable[[], object]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began
