"""How a sink is doing, as others see it: plain data that `Delivery` fills in and /health and the status page read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the destination said when it refused records for good."""

    reason: str
    detail: str
    at: float  # epoch seconds


@dataclass(frozen=True, slots=True)
class Status:
    """How a sink is doing, for /health and the status page."""

    sink: str
    last_success: float | None  # by `clock`
    last_success_at: float | None  # epoch seconds
    oldest_unsent_seconds: float
    pending_records: int
    spool_bytes: int
    last_refusal: Refusal | None
    last_drop_at: float | None  # epoch seconds
    retrying: str | None  # the reason, while the sink is being tried again


@dataclass(frozen=True, slots=True)
class Unsent:
    """What has not been delivered."""

    batches: int
    records: int
    bytes: int
