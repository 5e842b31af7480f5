"""Where records go: one module per output, one line each in the table below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Record


@dataclass(slots=True)
class Push:
    """One request of a sink, encoded once: sending it again sends the same bytes."""

    body: bytes
    records: Sequence[Record]  # what is in it, for counting, splitting and dead letters


class Sink(Protocol):
    """Sends records somewhere. Retry, batching, acks, metrics and shutdown are `delivery`'s affair."""

    name: str

    def encode(self, records: Sequence[Record]) -> list[Push]:
        """Return the pushes that carry these records, in the order to send them. Pure, no I/O."""

    async def send(self, push: Push) -> str:
        """Deliver one push and return the answer's status for the metric ("204", "ok").

        Raises SinkRetry (same bytes later) or SinkRefused (will never work).
        """

    async def close(self) -> None:
        """Release everything. Idempotent."""
