"""A real Prometheus scrapes our pages and answers PromQL with the numbers that a plain computation gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from sidecar.metrics import exposition
from sidecar.metrics.exposition import Renderer
from tests.support.measured import OPENMETRICS, TRACE_ID, Clock, Measured, nearest_rank, read
from tests.support.patience import PATIENCE
from tests.support.ports import Port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_NOT_OURS = ("__name__", "job", "instance")


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: what a real Prometheus says of our pages cannot be tested")
    return found


# The milliseconds of each label set: a thin tail and a thick one, one value, a zero.
_random = random.Random(14)
REQUESTS = {
    ("GET", "/orders/:id"): [_random.lognormvariate(3, 1) for _ in range(5000)],
    ("POST", "/orders"): [5 * _random.paretovariate(1.5) for _ in range(2000)],
    ("GET", '/quo"ted\\é%'): [12.5],
    ("DELETE", "/orders/:id"): [0.0, 63.7, 1001.0],
}


def observed() -> Measured:
    measured = Measured(clock=Clock(time.time()), known=["GET /never/asked"])
    for (method, path), durations in REQUESTS.items():
        traces = [TRACE_ID] * len(durations)
        measured.observe(*durations, method=method, route=path, trace_ids=traces)
        measured.observe(unmeasured=2, method=method, route=path, status=503)
    measured.observe(7.0, path="/wp-login.php", status=404)
    return measured


# promtool


async def promtool(page: str) -> subprocess.CompletedProcess[str]:
    """Return what `promtool check metrics` says of a page."""
    return await asyncio.to_thread(
        subprocess.run,
        [program("promtool"), "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def test_rule_11_promtool_finds_nothing_but_the_unit_that_the_name_must_have() -> None:
    done = await promtool(observed().page())

    findings = (done.stdout + done.stderr).splitlines()
    assert findings == ["http_request_duration_ms metric names should not contain abbreviated units"]
    assert done.returncode == 3


async def test_rule_11_promtool_finds_nothing_at_all_before_the_first_request() -> None:
    done = await promtool(Measured().page())

    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


# a server of our pages, and a Prometheus that scrapes it


@dataclass
class Pages:
    """Serves what the renderer writes, and remembers what was asked for and answered."""

    measured: Measured
    answered: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._renderer = Renderer(self.measured.registry, self.measured.requests)

    async def metrics(self, request: web.Request) -> web.Response:
        form = exposition.TEXT if request.path == "/text" else exposition.negotiate(request.headers.get("Accept"))
        gzip = exposition.accepts_gzip(request.headers.get("Accept-Encoding"))
        self.answered.setdefault(request.path, set()).add(form.content_type)
        body = await self._renderer.render_async(form, gzip=gzip)
        headers = {"Content-Type": form.content_type, **({"Content-Encoding": "gzip"} if gzip else {})}
        return web.Response(body=body, headers=headers)


@dataclass
class Prometheus:
    """A running Prometheus."""

    session: aiohttp.ClientSession
    url: str

    async def get(self, path: str, **parameters: str) -> Any:
        async with self.session.get(f"{self.url}{path}", params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", told
        return told["data"]

    async def query(self, promql: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return each series' value by the labels that we gave it."""
        found = {}
        for series in (await self.get("/api/v1/query", query=promql))["result"]:
            labels = {name: value for name, value in series["metric"].items() if name not in _NOT_OURS}
            found[tuple(sorted(labels.items()))] = float(series["value"][1])
        return found

    async def exemplars(self, selector: str) -> Any:
        now = time.time()
        return await self.get("/api/v1/query_exemplars", query=selector, start=str(now - 3600), end=str(now + 3600))

    async def scraped(self, jobs: int) -> None:
        """Wait until every job has been scraped, and check that each scrape was accepted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(aiohttp.ClientError, AssertionError):
                up = await self.query("up")
                if len((await self.get("/api/v1/targets"))["activeTargets"]) == jobs and up:
                    targets = (await self.get("/api/v1/targets"))["activeTargets"]
                    if all(target["health"] != "unknown" for target in targets):
                        break
            assert time.monotonic() < deadline, "Prometheus did not scrape in time"
            await asyncio.sleep(0.1)
        assert [target["lastError"] for target in targets] == [""] * jobs
        assert [target["health"] for target in targets] == ["up"] * jobs


@contextlib.asynccontextmanager
async def scraping(
    measured: Measured, folder: Path, *, paths: tuple[str, ...], features: str = ""
) -> AsyncIterator[tuple[Prometheus, Pages]]:
    """Serve the measurements and have a Prometheus of its own scrape each path as one job."""
    binary = program("prometheus")
    pages = Pages(measured)
    app = web.Application()
    for path in paths:
        app.router.add_get(path, pages.metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    jobs = [
        {"job_name": path.strip("/"), "metrics_path": path, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for path in paths
    ]
    # What is late is a failed scrape, and its series are gone for a while: seconds, for a machine that is slow.
    settings = {"global": {"scrape_interval": "4s", "scrape_timeout": "4s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    with Port() as own, (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{own.number}",
            *([f"--enable-feature={features}"] if features else []),
            stdout=log,
            stderr=log,
        )
        try:
            async with aiohttp.ClientSession() as session:
                prometheus = Prometheus(session, own.url)
                await prometheus.scraped(len(paths))
                yield prometheus, pages
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await runner.cleanup()


def by(method: str, path: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"method": method, "path": path, **labels}.items()))


@dataclass
class Followed:
    """Measurements that a Prometheus scrapes."""

    measured: Measured
    prometheus: Prometheus
    pages: Pages


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def text(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Followed]:
    """A Prometheus as most run it, with one job that is always answered in text 0.0.4."""
    measured = observed()
    folder = tmp_path_factory.mktemp("text")
    async with scraping(measured, folder, paths=("/metrics", "/text"), features="exemplar-storage") as (run, pages):
        yield Followed(measured, run, pages)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def native(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Followed]:
    """A Prometheus that asks for protobuf first."""
    measured = observed()
    folder = tmp_path_factory.mktemp("native")
    features = "native-histograms,exemplar-storage"
    async with scraping(measured, folder, paths=("/metrics",), features=features) as (run, pages):
        yield Followed(measured, run, pages)


async def test_rule_14_prometheus_takes_both_text_formats(text: Followed) -> None:
    assert text.pages.answered == {
        "/metrics": {OPENMETRICS.content_type},
        "/text": {exposition.TEXT.content_type},
    }
    samples = await text.prometheus.query("scrape_samples_scraped")
    assert set(samples.values()) == {len(read(text.measured.page()))}


@pytest.mark.parametrize("job", ["metrics", "text"])
async def test_rule_14_promql_on_text_gives_what_a_plain_computation_gives(text: Followed, job: str) -> None:
    await agrees_with_plain_numbers(text, f'{{job="{job}"}}')


@pytest.mark.parametrize("job", ["metrics", "text"])
async def test_rule_14_a_classic_quantile_lies_in_the_bucket_of_the_exact_one(text: Followed, job: str) -> None:
    found = await text.prometheus.query(
        f'histogram_quantile(0.9, sum by (method, path, le) (http_request_duration_seconds_bucket{{job="{job}"}}))'
    )

    bounds = text.measured.requests.bounds
    for (method, path), durations in REQUESTS.items():
        exact = nearest_rank(durations, 0.9) / 1000
        upper = next(bound for bound in bounds if exact <= bound)
        lower = max((bound for bound in bounds if bound < exact), default=0.0)
        assert lower <= found[by(method, path)] <= upper


async def test_exemplars_reach_prometheus_by_openmetrics(text: Followed) -> None:
    exemplars = await text.prometheus.exemplars(
        'http_request_duration_seconds_bucket{path="/orders/:id",method="GET",job="metrics"}'
    )

    assert len({series["seriesLabels"]["le"] for series in exemplars if series["exemplars"]}) >= 5
    assert all(one["labels"] == {"trace_id": TRACE_ID} for series in exemplars for one in series["exemplars"])


async def agrees_with_plain_numbers(followed: Followed, job: str = "") -> None:
    query = followed.prometheus.query
    counts = await query(f"http_request_duration_ms_count{job}")
    sums = await query(f"http_request_duration_ms_sum{job}")
    totals = await query(f"http_requests_total{job}")
    quantiles = await query(f"http_request_duration_ms{job}")
    means = await query(f"http_request_duration_ms_sum{job} / http_request_duration_ms_count{job}")
    for (method, path), durations in REQUESTS.items():
        labels = by(method, path)
        assert counts[labels] == len(durations)
        assert sums[labels] == pytest.approx(sum(durations), rel=1e-12)
        assert means[labels] == pytest.approx(sum(durations) / len(durations), rel=1e-9)
        assert totals[by(method, path, status="200")] == len(durations)
        assert totals[by(method, path, status="503")] == 2
        for quantile in followed.measured.requests.quantiles:
            exact = nearest_rank(durations, quantile)
            assert quantiles[by(method, path, quantile=str(quantile))] == pytest.approx(exact, rel=0.0109)
    assert counts[by("GET", "/never/asked")] == 0
    assert counts[by("GET", "unmatched")] == 1
    assert len(counts) == len(REQUESTS) + 2


async def test_rule_14_promql_on_protobuf_gives_what_a_plain_computation_gives(native: Followed) -> None:
    assert native.pages.answered == {"/metrics": {exposition.PROTOBUF.content_type}}
    await agrees_with_plain_numbers(native)
    assert list((await native.prometheus.query("sidecar_build_info")).values()) == [1.0]
    assert list((await native.prometheus.query("sidecar_lines_read_total")).values()) == [0.0]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
async def test_rule_14_a_native_quantile_is_the_summary_within_one_bucket(native: Followed, quantile: float) -> None:
    query = native.prometheus.query
    found = await query(f"histogram_quantile({quantile}, http_request_duration_seconds)")
    summaries = await query(f'http_request_duration_ms{{quantile="{quantile}"}}')

    for one in native.measured.requests.all():
        durations = REQUESTS.get((one.method, one.path), [])
        if len(durations) < 1000:
            continue  # between two values far apart Prometheus interpolates, and it may
        schema, _, _ = one.native()
        width = 2.0 ** (2.0**-schema)
        summary = summaries[by(one.method, one.path, quantile=str(quantile))] / 1000
        exact = nearest_rank(durations, quantile) / 1000
        assert schema >= 4
        assert summary / width <= found[by(one.method, one.path)] <= summary * width
        assert exact / width <= found[by(one.method, one.path)] <= exact * width


async def test_rule_07_native_counts_and_sums_are_those_of_the_summary(native: Followed) -> None:
    counts = await native.prometheus.query("histogram_count(http_request_duration_seconds)")
    sums = await native.prometheus.query("histogram_sum(http_request_duration_seconds)")

    for (method, path), durations in REQUESTS.items():
        assert counts[by(method, path)] == len(durations)
        assert sums[by(method, path)] == pytest.approx(sum(durations) / 1000, rel=1e-12)
    assert counts[by("GET", "/never/asked")] == 0


async def test_rule_21_exemplars_reach_prometheus_by_protobuf(native: Followed) -> None:
    exemplars = await native.prometheus.exemplars('http_request_duration_seconds{path="/orders/:id"}')

    traces = {
        (series["seriesLabels"]["method"], one["labels"]["trace_id"])
        for series in exemplars
        for one in series["exemplars"]
    }
    assert traces == {("GET", TRACE_ID), ("DELETE", TRACE_ID)}


async def test_what_happens_between_two_scrapes_is_what_prometheus_sees_happen(tmp_path: Path) -> None:
    measured = observed()
    async with scraping(measured, tmp_path, paths=("/metrics",)) as (prometheus, _):
        measured.observe(*[20.0] * 500, method="POST", route="/orders")
        measured.requests.learn("PUT", "/late")
        deadline = time.monotonic() + PATIENCE
        while by("PUT", "/late") not in (counts := await prometheus.query("http_request_duration_ms_count")):
            assert time.monotonic() < deadline, "the next scrape did not come"
            await asyncio.sleep(0.1)

        assert counts[by("POST", "/orders")] == 2500
        assert counts[by("PUT", "/late")] == 0
        assert set((await prometheus.query("resets(http_request_duration_ms_count[1m])")).values()) == {0.0}
