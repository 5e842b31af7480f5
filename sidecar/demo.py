"""`sidecar demo`: the whole job with no other program.

A built-in service writes what Gin services write (text, zap, slog, our own records, errors, a panic); the sidecar
follows it as it would any COMMAND, serves its port, and pushes to a receiver on loopback that stands for Loki. The demo
ends by itself, after having asked its own /metrics and /health; the numbers it closes with are the last ones.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import aiohttp
import orjson
from aiohttp import web

from sidecar import app, config, console, formats, normalize, shutdown, validation
from sidecar.metrics import exposition
from sidecar.model import Lines
from sidecar.telemetry import Log, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PORT = 9180
_SERVICE = "shop"
_SHOWN = 7


def run(seconds: float, port: int | None) -> int:
    """Show the whole job for some seconds."""
    return asyncio.run(_Demo(seconds, port, sys.stdout).run())


class _Receiver:
    """Stands for Loki on a free port of loopback: takes pushes and counts what is in them."""

    def __init__(self) -> None:
        self.pushes = self.entries = 0
        self.streams: set[str] = set()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.add_routes([web.post("/loki/api/v1/push", self._push)])
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _push(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has undone the gzip already where it could
        document = orjson.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        self.pushes += 1
        for stream in document["streams"]:
            self.entries += len(stream["values"])
            self.streams.add(",".join(f'{key}="{value}"' for key, value in sorted(stream["stream"].items())))
        return web.Response(status=204)


class _Demo:
    def __init__(self, seconds: float, port: int | None, out: TextIO) -> None:
        self._seconds = seconds
        self._port = port
        self._out = out
        self._paint = console.Paint(out)
        self._address = ""
        self._ended_early = False

    async def run(self) -> int:
        self._title("what a service writes, and what it becomes")
        self._show_lines()
        receiver = _Receiver()
        await receiver.start()
        try:
            code, answers = await self._sidecar(receiver.url)
        finally:
            await receiver.stop()
        if self._ended_early and code != shutdown.EXIT_DEADLINE:
            code = 0  # whoever has seen enough ends the service, however it takes that: no failure of the demo
        if code == 0:
            self._report(answers, receiver)
        return code

    def _show_lines(self) -> None:
        """Show one line of each kind with its record."""
        paint = self._paint
        normalizer = normalize.Normalizer(
            normalize.Config(), validation.load(validation.Config()), service_name=_SERVICE
        )
        for name, line in _examples():
            record = normalizer.normalize(Lines([line.encode()])).records[0]
            self._say(f"  {paint('bold', name)}")
            self._say(f"    {console.printable(_plain(line), 150)}")
            reasons = ", ".join(f"{field}: {rule}" for field, rule in record.violations)
            outcome = paint(
                console.OUTCOME_COLOURS[record.outcome], record.outcome + (f" ({reasons})" if reasons else "")
            )
            self._say(f"    {paint('dim', '→')} {outcome} {paint('dim', console.printable(record.line.decode(), 150))}")

    async def _sidecar(self, loki_url: str) -> tuple[int, dict[str, str]]:
        """Run the sidecar on the demo service and ask its port while it runs."""
        settings = [
            f"service_name={_SERVICE}",
            "source.kind=command",
            "http.host=127.0.0.1",
            f"http.port={await _free_port(self._port)}",
            f"sinks.loki.url={loki_url}",
            "sinks.loki.batch.max_wait=500ms",
        ]
        loaded = config.load(sets=settings, environ={}, cwd=Path.cwd()).config
        telemetry = Telemetry(
            log=Log(cast("TextIO", _Quiet(self._say))), sinks=["loki"], formats=formats.NAMES, version="demo"
        )
        listening = asyncio.Event()

        def heard(host: str, port: int) -> None:
            self._address = f"http://{host}:{port}"
            listening.set()

        argv = [sys.executable, "-m", "sidecar.demo", str(self._seconds)]
        sidecar = app.App(loaded, argv=argv, telemetry=telemetry, on_listening=heard)
        self._title(f"the sidecar follows it for {self._seconds:g} s")
        answers: dict[str, str] = {}
        async with asyncio.TaskGroup() as group:
            job = group.create_task(sidecar.run(), name="sidecar")
            waiting = group.create_task(listening.wait(), name="listening")
            await asyncio.wait({job, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if listening.is_set():
                self._say(f"  look at  {self._paint('cyan', self._address + '/')}         the status page")
                self._say(f"           {self._paint('cyan', self._address + '/metrics')}  for Prometheus")
                self._say(f"           {self._paint('cyan', self._address + '/health')}   for Kubernetes")
                await self._watch(job, answers)
            waiting.cancel()
        self._ended_early = sidecar.asked_to_stop
        # The last scrape is older than what was counted when the port closed.
        answers["/metrics"] = exposition.render(exposition.TEXT, telemetry.registry, sidecar.requests).decode()
        return job.result(), answers

    async def _watch(self, job: asyncio.Task[int], answers: dict[str, str]) -> None:
        """Ask /metrics and /health until the job is done; the last answers are kept."""
        progress = console.Progress(self._out, " lines")
        async with aiohttp.ClientSession() as session:
            while not job.done():
                try:
                    for path in ("/metrics", "/health"):
                        async with session.get(self._address + path) as response:
                            text = await response.text()
                            if response.ok or path not in answers:  # in the end /health says that it ends
                                answers[path] = text
                except aiohttp.ClientError:
                    break  # it has just closed its port: the job is done
                progress.show(_number(answers["/metrics"], "sidecar_lines_read_total"))
                await asyncio.wait({job}, timeout=0.2)
        progress.clear()
        await job

    def _report(self, answers: dict[str, str], receiver: _Receiver) -> None:
        paint = self._paint
        metrics = answers["/metrics"]
        self._title("what Prometheus scrapes")
        wanted = ("http_request_duration_ms{", "http_request_duration_ms_count", "sidecar_records_total{")
        rows = [row for row in metrics.split("\n") if row.startswith(wanted)]
        shown = [row for row in rows if 'quantile="0.5"' in row or 'quantile="0.99"' in row or "quantile" not in row]
        for row in shown:
            name, _, value = row.rpartition(" ")
            self._say(f"  {name} {paint('bold', value)}")
        self._title("what arrived where Loki would be")
        self._say(f"  {paint('bold', str(receiver.entries))} entries in {receiver.pushes} pushes, streams:")
        for stream in sorted(receiver.streams):
            self._say(f"    {paint('dim', '{' + stream + '}')}")
        health = orjson.loads(answers.get("/health", "{}"))
        self._say("")
        self._say(f"  /health said {paint('green', str(health.get('status')))}. Try your own service next:")
        self._say(f"    {paint('cyan', 'sidecar run -- ./your-gin-service')}")
        self._say(f"    {paint('cyan', 'sidecar explain your.log')}")

    def _title(self, text: str) -> None:
        self._say("")
        self._say(self._paint("bold", text))

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class _Quiet:
    """Shows of the sidecar's own log only what a person must know."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> int:
        record = orjson.loads(text)
        if record["level"] in ("error", "warn") and record["event"] != "observation_rejected":
            self._say(f"  {record['level']}: {record['message']}")
        return len(text)

    def flush(self) -> None:
        """Nothing is held."""


def _plain(line: str) -> str:
    """Return a line for showing: its own newlines as arrows."""
    return line.replace("\n", " ⏎ ")


async def _free_port(wanted: int | None) -> int:
    """Return the port asked for, else 9180 when it is free, else any."""
    if wanted is not None:
        return wanted
    try:
        probe = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", _PORT)
    except OSError:
        return 0
    probe.close()
    await probe.wait_closed()
    return _PORT


def _number(metrics: str, name: str) -> int:
    row = next((row for row in metrics.split("\n") if row.startswith(name)), "0")
    return int(float(row.rpartition(" ")[2]))


# The demo service. It runs as a process of its own (`python -m sidecar.demo SECONDS`) and knows nothing of us.

_ROUTES = ("GET /orders/:id", "POST /orders", "GET /healthz", "GET /search")
_DEBUG = tuple(
    f"[GIN-debug] {route.split()[0]:<6} {route.split()[1]:<25} --> main.{name} (3 handlers)"
    for route, name in zip(_ROUTES, ("getOrder", "createOrder", "health", "search"), strict=True)
)
_PANIC = (
    "\n\n\x1b[31m{stamp} [Recovery] {gin} panic recovered:\n"
    "GET /orders/13 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: *\r\nCookie: sid=abc\r\n\r\n\n"
    "runtime error: invalid memory address or nil pointer dereference\n"
    "/src/orders/handler.go:26 (0x6e8830)\n/go/pkg/mod/github.com/gin-gonic/gin@v1.12.0/context.go:192 (0x6db89e)\n"
    "\x1b[0m"
)


def _gin(rng: random.Random, now: datetime) -> str:
    ms = rng.lognormvariate(2.5, 0.8)
    status = rng.choices((200, 404, 500), (92, 5, 3))[0]
    path = f"/orders/{rng.randrange(1000)}" if status != 404 else f"/wp-admin/{rng.randrange(100)}"
    return (
        f'[GIN] {now:%Y/%m/%d - %H:%M:%S} | {status} | {ms:8.2f}ms |      10.42.0.17 | GET      "{path}?token=s3cr3t"'
    )


def _zap(rng: random.Random, now: datetime) -> str:
    return orjson.dumps(
        {
            "level": "info",
            "ts": now.timestamp(),
            "caller": "zap/zap.go:125",
            "msg": "/orders",
            "status": rng.choices((201, 409), (97, 3))[0],
            "method": "POST",
            "path": "/orders",
            "query": "",
            "ip": "10.42.0.18",
            "user-agent": "curl/8.5.0",
            "latency": round(rng.lognormvariate(-4.0, 0.5), 9),
            "trace_id": f"{rng.getrandbits(128):032x}",
        }
    ).decode()


def _slog(rng: random.Random, now: datetime) -> str:
    request = {"time": now.isoformat(), "method": "GET", "path": "/search", "route": "/search", "ip": "10.42.0.19"}
    return orjson.dumps(
        {
            "time": now.isoformat(),
            "level": "INFO",
            "msg": "Incoming request",
            "request": request,
            "response": {"latency": int(rng.lognormvariate(16.5, 0.6)), "status": 200, "length": 512},
            "id": f"req-{rng.randrange(10**6)}",
        }
    ).decode()


def _canonical(rng: random.Random, now: datetime) -> str:
    return orjson.dumps(
        {
            "timestamp": now.isoformat().replace("+00:00", "Z"),
            "level": "info",
            "service_name": _SERVICE,
            "trace_id": f"{rng.getrandbits(128):032x}",
            "message": "request completed",
            "method": "GET",
            "route": "/healthz",
            "path": "/healthz",
            "status": 200,
            "duration_ms": round(rng.lognormvariate(0.0, 0.3), 3),
        }
    ).decode()


_KINDS = (_gin, _zap, _slog, _canonical)


def _examples() -> Iterator[tuple[str, str]]:
    rng = random.Random(7)  # noqa: S311  a demo, not a secret
    now = datetime.now(UTC)
    for name, make in zip(("gin's text logger", "zap", "slog", "the schema itself"), _KINDS, strict=True):
        yield name, make(rng, now)


def serve(seconds: float, out: TextIO) -> None:
    """Write what a busy Gin service writes, for some seconds."""
    rng = random.Random(11)  # noqa: S311  a demo, not a secret
    out.write("\n".join(_DEBUG) + "\n")
    end = time.monotonic() + seconds
    panicked = False
    while (left := end - time.monotonic()) > 0:
        now = datetime.now(UTC)
        out.writelines(rng.choices(_KINDS, (4, 2, 2, 2))[0](rng, now) + "\n" for _ in range(20))
        if not panicked and left < seconds / 2:
            panicked = True
            out.write(_PANIC.format(stamp=f"{now:%Y/%m/%d %H:%M:%S}", gin=f"{now:%Y/%m/%d - %H:%M:%S}") + "\n")
        out.flush()
        time.sleep(0.1)


if __name__ == "__main__":
    serve(float(sys.argv[1]), sys.stdout)
