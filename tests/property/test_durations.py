"""Laws of the request metrics, against a model that keeps every value."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.metrics import durations
from tests.support.measured import Clock, Measured, nearest_rank

QUANTILES = [0.0, 0.07, 0.5, 0.9, 0.99, 1.0]
SLICE = 10.0
KEEP = 3

milliseconds = st.one_of(
    st.floats(min_value=0.0, max_value=86_400_000.0),
    st.floats(min_value=0.01, max_value=60_000.0),
    st.integers(min_value=0, max_value=2000).map(float),
    st.sampled_from([0.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1000.0, 5e-324]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("observe"), st.sampled_from(["/a", "/b"]), st.lists(milliseconds, max_size=20)),
        st.tuples(st.just("pass"), st.sampled_from([0.5, 3.0, SLICE, 2.5 * SLICE, 100 * SLICE])),
        st.tuples(st.just("scrape")),
        st.tuples(st.just("restart"), st.sampled_from([0.0, 3.0, SLICE, 50 * SLICE])),
        st.tuples(st.just("save")),
    ),
    max_size=25,
)
OPTIONS = {"quantiles": QUANTILES, "window": SLICE * KEEP, "slices": KEEP}


class Model:
    """Every value with the slice it came in."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {}

    def window(self, path: str, number: int) -> list[float]:
        return [value for at, value in self.values.get(path, []) if at > number - KEEP]


@given(steps)
@settings(max_examples=80)
def test_rule_04_rule_05_rule_07_any_history_counts_what_a_plain_list_counts(history: list[tuple]) -> None:
    """Observations, silences, scrapes, restarts with and without an earlier save, in any order."""
    measured, model = Measured(**OPTIONS), Model()
    kept = json.loads(json.dumps(measured.requests.snapshot()))
    for step in history:
        if step[0] == "observe":
            _, path, values = step
            measured.observe(*values, path=path)
            number = int(measured.clock.wall_now // SLICE)
            model.values.setdefault(path, []).extend((number, value) for value in values)
        elif step[0] == "pass":
            measured.clock.pass_(step[1])
        elif step[0] == "save":
            durations.merge(kept, json.loads(json.dumps(measured.requests.changed())))
        elif step[0] == "restart":
            durations.merge(kept, json.loads(json.dumps(measured.requests.changed())))
            measured = Measured(clock=Clock(measured.clock.wall_now + step[1]), **OPTIONS)
            measured.requests.restore(kept)
        agree(measured, model)


def agree(measured: Measured, model: Model) -> None:
    number = int(measured.clock.wall_now // SLICE)
    for one in measured.requests.all():
        values = [value for _, value in model.values.get(one.path, [])]
        assert one.count == len(values)
        assert one.sum_ms == pytest.approx(sum(values), rel=1e-9)
        assert one.cells == cells(values, measured.requests.bounds)
        schema, counts, zeros = one.native()
        assert zeros == sum(value / 1000 <= 2.0**-128 for value in values)
        assert sum(counts.values()) + zeros == len(values)
        for value in values:
            if value / 1000 > 2.0**-128:
                assert math.ceil(math.log2(value / 1000) * 2.0**schema) in counts
        window = model.window(one.path, number)
        quantiles = measured.requests.quantiles_of(one)
        if not window:
            assert all(math.isnan(value) for value in quantiles)
            continue
        assert quantiles == sorted(quantiles)
        assert min(window) <= quantiles[0]
        assert quantiles[-1] <= max(window)
        for quantile, value in zip(QUANTILES, quantiles, strict=True):
            assert value == pytest.approx(nearest_rank(window, quantile), rel=0.0109, abs=1e-30)


def cells(values: list[float], bounds: tuple[float, ...]) -> list[int]:
    found = Counter(bisect_left(bounds, value / 1000) for value in values)
    return [found[index] for index in range(len(bounds) + 1)]


@given(st.lists(milliseconds, min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_observations_and_their_batches_does_not_matter(values: list[float], random) -> None:
    first, second = Measured(**OPTIONS), Measured(**OPTIONS)
    first.observe(*values)
    random.shuffle(values)
    for value in values:
        second.observe(value)

    (one,), (other,) = first.requests.all(), second.requests.all()

    assert one.native() == other.native()
    assert one.cells == other.cells
    assert first.requests.quantiles_of(one) == second.requests.quantiles_of(other)


@given(st.lists(st.tuples(milliseconds, st.integers(1, 50)), min_size=1, max_size=20))
@settings(max_examples=60)
def test_a_weight_is_as_many_observations(values: list[tuple[float, int]]) -> None:
    weighted, spelled_out = Measured(**OPTIONS), Measured(**OPTIONS)
    weighted.observe(weighted=[(value, "", weight) for value, weight in values])
    spelled_out.observe(*(value for value, weight in values for _ in range(weight)))

    (one,), (other,) = weighted.requests.all(), spelled_out.requests.all()

    assert one.native() == other.native()
    assert (one.cells, one.count, one.statuses) == (other.cells, other.count, other.statuses)
    assert one.sum_ms == pytest.approx(other.sum_ms, rel=1e-9)
    assert weighted.requests.quantiles_of(one) == spelled_out.requests.quantiles_of(other)


names = st.text(max_size=12)
keys = st.tuples(st.sampled_from(["GET", "POST", "get", "BREW", ""]), names, names.map("/".__add__))


@given(st.lists(st.tuples(keys, st.sampled_from([200, 404, 500]), st.booleans()), max_size=40))
@settings(max_examples=50)
def test_rule_22_label_sets_never_exceed_the_caps_and_no_request_is_lost(requests: list[tuple]) -> None:
    measured = Measured(max_paths=5, max_series=6)
    for (method, route, path), status, learned in requests:
        if learned:
            measured.requests.learn(method or "GET", path)
        measured.observe(1.0, method=method, route=route, path=path, status=status)

    sets = {(one.method, one.path) for one in measured.requests.all()}
    capped = {pair for pair in sets if pair[1] not in ("other", "unmatched")}
    assert len(capped) <= 2 * 6
    assert len({path for _, path in capped}) <= 2 * 5
    assert len({method for method, _ in sets}) <= 10
    assert sum(one.count for one in measured.requests.all()) == len(requests)
    assert sum(sum(one.statuses.values()) for one in measured.requests.all()) == len(requests)
