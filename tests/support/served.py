"""A server on a free port with everything it serves, each part at hand for a test to change."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp

from sidecar import merge, routes, server, status_page
from sidecar.health import Check, Health
from sidecar.metrics import durations, exposition
from sidecar.telemetry import Log, Telemetry
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass
class Served:
    server: server.Server
    health: Health
    telemetry: Telemetry
    requests: durations.Requests
    client: aiohttp.ClientSession
    log: io.StringIO
    page: dict[str, object]  # what the status page shows besides the defaults

    def count(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, labels)

    async def get(self, path: str, **headers: str) -> tuple[int, str, aiohttp.ClientResponse]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(path, headers=sent, allow_redirects=False) as response:
            return response.status, await response.text(), response


@asynccontextmanager
async def served(
    *, app_url: str = "", clock: Callable[[], float] | None = None, **server_options: object
) -> AsyncIterator[Served]:
    log = io.StringIO()
    telemetry = Telemetry(log=Log(log, Clock()), sinks=["loki"], version="1.2.3")
    config = durations.Config()
    requests = durations.Requests(config, routes.Table(config.routes), telemetry)
    health = Health(clock or Clock())  # nobody beats here: on a clock that runs the loop would soon be late
    health.starting = False
    health.attached = lambda: Check("pass")
    shown: dict[str, object] = {}

    def page() -> status_page.Page:
        defaults = {
            "service_name": "checkout",
            "version": "1.2.3",
            "now": datetime.now(UTC),
            "uptime_seconds": 61.0,
            "report": health.report(),
            "source": {"kind": "stdin"},
        }
        return status_page.Page(**{**defaults, **shown})

    made = server.create(
        config=server.Config(**{"host": "127.0.0.1", "port": 0, **server_options}),
        health=health,
        renderer=exposition.Renderer(telemetry.registry, requests),
        protobuf=True,
        merger=merge.Merger(app_url, telemetry),
        telemetry=telemetry,
        page=page,
    )
    await made.start()
    client = aiohttp.ClientSession(f"http://127.0.0.1:{made.port}")
    try:
        yield Served(made, health, telemetry, requests, client, log, shown)
    finally:
        await client.close()
        await made.stop()
