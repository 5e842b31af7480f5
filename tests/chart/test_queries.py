"""R23: every query of the dashboard and of the rules asks for metrics and labels that the sidecar has."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from sidecar import telemetry
from sidecar.injector import events
from sidecar.metrics import families
from tests.support import charts, programs
from tools import dashboard

RULES = charts.CHART / "rules" / "gin-sidecar.yaml"
SCRAPED = {"namespace", "pod", "job", "instance", "container"}  # what Prometheus adds to every series
# Measured by the kubelet, not by us.
KUBELET = {"container_cpu_usage_seconds_total": set(), "container_memory_working_set_bytes": set()}
SUMMARY, HISTOGRAM, COUNTER = "http_request_duration_ms", "http_request_duration_seconds", "http_requests"


def _registered(registry):
    """Return the samples of a registry with their label names, those of metrics without a series yet too."""
    found = {}
    for metric in set(registry._collector_to_names):
        labels = set(metric._labelnames)
        match metric._type:
            case "counter":
                found[f"{metric._name}_total"] = labels
            case "histogram":
                found |= {f"{metric._name}_{suffix}": labels for suffix in ("sum", "count")}
                found[f"{metric._name}_bucket"] = {*labels, "le"}
            case _:
                found[metric._name] = labels
    return found


@pytest.fixture(scope="module")
def metrics():
    assert {SUMMARY, HISTOGRAM, COUNTER} == families.NAMES
    request = {"method", "path"}
    ours = {
        SUMMARY: {*request, "quantile"},
        f"{SUMMARY}_sum": request,
        f"{SUMMARY}_count": request,
        f"{HISTOGRAM}_bucket": {*request, "le"},
        f"{HISTOGRAM}_sum": request,
        f"{HISTOGRAM}_count": request,
        f"{COUNTER}_total": {*request, "status"},
    }
    sidecars = _registered(telemetry.Telemetry(sinks=("loki", "stdout")).registry)
    injectors = _registered(events.Events(telemetry.Log()).registry)
    assert len(sidecars) > 30
    assert "sidecar_injector_decisions_total" in injectors
    return ours | sidecars | injectors | KUBELET


def _rules():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def _recorded():
    return {rule["record"] for rule in _rules() if "record" in rule}


BOARD = json.loads(dashboard.OUT.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in PANELS
    for target in panel["targets"]
    if target["datasource"]["type"] == "prometheus"
] + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in _rules()]

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_NOT_METRICS = {
    *("sum", "max", "min", "count", "rate", "increase", "topk", "histogram_quantile", "predict_linear"),
    *("by", "and", "or", "unless", "offset", "on", "ignoring"),
}


def _series(expr):
    """Return each selector of a PromQL expression with its labels, and the labels that are grouped by."""
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expr) for label in group.split(",")}
    bare = re.sub(r"\bby \([^)]*\)", "", expr)
    found = []
    for match in re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?", re.sub(r"\[[^]]*\]|offset \w+", "", bare)):
        name, selector = match[1], match[2] or ""
        if name not in _NOT_METRICS:
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))))
    # Words within selectors are labels and values, not metrics.
    inside = {word for selector in re.findall(r"\{[^}]*\}", bare) for word in _WORD.findall(selector)}
    return [(name, labels) for name, labels in found if labels or name not in inside], grouped


@pytest.mark.parametrize(("name", "expr"), QUERIES, ids=[name for name, _ in QUERIES])
def test_r23_a_query_asks_for_what_there_is(name, expr, metrics):
    series, grouped = _series(expr)

    assert series, expr
    known = set()
    for metric, labels in series:
        if metric in _recorded():
            known |= set(metric.split(":")[0].split("_")) | {"namespace", "job"}
            continue
        assert metric in metrics, f"{metric} is no metric of ours"
        assert labels <= metrics[metric] | SCRAPED, f"{metric} has no label {labels - metrics[metric] - SCRAPED}"
        known |= metrics[metric]
    assert grouped <= known | SCRAPED | {"le"}, grouped


def test_a_query_for_something_else_would_be_noticed(metrics):
    series, grouped = _series('sum by (route) (rate(sidecar_lines_total{pod="x",stream="y"}[5m])) > 1')

    assert series == [("sidecar_lines_total", {"pod", "stream"})]
    assert grouped == {"route"}
    assert "sidecar_lines_total" not in metrics


def test_the_dashboard_is_what_would_be_written_now():
    """If this fails: make generate"""
    assert dashboard.OUT.read_text(encoding="utf-8") == dashboard.text()


def test_panels_have_ids_and_places_of_their_own():
    ids = [panel["id"] for panel in BOARD["panels"]]
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len(set(ids)) == len(ids)


def test_every_panel_says_what_it_shows_and_which_unit_it_has():
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_covers_the_whole_job():
    shown = " ".join(expr for _, expr in QUERIES)
    wanted = (
        "http_requests_total",
        "http_request_duration_seconds_bucket",
        "http_request_duration_ms",
        "sidecar_level_",
    )
    wanted += (
        "sidecar_schema_violations",
        "sidecar_records_total",
        "sidecar_sink_offered",
        "sidecar_sink_records_total",
    )
    wanted += ("sidecar_lag_seconds", "sidecar_lost_bytes", "container_cpu", "container_memory")
    assert not [name for name in wanted if name not in shown]
    assert {"timeseries", "heatmap", "stat", "logs"} <= {panel["type"] for panel in PANELS}


def test_a_latency_panel_leads_to_the_logs_of_a_trace():
    """The link of an exemplar carries its trace id into a Loki query over our structured metadata."""
    latency = [panel for panel in PANELS if "atency" in panel["title"]]

    assert latency
    for panel in latency:
        links = [link["url"] for link in panel["fieldConfig"]["defaults"]["links"]]
        (to_trace,) = [url for url in links if "trace_id=`${__data.fields.trace_id}`" in url]
        panes = json.loads(re.sub(r"\$\{(\w|\.)+\}|\$\w+", "x", to_trace.split("panes=")[1]))
        assert panes["logs"]["datasource"] == "x"
    assert any(target.get("exemplar") for panel in latency for target in panel["targets"])


def test_variables_of_the_dashboard_are_all_used_and_all_declared():
    declared = {variable["name"] for variable in BOARD["templating"]["list"]}
    text = json.dumps(BOARD["panels"])
    used = {name for name in re.findall(r"\$\{?([a-z]+)\b", text) if not name.startswith("__")}

    assert used == declared


# with Prometheus itself


@pytest.mark.e2e
def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path):
    def filled(expr):
        return (
            expr.replace("$__rate_interval", "5m")
            .replace("$namespace", "n")
            .replace("$service", "s")
            .replace("$route", "r")
        )

    rules = [{"record": f"q{n}", "expr": filled(expr)} for n, (_, expr) in enumerate(QUERIES)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in programs.passes("promtool", "check", "rules", "--lint=none", file)


@pytest.mark.e2e
def test_r23_prometheus_can_read_the_rules():
    programs.passes("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.e2e
def test_the_rules_pass_their_unit_tests():
    programs.passes("promtool", "test", "rules", programs.ROOT / "tests" / "chart" / "rules.test.yaml")


def test_every_rule_has_a_unit_test():
    tests = yaml.safe_load((programs.ROOT / "tests" / "chart" / "rules.test.yaml").read_text())["tests"]
    alerts = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ())}
    firing = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    asked = " ".join(case["expr"] for test in tests for case in test.get("promql_expr_test", ()))

    assert alerts == firing == {rule["alert"] for rule in _rules() if "alert" in rule}
    assert not [name for name in _recorded() if name not in asked]


def test_every_alert_says_what_happened_and_what_to_do():
    for rule in _rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert set(rule["annotations"]) == {"summary", "description"}
