"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `sinks.stdout`."""

    enabled: bool | None = option(None, "Write records to stdout. Default: true when no other sink is configured.")
