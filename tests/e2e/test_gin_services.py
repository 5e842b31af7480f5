"""What a Gin service answered is what the sidecar counted, whichever way the service logs.

A ginapp is started by `sidecar run -- ginapp …`, asked a known mix of requests, and stopped. Each way of logging is
run once; each test states one truth about all runs. Not counted by anybody who reads logs, and therefore not here:
redirects of Gin's router (no middleware sees them), requests that panic through a logger registered inside recovery,
and what zap's sampler drops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import drive
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
REQUESTS = 300


@dataclass(frozen=True)
class Service:
    """How a service is started, and what the sidecar has to be told about it."""

    name: str
    tells_routes: bool = True  # by a field, or by the table that Gin prints in debug mode
    forgery: bool = True  # False: prints paths raw, so that a line feed in one splits its line
    exact: bool = True  # False: latencies in whole milliseconds of which nobody says so
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def command(self) -> tuple[str, ...]:
        return self.arguments or ("-logger", self.name)


SERVICES = (
    Service("gin"),
    Service("gin-release", tells_routes=False),
    Service("gin-color", arguments=("-logger", "gin", "-color")),
    Service("gin-formatter", forgery=False),
    Service("ginzap", tells_routes=False),
    Service("ginzap-debug", arguments=("-logger", "ginzap"), environment=(("GIN_MODE", "debug"),)),
    Service("ginzap-dev", forgery=False),
    Service("zap-millis", tells_routes=False, exact=False),
    Service("logger-console"),
    Service("logger-json", tells_routes=False),
    Service("gin-slog-json"),
    Service("gin-slog-text"),
    Service("slog-gin-json"),
    Service("slog-gin-text"),
    Service("logrus-json", tells_routes=False),
    Service("logrus-text"),
    Service("zerolog"),
    Service("canonical"),
    Service("double", tells_routes=False),
    Service("otel"),
)

Metrics = dict[str, dict[tuple[tuple[str, str], ...], float]]


@dataclass
class Sidecar:
    """A running `sidecar run -- ginapp …`."""

    process: asyncio.subprocess.Process
    address: str = ""  # of the service
    port: int = 0
    own_log: list[dict[str, Any]] = field(default_factory=list)
    out: bytes = b""

    async def metrics(self) -> Metrics:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return parse(await answer.text())

    async def settled(self, requests: int) -> Metrics:
        """Return the metrics once at least so many requests are counted and nothing moves any more."""
        before, same = await self.metrics(), 0
        async with asyncio.timeout(PATIENCE):
            while same < 5 or total(before, "http_requests_total") < requests:
                await asyncio.sleep(0.05)
                now = await self.metrics()
                same = same + 1 if now["sidecar_lines_read_total"] == before["sidecar_lines_read_total"] else 0
                before = now
        return before


def parse(text: str) -> Metrics:
    metrics: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metrics.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return metrics


def total(metrics: Metrics, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for key, value in metrics.get(name, {}).items() if wanted <= set(key))


def counted(metrics: Metrics) -> Counter[tuple[str, str, int]]:
    """(method, path, status) → requests, as the sidecar counted them."""
    found: Counter[tuple[str, str, int]] = Counter()
    for key, value in metrics.get("http_requests_total", {}).items():
        labels = dict(key)
        found[labels["method"], labels["path"], int(labels["status"])] += int(value)
    return +found


def expected(answered: Counter[tuple[str, str, int]]) -> Counter[tuple[str, str, int]]:
    """The same, as it must be: methods that HTTP does not define share one label."""
    wanted: Counter[tuple[str, str, int]] = Counter()
    for (method, route, status), count in answered.items():
        wanted["_OTHER" if method == "PROPFIND" else method, route, status] += count
    return wanted


@contextlib.asynccontextmanager
async def follow(ginapp: Path, directory: Path, service: Service, **options: object) -> AsyncIterator[Sidecar]:
    """Run the service under the sidecar; stop both by one signal to the sidecar and wait until they are gone."""
    told = directory / "address"
    os.mkfifo(told)
    config: dict[str, Any] = {
        "service_name": "ginapp",
        "source": {"idle_flush": "100ms"},
        "http": {"host": "127.0.0.1", "port": 0},
        "drain_seconds": "1m",
        "metrics": {"routes": [] if service.tells_routes else list(drive.ROUTES)},
        **options,
    }
    file = directory / "sidecar.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "OTEL_"))}
    environment |= {"TZ": "UTC", "PYTHONPATH": str(ROOT), **dict(service.environment)}
    command = [sys.executable, "-m", "sidecar", "run", "-c", file, "--", ginapp, *service.command, "-addr-file", told]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    sidecar = Sidecar(process)
    listening = asyncio.Event()

    async def read_own_log() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            entry = orjson.loads(line) if line.startswith(b"{") else {"event": "", "message": line.decode()}
            sidecar.own_log.append(entry)
            if entry.get("event") == "listening":
                sidecar.port = entry["port"]
                listening.set()
        listening.set()

    async def read_records() -> None:
        assert process.stdout is not None
        while block := await process.stdout.read(1 << 16):
            sidecar.out += block

    async with asyncio.TaskGroup() as readers:
        readers.create_task(read_own_log())
        readers.create_task(read_records())
        try:
            async with asyncio.timeout(PATIENCE):
                await listening.wait()
            assert sidecar.port, f"the sidecar did not start: {sidecar.own_log}"
            sidecar.address = await drive.listening(told)
            yield sidecar
            sidecar.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


@dataclass
class Run:
    """One service, started, asked, and stopped."""

    service: Service
    driven: drive.Driven
    metrics: Metrics  # when everything asked had been counted
    out: bytes
    exit_code: int
    own_log: list[dict[str, Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


async def run(ginapp: Path, directory: Path, service: Service) -> Run:
    requests = drive.mix(seed=20261006, count=REQUESTS, forgery=service.forgery, errors=service.exact)
    async with follow(ginapp, directory, service) as sidecar:
        driven = await drive.drive(sidecar.address, requests)
        metrics = await sidecar.settled(driven.answered.total())
    assert sidecar.process.returncode is not None
    return Run(service, driven, metrics, sidecar.out, sidecar.process.returncode, sidecar.own_log)


@pytest.fixture(scope="session")
def run_of(ginapp: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Service], Run]:
    """Return what runs a service, once however often it is asked for."""
    runs: dict[Service, Run] = {}

    def get(service: Service) -> Run:
        if service not in runs:
            runs[service] = asyncio.run(run(ginapp, tmp_path_factory.mktemp(service.name), service))
        return runs[service]

    return get


every_service = pytest.mark.parametrize("service", SERVICES, ids=str)


@every_service
def test_every_request_is_counted_once_under_its_route(service: Service, run_of: Callable[[Service], Run]) -> None:
    done = run_of(service)

    assert counted(done.metrics) == expected(done.driven.answered)
    assert done.driven.unlogged, "redirects were asked for, and no log knows of them"


@every_service
def test_durations_are_those_the_clients_saw(service: Service, run_of: Callable[[Service], Run]) -> None:
    """/slow tells the unit: what it slept is a lower bound of what was measured, what its clients waited an upper."""
    done = run_of(service)
    slow = {"method": "GET", "path": "/slow"}

    measured = total(done.metrics, "http_request_duration_seconds_count", **slow)
    seconds = total(done.metrics, "http_request_duration_seconds_sum", **slow)
    asked = sum(count for (_, route, _), count in done.driven.answered.items() if route == "/slow")

    if service.exact:
        assert measured == asked
        # Gin's text and whole milliseconds are rounded, the first down and the others up.
        assert done.driven.slept["GET", "/slow"] * 0.999 <= seconds
        assert seconds <= done.driven.seconds["GET", "/slow"] + asked * 0.001
    elif measured:
        assert 0.001 <= seconds / measured <= done.driven.seconds["GET", "/slow"]


@every_service
def test_every_request_is_measured_or_its_rejection_counted(service: Service, run_of: Callable[[Service], Run]) -> None:
    done = run_of(service)

    rejected = total(done.metrics, "sidecar_request_observations_rejected_total")
    measured = total(done.metrics, "http_request_duration_seconds_count")

    assert measured + rejected == done.driven.answered.total()
    if service.exact:
        assert rejected == 0
    summaries = done.metrics["http_request_duration_ms_count"]
    assert summaries == done.metrics["http_request_duration_seconds_count"]


@every_service
@pytest.mark.parametrize(
    ("route", "told"),
    [("/panic", "assignment to entry in nil map"), ("/panic-string", "item 9: unknown warehouse")],
)
def test_a_panic_is_one_record(service: Service, route: str, told: str, run_of: Callable[[Service], Run]) -> None:
    done = run_of(service)
    panics = sum(count for (_, path, _), count in done.driven.answered.items() if path == route)

    records = [record for record in done.records if told in orjson.dumps(record).decode()]

    assert len(records) == panics
    assert {record["level"] for record in records} == {"error"}
    assert all("routes.go" in orjson.dumps(record).decode() for record in records), "the stack belongs to the panic"
    if route == "/panic-string":
        assert all("inventory check failed" in orjson.dumps(record).decode() for record in records)


@every_service
def test_secrets_stay_in_the_pod(service: Service, run_of: Callable[[Service], Run]) -> None:
    assert drive.SECRET.encode() not in run_of(service).out


@every_service
def test_every_line_is_accounted_for(service: Service, run_of: Callable[[Service], Run]) -> None:
    metrics = run_of(service).metrics

    assert total(metrics, "sidecar_lines_read_total") == (
        total(metrics, "sidecar_records_total")
        + total(metrics, "sidecar_lines_joined_total")
        + total(metrics, "sidecar_lines_skipped_total")
    )
    assert total(metrics, "sidecar_sink_records_total", sink="stdout", outcome="sent") == total(
        metrics, "sidecar_records_total"
    )
    assert total(metrics, "sidecar_lost_bytes_total") == 0


@every_service
def test_stdout_holds_records_and_the_last_line_is_there(service: Service, run_of: Callable[[Service], Run]) -> None:
    done = run_of(service)

    for record in done.records:
        assert record["level"] in {"trace", "debug", "info", "warn", "error", "fatal"}
        assert record["timestamp"]
        assert record["service_name"] == "ginapp"
    assert sum("server stopped" in record.get("message", "") for record in done.records) == 1
    assert len(done.records) >= total(done.metrics, "sidecar_records_total")


@every_service
def test_the_signal_reaches_the_service_and_its_exit_code_comes_back(
    service: Service, run_of: Callable[[Service], Run]
) -> None:
    done = run_of(service)

    assert done.exit_code == 0
    assert [entry for entry in done.own_log if entry.get("level") in {"error", "fatal", None}] == []


@pytest.mark.parametrize("service", [each for each in SERVICES if each.name in {"canonical", "otel"}], ids=str)
def test_trace_ids_arrive(service: Service, run_of: Callable[[Service], Run]) -> None:
    done = run_of(service)

    assert done.driven.trace_ids <= {record.get("trace_id") for record in done.records}


def test_canonical_lines_are_valid_and_untouched(run_of: Callable[[Service], Run]) -> None:
    done = run_of(next(each for each in SERVICES if each.name == "canonical"))

    assert total(done.metrics, "sidecar_records_total") == total(done.metrics, "sidecar_records_total", outcome="valid")
    # The service's own order of fields, where the canonical order begins with the timestamp.
    assert all(line.startswith(b'{"level":') for line in done.out.splitlines())


async def test_panics_inside_recovery_have_no_access_line(ginapp: Path, tmp_path: Path) -> None:
    """Recovery registered before the logger: the panic unwinds the logger, which then writes nothing."""
    service = Service("gin", arguments=("-logger", "gin", "-recovery-first"))

    requests = drive.mix(seed=7, count=60)
    # The other kind of broken pipe is an error that the renderer keeps to itself.
    panics = {"/panic?item=7", "/panic-string", "/broken-pipe"}
    survivors = Counter(request.key for request in requests if request.logged and request.target not in panics)

    async with follow(ginapp, tmp_path, service) as sidecar:
        driven = await drive.drive(sidecar.address, requests)
        metrics = await sidecar.settled(survivors.total())

    assert counted(metrics) == expected(survivors)
    assert driven.answered.total() > survivors.total()


async def test_what_a_sampler_drops_is_not_counted_and_what_it_writes_is(ginapp: Path, tmp_path: Path) -> None:
    """zap.NewProduction() keeps 100 lines of a message in a second, then every 100th; ginzap's message is the path."""
    async with follow(ginapp, tmp_path, Service("ginzap-sampled", tells_routes=False)) as sidecar:
        answered = await drive.flood(sidecar.address, "/ping", 5000)
        metrics = await sidecar.settled(100)

    written = sum(orjson.loads(line).get("path") == "/ping" for line in sidecar.out.splitlines())
    assert answered == 5000
    assert 100 <= written < answered
    assert counted(metrics) == Counter({("GET", "/ping", 200): written})


async def test_a_panic_at_the_end_is_one_fatal_record_and_the_exit_code_is_the_services(
    ginapp: Path, tmp_path: Path
) -> None:
    service = Service("gin-release", tells_routes=False, arguments=("-logger", "gin-release", "-panic-at-exit"))

    async with follow(ginapp, tmp_path, service) as sidecar:
        await drive.drive(sidecar.address, drive.mix(seed=3, count=40))

    last = [orjson.loads(line) for line in sidecar.out.splitlines() if b"flush: 3 orders not stored" in line]
    assert sidecar.process.returncode == 2
    assert [record["level"] for record in last] == ["fatal"]
    assert "connection refused" in last[0]["message"] + last[0].get("error", "")
    assert "main.serve.func" in orjson.dumps(last[0]).decode()
