"""The one HTTP port: metrics, health and a status page, on aiohttp.

Problem: this port is asked by probes that restart the pod, by scrapers with a deadline, by people, and by whoever else
reaches the pod; and it is on the same event loop as the logs.
Promise: every answer comes from what is already known, except the application's page on /metrics/merged, which has a
deadline. What is asked wrongly gets a 4xx, never a traceback. Nothing here reads a request's body or changes anything.
Long answers are compressed in slices, so that nobody's scrape delays somebody's probe. Refused: access logs (our log
is about data) and scripts on the page.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar import merge, status_page
from sidecar.errors import SidecarError
from sidecar.metrics import exposition, negotiation
from sidecar.options import option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.health import Health
    from sidecar.telemetry import Telemetry

STOP_SECONDS = 2.0  # what a request in progress gets when the server stops
_KEEP_ALIVE_SECONDS = 75.0  # longer than any usual scrape interval, short enough for connections nobody uses
_COMPRESSED_AT_ONCE = 64 << 10  # less than 1 ms
_PATHS = "/metrics, /metrics/merged, /health, /livez, /readyz, /"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": "gin-sidecar",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `http`."""

    host: str = option("0.0.0.0", "Address to listen on.")  # noqa: S104  a pod's port is for the cluster to reach
    port: int = option(9180, "Port of /metrics and /health; 0 picks a free one.", minimum=0, maximum=65535)


class ServerError(SidecarError):
    """The port cannot be listened on."""


def create(
    *,
    config: Config,
    health: Health,
    renderer: exposition.Renderer,
    protobuf: bool,
    merger: merge.Merger,
    telemetry: Telemetry,
    page: Callable[[], status_page.Page],
    settle: Callable[[], Awaitable[None]] | None = None,
) -> Server:
    """Return the server, not listening yet. `protobuf` says whether scrapers may have that (native histograms).

    `settle` returns when what was visible at its call is saved: it is awaited between what is shown and the answer.
    """
    routes = _Routes(health, renderer, merger, page, settle or _nothing, protobuf=protobuf)
    return Server(config, routes, merger, telemetry)


async def _nothing() -> None:
    """Nothing is saved: there is nothing to wait for."""


class Server:
    """Listens from `start` to `stop`."""

    def __init__(self, config: Config, routes: _Routes, merger: merge.Merger, telemetry: Telemetry) -> None:
        self._config = config
        self._merger = merger
        app = web.Application(middlewares=[_explain])
        app.add_routes(
            [
                web.get("/", routes.page),
                web.get("/metrics", routes.metrics),
                web.get("/metrics/merged", routes.merged),
                web.get("/health", routes.health),
                web.get("/livez", routes.livez),
                web.get("/readyz", routes.readyz),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_logger(telemetry),
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        self.port = config.port  # from `start` on the real one

    async def start(self) -> None:
        """Listen. Raises ServerError where that cannot be."""
        host, port = self._config.host, self._config.port
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ServerError(f"cannot listen on {host}:{port}: {_why(error)}") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; requests in progress get a moment to finish. Idempotent."""
        await self._runner.cleanup()
        await self._merger.close()


class _Routes:
    """What each address answers."""

    def __init__(
        self,
        health: Health,
        renderer: exposition.Renderer,
        merger: merge.Merger,
        page: Callable[[], status_page.Page],
        settle: Callable[[], Awaitable[None]],
        *,
        protobuf: bool,
    ) -> None:
        self._health = health
        self._renderer = renderer
        self._protobuf = protobuf
        self._merger = merger
        self._page = page
        self._settle = settle

    async def metrics(self, request: web.Request) -> web.Response:
        form = exposition.negotiate(_header(request, "Accept"), protobuf=self._protobuf)
        gzip = _takes_gzip(request)
        body = await self._renderer.render_async(form, _names(request), gzip=gzip)
        await self._settle()
        return _metrics_answer(body, form, gzip=gzip)

    async def merged(self, request: web.Request) -> web.Response:
        names = _names(request)
        body = await self._merger.page(
            lambda: self._renderer.render_async(exposition.TEXT, names),
            seconds=merge.deadline(request.headers.get("X-Prometheus-Scrape-Timeout-Seconds")),
            wanted=names,
        )
        await self._settle()
        gzip = _takes_gzip(request)
        return _metrics_answer(await _gzip(body) if gzip else body, exposition.TEXT, gzip=gzip)

    async def health(self, request: web.Request) -> web.Response:
        report = self._health.report()
        status = 503 if report.status == "fail" else 200
        vary = {"Vary": "Accept"}
        if _prefers_text(_header(request, "Accept")):
            return web.Response(text=report.text() + "\n", status=status, headers=vary)
        return web.Response(body=report.json(), content_type="application/health+json", status=status, headers=vary)

    async def livez(self, request: web.Request) -> web.Response:
        live = self._health.live()
        lines = [_verdict("event-loop", "" if live else "has not turned for a while")]
        return _checks(request, "livez", lines, passed=live)

    async def readyz(self, request: web.Request) -> web.Response:
        gates = self._health.gates()
        lines = [_verdict(gate.name, gate.reason) for gate in gates]
        return _checks(request, "readyz", lines, passed=not any(gate.reason for gate in gates))

    async def page(self, request: web.Request) -> web.Response:
        html = status_page.render(self._page(), live="pause" not in request.query)
        await self._settle()
        return web.Response(
            text=html, content_type="text/html", headers={"Content-Security-Policy": status_page.content_policy()}
        )


@web.middleware
async def _explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say what there is where somebody asks for what there is not."""
    try:
        return await handler(request)
    except web.HTTPNotFound as error:
        error.text = f"404: there is nothing here; there is {_PATHS}\n"
        raise
    except web.HTTPMethodNotAllowed as error:
        error.text = f"405: only {', '.join(sorted(error.allowed_methods))}\n"
        raise


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _takes_gzip(request: web.Request) -> bool:
    return exposition.accepts_gzip(_header(request, "Accept-Encoding"))


def _metrics_answer(body: bytes, form: exposition.Format, *, gzip: bool) -> web.Response:
    headers = {"Content-Type": form.content_type, "Vary": "Accept, Accept-Encoding"}
    if gzip:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, headers=headers)


async def _gzip(body: bytes) -> bytes:
    """Compress in slices: a merged page of 10 MiB takes 60 ms."""
    squeeze = zlib.compressobj(exposition.GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)
    parts = []
    for start in range(0, len(body), _COMPRESSED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        parts.append(squeeze.compress(body[start : start + _COMPRESSED_AT_ONCE]))
    parts.append(squeeze.flush())
    return b"".join(parts)


def _checks(request: web.Request, name: str, lines: list[str], *, passed: bool) -> web.Response:
    """Answer a probe the way the API server does: the status is for machines, the text for people."""
    if passed and "verbose" not in request.query:
        text = "ok\n"
    else:
        text = "".join(f"{line}\n" for line in (*lines, f"{name} check {'passed' if passed else 'failed'}"))
    return web.Response(text=text, status=200 if passed else 503)


def _verdict(name: str, reason: str) -> str:
    return f"[-]{name} failed: {reason}" if reason else f"[+]{name} ok"


def _header(request: web.Request, name: str) -> str | None:
    """Return a header that may come in several lines."""
    return ",".join(request.headers.getall(name, ())) or None


def _names(request: web.Request) -> frozenset[str] | None:
    return frozenset(request.query.getall("name[]", ())) or None


def _prefers_text(accept: str | None) -> bool:
    """Say whether text/plain is asked for, and not less than JSON; anything vaguer gets JSON."""
    weigh = negotiation.weights(accept)
    text = weigh.get("text/plain", 0.0)
    return 0 < text >= max(weigh.get("application/health+json", 0.0), weigh.get("application/json", 0.0))


def _why(error: OSError) -> str:
    """Say what is wrong with the address and what to do, in one line."""
    port, host = "http.port (SIDECAR_HTTP_PORT)", "http.host (SIDECAR_HTTP_HOST)"
    match error.errno:
        case errno.EADDRINUSE:
            return f"another process of this pod listens there; set {port} to a free port"
        case errno.EACCES:
            return f"ports below 1024 need a privilege; set {port} to a higher one"
        case errno.EADDRNOTAVAIL:
            return f"there is no such address here; set {host} to one there is, or to 0.0.0.0"
        case int(number) if number > 0:
            return f"{os.strerror(number)}; check {host} and {port}"
        case _:
            return f"{error.strerror or error}; check {host}"


def _logger(telemetry: Telemetry) -> logging.Logger:
    """Return what aiohttp logs to: a request it cannot read is no news of ours, a handler that fails is."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            if not isinstance(error, HttpProcessingError):
                telemetry.http_failed(record.getMessage(), error)

    logger = logging.Logger("sidecar.server", logging.WARNING)  # noqa: LOG001  not shared, not configured by others
    logger.addHandler(Forward())
    return logger
