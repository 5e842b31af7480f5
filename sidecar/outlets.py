"""The ways out, as configured: each sink with the queue before it and the files beside it.

The problem: what to do when a destination takes nothing depends on the source (a file waits on disk, a pipe must flow
or the application stops), on the state directory, and on what the user wants. The promise: that is decided here, once.
Refused: to run anything; `app` owns the tasks.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sidecar import deadletter, delivery, spool
from sidecar.sinks import loki, stdout

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.sinks import Sink
    from sidecar.telemetry import Telemetry

_QUEUE_BYTES = 1 << 20  # of a sink that may make the source wait: four pushes' worth keep it busy
_QUARANTINE_BYTES = 64 << 20


def sink_names(config: Config) -> list[str]:
    """Return the configured sinks: stdout where nothing else is."""
    names = ["loki"] if config.sinks.loki.url else []
    enabled = config.sinks.stdout.enabled
    if enabled or (enabled is None and not names):
        names.insert(0, "stdout")
    return names


def make_sink(name: str, config: Config, telemetry: Telemetry) -> Sink:
    """Return a sink by its name in the configuration."""
    if name == "stdout":
        return stdout.Stdout()
    return loki.Loki(config.sinks.loki, telemetry=telemetry, identity=_identity(config))


class Outlets:
    """Everything that records leave by."""

    def __init__(self, config: Config, telemetry: Telemetry, *, source_waits: bool) -> None:
        """Take `source_waits`: whether what is not read yet can be read later. Raises ConfigError, StateError."""
        self._config = config
        self._telemetry = telemetry
        self._source_waits = source_waits
        self._sinks: list[Sink] = []
        self._files: list[deadletter.DeadLetters | spool.Spool] = []
        self.quarantine = self._open_quarantine()
        self.deliveries = [self._delivery(name) for name in sink_names(config)]

    @property
    def lost(self) -> bool:
        """Say whether records of this process are neither delivered nor kept anywhere."""
        return any(each.lost for each in self.deliveries)

    def tell_losses(self) -> None:
        """Say in one line for each sink what was lost, in all."""
        for each in self.deliveries:
            if each.lost:
                name, total = each.name, each.lost.total()
                reasons = ", ".join(f"{count} ({why})" for why, count in each.lost.most_common())
                self._telemetry.log.error(
                    "records_lost", f"{name}: {total} records lost in all: {reasons}", sink=name, records=total
                )

    async def close(self) -> None:
        async with AsyncExitStack() as stack:  # leaves in reverse order, each of them whatever becomes of the others
            for sink in self._sinks:
                stack.push_async_callback(sink.close)
            for file in self._files:
                stack.callback(file.close)

    def _open_quarantine(self) -> deadletter.DeadLetters | None:
        if self._config.schema.on_invalid != "quarantine":
            return None
        path = Path(self._config.state.dir) / "dead-letter" / "quarantine.ndjson"
        made = deadletter.DeadLetters(
            path, max_bytes=_QUARANTINE_BYTES, telemetry=self._telemetry, lost_reason="quarantine_full"
        )
        self._files.append(made)
        return made

    def _delivery(self, name: str) -> delivery.Delivery:
        config, state = self._config.sinks.loki, self._config.state.dir
        sink = make_sink(name, self._config, self._telemetry)
        self._sinks.append(sink)
        if name == "stdout":
            # stdout is back-pressure by nature: a reader that does not read stops the writer, as with `tee`
            return delivery.Delivery(sink, policy="block", max_bytes=_QUEUE_BYTES, telemetry=self._telemetry)
        letters = queue = None
        if state:
            path = Path(state) / "dead-letter" / f"{name}.ndjson"
            letters = deadletter.DeadLetters(path, max_bytes=config.spool_max_bytes, telemetry=self._telemetry)
            self._files.append(letters)
        policy = self._policy()
        if policy == "spool":
            queue = spool.Spool(
                Path(state) / "spool" / name, max_bytes=config.spool_max_bytes, telemetry=self._telemetry
            )
            self._files.append(queue)
        return delivery.Delivery(
            sink,
            policy=policy,
            max_bytes=config.spool_max_bytes if policy == "drop" else _QUEUE_BYTES,
            telemetry=self._telemetry,
            batch_bytes=config.batch.max_bytes,
            max_wait=config.batch.max_wait,
            dead_letters=letters,
            spool=queue,
        )

    def _policy(self) -> delivery.Policy:
        """Say what to do when Loki does not keep up, where the configuration leaves it open."""
        chosen = self._config.sinks.loki.when_full
        if chosen != "auto":
            return cast("delivery.Policy", chosen)
        if self._source_waits:
            return "block"  # a file waits on disk
        return "spool" if self._config.state.dir else "drop"  # a pipe must flow, or the application stops


def _identity(config: Config) -> dict[str, str]:
    known = {
        "namespace": config.pod.namespace,
        "pod": config.pod.name,
        "container": config.source.container or config.pod.container,
        "environment": config.environment,
    }
    return {name: value for name, value in known.items() if value}
