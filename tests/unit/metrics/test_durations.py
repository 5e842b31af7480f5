"""What the request metrics say of the requests that were observed."""

from __future__ import annotations

import json
import math
import random

import orjson
import pytest

from sidecar import routes
from sidecar.errors import StateError
from sidecar.metrics import durations, series
from sidecar.model import RequestGroup
from tests.support.measured import EPOCH, TRACE_ID, Clock, Measured, nearest_rank

QUANTILES = (0.5, 0.9, 0.95, 0.99)
WINDOW = 600.0


def quantiles(measured: Measured) -> list[float]:
    (one,) = measured.requests.all()
    return measured.requests.quantiles_of(one)


def test_rule_01_one_request_of_12_5_ms_is_every_quantile() -> None:
    measured = Measured()

    measured.observe(12.5, route="/orders/:id")

    page = measured.page()
    for quantile in QUANTILES:
        assert f'http_request_duration_ms{{method="GET",path="/orders/:id",quantile="{quantile}"}} 12.5\n' in page
    assert 'http_request_duration_ms_count{method="GET",path="/orders/:id"} 1\n' in page
    assert 'http_request_duration_ms_sum{method="GET",path="/orders/:id"} 12.5\n' in page
    assert 'http_requests_total{method="GET",path="/orders/:id",status="200"} 1\n' in page


def test_rule_02_two_requests_are_the_nearest_rank_at_each_quantile() -> None:
    measured = Measured()

    measured.observe(1000.0, 10.0)

    assert quantiles(measured) == [10.0, 1000.0, 1000.0, 1000.0]


DISTRIBUTIONS = {
    "lognormal": lambda r: r.lognormvariate(3, 1),
    "pareto": lambda r: 5 * r.paretovariate(1.1),
    "bimodal": lambda r: abs(r.gauss(5, 0.5) if r.random() < 0.8 else r.gauss(800, 50)),
    "integer": lambda r: float(r.randint(1, 300)),
    "constant": lambda r: 12.5,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_rule_03_each_quantile_of_100_000_values_is_within_1_09_percent(name: str) -> None:
    generator = random.Random(name)
    measured = Measured(quantiles=[0.01, 0.5, 0.9, 0.95, 0.99, 0.999])
    values = [min(DISTRIBUTIONS[name](generator), 8e7) for _ in range(100_000)]

    measured.observe(*values)

    for quantile, value in zip(measured.requests.quantiles, quantiles(measured), strict=True):
        assert value == pytest.approx(nearest_rank(values, quantile), rel=0.0109)


def test_rule_03_the_quantiles_of_five_slices_are_within_1_09_percent() -> None:
    generator = random.Random(3)
    measured = Measured()
    values = []
    for _ in range(5):
        measured.clock.pass_(WINDOW / 5)
        part = [generator.lognormvariate(3, 1.5) for _ in range(2000)]
        measured.observe(*part)
        values += part

    for quantile, value in zip(QUANTILES, quantiles(measured), strict=True):
        assert value == pytest.approx(nearest_rank(values, quantile), rel=0.0109)


def test_rule_05_quantiles_forget_after_the_window_and_counts_never() -> None:
    measured = Measured()
    measured.observe(100.0)
    measured.clock.pass_(WINDOW / 2)
    measured.observe(10.0, 10.0)

    measured.clock.pass_(WINDOW / 2)

    assert quantiles(measured) == [10.0] * 4
    measured.clock.pass_(WINDOW / 2)
    assert all(math.isnan(value) for value in quantiles(measured))
    assert measured.sample("http_request_duration_ms_count", method="GET", path="/orders") == 3
    assert measured.sample("http_request_duration_ms_sum", method="GET", path="/orders") == 120.0
    assert 'quantile="0.5"} NaN\n' in measured.page()


@pytest.mark.parametrize("age", [0, 1, 119, 120, 121, 240, 359, 479])
def test_rule_05_what_is_younger_than_the_window_less_one_slice_is_always_there(age: float) -> None:
    measured = Measured()
    measured.observe(100.0)

    measured.clock.pass_(age)

    assert quantiles(measured) == [100.0] * 4


def test_rule_06_a_wall_clock_that_is_set_changes_nothing() -> None:
    measured = Measured()
    measured.observe(100.0)

    for jump in (-86_400 * 400, 86_400 * 800, -1e9):
        measured.clock.wall_now += jump
        measured.observe(100.0)
        assert quantiles(measured) == [100.0] * 4

    measured.clock.monotonic_now += WINDOW
    assert all(math.isnan(value) for value in quantiles(measured))


def test_rule_06_a_silence_of_years_costs_no_more_than_the_slices() -> None:
    measured = Measured(slices=60)
    for _ in range(60):
        measured.observe(1.0)
        measured.clock.pass_(WINDOW / 60)

    measured.clock.pass_(WINDOW * 1e9)
    measured.observe(5.0)

    (one,) = measured.requests.all()
    assert quantiles(measured) == [5.0] * 4
    assert len(one._closed) == 0
    assert one.count == 61


def test_rule_07_every_way_to_count_one_series_says_the_same() -> None:
    generator = random.Random(7)
    measured = Measured()
    for _ in range(12):
        measured.observe(*(generator.choice((0.0, generator.lognormvariate(2, 3))) for _ in range(50)))
        measured.clock.pass_(100)
        (one,) = measured.requests.all()

        _, counts, zeros = one.native()

        assert one.count == sum(one.cells) == sum(counts.values()) + zeros
        assert one.statuses == {"200": one.count}


def test_rule_08_the_sum_in_milliseconds_is_what_was_logged() -> None:
    measured = Measured()

    measured.observe(63.7, path="/a")
    measured.observe(1001, path="/b")

    page = measured.page()
    assert 'http_request_duration_ms_sum{method="GET",path="/a"} 63.7\n' in page
    assert 'http_request_duration_ms_sum{method="GET",path="/b"} 1001.0\n' in page
    for path, total in (("/a", 63.7), ("/b", 1001.0)):
        seconds = measured.sample("http_request_duration_seconds_sum", method="GET", path=path)
        assert seconds * 1000 == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not_finite"),
        (math.inf, "not_finite"),
        (-math.inf, "not_finite"),
        (-1e-9, "negative"),
        (86_400_001.0, "too_long"),
    ],
)
def test_rule_09_what_is_no_duration_is_counted_and_not_observed(value: float, reason: str) -> None:
    """The normalizer refuses them first; one that came through would spoil a sum for ever."""
    measured = Measured()

    measured.observe(5.0, value, 7.0)

    (one,) = measured.requests.all()
    assert (one.count, one.sum_ms, one.statuses) == (2, 12.0, {"200": 3})
    assert quantiles(measured) == [5.0, 7.0, 7.0, 7.0]
    assert measured.own("sidecar_request_observations_rejected_total", reason=reason) == 1


def test_the_shortest_and_the_longest_durations_are_observed() -> None:
    measured = Measured()

    measured.observe(0.0, 5e-324, 1e-36, 86_400_000.0)

    (one,) = measured.requests.all()
    _, counts, zeros = one.native()
    assert (one.count, zeros, sum(counts.values())) == (4, 3, 1)
    assert quantiles(measured)[3] == 86_400_000.0


@pytest.mark.parametrize("bound", [0.005, 0.1, 0.3, 1.0, 10.0])
def test_a_classic_bucket_holds_its_upper_bound(bound: float) -> None:
    measured = Measured(buckets=[0.005, 0.1, 0.3, 1.0, 10.0])

    measured.observe(bound * 1000, math.nextafter(bound * 1000, math.inf) + 1e-6)

    at = measured.sample("http_request_duration_seconds_bucket", method="GET", path="/orders", le=str(bound))
    assert at == 1


def test_a_bound_written_in_seconds_is_the_same_number_of_milliseconds() -> None:
    bounds = [number / 1000 for number in range(1, 500)]
    measured = Measured(buckets=bounds)

    measured.observe(*(float(number) for number in range(1, 500)))

    (one,) = measured.requests.all()
    assert one.cells == [1] * 499 + [0]


def test_requests_without_a_usable_duration_are_counted_by_status_only() -> None:
    measured = Measured()

    measured.observe(unmeasured=3)

    assert measured.sample("http_requests_total", method="GET", path="/orders", status="200") == 3
    assert measured.sample("http_request_duration_ms_count", method="GET", path="/orders") == 0


def test_durations_whose_request_was_counted_before_are_observed_and_not_counted_again() -> None:
    measured = Measured()
    measured.observe(unmeasured=2)

    measured.observe(8.0, 9.0, unmeasured=-2)

    assert measured.sample("http_requests_total", method="GET", path="/orders", status="200") == 2
    assert measured.sample("http_request_duration_ms_count", method="GET", path="/orders") == 2


def test_an_exemplar_is_the_last_request_of_its_bucket_that_has_a_trace() -> None:
    measured = Measured()

    measured.observe(11.0, 12.0, 13.0, 700.0, trace_ids=["a" * 32, "b" * 32, "", "c" * 32])

    (one,) = measured.requests.all()
    assert [exemplar for exemplar in one.exemplars if exemplar] == [
        ("b" * 32, 0.012, EPOCH),
        ("c" * 32, 0.7, EPOCH),
    ]


def test_trace_ids_that_do_not_match_the_durations_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="2 durations with 1 trace ids"):
        Measured().observe(1.0, 2.0, trace_ids=[""])


# how many label sets there are


def test_rule_22_distinct_raw_paths_make_no_more_label_sets_than_the_cap() -> None:
    measured = Measured(max_paths=30, max_series=40)
    lines = 0
    for number in range(2000):
        for method in ("GET", "POST", "BREW"):
            measured.observe(1.0, method=method, path=f"/scan/{number}x", status=404 if number % 3 else 200)
            lines += 1

    assert len(measured.requests.all()) <= 40 + 20
    assert len(measured.paths() - {"other", "unmatched"}) <= 30
    assert sum(one.count for one in measured.requests.all()) == lines


def test_rule_23_beyond_the_cap_the_method_is_kept_and_every_request_counted() -> None:
    measured = Measured(max_paths=1)
    measured.observe(1.0, path="/first")

    measured.observe(1.0, 2.0, method="DELETE", path="/second")
    measured.observe(1.0, method="DELETE", path="/second")

    assert measured.sample("http_request_duration_ms_count", method="DELETE", path="other") == 3
    assert measured.own("sidecar_label_overflow_total", label="path") == 3
    assert measured.own("sidecar_label_overflow_total", label="series") == 0
    assert '"label_overflow"' in measured.log.getvalue()


def test_rule_23_the_cap_of_label_sets_holds_where_paths_are_few() -> None:
    measured = Measured(max_series=2)
    for method in ("GET", "POST", "PUT"):
        measured.observe(1.0, method=method, path="/x")

    assert {(one.method, one.path) for one in measured.requests.all()} == {
        ("GET", "/x"),
        ("POST", "/x"),
        ("PUT", "other"),
    }
    assert measured.own("sidecar_label_overflow_total", label="series") == 1


def test_rule_24_a_declared_route_has_a_place_after_a_scanner_took_the_others() -> None:
    measured = Measured(max_paths=10, max_series=12)
    for number in range(100):
        measured.observe(1.0, path=f"/scan/{number}x")

    measured.observe(1.0, route="/orders/:id")
    measured.requests.learn("POST", "/learned/:id")
    measured.observe(1.0, method="POST", path="/learned/7")

    assert {"/orders/:id", "/learned/:id"} <= measured.paths()
    assert measured.own("sidecar_label_overflow_total", label="path") == 90


def test_rule_24_declared_routes_have_a_higher_cap_and_not_none() -> None:
    measured = Measured(max_paths=10, max_series=1000)

    for number in range(100):
        measured.observe(1.0, route=f"/route/{number}")

    assert len(measured.paths()) == 20 + 1


def test_rule_24_a_configured_route_has_its_place_after_other_declared_routes_took_the_reserve() -> None:
    measured = Measured(max_paths=5, max_series=5, routes=["/orders/:id"])
    for number in range(40):
        measured.observe(1.0, route=f"/route/{number}")

    for method in ("GET", "POST"):
        measured.observe(1.0, method=method, path="/orders/7")

    assert {(one.method, one.path) for one in measured.requests.all()} >= {
        ("GET", "/orders/:id"),
        ("POST", "/orders/:id"),
    }


def test_rule_26_known_routes_exist_at_zero_before_the_first_request() -> None:
    measured = Measured(routes=["GET /orders/:id", "/any/method"])
    measured.requests.learn("POST", "/orders")

    samples = measured.samples()
    for method, path in (("GET", "/orders/:id"), ("POST", "/orders")):
        labels = f'{{method="{method}",path="{path}"}}'
        assert samples[f"http_request_duration_ms_count{labels}"] == 0
        assert samples[f"http_request_duration_seconds_count{labels}"] == 0
        assert math.isnan(samples[f'http_request_duration_ms{{method="{method}",path="{path}",quantile="0.5"}}'])
    assert not [name for name in samples if name.startswith("http_requests_total")]
    assert len(measured.requests.all()) == 2  # nobody knows a method of the third


def test_rule_26_routes_at_zero_leave_the_reserve_to_routes_that_are_used() -> None:
    measured = Measured(max_series=5)

    for number in range(50):
        measured.requests.learn("GET", f"/unused/{number}")
    assert len(measured.requests.all()) == 5
    measured.observe(1.0, path="/unused/49")

    assert "/unused/49" in measured.paths()


def test_a_route_learned_late_gets_the_requests_from_then_on() -> None:
    measured = Measured()
    measured.observe(1.0, path="/orders/new")

    measured.requests.learn("GET", "/orders/:id")
    measured.observe(1.0, path="/orders/new")

    assert {one.path: one.count for one in measured.requests.all()} == {"/orders/:id": 1, "/orders/new": 1}


def test_rule_27_unknown_methods_share_one_label_and_are_counted() -> None:
    measured = Measured()
    for method in ("get", "GET", "BREW", "PROPFIND", "", "X" * 500):
        measured.observe(1.0, method=method)

    assert {one.method: one.count for one in measured.requests.all()} == {"GET": 2, "_OTHER": 4}
    assert measured.own("sidecar_label_overflow_total", label="method") == 4


def test_rule_28_no_series_disappears() -> None:
    measured = Measured()
    measured.observe(1.0, path="/once")
    before = set(measured.samples())

    measured.clock.pass_(WINDOW * 1000)
    measured.observe(1.0, path="/again")

    assert before <= set(measured.samples())


def test_status_codes_of_one_label_set_are_bounded() -> None:
    measured = Measured()
    for status in range(100, 600):
        measured.observe(1.0, status=status)
        measured.observe(1.0, status=status)

    total = measured.samples()
    counted = {name: value for name, value in total.items() if name.startswith("http_requests_total")}
    unmatched = {name for name in counted if 'path="unmatched"' in name}
    assert len(counted) - len(unmatched) == series.MOST_STATUSES + 1
    assert sum(counted.values()) == 1000
    assert counted['http_requests_total{method="GET",path="/orders",status="other"}'] == 1000 - 4 - 64
    assert measured.own("sidecar_label_overflow_total", label="series") == 1000 - 4 - 64


def test_rule_31_the_default_cap_is_less_than_ten_thousand_lines() -> None:
    measured = Measured(max_paths=400)
    for number in range(500):
        measured.observe(1.0, path=f"/path/p{number}x")

    assert len(measured.requests.all()) == 401
    assert len(measured.page().splitlines()) <= 10_000


def test_rule_33_what_is_observed_and_when_is_told_from_the_first_scrape() -> None:
    measured = Measured()
    names = {
        "sidecar_request_observations_total": 4,
        "sidecar_request_series": 2,
        "sidecar_request_last_observation_timestamp_seconds": EPOCH + 7,
    }
    assert [measured.own(name) for name in names] == [0, 0, 0]

    measured.clock.pass_(7)
    measured.observe(1.0, 2.0, 3.0)
    measured.observe(math.nan, 4.0, path="/b")

    assert {name: measured.own(name) for name in names} == names


# what a restart keeps


def restarted(measured: Measured, *, down: float = 0.0, **options) -> Measured:
    """Return what a new process has that restored a snapshot which went through JSON."""
    saved = orjson.loads(orjson.dumps(measured.requests.snapshot()))
    clock = Clock(measured.clock.wall_now + down)
    clock.monotonic_now = 5.0
    again = Measured(clock=clock, **options)
    again.requests.restore(saved)
    return again


def without_windows(measured: Measured) -> dict[str, float]:
    return {
        name: value for name, value in measured.samples().items() if name.startswith("http_") and "quantile" not in name
    }


def busy(*, seconds: float = 3000.0, **options) -> Measured:
    generator = random.Random(11)
    measured = Measured(**options)
    for _ in range(30):
        for path in ("/a", "/b b", '/"quoted"\\'):
            measured.observe(*(generator.lognormvariate(2, 2) for _ in range(20)), path=path, unmeasured=1)
        measured.observe(0.0, path="/a", status=500)
        measured.clock.pass_(seconds / 30)
    return measured


def test_counters_and_windows_continue_across_a_restart() -> None:
    before = busy()

    after = restarted(before, down=0)

    assert without_windows(after) == without_windows(before)
    assert [after.requests.quantiles_of(one) for one in after.requests.all()] == [
        before.requests.quantiles_of(one) for one in before.requests.all()
    ]
    assert [one.created for one in after.requests.all()] == [one.created for one in before.requests.all()]
    assert [one.native() for one in after.requests.all()] == [one.native() for one in before.requests.all()]


def test_the_time_of_a_restart_passes_for_the_window_too() -> None:
    before = Measured()
    before.observe(100.0)
    before.clock.pass_(WINDOW / 2)
    before.observe(10.0)

    assert quantiles(restarted(before, down=1)) == [10.0, 100.0, 100.0, 100.0]
    assert quantiles(restarted(before, down=WINDOW / 2)) == [10.0] * 4
    assert all(math.isnan(value) for value in quantiles(restarted(before, down=WINDOW)))


def test_a_restart_goes_on_counting_where_it_stopped() -> None:
    before = busy()
    after = restarted(before, down=1e6)

    for measured in (before, after):
        measured.observe(3.0, 4.0, path="/a")

    assert without_windows(after) == without_windows(before)


def test_a_wall_clock_set_back_between_two_lives_keeps_everything_countable() -> None:
    before = busy()

    after = restarted(before, down=-86_400)
    after.observe(3.0, path="/a")

    assert sum(one.count for one in after.requests.all()) == sum(one.count for one in before.requests.all()) + 1
    for one in after.requests.all():
        _, counts, zeros = one.native()
        assert sum(counts.values()) + zeros == one.count == sum(one.cells)


@pytest.mark.parametrize("options", [{"window": 60.0}, {"slices": 1}, {"window": 6000.0, "slices": 60}])
def test_another_window_after_a_restart_keeps_the_counters(options: dict) -> None:
    before = busy()

    after = restarted(before, **options)

    assert without_windows(after) == without_windows(before)


def test_other_buckets_after_a_restart_are_filled_from_the_sketch() -> None:
    before = busy()
    bounds = [0.001, 0.02, 3.0]

    after = restarted(before, buckets=bounds)

    for old, new in zip(before.requests.all(), after.requests.all(), strict=True):
        assert sum(new.cells) == new.count == old.count
    again = restarted(after)
    assert [one.count for one in again.requests.all()] == [one.count for one in before.requests.all()]


def test_other_buckets_are_right_but_for_values_next_to_a_bound() -> None:
    before = Measured()
    before.observe(1.0, 30.0, 3000.0)

    after = restarted(before, buckets=[0.01, 1.0])

    (one,) = after.requests.all()
    assert one.cells == [1, 1, 1]


def test_label_sets_of_a_former_life_have_their_places() -> None:
    before = Measured()
    for number in range(20):
        before.observe(1.0, path=f"/p/p{number}")

    after = restarted(before, max_paths=5)
    after.observe(1.0, path="/new")
    after.observe(1.0, path="/p/p7")

    assert {one.path: one.count for one in after.requests.all()} == {
        **{f"/p/p{number}": 1 for number in range(20)},
        "/p/p7": 2,
        "other": 1,
    }


def test_a_configured_route_continues_rather_than_beginning_at_zero_again() -> None:
    before = Measured(routes=["GET /orders/:id"])
    before.observe(5.0, path="/orders/1")

    after = restarted(before, routes=["GET /orders/:id"])

    assert [one.count for one in after.requests.all()] == [1]
    assert after.own("sidecar_request_series") == 1


def test_changes_merged_into_a_snapshot_are_the_snapshot_of_now() -> None:
    measured = Measured()
    state = json.loads(json.dumps(measured.requests.snapshot()))
    generator = random.Random(5)
    for _ in range(200):
        measured.observe(generator.lognormvariate(2, 2), path=f"/p/p{generator.randint(1, 9)}")
        measured.clock.pass_(generator.choice((0, 1, 130)))
        if generator.random() < 0.3:
            durations.merge(state, json.loads(json.dumps(measured.requests.changed())))

    durations.merge(state, measured.requests.changed())

    again = Measured(clock=Clock(measured.clock.wall_now))
    again.requests.restore(state)
    assert without_windows(again) == without_windows(measured)
    assert [again.requests.quantiles_of(one) for one in again.requests.all()] == [
        measured.requests.quantiles_of(one) for one in measured.requests.all()
    ]


def test_only_what_changed_is_among_the_changes() -> None:
    measured = Measured()
    measured.observe(1.0, path="/a")
    measured.observe(1.0, path="/b")
    assert set(measured.requests.changed()["series"]) == {"GET /a", "GET /b"}
    assert measured.requests.changed()["series"] == {}

    measured.observe(1.0, path="/b")

    changed = measured.requests.changed()["series"]
    assert set(changed) == {"GET /b"}
    assert "past" not in changed["GET /b"]  # changes once a slice, and is most of the bytes
    measured.clock.pass_(WINDOW / 5)
    measured.observe(1.0, path="/b")
    assert measured.requests.changed()["series"]["GET /b"]["past"]["counts"] == [[-318], [2]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: saved.update(version=2),
        lambda saved: saved.pop("bounds"),
        lambda saved: saved.update(series=[]),
        lambda saved: saved["series"]["GET /a"].pop("past"),
        lambda saved: saved["series"]["GET /a"].update(cells=[1]),
        lambda saved: saved["series"]["GET /a"]["cells"].__setitem__(0, -1),
        lambda saved: saved["series"]["GET /a"]["cells"].__setitem__(3, 10**6),
        lambda saved: saved["series"]["GET /a"].update(sum=math.nan),
        lambda saved: saved["series"]["GET /a"]["past"].update(counts=[[10**9], [1]]),
        lambda saved: saved["series"]["GET /a"]["current"].update(counts=[[1, 2], [1]]),
        lambda saved: saved["series"]["GET /a"]["current"].update(number=math.inf),
        lambda saved: saved.update(slice_seconds="long"),
    ],
)
def test_a_damaged_snapshot_is_refused_whole(damage) -> None:
    saved = busy().requests.snapshot()
    damage(saved)
    measured = Measured()
    measured.observe(7.0, path="/mine")
    before = without_windows(measured)

    with pytest.raises(StateError):
        measured.requests.restore(saved)

    assert without_windows(measured) == before


def test_a_revision_tells_two_states_apart() -> None:
    measured = Measured()
    seen = [measured.requests.revision]
    measured.observe(1.0)
    seen.append(measured.requests.revision)
    measured.requests.learn("GET", "/x")
    seen.append(measured.requests.revision)
    measured.requests.restore(Measured().requests.snapshot())
    seen.append(measured.requests.revision)

    assert sorted(set(seen)) == seen


def test_an_observation_of_nothing_is_nothing() -> None:
    measured = Measured()

    measured.requests.observe({})
    measured.requests.observe({("GET", "", "/x", 200): RequestGroup()})

    assert sum(one.count for one in measured.requests.all()) == 0


def test_quantiles_and_buckets_are_taken_in_order_and_once() -> None:
    table = routes.Table()
    measured = Measured()
    config = durations.Config(quantiles=[0.99, 0.5, 0.5], buckets=[1, 0.1, 1])

    requests = durations.Requests(config, table, measured.telemetry)

    assert (requests.quantiles, requests.bounds) == ((0.5, 0.99), (0.1, 1.0))


# what is counted honestly: weights and lifetimes of connections


def test_a_line_that_stands_for_many_requests_weighs_as_many_everywhere() -> None:
    weighted, spelled_out = Measured(), Measured()

    weighted.observe(5.0, weighted=[(12.5, TRACE_ID, 100), (0.0, "", 7), (3000.0, "", 2)])
    spelled_out.observe(5.0, *[12.5] * 100, *[0.0] * 7, *[3000.0] * 2)

    assert weighted.samples() == spelled_out.samples()
    assert weighted.sample("http_requests_total", method="GET", path="/orders", status="200") == 110
    assert weighted.own("sidecar_request_observations_total") == 110
    (one,), (other,) = weighted.requests.all(), spelled_out.requests.all()
    assert one.native() == other.native()
    assert one.save() == other.save()


@pytest.mark.parametrize("whole", [True, False])
def test_weighted_counts_survive_a_restart_exactly(whole: bool) -> None:
    before = Measured()
    before.observe(weighted=[(12.5, TRACE_ID, 99)])
    saved = before.requests.snapshot() if whole else before.requests.changed()

    after = Measured()
    after.requests.restore(json.loads(json.dumps(saved)))
    after.observe(weighted=[(12.5, TRACE_ID, 1)])

    assert after.sample("http_requests_total", method="GET", path="/orders", status="200") == 100
    assert after.sample("http_request_duration_ms_count", method="GET", path="/orders") == 100
    assert after.sample("http_request_duration_ms_sum", method="GET", path="/orders") == 1250


def test_a_connections_lifetime_is_counted_and_not_observed() -> None:
    measured = Measured(max_duration=60.0)

    measured.observe(59_999.0, 60_000.0, 60_001.0, 90_000_000.0, weighted=[(70_000.0, "", 10)])
    measured.observe(5.0, weighted=[(6.0, "", 3)], path="/ws", status=101)

    assert measured.sample("http_requests_total", method="GET", path="/orders", status="200") == 14
    assert measured.sample("http_requests_total", method="GET", path="/ws", status="101") == 4
    assert measured.sample("http_request_duration_ms_count", method="GET", path="/orders") == 2
    assert measured.sample("http_request_duration_ms_count", method="GET", path="/ws") == 0
    assert measured.own("sidecar_request_observations_rejected_total", reason="connection_lifetime") == 11 + 4
    assert measured.own("sidecar_request_observations_rejected_total", reason="too_long") == 1
    assert measured.own("sidecar_request_observations_total") == 2


@pytest.mark.parametrize(
    ("status", "ms", "reason"),
    [(200, 60_000.0, ""), (200, 60_001.0, "connection_lifetime"), (101, 1.0, "connection_lifetime"), (200, 0.0, "")],
)
def test_refusal_says_what_observe_does(status: int, ms: float, reason: str) -> None:
    measured = Measured(max_duration=60.0)

    measured.observe(ms, status=status)

    assert measured.requests.refusal(status, ms) == reason
    assert measured.own("sidecar_request_observations_total") == (0 if reason else 1)
