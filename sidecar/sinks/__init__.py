"""Where records go: one module per output, one line each in the table below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sidecar.sinks import loki, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.model import Push, Receipt, Record


class Sink(Protocol):
    """Sends records somewhere. Retry, batching, acks, metrics and shutdown are `delivery`'s affair."""

    name: str

    def settle(self, records: Sequence[Record]) -> list[int]:
        """Decide the time (ns) under which each record is sent. Once per record, before it is spooled or encoded."""

    def snapshot(self, settled: int) -> Mapping[str, Any]:
        """Return what must be known to go on behind the first `settled` records, as plain JSON."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Know what a snapshot knew, before anything is settled. Raises StateError, changing nothing."""

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        """Return the pushes that carry these records, in the order to send them. Pure, no I/O."""

    def divide(self, push: Push) -> list[Push]:
        """Return two pushes that carry what this one does, in order; none where it cannot be divided."""

    async def send(self, push: Push) -> Receipt:
        """Deliver one push. Raises SinkRetry (same bytes later) or SinkRefused (will never work)."""

    async def close(self) -> None:
        """Release everything. Idempotent."""


SINKS: dict[str, type[loki.Loki | stdout.Stdout]] = {"loki": loki.Loki, "stdout": stdout.Stdout}
