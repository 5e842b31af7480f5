"""prometheus_client for one process: the only place that imports it.

Problem: with PROMETHEUS_MULTIPROC_DIR in the environment, which a pod may share among its containers, the library keeps
every value in files of that directory, drops exemplars, and fails where the directory does not exist.
Promise: imported from here it holds values in memory, whatever the environment says; the environment itself stays as it
was, for the COMMAND that inherits it.
"""

from __future__ import annotations

import os

_SHARED = {name: os.environ.pop(name, None) for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")}

# ruff: noqa: E402
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as _openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

os.environ.update({name: value for name, value in _SHARED.items() if value is not None})

# One `_created` series beside each counter doubles a scrape and no Prometheus reads it from text by default.
disable_created_metrics()  # type: ignore[no-untyped-call]


def openmetrics(registry: Collector) -> bytes:
    """Return what a registry holds as OpenMetrics 1.0."""
    return bytes(_openmetrics(registry))  # type: ignore[no-untyped-call]


__all__ = ["Collector", "CollectorRegistry", "Counter", "Gauge", "Histogram", "Metric", "Sample", "openmetrics", "text"]
