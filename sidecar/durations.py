"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import Duration, option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `metrics`."""

    quantiles: list[float] = option([0.5, 0.9, 0.95, 0.99], "Quantiles of `http_request_duration_ms`.")
    window: Duration = option(Duration(600.0), "Summaries forget after this.", minimum=1)
    slices: int = option(5, "In how many steps the window moves.", minimum=1, maximum=60)
    buckets: list[float] = option(
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
        "Upper bounds in seconds of `http_request_duration_seconds`.",
    )
    native_histograms: bool = option(True, "Offer native histograms to scrapers that ask for protobuf.")
    routes: list[str] = option([], 'Known route templates, "GET /orders/:id" or "/orders/:id".')
    max_paths: int = option(300, "Most values of the label `path`; further ones become `other`.", minimum=1)
    max_series: int = option(400, "Most label sets of the request metrics.", minimum=1)
    app_url: str = option("", "The application's own /metrics, merged into /metrics/merged.")
