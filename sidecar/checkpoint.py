"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import Duration, option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `state`."""

    dir: str = option(
        "", "Checkpoint, spool and dead letters. Empty: in memory only, which start-up says aloud."
    )
    checkpoint_interval: Duration = option(Duration(1.0), "How often positions are saved, if they changed.", minimum=0.1)
