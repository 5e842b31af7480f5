"""The values of the Helm chart, declared once: default, meaning and what is allowed.

Problem: values.yaml, its JSON Schema and the chart's README are three texts about the same keys, and they drift.
Promise: `tools.chart` writes all three from `VALUES`. What the injector's own configuration declares
(`injector.defaults`) is taken from there under the same names, so that a new option of the injector is one of the
chart without a line here. Schemas are strict (a typo is an error) and use only regular expressions that RE2 knows.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar import config, settings
from sidecar.errors import ConfigError
from sidecar.injector import grammar, names
from sidecar.injector import settings as injector
from sidecar.settings import checks, reference


def refused(wrong: dict[str, Any], instead: str) -> dict[str, Any]:
    """Return what refuses this in words: Helm says `value must be "…"` of a constant, and nothing of a `not`."""
    return {"if": wrong, "then": {"const": instead}}


TEXT: Final[dict[str, Any]] = {"type": "string"}
FLAG: Final[dict[str, Any]] = {"type": "boolean"}
OBJECT: Final[dict[str, Any]] = {"type": "object"}
TEXTS: Final[dict[str, Any]] = {"type": "object", "additionalProperties": TEXT}
OBJECTS: Final[dict[str, Any]] = {"type": "array", "items": OBJECT}
NAME: Final[dict[str, Any]] = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"}
LABELS: Final[dict[str, Any]] = {
    "type": "object",
    "propertyNames": {
        "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        **refused(
            {
                "enum": [
                    "helm.sh/chart",
                    names.INJECT,
                    *(
                        f"app.kubernetes.io/{name}"
                        for name in ("name", "instance", "component", "version", "managed-by", "part-of")
                    ),
                ]
            },
            "a label that the chart does not set itself",
        ),
    },
    "additionalProperties": {"type": "string", "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"},
}
ISSUER: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"name": NAME | {"minLength": 1}, "kind": TEXT, "group": TEXT},
    "dependencies": {"kind": ["name"], "group": ["name"]},
}
CERTIFICATES: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": "^$|-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----",
    **refused({"pattern": "PRIVATE KEY"}, "certificates only, without any key"),
}
DURATION: Final[dict[str, Any]] = {"type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h)$"}


@dataclass(frozen=True, slots=True)
class Value:
    """One key of values.yaml."""

    path: str  # "certificates.existingSecret.name"
    default: Any
    doc: str
    schema: dict[str, Any]


def choice(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def count(minimum: int, maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


_CHART: Final = [
    Value("global", {}, "Values that a parent chart shares; not used.", OBJECT),
    Value("enabled", True, "For the `condition` of a parent chart; not used by the chart itself.", FLAG),
    Value("nameOverride", "", "Instead of the chart's name in labels.", NAME | {"maxLength": 63}),
    Value(
        "fullnameOverride", "", "Instead of release and chart name in the names of objects.", NAME | {"maxLength": 40}
    ),
    Value("commonLabels", {}, "Labels of every object, beside the chart's own.", LABELS),
    Value(
        "image.repository",
        names.IMAGE,
        "Image of the injector and of every sidecar, without a tag.",
        TEXT | {"pattern": "^([^\\s@:/]+(:[0-9]{1,5})?/)?[^\\s@:/]+(/[^\\s@:/]+)*$"},
    ),
    Value(
        "image.tag",
        "",
        "Default: `v` and the chart's appVersion. `latest` is refused: it is another program tomorrow.",
        TEXT
        | {"pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"}
        | refused({"const": "latest"}, "a version such as v1.2.0, or a digest: latest is another program tomorrow"),
    ),
    Value("image.digest", "", "`sha256:…`. Wins over the tag.", TEXT | {"pattern": "^(sha256:[0-9a-f]{64})?$"}),
    Value("image.pullPolicy", "IfNotPresent", "Of the injector.", choice("Always", "IfNotPresent", "Never")),
    Value("imagePullSecrets", [], "Of the injector. Workloads need their own.", OBJECTS),
    Value(
        "injector.mode",
        "webhook",
        "`webhook`: a server that the API server asks. `policy`: a MutatingAdmissionPolicy, no server (Kubernetes 1.36 "
        "and later). `none`: no injection; the library templates only.",
        choice("webhook", "policy", "none"),
    ),
    Value("injector.replicas", 2, "Of the webhook. Two, so that an upgrade leaves no gap.", count(1, 20)),
    Value("injector.timeoutSeconds", 5, "How long a pod's creation waits for the webhook at most.", count(1, 5)),
    Value(
        "injector.kubernetesVersion",
        "",
        "Oldest version among API server and nodes, such as 1.29. Empty: the API server's, as Helm knows it.",
        TEXT | {"pattern": "^(v?1\\.[0-9]{1,3}(\\.[0-9]+)?)?$"},
    ),
    Value(
        "injector.excludedNamespaces",
        [],
        "Namespaces without injection beside kube-system, kube-public, kube-node-lease and the release's own.",
        {"type": "array", "items": NAME | {"minLength": 1}},
    ),
    Value(
        "injector.linger",
        "5s",
        "How long requests are answered after SIGTERM; the pod's grace period is 25 s more.",
        {"type": "string", "pattern": "^([0-9]{1,6}ms|[0-9]{1,3}s|[0-9]{1,2}m)$"},
    ),
    Value(
        "injector.resources",
        {
            "requests": {"cpu": "25m", "memory": "64Mi", "ephemeral-storage": "16Mi"},
            "limits": {"memory": "128Mi", "ephemeral-storage": "64Mi"},
        },
        "Of the injector.",
        OBJECT,
    ),
    Value(
        "injector.runAsUser",
        65532,
        "User and group of the injector; null where the platform assigns them.",
        {"type": ["integer", "null"], "minimum": 1},
    ),
    Value("injector.podAnnotations", {}, "Of the injector's pods.", TEXTS),
    Value("injector.podLabels", {}, "Of the injector's pods, beside the chart's own.", LABELS),
    Value("injector.nodeSelector", {}, "Of the injector's pods.", TEXTS),
    Value("injector.tolerations", [], "Of the injector's pods.", OBJECTS),
    Value("injector.affinity", {}, "Of the injector's pods.", OBJECT),
    Value("injector.topologySpread", True, "Spread replicas over hosts and zones where there are several.", FLAG),
    Value("injector.priorityClassName", "", "Such as system-cluster-critical.", NAME),
    Value("injector.podDisruptionBudget", True, "Let at most one replica be evicted at a time.", FLAG),
    Value(
        "injector.networkPolicy",
        True,
        "Allow nothing but the webhook's and the metrics port in, and nothing out.",
        FLAG,
    ),
    Value(
        "certificates.mode",
        "job",
        "Who makes the webhook's certificate. `certManager`: cert-manager. `job`: a job and a weekly cron job of "
        "our own image. `existingSecret`: you.",
        choice("certManager", "job", "existingSecret"),
    ),
    Value("certificates.days", 90, "How long a certificate lasts. Renewed when a third of it is left.", count(2, 397)),
    Value("certificates.issuerRef", {}, "`certManager`: the issuer. Empty: a self-signed one is made.", ISSUER),
    Value("certificates.existingSecret.name", "", "`existingSecret`: a Secret of type kubernetes.io/tls.", NAME),
    Value("certificates.existingSecret.caBundle", "", "`existingSecret`: its CA, PEM.", CERTIFICATES),
    Value("serviceAccount.create", True, "Make the injector's service account.", FLAG),
    Value("serviceAccount.name", "", "Its name. Default: the full name (see Certificates in the README).", NAME),
    Value("serviceAccount.annotations", {}, "Its annotations.", TEXTS),
    Value(
        "logAccess",
        [],
        "Where sidecars of log mode `api` run, and as whom: `[{namespace: shop, serviceAccounts: [default]}]`. Gives "
        "these service accounts `get` of `pods/log`: they can read every log of their namespace.",
        {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["namespace", "serviceAccounts"],
                "properties": {
                    "namespace": NAME | {"minLength": 1},
                    "serviceAccounts": {"type": "array", "minItems": 1, "items": NAME | {"minLength": 1}},
                },
            },
        },
    ),
    Value(
        "podMonitor.enabled", False, "PodMonitors for every sidecar and for the injector (Prometheus operator).", FLAG
    ),
    Value("podMonitor.interval", "15s", "How often sidecars are scraped.", DURATION),
    Value("podMonitor.nativeHistograms", False, "Scrape native histograms too (Prometheus 2.40 and later).", FLAG),
    Value("podMonitor.labels", {}, "Such as `release: kube-prometheus-stack`, which that chart selects by.", TEXTS),
    Value("prometheusRule.enabled", False, "The alert and recording rules as a PrometheusRule.", FLAG),
    Value("prometheusRule.labels", {}, "Of the PrometheusRule.", TEXTS),
    Value("dashboards.enabled", False, "The Grafana dashboard as a ConfigMap, for Grafana's dashboard sidecar.", FLAG),
    Value("dashboards.namespace", "", "Where the ConfigMap goes. Default: the release's namespace.", NAME),
    Value("dashboards.labels", {"grafana_dashboard": "1"}, "What Grafana's dashboard sidecar looks for.", TEXTS),
    Value("dashboards.annotations", {}, "Such as `grafana_folder: Services`.", TEXTS),
    Value("extraManifests", [], "Further objects, as they are.", OBJECTS),
]


def _whole(pattern: str) -> dict[str, Any]:
    return {"pattern": f"^({pattern})$"}


def _or_empty(pattern: str) -> dict[str, Any]:
    return {"pattern": f"^({pattern})?$"}


def _passed_on() -> dict[str, Any]:
    """Return the schema of `defaults.settings`: what of the sidecar's options is not the injector's, as texts.

    What only the loader can tell (a time zone, a regular expression) the injector tells at its start.
    """
    told = {}
    for option in settings.tree(config.Config).options.values():
        if not injector.decides(option.name) and option.name not in (*injector.SECRETS, *injector.FILES):
            told[option.name] = {"enum": list(injector.HOSTS)} if option.name == "http.host" else _text(option)
    return {"additionalProperties": False, "properties": told}


def _taken(name: str, text: str) -> bool:
    """Say whether sidecars would start with this, in every log mode; the loader knows."""
    said = {settings.variable("injector.defaults.settings"): json.dumps({name: text})}
    try:
        config.load(environ=said, cwd=Path("/nonexistent"))
    except ConfigError:
        return False
    return True


def _text(option: settings.Option) -> dict[str, Any]:
    """Return what a text for this option may be."""
    if option.choices:
        return {"enum": [word for word in option.choices if _taken(option.name, word)]}
    if option.kind.shape is not settings.Shape.ONE:
        return TEXT | {"pattern": "^[^\\x00-\\x1f\\x7f]*$"}
    said = option.kind.schema
    sign = "" if option.minimum is not None and option.minimum >= 0 else "[+-]?"
    match said["type"]:
        case "boolean":
            return {"enum": ["true", "false", "yes", "no", "on", "off", "1", "0"]}
        case "integer":
            return TEXT | _whole(f"{sign}(0|[1-9][0-9]{{0,17}})")
        case "number":
            return TEXT | _whole(f"{sign}[0-9]*\\.?[0-9]+([eE][+-]?[0-9]+)?")
        case _ if "pattern" in said:  # a lookahead says that there is something; RE2 has none
            pattern = said["pattern"].removeprefix("^").removesuffix("$").removeprefix("(?=.)")
            return TEXT | {"minLength": 1} | _whole(pattern)
    return TEXT | {"pattern": "^[^\\x00-\\x1f\\x7f]*$"}


# What the configuration file leaves to the program's checks, said to Helm; by the program's own patterns.
_NARROWED: Final[dict[str, dict[str, Any]]] = {
    **{name: _whole(pattern) for name, (_, pattern) in injector.AMOUNTS.items()},
    # Narrower than in the file: the chart computes the spool's bound from it.
    "state_size": _whole("[1-9][0-9]{0,6}(Mi|Gi)"),
    "log_path": _or_empty(grammar.LOG_PATH)
    | refused({"pattern": grammar.NO_LOG_PATH}, "in a directory of its own: a volume there must hide nothing"),
    "port": refused(
        {"enum": sorted(port for port in names.RESERVED_PORTS if port >= 1024)}, "a port that no service mesh uses"
    ),
    "environment": {"pattern": "^[^/\\x00-\\x1f\\x7f]*$"},
    "loki_url": _or_empty(grammar.URL)
    | refused({"pattern": f"[?#]|{checks.PUSH_PATH}/?$"}, f"the base URL: {checks.PUSH_PATH} is added"),
    "loki_tenant_id": _or_empty(checks.TENANT) | refused({"enum": [".", ".."]}, "one tenant"),
    "loki_labels": {
        "maxProperties": grammar.LOKI_LABELS_COUNT,
        "propertyNames": {
            **_whole(grammar.LABEL),
            **refused(
                {"anyOf": [{"pattern": "^__"}, {"enum": list(grammar.RESERVED_LABELS)}]},
                "a label that the sidecar does not set itself",
            ),
        },
        "additionalProperties": TEXT | _whole(grammar.LABEL_VALUE),
    },
    "loki_secret": _or_empty(grammar.OBJECT_NAME),
    "app_health_url": _or_empty(grammar.URL),
    "app_metrics_url": _or_empty(grammar.URL),
    "settings": _passed_on(),
}
_ENVIRONMENT: Final = re.compile(r" Environment: SIDECAR_[A-Z_]+\.$")


def _defaults() -> list[Value]:
    """Return `defaults.*`: the section `injector.defaults` of the configuration, name by name."""
    tree = settings.tree(injector.Config)
    schema = reference.json_schema(tree)["properties"]["defaults"]["properties"]
    values = []
    for option in tree.options.values():
        if not option.name.startswith("defaults."):
            continue
        one = copy.deepcopy(schema[option.name.removeprefix("defaults.")])
        one.pop("default", None)
        doc = _ENVIRONMENT.sub("", one.pop("description"))
        if isinstance(one.get("type"), list):  # null says nothing, and in Helm it removes the key
            kinds = [kind for kind in one["type"] if kind != "null"]
            one["type"] = kinds[0] if len(kinds) == 1 else kinds
        if "enum" in one:
            one = choice(*(word for word in one["enum"] if word is not None))
        one |= _NARROWED.get(option.name.removeprefix("defaults."), {})
        values.append(Value(option.name, option.default, doc, one))
    return values


VALUES: Final = [*_CHART, *_defaults()]
