"""The admission webhook: two ports, one with TLS for the API server, one plain for probes and scrapes.

Problem: the API server waits for this answer whenever a pod is made, so it must be there, quick, and never `no`.
Promise: a review gets 200 and is allowed, whatever its pod looks like; only what is no review gets a 4xx. A certificate
that is not there yet is waited for, a new one is in use within seconds, and no connection is lost by it. After SIGTERM
requests are answered until the API server has learned of it. Refused: any call to anybody while answering.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

from aiohttp import web

from sidecar.errors import ConfigError, Problem, SidecarError
from sidecar.injector import certificates, events, patch, review, settings
from sidecar.telemetry import Log

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from sidecar.injector.settings import Config

BODY_BYTES = 10 << 20
POLL_SECONDS = 2.0  # how often the certificate's files are looked at
_PATIENCE = 2  # so many looks in a row must fail before we count as not ready: files are replaced one by one
_STOP_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 120.0  # the API server keeps its connections, and a new one costs a handshake
_PATHS = {"/mutate/cri": "cri", "/mutate/api": "api"}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class ListenError(SidecarError):
    """A port cannot be listened on."""


def run(config: Config) -> int:
    """Serve until a signal comes, and return the exit code."""
    missing = [
        Problem(f"injector.{name}", "required: a PEM file for TLS")
        for name in ("cert_file", "key_file")
        if not getattr(config, name)
    ]
    if missing:
        raise ConfigError(missing)
    return asyncio.run(Webhook(config, events.Events(Log())).run())


class Webhook:
    """Both ports, from start to stop."""

    def __init__(self, config: Config, said: events.Events) -> None:
        self._config = config
        self._events = said
        self._certificates = certificates.Certificates(config.cert_file, config.key_file)
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._failed_looks = 0
        self._reviews = _runner(_review_app(config, said))
        self._health = _runner(self._health_app())
        self.port = 0  # of the webhook; 0 until it listens
        self.health_port = 0

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then linger, then close."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.start()
        try:
            while not await self._waited(self._stopping, POLL_SECONDS):
                await self.look()
                self._events.log.catch_up()
            self._events.log.info("stopping", "not ready any more; answering what still comes")
            if await self._waited(self._hurrying, self._config.linger):
                self._events.log.info("stopping_now", "a second signal: not waiting any longer")
        finally:
            await self.close()
        return 0

    def stop(self) -> None:
        """Stop, after lingering; asked again, at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def start(self) -> None:
        """Listen on the plain port, and on the other one as soon as there is a certificate. Raises ListenError."""
        self.health_port = await _listen(self._health, self._config.http, None)
        self._events.log.info("listening", "serving /livez, /readyz and /metrics", port=self.health_port)
        await self.look()

    async def look(self) -> None:
        """Look at the certificate's files, and listen once they hold one."""
        before = self._certificates.loads
        changed = self._certificates.refresh()
        problem = self._certificates.problem
        self._failed_looks = self._failed_looks + 1 if problem else 0
        if changed:
            self._events.certificate(
                problem,
                loaded=self._certificates.loads > before,
                not_after=self._certificates.not_after,
                file=self._config.cert_file,
            )
        if self._certificates.ready and not self.port:
            self.port = await _listen(self._reviews, self._config.listen, self._certificates.context())
            self._events.log.info("webhook_listening", "answering admission reviews", port=self.port)

    async def close(self) -> None:
        """Close both ports, the plain one last. Idempotent."""
        await self._reviews.cleanup()
        await self._health.cleanup()
        self._events.log.flush()

    def unready(self) -> str:
        """Return why the API server should not ask this replica; "" where it may."""
        if self._stopping.is_set():
            return "stopping"
        if not self._certificates.ready:
            return f"certificate: {self._certificates.problem}"
        if self._failed_looks >= _PATIENCE:
            return f"certificate: {self._certificates.problem}"
        if 0 < self._certificates.not_after < time.time():
            return "certificate: expired"
        return ""

    def _health_app(self) -> web.Application:
        async def livez(_request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_request: web.Request) -> web.Response:
            reason = self.unready()
            return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=self._events.metrics(), headers={"Content-Type": _TEXT})

        app = web.Application()
        app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
        return app

    @staticmethod
    async def _waited(event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


def _review_app(config: Config, said: events.Events) -> web.Application:
    app = web.Application(client_max_size=BODY_BYTES)
    app.add_routes([web.post(path, _handler(config, said, mode)) for path, mode in _PATHS.items()])
    return app


def _handler(config: Config, said: events.Events, mode: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            said.refused("content_type", "not application/json")
            return _plain(415, "expected Content-Type: application/json")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            said.refused("too_large", f"more than {BODY_BYTES} bytes")
            raise
        started = time.perf_counter()
        try:
            asked = review.parse(body)
        except review.NotAReview as error:
            said.refused("not_a_review", str(error))
            return _plain(400, str(error))
        answered = _answer(asked, config, said, mode, started)
        return web.Response(body=answered, content_type="application/json")

    return handle


def _answer(asked: review.Review, config: Config, said: events.Events, mode: str, started: float) -> bytes:
    try:
        decision = review.decide(asked, config, mode)
        given = review.answer(asked, decision)
    except Exception as error:  # noqa: BLE001  a mistake of ours must not keep a pod from starting
        said.failed(review.text(asked.uid), error)
        decision = patch.skipped("internal_error", "the injector has a bug; see its log")
        given = review.answer(asked, decision)
    seconds = time.perf_counter() - started
    said.decided(decision.reason, seconds, review.audit(asked, decision, given, config, seconds))
    return given.body


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")


def _runner(app: web.Application) -> web.AppRunner:
    # A handshake that fails is the peer's affair, and there are scanners in every cluster: nothing to log.
    return web.AppRunner(
        app,
        access_log=None,
        logger=_silent(),
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        shutdown_timeout=_STOP_SECONDS,
    )


def _silent() -> logging.Logger:
    logger = logging.Logger("sidecar.injector", logging.CRITICAL + 1)  # noqa: LOG001  not shared
    logger.addHandler(logging.NullHandler())
    return logger


async def _listen(runner: web.AppRunner, address: str, context: ssl.SSLContext | None) -> int:
    host, port = settings.address(address)
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port, ssl_context=context).start()
    except OSError as error:
        await runner.cleanup()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    return int(runner.addresses[0][1])
