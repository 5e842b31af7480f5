"""Write the Grafana dashboard of the chart: panels said once, their JSON made of them.

Problem: a dashboard edited by hand drifts from the metrics it shows, and nobody reviews 2 000 lines of JSON.
Promise: every panel is one line here, with its queries; ids and places follow from the order. A test takes each query
apart and fails on a metric that the sidecar does not have. Run `python -m tools.dashboard` after a change.
Refused: plugins, and anything but Prometheus and Loki as data sources.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).resolve().parent.parent / "helm" / "gin-sidecar" / "dashboards" / "gin-sidecar.json"
PROMETHEUS: Final = {"type": "prometheus", "uid": "${prometheus}"}
LOKI: Final = {"type": "loki", "uid": "${loki}"}
_HEIGHT: Final = 8
_COLUMNS: Final = 24

S: Final = 'namespace=~"$namespace",job=~"$service"'  # of every query
R: Final = f'{S},path=~"$route"'  # of requests
K: Final = 'namespace=~"$namespace",container="gin-sidecar"'  # of what the kubelet measures
W: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """One query with its legend."""

    expr: str
    legend: str = ""
    form: str = "time_series"
    exemplars: bool = False
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `width` in columns of 24."""

    title: str
    queries: tuple[Query, ...]
    doc: str
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    source: dict[str, str] = field(default_factory=lambda: PROMETHEUS)
    links: tuple[dict[str, Any], ...] = ()
    stacked: bool = False
    thresholds: tuple[float, float] | None = None


def _quantile(quantile: float, by: str = "") -> str:
    group = f"le,{by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({group}) (rate(http_request_duration_seconds_bucket{{{R}}}{W})))"


# From a latency panel to the lines behind it: the route's slow lines, and from an exemplar the lines of its trace.
_TO_LOGS: Final = {
    "title": "Log lines of ${__field.labels.method} ${__field.labels.path}",
    "url": "/explore?schemaVersion=1&orgId=${__org.id}&panes="
    '{"logs":{"datasource":"${loki}","queries":[{"refId":"A","datasource":{"type":"loki","uid":"${loki}"},'
    '"expr":"{namespace=~`$namespace`, service_name=~`$service`} | json | route=`${__field.labels.path}`"}],'
    '"range":{"from":"${__from}","to":"${__to}"}}}',
    "targetBlank": True,
}
_TO_TRACE: Final = {
    "title": "Log lines of trace ${__data.fields.trace_id}",
    "url": "/explore?schemaVersion=1&orgId=${__org.id}&panes="
    '{"logs":{"datasource":"${loki}","queries":[{"refId":"A","datasource":{"type":"loki","uid":"${loki}"},'
    '"expr":"{namespace=~`$namespace`, service_name=~`.+`} | trace_id=`${__data.fields.trace_id}`"}],'
    '"range":{"from":"${__from}","to":"${__to}"}}}',
    "targetBlank": True,
}
_LATENCY_LINKS: Final = (_TO_LOGS, _TO_TRACE)

ROWS: Final[dict[str, list[Panel]]] = {
    "Requests": [
        Panel(
            "Request rate by route",
            (Query(f"sum by (method, path) (rate(http_requests_total{{{R}}}{W}))", "{{method}} {{path}}"),),
            "Requests per second, counted from access lines. `unmatched`: no route. `other`: beyond metrics.max_paths.",
            unit="reqps",
            links=(_TO_LOGS,),
        ),
        Panel(
            "Errors by route",
            (
                Query(
                    f'sum by (method, path) (rate(http_requests_total{{{R},status=~"5.."}}{W})) '
                    f"/ sum by (method, path) (rate(http_requests_total{{{R}}}{W}))",
                    "{{method}} {{path}}",
                ),
            ),
            "Share of requests that were answered with 5xx.",
            unit="percentunit",
            links=(_TO_LOGS,),
        ),
        Panel(
            "Requests by status",
            (Query(f"sum by (status) (rate(http_requests_total{{{R}}}{W}))", "{{status}}"),),
            "Requests per second by status code.",
            unit="reqps",
            width=8,
            stacked=True,
        ),
        Panel(
            "Requests now",
            (Query(f"sum(rate(http_requests_total{{{R}}}{W}))", instant=True),),
            "Requests per second of everything selected.",
            kind="stat",
            unit="reqps",
            width=4,
        ),
        Panel(
            "Errors now",
            (
                Query(
                    f'sum(rate(http_requests_total{{{R},status=~"5.."}}{W})) '
                    f"/ sum(rate(http_requests_total{{{R}}}{W}))",
                    instant=True,
                ),
            ),
            "Share of requests that were answered with 5xx.",
            kind="stat",
            unit="percentunit",
            width=4,
            thresholds=(0.01, 0.05),
        ),
        Panel(
            "p99 now",
            (Query(_quantile(0.99), instant=True),),
            "99 of 100 requests are faster.",
            kind="stat",
            unit="s",
            width=4,
            thresholds=(0.5, 1.0),
        ),
        Panel(
            "Requests without a duration",
            (
                Query(
                    f"sum by (reason) (rate(sidecar_request_observations_rejected_total{{{S}}}{W}))",
                    "{{reason}}",
                ),
            ),
            "Counted, and not observed: the duration was missing its unit, negative or longer than the cap.",
            unit="reqps",
            width=4,
        ),
    ],
    "Latency": [
        Panel(
            "Latency, all routes",
            (
                Query(_quantile(0.5), "p50", exemplars=True),
                Query(_quantile(0.9), "p90", exemplars=True),
                Query(_quantile(0.99), "p99", exemplars=True),
            ),
            "Quantiles over all pods, from histogram buckets. The diamonds are single requests: their link leads to "
            "the log lines of their trace.",
            unit="s",
            links=_LATENCY_LINKS,
        ),
        Panel(
            "p99 by route",
            (Query(_quantile(0.99, "method,path"), "{{method}} {{path}}", exemplars=True),),
            "99 of 100 requests of the route are faster. A click leads to the route's log lines.",
            unit="s",
            links=_LATENCY_LINKS,
        ),
        Panel(
            "Latency heatmap",
            (
                Query(
                    f"sum by (le) (increase(http_request_duration_seconds_bucket{{{R}}}{W}))",
                    "{{le}}",
                    form="heatmap",
                ),
            ),
            "How many requests took how long.",
            kind="heatmap",
            unit="s",
            links=(_TO_TRACE,),
        ),
        Panel(
            "True quantiles of each pod (ms)",
            (
                Query(
                    f'max by (pod, method, path) (http_request_duration_ms{{{R},quantile="0.99"}})',
                    "{{pod}} {{method}} {{path}}",
                ),
            ),
            "p99 of the last 10 minutes as the sidecar knows it, within 1.1 %. Not to be averaged over pods.",
            unit="ms",
        ),
    ],
    "Logs": [
        Panel(
            "Log volume by level",
            (Query(f"sum by (level) (rate(sidecar_level_records_total{{{S}}}{W}))", "{{level}}"),),
            "Records per second.",
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Schema conformance by service",
            (
                Query(
                    f'sum by (namespace, job) (rate(sidecar_records_total{{{S},outcome!="invalid"}}{W})) '
                    f"/ sum by (namespace, job) (rate(sidecar_records_total{{{S}}}{W}))",
                    "{{namespace}}/{{job}}",
                ),
            ),
            "Share of records that satisfy the schema, as written or after normalization.",
            unit="percentunit",
        ),
        Panel(
            "Violations by field and rule",
            (
                Query(
                    f"topk(15, sum by (job, field, rule) (rate(sidecar_schema_violations_total{{{S}}}{W})))",
                    "{{job}} {{field}}: {{rule}}",
                ),
            ),
            "Of lines as they were written. field is empty where the line is no JSON object.",
            unit="cps",
        ),
        Panel(
            "Records by format",
            (Query(f"sum by (format) (rate(sidecar_format_records_total{{{S}}}{W}))", "{{format}}"),),
            "What the lines were recognized as.",
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Errors in the log",
            (
                Query(
                    '{namespace=~"$namespace", service_name=~"$service"} | detected_level=~"error|fatal"',
                ),
            ),
            "The newest lines at level error and fatal.",
            kind="logs",
            width=24,
            source=LOKI,
        ),
    ],
    "Delivery": [
        Panel(
            "Ledger: records per second",
            (
                Query(
                    f"sum by (sink) (rate(sidecar_sink_offered_records_total{{{S}}}{W}))",
                    "{{sink}} offered",
                ),
                Query(
                    f"sum by (sink, outcome) (rate(sidecar_sink_records_total{{{S}}}{W}))",
                    "{{sink}} {{outcome}}",
                ),
            ),
            "Offered = sent + refused + dropped + dead_lettered + pending, for each sink.",
            unit="cps",
        ),
        Panel(
            "Pending and spooled",
            (
                Query(f"sum by (sink) (sidecar_sink_pending_records{{{S}}})", "{{sink}} records pending"),
                Query(f"sum by (sink) (sidecar_sink_spool_bytes{{{S}}})", "{{sink}} bytes spooled"),
            ),
            "What a sink has and is not done with.",
        ),
        Panel(
            "Oldest unsent record",
            (Query(f"max by (pod, sink) (sidecar_sink_oldest_unsent_seconds{{{S}}})", "{{pod}} {{sink}}"),),
            "How long the oldest record has been waiting.",
            unit="s",
            width=8,
        ),
        Panel(
            "Answers of the sinks",
            (
                Query(
                    f"sum by (sink, status) (rate(sidecar_sink_pushes_total{{{S}}}{W}))",
                    "{{sink}} {{status}}",
                ),
                Query(
                    f"sum by (sink, reason) (rate(sidecar_sink_retries_total{{{S}}}{W}))",
                    "{{sink}} again: {{reason}}",
                ),
            ),
            "Pushes per second by status, and why some were repeated.",
            width=8,
        ),
        Panel(
            "Lost, held back, refused",
            (
                Query(
                    f"sum by (reason) (rate(sidecar_lost_bytes_total{{{S}}}{W}))",
                    "bytes lost: {{reason}}",
                ),
                Query(
                    f"sum by (reason) (rate(sidecar_records_withheld_total{{{S}}}{W}))",
                    "records withheld: {{reason}}",
                ),
                Query(
                    f"sum by (sink, reason) (rate(sidecar_sink_refusals_total{{{S}}}{W}))",
                    "records refused by {{sink}}: {{reason}}",
                ),
            ),
            "Zero, when all is well.",
            width=8,
        ),
    ],
    "Source and cost": [
        Panel(
            "Lag",
            (Query(f"max by (pod) (sidecar_lag_seconds{{{S}}})", "{{pod}}"),),
            "Age of the newest processed line while unread bytes exist.",
            unit="s",
            width=8,
        ),
        Panel(
            "Unread bytes",
            (Query(f"max by (pod) (sidecar_lag_bytes{{{S}}})", "{{pod}}"),),
            "Written by the application and not read yet.",
            unit="bytes",
            width=8,
        ),
        Panel(
            "Lines read",
            (
                Query(f"sum by (job) (rate(sidecar_lines_read_total{{{S}}}{W}))", "{{job}} lines"),
                Query(f"sum by (job) (rate(sidecar_rotations_total{{{S}}}{W}))", "{{job}} rotations"),
            ),
            "Lines per second, and how often a log file was replaced.",
            unit="cps",
            width=8,
        ),
        Panel(
            "CPU of the sidecars",
            (
                Query(
                    f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{K}}}{W}))",
                    "{{pod}}",
                ),
            ),
            "Cores, as the kubelet measures them (cAdvisor).",
            width=8,
        ),
        Panel(
            "Memory of the sidecars",
            (
                Query(
                    f"max by (pod) (container_memory_working_set_bytes{{{K}}})",
                    "{{pod}}",
                ),
            ),
            "Working set, as the kubelet measures it (cAdvisor).",
            unit="bytes",
            width=8,
        ),
        Panel(
            "Series and scrapes",
            (
                Query(f"max by (job) (sidecar_request_series{{{S}}})", "{{job}} label sets"),
                Query(f"max by (job) (sidecar_scrape_duration_seconds{{{S}}})", "{{job}} scrape seconds"),
                Query(
                    f"sum by (job, label) (increase(sidecar_label_overflow_total{{{S}}}{W}))",
                    "{{job}} overflow of {{label}}",
                ),
                Query(f"max by (job) (sidecar_sampling_suspected_paths{{{S}}})", "{{job}} paths that look sampled"),
            ),
            "What the request metrics cost.",
            width=8,
        ),
        Panel(
            "Versions",
            (
                Query(
                    f"count by (version, revision) (sidecar_build_info{{{S}}})",
                    "{{version}} {{revision}}",
                    instant=True,
                ),
            ),
            "How many pods run which version.",
            kind="bargauge",
            width=12,
        ),
        Panel(
            "Injection",
            (
                Query(
                    f'sum by (reason) (increase(sidecar_injector_decisions_total{{namespace=~".+"}}{W}))',
                    "{{reason}}",
                ),
            ),
            "Pods that the injector decided about, by reason.",
            width=12,
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        top, left = top + 1, 0
        for panel in row:
            if left + panel.width > _COLUMNS:
                top, left = top + _HEIGHT, 0
            place = {"x": left, "y": top, "w": panel.width, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            left += panel.width
        top += _HEIGHT
    return {
        "uid": "gin-sidecar",
        "title": "Gin services",
        "description": "What the gin-sidecar makes of the logs of Gin services: requests, latency, logs, delivery.",
        "tags": ["gin", "gin-sidecar"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    def source(name: str, label: str) -> dict[str, Any]:
        return {"name": name, "label": label, "type": "datasource", "query": name, "hide": 0, "refresh": 1}

    def query(name: str, label: str, expr: str) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": PROMETHEUS,
            "query": {"query": expr, "refId": name},
            "definition": expr,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"text": ["All"], "value": ["$__all"]},
        }

    return [
        source("prometheus", "Prometheus"),
        source("loki", "Loki"),
        query("namespace", "Namespace", "label_values(sidecar_build_info, namespace)"),
        query("service", "Service", 'label_values(sidecar_build_info{namespace=~"$namespace"}, job)'),
        query("route", "Route", f"label_values(http_requests_total{{{S}}}, path)") | {"allValue": ".*"},
    ]


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "links": list(panel.links)}
    if panel.thresholds:
        warn, bad = panel.thresholds
        steps = [{"color": "green", "value": None}, {"color": "orange", "value": warn}, {"color": "red", "value": bad}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 40 if panel.stacked else 8
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": fill, "stacking": stacking, "showPoints": "never"}
        defaults["min"] = 0
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.doc,
        "datasource": panel.source,
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, place: int, query: Query) -> dict[str, Any]:
    common = {"refId": chr(ord("A") + place), "datasource": panel.source, "expr": query.expr}
    if panel.source is LOKI:
        return {**common, "queryType": "range"}
    return {
        **common,
        "legendFormat": query.legend or "__auto",
        "format": query.form,
        "exemplar": query.exemplars,
        "instant": query.instant,
        "range": not query.instant,
    }


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "timeseries":
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "stat":
            return {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
        case "heatmap":
            scheme = {"mode": "scheme", "scheme": "Spectral", "steps": 64}
            return {
                "calculate": False,
                "color": scheme,
                "yAxis": {"unit": "s"},
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
            }
        case "logs":
            return {"showTime": True, "wrapLogMessage": True, "enableLogDetails": True, "sortOrder": "Descending"}
        case _:
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"}


def text() -> str:
    """Return the text of the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    OUT.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
