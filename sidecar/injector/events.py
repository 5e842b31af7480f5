"""Everything the injector says about itself: one method is one event, and owns its metric and its log line.

Promise: one audit line per decision, metrics from closed sets that exist at 0 from the first scrape.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import sidecar
from sidecar import prometheus
from sidecar.injector import patch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.telemetry import Log

REFUSED = ("content_type", "too_large", "not_a_review")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Events:
    """The injector's catalogue of events."""

    def __init__(self, log: Log, registry: prometheus.CollectorRegistry | None = None) -> None:
        self.log = log
        self.registry = registry if registry is not None else prometheus.CollectorRegistry()
        self._decisions = prometheus.Counter(
            "sidecar_injector_decisions", "Pods decided about, by reason.", ("reason",), registry=self.registry
        )
        self._refused = prometheus.Counter(
            "sidecar_injector_refused_requests", "Requests that were no review.", ("reason",), registry=self.registry
        )
        for reason in patch.REASONS:
            self._decisions.labels(reason)
        for reason in REFUSED:
            self._refused.labels(reason)
        self._seconds = prometheus.Histogram(
            "sidecar_injector_decision_seconds", "Time from body to answer.", buckets=_SECONDS, registry=self.registry
        )
        self._loads = prometheus.Counter(
            "sidecar_injector_certificate_loads", "Times a certificate was taken into use.", registry=self.registry
        )
        self._usable = prometheus.Gauge(
            "sidecar_injector_certificate_usable", "1 while the files hold a usable pair.", registry=self.registry
        )
        self._expires = prometheus.Gauge(
            "sidecar_injector_certificate_expires_timestamp_seconds",
            "When the certificate in use expires; 0 before the first.",
            registry=self.registry,
        )
        build = prometheus.Gauge(
            "sidecar_build_info", "What is running.", ("version", "revision", "python"), registry=self.registry
        )
        build.labels(sidecar.__version__, "", platform.python_version()).set(1)

    def decided(self, reason: str, seconds: float, audit: Mapping[str, object]) -> None:
        """Count a decision and write its audit line."""
        self._decisions.labels(reason).inc()
        self._seconds.observe(seconds)
        verb = "injected" if reason == patch.INJECTED else f"not injected: {reason}"
        self.log.info("admission", f"pod {verb}", **audit)

    def failed(self, uid: str, error: Exception) -> None:
        """A mistake of ours: the pod was let through without a sidecar."""
        self.log.error(
            "internal_error", f"{type(error).__name__} while deciding: a bug; the pod was let through", uid=uid
        )

    def refused(self, reason: str, detail: str) -> None:
        self._refused.labels(reason).inc()
        self.log.limited("warn", "request_refused", reason, f"a request was no review: {detail}", reason=reason)

    def certificate(self, problem: str, *, loaded: bool, not_after: float, file: str) -> None:
        """The certificate's files have changed, for better or worse."""
        self._usable.set(0 if problem else 1)
        self._expires.set(not_after)
        if loaded:
            self._loads.inc()
        if problem:
            self.log.error("certificate_unusable", f"cannot use the certificate: {problem}; trying again", file=file)
        else:
            self.log.info("certificate_loaded", "a certificate is in use", file=file, not_after=int(not_after))

    def metrics(self) -> bytes:
        """Return the exposition, text 0.0.4."""
        return prometheus.text(self.registry)
