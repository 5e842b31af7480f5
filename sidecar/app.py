"""The topology: builds every part, owns every task and queue, and knows the order of starting and stopping.

Start: configuration → state → sinks → HTTP (not ready) → source → tasks → ready.
Stop: not ready → the source ends → the pump flushes → sinks deliver and acknowledge → checkpoint → HTTP closes last, so
that the drain can be observed. What is not delivered `drain_seconds` after the end is left and said aloud: exit code 3.
Records that are neither delivered nor kept as dead letters (a full queue, a standard output that nobody reads) make a
failure of an end that would be none: exit code 1.
Crash: an unexpected exception ends the process (exit 1) after the delivered position is saved; Kubernetes restarts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from contextlib import AsyncExitStack, suppress
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
    sources,
    status_page,
    validation,
)
from sidecar.errors import ConfigError, SidecarError
from sidecar.metrics import durations, exposition
from sidecar.options import show_duration
from sidecar.sources import command
from sidecar.telemetry import Log, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.config import Config
    from sidecar.sources import Source

EXIT_FAILURE = 1
EXIT_DEADLINE = 3
_LAST_SECOND = 1.0  # of `drain_seconds`: kept for what is read when a log did not fall silent
_QUIET_LOOK = 0.1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_STOPPING = (signal.SIGTERM, signal.SIGINT)


def run(config: Config, *, argv: Sequence[str] = ()) -> int:
    """Do the job until the input has ended or a signal comes, and return the exit code. Raises ConfigError."""
    log = Log()
    try:
        return _run(config, argv, log)
    except ConfigError:
        raise
    except SidecarError as error:  # the port, the state directory, the source: told where the rest is told
        log.error("failed", str(error))
        return EXIT_FAILURE


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
        self._early_signals: list[signal.Signals] = []  # that came before there was a command to pass them on to
        self._stop_asked = asyncio.Event()
        self._pump_ended = asyncio.Event()
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
        return self._pump.alive or self._pump_ended.is_set()

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
        return self._stop_asked.is_set()

    async def run(self) -> int:
        """Run until the input has ended or a signal says so; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._signalled, number)
        async with AsyncExitStack() as outer:  # leaves in reverse order: HTTP closes last
            outer.callback(self._outlets.tell_losses)
            outer.callback(self.telemetry.log.flush)
            for release in self._releasing:
                outer.callback(release)
            await self.server.start()
            outer.push_async_callback(self.server.stop)
            self._listening()
            outer.push_async_callback(self._outlets.close)
            outer.push_async_callback(self._books.save)
            outer.push_async_callback(self.source.close)
            code = await self._work()
        return code or (EXIT_FAILURE if self._outlets.lost else 0)

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
        if isinstance(self.source, command.Command):
            for number in self._early_signals:
                self.source.send_signal(number)
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
                code = await self._until_done(flow)
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
                    self._pump_ended.set()
                    for each in self.deliveries:
                        each.close()
        except* SidecarError as failed:
            failure = failed
        return failure.exceptions[0] if isinstance(failure, ExceptionGroup) else None

    async def _until_done(self, flow: asyncio.Task[Exception | None]) -> int:
        """Wait for the flow; once the input has ended or a signal came, for no longer than `drain_seconds`."""
        asked = asyncio.ensure_future(self._stop_asked.wait())
        ended = asyncio.ensure_future(self._pump_ended.wait())
        try:
            await asyncio.wait({flow, asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            loop = asyncio.get_running_loop()
            end_by = loop.time() + self.config.drain_seconds
            if self.config.source.at_end == "exit":
                self.health.stopping = True  # after a signal it is already
            for each in self.deliveries:
                each.hurry(self.config.drain_seconds)
            if asked.done():
                await self._until_quiet(flow, end_by - _LAST_SECOND)
            if not flow.done():
                await asyncio.wait({flow}, timeout=max(0.0, end_by - loop.time()))
            if not flow.done():
                return await self._give_up(flow)
            failure = flow.result()
            if failure is not None:
                self.telemetry.log.error("failed", str(failure))
                return EXIT_FAILURE
            if not asked.done() and self.config.source.at_end == "serve":
                self.telemetry.log.info("ended", "the input has ended; serving until a signal comes")
                await asked
            self.health.stopping = True
            return self._exit_code()
        finally:
            asked.cancel()
            ended.cancel()

    async def _until_quiet(self, flow: asyncio.Task[Exception | None], end_by: float) -> None:
        """Go on reading where the application may still write: an ordinary container is told to end at the same time.

        Silence counts from the signal on. What waits to be read, behind a sink that is slow, is no silence.
        """
        silence = self.config.source.wait_for_quiet
        if not silence or isinstance(self.source, command.Command):
            return
        loop = asyncio.get_running_loop()
        silent_from = loop.time()
        while not flow.done() and (now := loop.time()) < end_by:
            quiet = min(now - silent_from, self._pump.quiet_seconds())
            if quiet >= silence and not self.source.unread():
                break
            await asyncio.wait({flow}, timeout=min(_QUIET_LOOK, end_by - now))
        self.source.stop()

    async def _give_up(self, flow: asyncio.Task[Exception | None]) -> int:
        said = f"drain_seconds, {show_duration(self.config.drain_seconds)}, passed before everything was "
        said += "delivered" if self._pump_ended.is_set() else "read"
        if isinstance(self.source, command.Command) and self.source.exit_code is None:
            said += "; the command has not ended and is killed, and what it has not written is lost"
        self.telemetry.log.error("drain_deadline", said)
        flow.cancel()
        with suppress(asyncio.CancelledError):
            await flow
        for each in self.deliveries:
            left = each.unsent()
            if left.records:
                self.telemetry.log.error(
                    "not_drained",
                    f"{each.name}: {left.records} records not delivered within drain_seconds",
                    records=left.records,
                    bytes=left.bytes,
                    batches=left.batches,
                )
        return EXIT_DEADLINE

    def _exit_code(self) -> int:
        code = self.source.exit_code if isinstance(self.source, command.Command) else 0
        return code or 0

    def _signalled(self, number: signal.Signals) -> None:
        if isinstance(self.source, command.Command):
            if self.source.attached:
                self.source.send_signal(number)
            else:
                self._early_signals.append(number)
            self.telemetry.log.info("signal_passed_on", f"{number.name} passed on to the command", signal=number.name)
            if number in _STOPPING:
                self.health.stopping = True
                self._stop_asked.set()
            return
        if number not in _STOPPING:
            return
        self.telemetry.log.info("stopping", f"{number.name}: draining", signal=number.name)
        self.health.stopping = True
        if not self.config.source.wait_for_quiet or self._stop_asked.is_set():  # a second signal does not wait
            self.source.stop()
        self._stop_asked.set()

    # books

    async def _keep_books(self) -> None:
        """Save the checkpoint and set the gauges, again and again."""
        while True:
            await asyncio.sleep(self._books.pause(self.config.state.checkpoint_interval))
            for each in self.deliveries:
                each.report()
            self.telemetry.log.catch_up()
            await self._books.save()
