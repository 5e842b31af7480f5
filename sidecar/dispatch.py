"""Where records part: request metrics observe what they say, and each sink is offered them, or they are withheld.

Promise: everything is counted before anybody waits, so that another task sees all of a slice counted or nothing; every
sink gets the same batch, and its position waits for all of them. Refused: to change a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar import columnar
from sidecar.model import Batch, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.model import Ack, Record, RequestGroup, RequestKey
    from sidecar.normalize import Normalized
    from sidecar.telemetry import Telemetry


class Observer(Protocol):
    """What takes the requests of a batch: durations.Requests."""

    def observe(self, groups: Mapping[RequestKey, RequestGroup]) -> None: ...

    def learn(self, method: str, template: str) -> None: ...


class Outbox(Protocol):
    """What takes a batch for one sink: delivery.Delivery."""

    async def put(self, batch: Batch) -> None: ...


class Quarantine(Protocol):
    """Where records that stay invalid go instead of the sinks: deadletter.DeadLetters."""

    def write(self, records: Sequence[Record], reason: str, detail: str = "") -> int: ...


class Dispatch:
    """Takes what normalization made."""

    def __init__(
        self,
        *,
        observer: Observer,
        outboxes: Sequence[Outbox],
        telemetry: Telemetry,
        on_invalid: str = "forward",
        quarantine: Quarantine | None = None,
    ) -> None:
        self._observer = observer
        self._outboxes = outboxes
        self._telemetry = telemetry
        self._on_invalid = on_invalid
        self._quarantine = quarantine

    @property
    def sinks(self) -> int:
        """How many there are."""
        return len(self._outboxes)

    async def offer(self, records: Sequence[Record], ack: Ack) -> None:
        """Hand the records to every sink, waiting for room; without records there is nothing to wait for."""
        if not records:
            for _ in self._outboxes:
                ack.done()
            return
        batch = Batch(records, ack)
        for outbox in self._outboxes:
            await outbox.put(batch)

    def count(self, result: Normalized) -> None:
        """Count what became of lines, and observe their requests."""
        self._telemetry.records(result.outcomes, result.formats, result.levels, result.violations)
        for reason, count in result.rejected.items():
            self._telemetry.observations_rejected(reason, count)
        if result.deduplicated:
            self._telemetry.requests_deduplicated(result.deduplicated)
        for method, template in result.routes:
            self._observer.learn(method, template)
        if result.requests:
            self._observer.observe(result.requests)

    def forwarded(self, records: Sequence[Record], *, counts: bool) -> Sequence[Record]:
        """Return what sinks are offered: everything, or everything but the records that stay invalid.

        What was counted by an earlier process was withheld by it too.
        """
        if self._on_invalid == "forward" or columnar.all_valid(records):
            return records
        kept = [record for record in records if record.outcome is not Outcome.INVALID]
        withheld = len(records) - len(kept) if counts else 0
        if withheld and self._on_invalid == "drop":
            self._telemetry.records_withheld("dropped_invalid", withheld)
        elif withheld and self._quarantine is not None:
            by_reason: dict[str, list[Record]] = {}
            for record in records:
                if record.outcome is Outcome.INVALID:
                    by_reason.setdefault(_reason(record), []).append(record)
            for reason, bad in by_reason.items():
                self._quarantine.write(bad, reason)
            self._telemetry.records_withheld("quarantined", withheld)
        return kept


def _reason(record: Record) -> str:
    return ",".join(f"{field}:{rule}" for field, rule in record.violations[:10])
