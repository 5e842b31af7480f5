"""What a scrape gets."""

from __future__ import annotations

import asyncio
import gzip
import math
import random
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from sidecar import prometheus, routes
from sidecar.metrics import exposition, families
from sidecar.metrics.exposition import PROTOBUF, TEXT, Renderer
from tests.support import protobuf_reader
from tests.support.measured import EPOCH, OPENMETRICS, TRACE_ID, Measured, key, read

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_FAMILIES = {
    "http_request_duration_ms": "summary",
    "http_request_duration_seconds": "histogram",
    "http_requests_total": "counter",
}


class Broken:
    """A collector that fails half-way."""

    def describe(self) -> list[prometheus.Metric]:
        return []

    def collect(self) -> Iterable[prometheus.Metric]:
        yield prometheus.Metric("half", "Never seen.", "gauge")
        raise RuntimeError("the disk is gone")


class Fixed:
    """A collector that says what it was told to."""

    def __init__(self, *metrics: prometheus.Metric) -> None:
        self.metrics = metrics

    def describe(self) -> list[prometheus.Metric]:
        return []

    def collect(self) -> Iterable[prometheus.Metric]:
        return self.metrics


def metric(name: str, kind: str, *samples: tuple[str, dict, float]) -> prometheus.Metric:
    made = prometheus.Metric(name, "A metric.", kind)
    for sample in samples:
        made.add_sample(*sample)
    return made


@pytest.fixture
def measured() -> Measured:
    """Two label sets, one with exemplars, one with everything that must be escaped."""
    measured = Measured()
    measured.observe(12.5, 700.0, route="/orders/:id", trace_ids=[TRACE_ID, ""])
    measured.observe(3.0, route='/100%s/"quoted"\\', status=500)
    measured.observe(4.0, route='/100%s/"quoted"\\', status=200)
    return measured


def test_the_request_families_are_known_before_the_first_request() -> None:
    measured = Measured()

    page = measured.page()

    for name, kind in REQUEST_FAMILIES.items():
        assert f"# TYPE {name} {kind}\n" in page
        assert page.count(f"# HELP {name} ") == 1
    assert "# TYPE http_requests counter\n" in measured.page(OPENMETRICS)


@pytest.mark.parametrize(("window", "words"), [(600.0, "the last 10m "), (90.0, "the last 90s ")])
def test_rule_34_the_summary_says_its_unit_its_window_and_that_it_cannot_be_aggregated(
    window: float, words: str
) -> None:
    (text,) = (line for line in Measured(window=window).page().splitlines() if "HELP http_request_duration_ms" in line)

    assert "milliseconds" in text
    assert words in text
    assert "not aggregatable" in text
    assert "http_request_duration_seconds" in text


def test_rule_12_both_parsers_of_prometheus_client_read_the_same_numbers(measured: Measured) -> None:
    text = {name: value for name, value in measured.samples().items() if name.startswith("http_")}
    openmetrics = {name: value for name, value in measured.samples(OPENMETRICS).items() if name.startswith("http_")}

    assert text == openmetrics
    assert (
        text[key("http_request_duration_seconds_bucket", {"method": "GET", "path": "/orders/:id", "le": "0.025"})] == 1
    )
    assert text[key("http_requests_total", {"method": "GET", "path": '/100%s/"quoted"\\', "status": "500"})] == 1


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_rule_12_families_appear_once_and_the_lines_of_a_label_set_stand_together(
    measured: Measured, form: exposition.Format
) -> None:
    parse = text_families if form is TEXT else openmetrics_families
    names = [family.name for family in parse(measured.page(form))]
    assert len(names) == len(set(names))

    for family in parse(measured.page(form)):
        runs: list[tuple[str, ...]] = []
        for sample in family.samples:
            labels = (sample.labels.get("method", ""), sample.labels.get("path", ""))
            if family.name.startswith("http_") and (not runs or runs[-1] != labels):
                runs.append(labels)
        assert len(runs) == len(set(runs))


def test_rule_13_openmetrics_ends_with_one_eof_and_has_no_empty_line(measured: Measured) -> None:
    page = measured.page(OPENMETRICS)

    assert page.endswith("\n# EOF\n")
    assert page.count("# EOF") == 1
    assert "\n\n" not in page


def test_rule_13_text_has_no_exemplars_no_eof_and_no_created_series(measured: Measured) -> None:
    page = measured.page()

    assert TRACE_ID not in page
    assert " # {" not in page
    assert "EOF" not in page
    for form in (TEXT, OPENMETRICS):
        assert "_created" not in measured.page(form)


def test_openmetrics_carries_the_trace_of_a_bucket(measured: Measured) -> None:
    lines = measured.page(OPENMETRICS).splitlines()

    (line,) = (line for line in lines if TRACE_ID in line)
    sample, exemplar = line.split(" # ")
    assert sample == 'http_request_duration_seconds_bucket{method="GET",path="/orders/:id",le="0.025"} 1'
    assert exemplar == f'{{trace_id="{TRACE_ID}"}} 0.0125 {EPOCH:.3f}'


@pytest.mark.parametrize("trace_id", ["x" * 65, "\ud800", "a\nb", "é", '"', "a b", "}", "-"])
def test_a_trace_id_that_is_none_is_no_exemplar(trace_id: str) -> None:
    measured = Measured()

    measured.observe(1.0, trace_ids=[trace_id])

    assert " # {" not in measured.page(OPENMETRICS)
    body = exposition.render(PROTOBUF, measured.registry, measured.requests)
    histogram = protobuf_reader.families(body)["http_request_duration_seconds"]["metric"][0]["histogram"]
    assert histogram["exemplars"] == []


def test_protobuf_says_what_text_says_and_more(measured: Measured) -> None:
    found = protobuf_reader.families(exposition.render(PROTOBUF, measured.registry, measured.requests))
    text = measured.samples()
    labels = {"method": "GET", "path": "/orders/:id"}

    summary = protobuf_reader.metric(found["http_request_duration_ms"], **labels)["summary"]
    histogram = protobuf_reader.metric(found["http_request_duration_seconds"], **labels)["histogram"]
    counter = protobuf_reader.metric(found["http_requests_total"], **labels, status="200")["counter"]

    assert summary["sample_count"] == histogram["sample_count"] == counter["value"] == 2
    assert summary["sample_sum"] == text[key("http_request_duration_ms_sum", labels)]
    assert histogram["sample_sum"] == text[key("http_request_duration_seconds_sum", labels)]
    for quantile in summary["quantile"]:
        assert (
            quantile["value"]
            == text[key("http_request_duration_ms", {**labels, "quantile": str(quantile["quantile"])})]
        )
    for bucket in histogram["bucket"]:
        le = "+Inf" if bucket["upper_bound"] == math.inf else str(bucket["upper_bound"])
        assert bucket["cumulative_count"] == text[key("http_request_duration_seconds_bucket", {**labels, "le": le})]
    assert sum(protobuf_reader.native(histogram).values()) == 2
    assert histogram["created_timestamp"]["seconds"] == summary["created_timestamp"]["seconds"] == int(EPOCH)
    assert found["sidecar_build_info"]["type"] == "GAUGE"
    assert found["sidecar_lines_read_total"]["type"] == "COUNTER"
    assert found["sidecar_lines_read_total"]["metric"][0]["counter"]["value"] == 0


def test_protobuf_leaves_out_what_has_no_series() -> None:
    """A family without metrics is nothing a client library writes, and nothing a scraper need expect."""
    measured = Measured()

    found = protobuf_reader.families(exposition.render(PROTOBUF, measured.registry, measured.requests))

    assert found
    assert all(family["metric"] for family in found.values())
    assert not any(name.startswith("http_") for name in found)


def test_protobuf_writes_other_kinds_as_untyped_samples() -> None:
    measured = Measured()
    measured.registry.register(
        Fixed(metric("app", "summary", ("app_count", {"a": "b"}, 3.0), ("app_sum", {"a": "b"}, 4.5)))
    )

    found = protobuf_reader.families(exposition.render(PROTOBUF, measured.registry, measured.requests))

    assert found["app_count"]["type"] == "UNTYPED"
    assert found["app_sum"]["metric"][0]["untyped"]["value"] == 4.5


def test_rule_20_a_native_histogram_has_at_most_160_buckets_and_never_gets_finer_again() -> None:
    generator = random.Random(20)
    measured = Measured()
    schemas = []
    for spread in (0.1, 1.0, 3.0, 12.0, 0.1):
        measured.observe(*(min(generator.lognormvariate(0, spread), 8e7) for _ in range(3000)), route="/x")
        body = exposition.render(PROTOBUF, measured.registry, measured.requests)
        histogram = protobuf_reader.families(body)["http_request_duration_seconds"]["metric"][0]["histogram"]
        schemas.append(histogram["schema"])
        assert len(protobuf_reader.native(histogram)) <= 160
        assert len(histogram["bucket"]) == 15
        assert sum(protobuf_reader.native(histogram).values()) + histogram["zero_count"] == histogram["sample_count"]
    assert schemas == sorted(schemas, reverse=True)
    assert schemas[0] == 5
    assert schemas[-1] < 4

    measured.clock.pass_(10_000)
    measured.observe(1.0, route="/x")
    body = exposition.render(PROTOBUF, measured.registry, measured.requests)
    histogram = protobuf_reader.families(body)["http_request_duration_seconds"]["metric"][0]["histogram"]
    assert histogram["schema"] == schemas[-1]


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS, PROTOBUF], ids=["text", "openmetrics", "protobuf"])
def test_rule_18_a_collector_that_fails_takes_only_its_own_family_with_it(form: exposition.Format) -> None:
    measured = Measured()
    measured.observe(1.0)
    measured.registry.register(Broken())
    measured.registry.register(Fixed(metric("bad_label", "gauge", ("bad_label", {"a": 7}, 1.0))))
    measured.registry.register(Fixed(metric("good", "gauge", ("good", {"a": "b"}, 1.0))))

    body = exposition.render(form, measured.registry, measured.requests)

    for name in (b"http_request_duration_ms", b"sidecar_build_info", b"good"):
        assert name in body
    for name in (b"half", b"bad_label"):
        assert name not in body
    assert measured.own("sidecar_collector_errors_total") == 2
    assert "the disk is gone" in measured.log.getvalue()


def test_rule_17_a_label_of_the_registry_that_is_no_text_costs_only_its_family() -> None:
    measured = Measured()
    measured.registry.register(Fixed(metric("lone", "gauge", ("lone", {"a": "\ud800"}, 1.0))))

    assert "lone" not in measured.page()
    assert measured.own("sidecar_collector_errors_total") == 1


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS, PROTOBUF], ids=["text", "openmetrics", "protobuf"])
def test_a_family_that_two_collectors_have_appears_once(form: exposition.Format) -> None:
    measured = Measured()
    measured.registry.register(Fixed(metric("twice", "gauge", ("twice", {"a": "1"}, 1.0))))
    measured.registry.register(Fixed(metric("twice", "gauge", ("twice", {"a": "2"}, 2.0))))
    measured.registry.register(Fixed(metric("http_requests", "counter", ("http_requests_total", {}, 2.0))))

    body = exposition.render(form, measured.registry, measured.requests)

    if form is PROTOBUF:
        assert len(protobuf_reader.families(body)["twice"]["metric"]) == 1
    else:
        assert read(body.decode(), openmetrics=form is OPENMETRICS)['twice{a="1"}'] == 1.0
    assert measured.own("sidecar_collector_errors_total") == 2


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        ({"http_request_duration_ms"}, 12),
        ({"http_request_duration_ms_count"}, 2),
        ({"http_request_duration_ms_sum", "http_request_duration_ms_count"}, 4),
        ({"http_request_duration_seconds_bucket"}, 30),
        ({"http_request_duration_seconds"}, 34),
        ({"http_requests_total"}, 3),
        ({"http_requests"}, 3),
        ({"sidecar_lines_read_total"}, 1),
        ({"sidecar_records", "sidecar_build_info"}, 4),
        ({"nothing"}, 0),
        ({""}, 0),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_rule_16_names_leave_whole_families_or_single_samples(
    measured: Measured, names: set[str], samples: int
) -> None:
    for form in (TEXT, OPENMETRICS):
        page = measured.page(form, names)
        assert len(read(page, openmetrics=form is OPENMETRICS)) == samples
        assert page.count("# TYPE") == (
            len({name.split("_sum")[0].split("_count")[0] for name in names}) if samples else 0
        )


def test_rule_16_a_compressed_page_is_the_same_page(measured: Measured) -> None:
    for form in (TEXT, OPENMETRICS, PROTOBUF):
        names = families.NAMES
        plain = exposition.render(form, measured.registry, measured.requests, names)

        squeezed = exposition.render(form, measured.registry, measured.requests, names, gzip=True)

        assert gzip.decompress(squeezed) == plain
        assert len(squeezed) < len(plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (0, "0.0"),
        (1001, "1001.0"),
        (63.7, "63.7"),
        (1e-9, "1e-09"),
        (1e22, "1e+22"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_number_is_written_so_that_it_is_read_back(value: float, text: str) -> None:
    assert families.number(value) == text


def test_buckets_and_quantiles_have_canonical_labels() -> None:
    measured = Measured(quantiles=[0.50, 1, 0], buckets=[1, 0.25, 100])
    measured.observe(1.0)

    page = measured.page()

    for label in (
        'le="0.25"',
        'le="1.0"',
        'le="100.0"',
        'le="+Inf"',
        'quantile="0.0"',
        'quantile="0.5"',
        'quantile="1.0"',
    ):
        assert label in page


# concurrent scrapes


def many(sets: int = 3 * families.SETS_PER_TURN) -> Measured:
    measured = Measured()
    for number in range(sets):
        measured.observe(1.0, route=f"/route/{number:04}")
    return measured


async def test_rule_30_a_scrape_gives_way_to_others_between_slices() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    body = await renderer.render_async(TEXT)
    task.cancel()

    assert turns >= 3
    assert body.decode().partition("# HELP sidecar")[0] == measured.page().partition("# HELP sidecar")[0]


async def test_rule_30_concurrent_scrapes_share_one_run() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)

    bodies = await asyncio.gather(*(renderer.render_async(TEXT) for _ in range(20)))

    assert len({id(body) for body in bodies}) == 1


async def test_scrapes_of_different_formats_and_names_do_not_share() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)

    text, openmetrics, one, squeezed = await asyncio.gather(
        renderer.render_async(TEXT),
        renderer.render_async(OPENMETRICS),
        renderer.render_async(TEXT, {"http_requests_total"}),
        renderer.render_async(TEXT, gzip=True),
    )

    assert openmetrics.endswith(b"# EOF\n")
    assert not text.endswith(b"# EOF\n")
    assert len(one) < len(text)
    assert gzip.decompress(squeezed)[:100] == text[:100]


async def test_rule_30_a_scrape_after_new_observations_sees_them_though_another_is_under_way() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    early = asyncio.create_task(renderer.render_async(TEXT))
    await asyncio.sleep(0)

    measured.observe(1.0, route="/route/0000")
    measured.telemetry.lines_read(7)
    late = await asyncio.gather(*(renderer.render_async(TEXT) for _ in range(10)))

    name = key("http_request_duration_ms_count", {"method": "GET", "path": "/route/0000"})
    assert read((await early).decode())[name] == 1
    assert len({id(body) for body in late}) == 1
    samples = read(late[0].decode())
    assert samples[name] == 2
    assert samples["sidecar_lines_read_total{}"] == 7


async def test_a_scrape_that_joins_another_sees_what_the_registry_said_when_it_asked() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    early = asyncio.create_task(renderer.render_async(TEXT))
    await asyncio.sleep(0)

    measured.telemetry.lines_read(7)
    late = await renderer.render_async(TEXT)

    assert late is await early
    assert read(late.decode())["sidecar_lines_read_total{}"] == 7


async def test_a_scrape_that_comes_after_the_registry_was_asked_has_one_of_its_own() -> None:
    measured = Measured()
    renderer = Renderer(measured.registry, measured.requests)
    early = asyncio.create_task(renderer.render_async(TEXT))
    answers = [early]
    while not early.done():  # one comes in every turn, and knows a line more
        measured.telemetry.lines_read(1)
        answers.append(asyncio.create_task(renderer.render_async(TEXT)))
        await asyncio.sleep(0)

    read_lines = [read((await each).decode())["sidecar_lines_read_total{}"] for each in answers[1:]]
    assert all(lines >= number for number, lines in enumerate(read_lines, 1))
    assert len({id(await each) for each in answers}) == 2


async def test_a_scraper_that_hangs_up_leaves_the_others_their_answer() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    first = asyncio.create_task(renderer.render_async(TEXT))
    await asyncio.sleep(0)
    others = [asyncio.create_task(renderer.render_async(TEXT)) for _ in range(5)]
    await asyncio.sleep(0)

    first.cancel()

    assert len({id(body) for body in await asyncio.gather(*others)}) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_rule_07_all_lines_of_a_label_set_are_from_one_moment() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    scrape = asyncio.create_task(renderer.render_async(OPENMETRICS))
    while not scrape.done():
        for number in range(3 * families.SETS_PER_TURN):
            measured.observe(1.0, 1000.0, route=f"/route/{number:04}")
        await asyncio.sleep(0)

    samples = read(scrape.result().decode(), openmetrics=True)
    counts = set()
    for number in range(3 * families.SETS_PER_TURN):
        labels = {"method": "GET", "path": f"/route/{number:04}"}
        count = samples[key("http_request_duration_ms_count", labels)]
        assert samples[key("http_request_duration_seconds_count", labels)] == count
        assert samples[key("http_request_duration_seconds_bucket", {**labels, "le": "+Inf"})] == count
        assert samples[key("http_requests_total", {**labels, "status": "200"})] == count
        seconds = samples[key("http_request_duration_seconds_sum", labels)]
        assert seconds * 1000 == pytest.approx(samples[key("http_request_duration_ms_sum", labels)], rel=1e-9)
        counts.add(count)
    assert len(counts) > 1  # they did change under the scrape


async def test_series_created_during_a_scrape_do_not_disturb_it() -> None:
    measured = many()
    renderer = Renderer(measured.registry, measured.requests)
    scrape = asyncio.create_task(renderer.render_async(TEXT))
    number = 0
    while not scrape.done():
        measured.observe(1.0, route=f"/a/new/{number}")
        number += 1
        await asyncio.sleep(0)

    assert read(scrape.result().decode())


def test_the_duration_of_a_scrape_is_told_by_the_next() -> None:
    measured = Measured()
    assert read(measured.page())["sidecar_scrape_duration_seconds{}"] == 0

    assert 0 < read(measured.page())["sidecar_scrape_duration_seconds{}"] < 60


def test_rule_24_to_27_labels_come_from_the_table() -> None:
    measured = Measured(routes=["GET /orders/:id"])
    measured.observe(1.0, path="/orders/1?token=s3cret")
    measured.observe(1.0, path="/wp-login.php?x=s3cret", status=404)

    page = measured.page()

    assert 'path="/orders/:id"' in page
    assert f'path="{routes.UNMATCHED}"' in page
    assert "s3cret" not in page
    assert "wp-login" not in page
