"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `http`."""

    host: str = option("0.0.0.0", "Address to listen on.")  # noqa: S104  a pod's port is for the cluster to reach
    port: int = option(9180, "Port of /metrics and /health; 0 picks a free one.", minimum=0, maximum=65535)
