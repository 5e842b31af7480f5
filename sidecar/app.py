"""The topology: builds every part, owns every task and queue, and knows the order of starting and stopping.

Start: configuration → state → sinks → HTTP (not ready) → source → tasks → ready.
Stop: what is read is delivered (`shutdown`) → checkpoint → HTTP closes last, so that the drain can be observed.
Records that are neither delivered nor kept as dead letters (a full queue, a standard output that nobody reads) make a
failure of an end that would be none: exit code 1.
Crash: an unexpected exception ends the process (exit 1) after the delivered position is saved; Kubernetes restarts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import sidecar
from sidecar import (
    acks,
    books,
    checkpoint,
    checks,
    dispatch,
    formats,
    health,
    lock,
    merge,
    normalize,
    outlets,
    overview,
    pipeline,
    routes,
    server,
    shutdown,
    sources,
    status_page,
    validation,
)
from sidecar.errors import ConfigError, SidecarError
from sidecar.metrics import durations, exposition
from sidecar.sources import command
from sidecar.telemetry import Log, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.config import Config
    from sidecar.sources import Source


def run(config: Config, *, argv: Sequence[str] = ()) -> int:
    """Do the job until the input has ended or a signal comes, and return the exit code. Raises ConfigError."""
    log = Log()
    try:
        return _run(config, argv, log)
    except ConfigError:
        raise
    except SidecarError as error:  # the port, the state directory, the source: told where the rest is told
        log.error("failed", str(error))
        return shutdown.EXIT_FAILURE


def _run(config: Config, argv: Sequence[str], log: Log) -> int:
    made = App(config, argv=argv, log=log)
    # What is built by now lives as long as the process, and records die when they are acknowledged, without cycles: the
    # collector's rounds over all of it cost 0.9 µs a line, 0.4 with this.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return asyncio.run(made.run())


class App:
    """One sidecar, from start to stop."""

    def __init__(
        self,
        config: Config,
        *,
        argv: Sequence[str] = (),
        log: Log | None = None,
        telemetry: Telemetry | None = None,
        on_listening: Callable[[str, int], None] | None = None,
    ) -> None:
        """Build the parts that need no running loop. Raises ConfigError, StateError, SourceError."""
        self.config = config
        self._on_listening = on_listening
        self._started_at = time.monotonic()
        self.telemetry = telemetry or Telemetry(
            log=log,
            sinks=outlets.sink_names(config),
            formats=formats.NAMES,
            version=sidecar.__version__,
            revision=os.environ.get("GIN_SIDECAR_REVISION", ""),
        )
        self._schema = validation.load(config.schema)
        self._releasing: list[Callable[[], None]] = []  # last of all
        self._checkpoint = self._open_checkpoint()
        self._books = books.Books(self._checkpoint, self.telemetry)
        table = routes.Table(config.metrics.routes)
        self.requests = durations.Requests(config.metrics, table, self.telemetry)
        self._books.restore(self.requests)
        self.source: Source = sources.create(config.source, self.telemetry, saved=self._books.source, argv=argv)
        self._outlets = outlets.Outlets(config, self.telemetry, source_waits=self.source.resumable)
        self.deliveries = self._outlets.deliveries
        self._books.restore_sinks(self.deliveries)
        self._tracker = acks.Tracker()
        self._normalizer = self._make_normalizer()
        self._pump = pipeline.Pump(
            source=self.source,
            normalizer=self._normalizer,
            dispatch=dispatch.Dispatch(
                observer=self.requests,
                outboxes=self.deliveries,
                telemetry=self.telemetry,
                on_invalid=config.schema.on_invalid,
                quarantine=self._outlets.quarantine,
            ),
            tracker=self._tracker,
            telemetry=self.telemetry,
            limits=pipeline.Limits(
                max_line_bytes=config.source.max_line_bytes,
                idle_flush=config.source.idle_flush,
                keep_unfinished=self._checkpoint is not None and self.source.resumable,
            ),
            again=self._make_normalizer,
        )
        self._app_probe = (
            health.AppProbe(config.health.app_url, config.health.timeout) if config.health.app_url else None
        )
        self.health = checks.create(
            service_name=config.service_name,
            source=self.source,
            pumping=self._pumping,
            deliveries=self.deliveries,
            recent=self.telemetry.recent,
            saves=self._checkpoint is not None,
            app=self._app_probe,
        )
        self._shutdown = shutdown.Shutdown(
            config,
            source=self.source,
            pump=self._pump,
            deliveries=self.deliveries,
            health=self.health,
            log=self.telemetry.log,
        )
        self.server = server.create(
            config=config.http,
            health=self.health,
            renderer=exposition.Renderer(self.telemetry.registry, self.requests),
            protobuf=config.metrics.native_histograms,
            merger=merge.Merger(config.metrics.app_url, self.telemetry),
            telemetry=self.telemetry,
            page=self.page,
            settle=self._books.settle,
        )
        self._say_what_is_unusual()

    # building

    def _open_checkpoint(self) -> checkpoint.Checkpoint | None:
        if not self.config.state.dir:
            return None
        made = checkpoint.Checkpoint(Path(self.config.state.dir) / "checkpoint.json", self.telemetry)
        made.prepare(self._lock_state)
        return made

    def _lock_state(self) -> None:
        """Have the state directory for ourselves, before anything is written to it."""
        mine = lock.Lock(self.config.state.dir)
        if mine.acquire():
            self._releasing.append(mine.release)
        else:
            self.telemetry.log.warn(
                "state_not_locked", "the file system of state.dir knows no locks: no second sidecar may use it"
            )

    def _make_normalizer(self) -> normalize.Normalizer:
        config = self.config
        made = normalize.Normalizer(config.normalize, self._schema, service_name=config.service_name)
        return self._books.restore_normalizer(made)

    def _say_what_is_unusual(self) -> None:
        log = self.telemetry.log
        if self._schema.unsupported:
            log.warn(
                "schema_slow",
                "the schema uses keywords that only jsonschema can judge: every line takes the slow way",
                keywords=self._schema.unsupported,
            )
        if not self.config.state.dir:
            log.info(
                "state_in_memory", "state.dir is not set: positions, counters and queues are lost with the process"
            )

    def _pumping(self) -> bool:
        return self._pump.alive or self._shutdown.input_ended

    def page(self) -> status_page.Page:
        """Return what the status page shows."""
        return overview.page(
            self.config,
            health=self.health,
            source=self.source,
            telemetry=self.telemetry,
            requests=self.requests,
            deliveries=self.deliveries,
            uptime_seconds=time.monotonic() - self._started_at,
        )

    # running

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal said so."""
        return self._shutdown.asked

    async def run(self) -> int:
        """Run until the input has ended or a signal says so; return the exit code."""
        self._shutdown.listen()
        async with AsyncExitStack() as outer:  # leaves in reverse order: HTTP closes last
            outer.callback(self._outlets.tell_losses)
            outer.callback(self.telemetry.log.flush)
            for release in self._releasing:
                outer.callback(release)
            await self.server.start()
            outer.push_async_callback(self.server.stop)
            self._listening()
            outer.push_async_callback(self._outlets.close)
            outer.push_async_callback(self.source.close)
            outer.push_async_callback(self._books.save)  # of a source that still holds what it has read
            code = await self._work()
        return code or (shutdown.EXIT_FAILURE if self._outlets.lost else 0)

    def _listening(self) -> None:
        host, port = self.config.http.host, self.server.port
        self.telemetry.log.info("listening", f"serving /metrics and /health on {host}:{port}", host=host, port=port)
        if self._on_listening:
            self._on_listening(host, port)

    async def _work(self) -> int:
        try:
            await self.source.start()
        except command.NotStartedError as error:
            self.telemetry.log.error("source_failed", str(error))
            return error.exit_code
        self._shutdown.started()
        self._books.open(
            source=self.source,
            tracker=self._tracker,
            pump=self._pump,
            normalizer=self._normalizer,
            requests=self.requests,
            deliveries=self.deliveries,
        )
        self.telemetry.log.info("source_started", "following", **self.source.describe())
        async with asyncio.TaskGroup() as services:
            tasks = [
                services.create_task(self.health.tick(), name="ticker"),
                services.create_task(self._keep_books(), name="bookkeeper"),
            ]
            if self._app_probe:
                tasks.append(services.create_task(self._app_probe.run(), name="app-probe"))
            flow = services.create_task(self._flow(), name="flow")
            self.health.starting = False
            try:
                code = await self._shutdown.wait(flow)
            finally:
                for task in tasks:
                    task.cancel()
        return code

    async def _flow(self) -> Exception | None:
        """Pump until the source ends, deliver until everything is delivered. Returns what went wrong."""
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for each in self.deliveries:
                    group.create_task(each.run(), name=f"deliver:{each.name}")
                try:
                    await self._pump.run()
                finally:
                    self._shutdown.end_input()
                    for each in self.deliveries:
                        each.close()
        except* SidecarError as failed:
            failure = failed
        return failure.exceptions[0] if isinstance(failure, ExceptionGroup) else None

    async def _keep_books(self) -> None:
        """Save the checkpoint and set the gauges, again and again."""
        while True:
            await asyncio.sleep(self._books.pause(self.config.state.checkpoint_interval))
            for each in self.deliveries:
                each.report()
            self.telemetry.log.catch_up()
            await self._books.save()
