"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `schema`."""

    path: str = option("", "A JSON Schema file to use instead of the built-in one.")
    on_invalid: str = option(
        "forward",
        "What to do with records that stay invalid: send them marked, keep them in the quarantine file, or drop them.",
        choices=("forward", "quarantine", "drop"),
    )
