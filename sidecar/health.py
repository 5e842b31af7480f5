"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import Duration, option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `health`."""

    app_url: str = option("", "The application's own health address; part of /health and /readyz when set.")
    timeout: Duration = option(Duration(2.0), "Longest time to wait for the application's answer.", minimum=0.05)
