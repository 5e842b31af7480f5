"""Minimal schemas of the custom resources that the chart renders, written from the operators' API references.

Strict where a typo would be dropped by an operator without a word: at every level unknown keys are refused.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT}
MAP = {"type": "object", "additionalProperties": TEXT}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": properties}


def _resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object(("name",), name=TEXT, namespace=TEXT, labels=MAP, annotations=MAP)
    said = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return _object(("apiVersion", "kind", "metadata", "spec"), **said)


_RELABEL = _object(
    action={"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep", "hashmod"]},
    sourceLabels=TEXTS,
    targetLabel=TEXT,
    regex=TEXT,
    replacement=TEXT,
)
_ENDPOINT = _object(
    ("port",),
    port=TEXT,
    path=TEXT,
    interval={"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    filterRunning=FLAG,
    relabelings={"type": "array", "items": _RELABEL},
)
_RULE = {
    **_object(
        ("expr",),
        record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
        alert=TEXT,
        expr=TEXT,
        **{"for": TEXT},
        labels=MAP,
        annotations=MAP,
    ),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}
_PROTOCOL = {"enum": ["PrometheusProto", "OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText0.0.4"]}

SCHEMAS = {
    "PodMonitor": _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            ("selector", "podMetricsEndpoints"),
            namespaceSelector=_object(any=FLAG, matchNames=TEXTS),
            selector=_object(matchLabels=MAP),
            scrapeProtocols={"type": "array", "items": _PROTOCOL, "uniqueItems": True},
            scrapeClassicHistograms=FLAG,
            podMetricsEndpoints={"type": "array", "minItems": 1, "items": _ENDPOINT},
        ),
    ),
    "PrometheusRule": _resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object(
            ("groups",),
            groups={
                "type": "array",
                "items": _object(("name", "rules"), name=TEXT, rules={"type": "array", "minItems": 1, "items": _RULE}),
            },
        ),
    ),
    "Issuer": _resource("cert-manager.io/v1", "Issuer", _object(("selfSigned",), selfSigned=_object())),
    "Certificate": _resource(
        "cert-manager.io/v1",
        "Certificate",
        _object(
            ("secretName", "issuerRef"),
            secretName=TEXT,
            dnsNames=TEXTS,
            duration={"type": "string", "pattern": "^[0-9]+h$"},
            renewBefore={"type": "string", "pattern": "^[0-9]+h$"},
            privateKey=_object(
                algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
                size={"enum": [256, 384, 521]},
                rotationPolicy={"enum": ["Never", "Always"]},
            ),
            usages={"type": "array", "items": {"enum": ["digital signature", "key encipherment", "server auth"]}},
            issuerRef=_object(("name",), name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=TEXT),
        ),
    ),
}
