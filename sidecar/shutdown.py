"""The end: what a signal means, how long is waited for what is not delivered yet, and the exit code.

Not ready → the source ends → the pump flushes → sinks deliver and acknowledge; what `app` closes comes after that. An
ordinary container is told to end when the application is, and goes on reading until the log is quiet
(`source.wait_for_quiet`). A command of ours gets every signal passed on, and its exit code is ours.
What is not delivered `drain_seconds` after the end is left and said aloud: exit code 3.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from sidecar.options import show_duration
from sidecar.sources import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config import Config
    from sidecar.delivery import Delivery
    from sidecar.health import Health
    from sidecar.pipeline import Pump
    from sidecar.sources import Source
    from sidecar.telemetry import Log

EXIT_FAILURE = 1
EXIT_DEADLINE = 3

Flow = asyncio.Task[Exception | None]  # everything from source to sinks; its result is what went wrong

_LAST_SECOND = 1.0  # of `drain_seconds`: kept for what is read when a log did not fall silent
_QUIET_LOOK = 0.1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Ends one sidecar."""

    def __init__(
        self,
        config: Config,
        *,
        source: Source,
        pump: Pump,
        deliveries: Sequence[Delivery],
        health: Health,
        log: Log,
    ) -> None:
        self.input_ended = False  # the pump has ended; what it gave is being delivered
        self._config = config
        self._source = source
        self._command = source if isinstance(source, command.Command) else None
        self._pump = pump
        self._deliveries = deliveries
        self._health = health
        self._log = log
        self._asked = asyncio.Event()
        self._news = asyncio.Event()  # a signal, the end of the input, the end of everything
        self._early: list[signal.Signals] = []  # that came before there was a command to pass them on to

    @property
    def asked(self) -> bool:
        """Whether a signal said so."""
        return self._asked.is_set()

    # signals

    def listen(self) -> None:
        """Take the signals of the process."""
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._signalled, number)

    def started(self) -> None:
        """Pass on what came before the command was there."""
        if self._command is not None:
            for number in self._early:
                self._command.send_signal(number)

    def _signalled(self, number: signal.Signals) -> None:
        if self._command is not None:
            if self._command.attached:
                self._command.send_signal(number)
            else:
                self._early.append(number)
            self._log.info("signal_passed_on", f"{number.name} passed on to the command", signal=number.name)
            if number in _STOPPING:
                self._ask()
            return
        if number not in _STOPPING:
            return
        self._log.info("stopping", f"{number.name}: draining", signal=number.name)
        if not self._config.source.wait_for_quiet or self.asked:  # a second signal does not wait
            self._source.stop()
        self._ask()

    def _ask(self) -> None:
        self._health.stopping = True
        self._asked.set()
        self._news.set()

    # draining

    def end_input(self) -> None:
        """Say that nothing more is read."""
        self.input_ended = True
        self._news.set()

    async def wait(self, flow: Flow) -> int:
        """Wait for the flow; once the input has ended or a signal came, for no longer than `drain_seconds`."""
        flow.add_done_callback(lambda _: self._news.set())
        await self._news.wait()
        loop = asyncio.get_running_loop()
        end_by = loop.time() + self._config.drain_seconds
        if self._config.source.at_end == "exit":
            self._health.stopping = True  # after a signal it is already
        for each in self._deliveries:
            each.hurry(self._config.drain_seconds)
        if self.asked:
            await self._until_quiet(flow, end_by - _LAST_SECOND)
        if not flow.done():
            await asyncio.wait({flow}, timeout=max(0.0, end_by - loop.time()))
        if not flow.done():
            return await self._give_up(flow)
        failure = flow.result()
        if failure is not None:
            self._log.error("failed", str(failure))
            return EXIT_FAILURE
        if not self.asked and self._config.source.at_end == "serve":
            self._log.info("ended", "the input has ended; serving until a signal comes")
            await self._asked.wait()
        self._health.stopping = True
        return (self._command.exit_code if self._command is not None else 0) or 0

    async def _until_quiet(self, flow: Flow, end_by: float) -> None:
        """Go on reading where the application may still write: an ordinary container is told to end at the same time.

        Silence counts from the signal on. What waits to be read, behind a sink that is slow, is no silence.
        """
        silence = self._config.source.wait_for_quiet
        if not silence or self._command is not None:
            return
        loop = asyncio.get_running_loop()
        silent_from = loop.time()
        while not flow.done() and (now := loop.time()) < end_by:
            quiet = min(now - silent_from, self._pump.quiet_seconds())
            if quiet >= silence and not self._source.unread():
                break
            await asyncio.wait({flow}, timeout=min(_QUIET_LOOK, end_by - now))
        self._source.stop()

    async def _give_up(self, flow: Flow) -> int:
        said = f"drain_seconds, {show_duration(self._config.drain_seconds)}, passed before everything was "
        said += "delivered" if self.input_ended else "read"
        if self._command is not None and self._command.exit_code is None:
            said += "; the command has not ended and is killed, and what it has not written is lost"
        self._log.error("drain_deadline", said)
        flow.cancel()
        with suppress(asyncio.CancelledError):
            await flow
        for each in self._deliveries:
            left = each.unsent()
            if left.records:
                self._log.error(
                    "not_drained",
                    f"{each.name}: {left.records} records not delivered within drain_seconds",
                    records=left.records,
                    bytes=left.bytes,
                    batches=left.batches,
                )
        return EXIT_DEADLINE
