"""OpenTelemetry's stdout exporters: `stdoutlog` records, and `stdouttrace` spans that are no logs.

A record's attributes stand in a list of {Key, Value{Type, Value}}; they become plain fields. Spans share stdout
and are kept as they are, never counted as requests. Read from opentelemetry-go's stdoutlog/record.go.
"""

from __future__ import annotations

from sidecar import gotext
from sidecar.formats.format import Fields, Format, has
from sidecar.units import Unit


def _pairs(attributes: object) -> Fields:
    pairs: Fields = {}
    if isinstance(attributes, list):
        for attribute in attributes:
            if isinstance(attribute, dict) and isinstance(attribute.get("Key"), str):
                value = attribute.get("Value")
                pairs[attribute["Key"]] = value.get("Value") if isinstance(value, dict) else value
    return pairs


def unwrap(record: Fields) -> Fields:
    """Lay a stdoutlog record flat: its attributes first by name, its resource's service name beside them."""
    flat: Fields = {}
    for key, value in record.items():
        if key == "Attributes":
            for name, each in _pairs(value).items():
                flat.setdefault(name, each)
        elif key == "Resource":
            resource = _pairs(value)
            flat["resource.service.name"] = resource.pop("service.name", None)
            if resource:
                flat["resource"] = resource
        elif key == "Body" and isinstance(value, dict):
            flat["Body"] = value.get("Value")
        else:
            flat[key] = value
    if gotext.level(record.get("SeverityText")) is None:
        by_number = gotext.severity(record.get("Severity"))
        if by_number:
            flat["SeverityText"] = by_number
    if flat.get("resource.service.name") is None:
        flat.pop("resource.service.name", None)
    return flat


STDOUT_LOG = Format(
    name="otel_stdout",
    when=has("SeverityText", "Body"),
    aliases={"level": ("SeverityText",), "timestamp": ("Timestamp", "ObservedTimestamp"), "message": ("Body",)},
    integer=Unit.NS,
    precision=3,
    prepare=unwrap,
)
STDOUT_TRACE = Format(
    name="otel_span",
    when=has("SpanContext", "StartTime", "EndTime"),
    aliases={
        "timestamp": ("EndTime",),
        "message": ("Name",),
        "trace_id": ("SpanContext.TraceID",),
        "span_id": ("SpanContext.SpanID",),
    },
)
