"""R21: the chart's values are declared once, and its schema is strict."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
import yaml

from sidecar import settings
from sidecar.injector import settings as injector
from tests.support import charts
from tools import chart
from tools.chartvalues import VALUES

SCHEMA = json.loads((charts.CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((charts.CHART / "values.yaml").read_text())


def _set(path, value):
    values = copy.deepcopy(DEFAULTS)
    *sections, key = path.split(".")
    place = values
    for name in sections:
        place = place[name]
    place[key] = value
    return values


def _errors(values):
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(values)]


@pytest.mark.parametrize("path", chart.files(), ids=lambda path: path.name)
def test_every_generated_file_is_what_would_be_generated_now(path):
    """If this fails: make generate"""
    assert path.read_text(encoding="utf-8") == chart.files()[path]


def test_the_defaults_satisfy_the_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    assert _errors(DEFAULTS) == []


def test_r21_every_key_of_the_values_is_in_the_schema_and_every_key_of_the_schema_in_the_values():
    def keys(node, prefix=""):
        for name, value in node.items():
            path = f"{prefix}{name}"
            yield path
            if path not in declared and isinstance(value, dict):
                yield from keys(value, f"{path}.")

    def schema_keys(node, prefix=""):
        for name, value in node["properties"].items():
            path = f"{prefix}{name}"
            yield path
            if path not in declared and "properties" in value:
                yield from schema_keys(value, f"{path}.")

    declared = {value.path for value in VALUES}

    assert sorted(keys(DEFAULTS)) == sorted(schema_keys(SCHEMA))


def test_r21_every_value_is_documented():
    for value in VALUES:
        assert value.doc.endswith("."), value.path


def test_every_default_of_the_injector_is_a_value_of_the_chart():
    options = settings.tree(injector.Config).options
    names = {name.removeprefix("defaults.") for name in options if name.startswith("defaults.")}

    assert set(DEFAULTS["defaults"]) == names


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image.tag", "latest"),
        ("image.tag", "v1 2"),
        ("image.digest", "sha256:abc"),
        ("image.repository", ""),
        ("image.repository", "ghcr.io/x@sha256:1"),
        ("injector.mode", "Webhook"),
        ("injector.replicas", 0),
        ("injector.replicas", "2"),
        ("injector.timeoutSeconds", 30),
        ("injector.kubernetesVersion", "29"),
        ("injector.excludedNamespaces", "kube-system"),
        ("injector.excludedNamespaces", [""]),
        ("injector.linger", "5"),
        ("injector.runAsUser", 0),
        ("certificates.mode", "selfSigned"),
        ("certificates.days", 3650),
        ("fullnameOverride", "Gin_Sidecar"),
        ("fullnameOverride", "a" * 41),
        ("logAccess", [{"namespace": "shop"}]),
        ("logAccess", [{"namespace": "shop", "serviceAccounts": []}]),
        ("logAccess", [{"namespace": "shop", "serviceAccounts": ["default"], "roles": []}]),
        ("podMonitor.interval", "15"),
        ("dashboards.labels", {"grafana_dashboard": 1}),
        ("defaults.log_mode", "automatic"),
        ("defaults.port", 80),
        ("defaults.port", "9180"),
        ("defaults.native", True),
        ("defaults.state_size", "256M"),
        ("defaults.settings", {"metrics.max_paths": 500}),
        ("defaults.lokiUrl", "http://loki"),
        ("defaults.loki_url", "foo"),
        ("defaults.loki_url", "http://loki:3100/loki/api/v1/push"),
        ("defaults.loki_url", "http://user:secret@loki"),
        ("defaults.loki_tenant_id", "a b"),
        ("defaults.loki_secret", "Not_A_Name"),
        ("defaults.loki_labels", {"a-b": "c"}),
        ("defaults.loki_labels", {"namespace": "payments"}),
        ("defaults.loki_labels", {"__a": "b"}),
        ("defaults.loki_labels", {"a": ""}),
        ("defaults.loki_labels", {f"l{number}": "x" for number in range(9)}),
        ("defaults.app_health_url", "x"),
        ("defaults.app_metrics_url", "localhost:8080"),
        ("defaults.cpu_request", "abc"),
        ("defaults.cpu_request", "64Mi"),
        ("defaults.memory_request", "1m"),
        ("defaults.memory_limit", "1Mi"),
        ("defaults.ephemeral_limit", "512"),
        ("defaults.environment", "a/b"),
        ("defaults.port", 15020),
        ("defaults.log_path", "shop.log"),
        ("defaults.log_path", "/var/log/../shop.log"),
        ("defaults.log_path", "/etc/shop.log"),
        ("defaults.readiness_probe", True),
        ("defaults.settings", {"normalize.timzone": "UTC"}),
        ("defaults.settings", {"sinks.loki.password": "hunter2"}),
        ("defaults.settings", {"sinks.loki.bearer_token": "x"}),
        ("defaults.settings", {"schema.path": "/nope.json"}),
        ("defaults.settings", {"source.kind": "file"}),
        ("defaults.settings", {"source.idle_flush": "soon"}),
        ("defaults.settings", {"source.idle_flush": ""}),
        ("defaults.settings", {"schema.on_invalid": "never"}),
        ("defaults.settings", {"metrics.max_paths": "many"}),
        ("defaults.settings", {"sinks.loki.when_full": "block"}),
        ("defaults.settings", {"http.host": "127.0.0.1"}),
        ("image.repository", "ghcr.io/x/y:v1"),
        ("image.repository", "https://ghcr.io/x"),
        ("injector.linger", "1h"),
        ("certificates.issuerRef", {"kind": "ClusterIssuer"}),
        ("certificates.issuerRef", {"name": ""}),
        ("commonLabels", {"app.kubernetes.io/name": "other"}),
        ("commonLabels", {"helm.sh/chart": "x"}),
        ("commonLabels", {"team": "a b"}),
        ("injector.podLabels", {"gin-sidecar.io/inject": "true"}),
        ("image.tags", "v1"),
        ("dashboard", {}),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_r21_a_wrong_value_or_a_typo_is_refused(path, value):
    assert _errors(_set(path, value)) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image.repository", "localhost:5000/platform/gin-sidecar"),
        ("defaults.loki_url", "http://[fd00::1]:3100/loki"),
        ("defaults.memory_limit", "1.5Gi"),
        ("defaults.log_path", "/var/log/shop/shop.log"),
        ("defaults.loki_labels", {"cluster": "eu-1"}),
        ("certificates.issuerRef", {"name": "platform-ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}),
        ("commonLabels", {"team": "platform", "example.com/cost-centre": "4711"}),
        (
            "defaults.settings",
            {
                "normalize.timezone": "Europe/Berlin",
                "metrics.quantiles": "[0.5, 0.99]",
                "source.max_line_bytes": "256KiB",
                "source.idle_flush": "1m30s",
                "metrics.native_histograms": "false",
                "http.host": "::",
                "sinks.loki.when_full": "spool",
            },
        ),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_what_the_program_takes_the_schema_takes(path, value):
    assert _errors(_set(path, value)) == []


def test_an_existing_secret_needs_its_name_and_its_ca():
    values = _set("certificates.mode", "existingSecret")

    assert len(_errors(values)) == 2
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    values["certificates"]["existingSecret"] = {"name": "tls", "caBundle": f"# ours\n{pem}{pem}"}
    assert _errors(values) == []
    for wrong in ("AAAA", "/etc/ca.pem", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n" + pem):
        values["certificates"]["existingSecret"]["caBundle"] = wrong
        assert _errors(values) != [], wrong


def test_r21_no_pattern_of_the_schema_needs_what_helms_regular_expressions_do_not_know():
    def patterns(node):
        if isinstance(node, dict):
            for name, value in node.items():
                if name == "pattern" and isinstance(value, str):
                    yield value
                else:
                    yield from patterns(value)
        elif isinstance(node, list):
            for one in node:
                yield from patterns(one)

    found = list(patterns(SCHEMA))

    assert found
    assert not [pattern for pattern in found if any(look in pattern for look in ("(?=", "(?!", "(?<", "\\1"))]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("image.tag", "latest", "another program tomorrow"),
        ("defaults.log_path", "/etc/shop.log", "hide nothing"),
        ("defaults.loki_labels", {"pod": "x"}, "does not set itself"),
    ],
)
def test_what_has_the_right_form_and_is_refused_all_the_same_is_refused_in_words(path, value, words):
    """Of a `not` Helm says only that it failed."""
    [error] = _errors(_set(path, value))

    assert words in error
    assert '"not"' not in json.dumps(SCHEMA)
