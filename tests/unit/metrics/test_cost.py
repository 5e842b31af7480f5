"""What observing, scraping and saving requests cost, counted in bytecode instructions; `make bench` has the times."""

from __future__ import annotations

import asyncio
import random

import pytest
from prometheus_client import Counter

from sidecar.metrics import families
from sidecar.metrics.exposition import PROTOBUF, TEXT, Format, Renderer
from sidecar.model import RequestGroup
from tests.support.effort import Effort, instructions
from tests.support.measured import OPENMETRICS, TRACE_ID, Measured

SETS = 400


@pytest.mark.parametrize(
    ("keys", "most"), [(1000, 4.0), (200, 2.5), (50, 2.0), (1, 1.75)], ids=["single", "few", "mixed", "one_route"]
)
def test_rule_29_observing_a_request_costs_at_most_four_increments(keys: int, most: float) -> None:
    """Counted: 3.6 increments where each request has a key of its own, 2.0 at five of a key, 1.4 for one route."""
    generator = random.Random(29)
    measured = Measured(max_paths=1000, max_series=1000)
    each = 1000 // keys
    groups = {
        ("GET", f"/route/{number}", "", 200): RequestGroup(
            [generator.lognormvariate(3, 1) for _ in range(each)], [TRACE_ID] * each
        )
        for number in range(keys)
    }

    def observe() -> None:
        measured.requests.observe(groups)

    observe()  # the first request of a series makes it
    assert instructions(observe) <= most * 1000 * increment()
    assert measured.own("sidecar_request_series") == keys


def increment() -> int:
    counter = Counter("reference", "What costs are compared to.", registry=None)
    return instructions(counter.inc)


@pytest.fixture
def full() -> Measured:
    generator = random.Random(30)
    measured = Measured(max_paths=SETS)
    for _ in range(2):
        measured.clock.pass_(120)
        for number in range(SETS):
            durations = [generator.lognormvariate(3, 1) for _ in range(20)]
            measured.observe(*durations, route=f"/api/v1/resource{number}/:id", trace_ids=[TRACE_ID] * 20)
    assert len(measured.requests.all()) == SETS
    return measured


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS, PROTOBUF], ids=["text", "openmetrics", "protobuf"])
async def test_rule_30_a_scrape_of_400_label_sets_never_does_much_of_it_at_a_time(full: Measured, form: Format) -> None:
    """Counted: 600 increments at a time, where the 10 ms of the rule are 31 000."""
    scrape = asyncio.create_task(Renderer(full.registry, full.requests).render_async(form, gzip=True))
    turns = []
    while not scrape.done():
        with Effort() as turn:
            await asyncio.sleep(0)
        turns.append(turn.instructions)

    assert scrape.result()
    assert len(turns) >= SETS / families.SETS_PER_TURN
    assert max(turns) <= 1000 * increment()


def test_what_changed_is_saved_by_the_cost_of_what_changed(full: Measured) -> None:
    whole = instructions(full.requests.snapshot)
    full.requests.changed()
    for one in full.requests.all()[: SETS // 10]:
        full.observe(1.0, route=one.path)

    some, none = instructions(full.requests.changed), instructions(full.requests.changed)

    assert some < whole / 5
    assert none < whole / 100
