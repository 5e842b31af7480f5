"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar import redact
from sidecar.options import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `normalize`."""

    timezone: str = option("UTC", "Zone of timestamps that carry none, by its IANA name.")
    duration_unit: str = option(
        "auto",
        "Unit of bare numbers whose format does not tell.",
        choices=("auto", "ns", "us", "ms", "s"),
    )
    redact: redact.Config = field(default_factory=redact.Config)
