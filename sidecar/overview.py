"""What the status page shows, gathered from the registry, the requests, the sinks and health at one moment."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sidecar
from sidecar import status_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config import Config
    from sidecar.delivery import Delivery
    from sidecar.health import Health
    from sidecar.metrics.durations import Requests
    from sidecar.sources import Source
    from sidecar.telemetry import Telemetry


class Tally:
    """Every sample of a registry, to be summed by name and label."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for metric in telemetry.registry.collect():
            for sample in metric.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    def total(self, name: str, **labels: str) -> int:
        """Return the sum of a metric's samples that carry these labels."""
        return int(sum(value for has, value in self._samples[name] if labels.items() <= has.items()))

    def by(self, name: str, label: str) -> dict[str, int]:
        """Return the sum of a metric's samples for each value of one label."""
        sums: dict[str, int] = defaultdict(int)
        for labels, value in self._samples[name]:
            sums[labels[label]] += int(value)
        return dict(sums)

    def by_pair(self, name: str, first: str, second: str) -> dict[tuple[str, str], int]:
        """Return a metric's samples for each pair of values of two labels."""
        return {(labels[first], labels[second]): int(value) for labels, value in self._samples[name]}


def page(
    config: Config,
    *,
    health: Health,
    source: Source,
    telemetry: Telemetry,
    requests: Requests,
    deliveries: Sequence[Delivery],
    uptime_seconds: float,
) -> status_page.Page:
    """Gather everything."""
    tally = Tally(telemetry)
    return status_page.Page(
        service_name=config.service_name,
        version=sidecar.__version__,
        environment=config.environment,
        now=datetime.now(UTC),
        uptime_seconds=uptime_seconds,
        report=health.report(),
        source=source.describe(),
        lines_read=tally.total("sidecar_lines_read_total"),
        bytes_read=tally.total("sidecar_bytes_read_total"),
        lines_joined=tally.total("sidecar_lines_joined_total"),
        lines_skipped=tally.total("sidecar_lines_skipped_total"),
        lost_bytes=tally.total("sidecar_lost_bytes_total"),
        lag_bytes=tally.total("sidecar_lag_bytes"),
        lag_seconds=tally.total("sidecar_lag_seconds"),
        outcomes=tally.by("sidecar_records_total", "outcome"),
        withheld=tally.total("sidecar_records_withheld_total"),
        formats=tally.by("sidecar_format_records_total", "format"),
        violations=tally.by_pair("sidecar_schema_violations_total", "field", "rule"),
        routes=_routes(requests),
        sinks=[_sink(tally, each) for each in deliveries],
    )


def _routes(requests: Requests) -> list[status_page.Route]:
    """Return every route, the busiest first: quantiles of those only that the page shows, at 0.1 ms each."""
    rows = []
    counted = [(sum(one.statuses.values()), one) for one in requests.all()]
    counted.sort(key=lambda pair: (-pair[0], pair[1].path, pair[1].method))
    for rank, (count, one) in enumerate(counted):
        values = requests.quantiles_of(one) if rank < status_page.ROUTES else []
        quantiles = dict(zip(requests.quantiles, values, strict=False))
        rows.append(
            status_page.Route(
                method=one.method,
                path=one.path,
                requests=count,
                errors=sum(count for status, count in one.statuses.items() if status.startswith("5")),
                p50_ms=quantiles.get(0.5, float("nan")),
                p99_ms=quantiles.get(0.99, float("nan")),
            )
        )
    return rows


def _sink(tally: Tally, each: Delivery) -> status_page.Sink:
    status = each.status()
    done = {
        outcome: tally.total("sidecar_sink_records_total", sink=status.sink, outcome=outcome)
        for outcome in ("sent", "refused", "dropped", "dead_lettered")
    }
    return status_page.Sink(
        name=status.sink,
        offered=tally.total("sidecar_sink_offered_records_total", sink=status.sink),
        pending=status.pending_records,
        oldest_unsent_seconds=status.oldest_unsent_seconds,
        spool_bytes=status.spool_bytes,
        last_success_seconds=None if (last := status.last_success_at) is None else time.time() - last,
        last_refusal=f"{refusal.reason}: {refusal.detail}" if (refusal := status.last_refusal) else "",
        **done,
    )
