"""An independent reader of io.prometheus.client.MetricFamily, delimited, written from metrics.proto alone."""

from __future__ import annotations

import struct
from typing import Any

# message → field number → (name, kind, repeated); a kind that is a message's name nests.
SCHEMA: dict[str, dict[int, tuple[str, str, bool]]] = {
    "MetricFamily": {
        1: ("name", "string", False),
        2: ("help", "string", False),
        3: ("type", "uint", False),
        4: ("metric", "Metric", True),
        5: ("unit", "string", False),
    },
    "Metric": {
        1: ("label", "LabelPair", True),
        2: ("gauge", "Value", False),
        3: ("counter", "Counter", False),
        4: ("summary", "Summary", False),
        5: ("untyped", "Value", False),
        6: ("timestamp_ms", "uint", False),
        7: ("histogram", "Histogram", False),
    },
    "LabelPair": {1: ("name", "string", False), 2: ("value", "string", False)},
    "Value": {1: ("value", "double", False)},
    "Counter": {
        1: ("value", "double", False),
        2: ("exemplar", "Exemplar", False),
        3: ("created_timestamp", "Timestamp", False),
    },
    "Summary": {
        1: ("sample_count", "uint", False),
        2: ("sample_sum", "double", False),
        3: ("quantile", "Quantile", True),
        4: ("created_timestamp", "Timestamp", False),
    },
    "Quantile": {1: ("quantile", "double", False), 2: ("value", "double", False)},
    "Histogram": {
        1: ("sample_count", "uint", False),
        2: ("sample_sum", "double", False),
        3: ("bucket", "Bucket", True),
        5: ("schema", "sint", False),
        6: ("zero_threshold", "double", False),
        7: ("zero_count", "uint", False),
        12: ("positive_span", "Span", True),
        13: ("positive_delta", "packed_sint", False),
        15: ("created_timestamp", "Timestamp", False),
        16: ("exemplars", "Exemplar", True),
    },
    "Bucket": {
        1: ("cumulative_count", "uint", False),
        2: ("upper_bound", "double", False),
        3: ("exemplar", "Exemplar", False),
    },
    "Span": {1: ("offset", "sint", False), 2: ("length", "uint", False)},
    "Exemplar": {
        1: ("label", "LabelPair", True),
        2: ("value", "double", False),
        3: ("timestamp", "Timestamp", False),
    },
    "Timestamp": {1: ("seconds", "uint", False), 2: ("nanos", "uint", False)},
}
WIRE = {"uint": 0, "sint": 0, "double": 1}
TYPES = ("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM")


def families(body: bytes) -> dict[str, dict[str, Any]]:
    """Return the families of a delimited stream by name; one that stands twice is an error."""
    found: dict[str, dict[str, Any]] = {}
    position = 0
    while position < len(body):
        length, position = _varint(body, position)
        assert position + length <= len(body), "a family is cut"
        family = _message(body[position : position + length], "MetricFamily")
        assert family["name"] not in found, family["name"]
        family["type"] = TYPES[family["type"]]
        found[family["name"]] = family
        position += length
    return found


def labels(message: dict[str, Any]) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in message["label"]}


def metric(family: dict[str, Any], **wanted: str) -> dict[str, Any]:
    """Return the one metric with these labels."""
    (found,) = (metric for metric in family["metric"] if labels(metric) == wanted)
    return found


def native(histogram: dict[str, Any]) -> dict[int, int]:
    """Return the native buckets by index."""
    deltas = iter(histogram.get("positive_delta", []))
    buckets: dict[int, int] = {}
    index, count = 0, 0
    for span in histogram["positive_span"]:
        index += span["offset"]
        for _ in range(span["length"]):
            count += next(deltas)
            assert count > 0
            buckets[index] = count
            index += 1
    assert next(deltas, None) is None, "more deltas than the spans hold"
    return buckets


def _message(data: bytes, name: str) -> dict[str, Any]:
    fields = SCHEMA[name]
    message: dict[str, Any] = {field: [] for field, _, repeated in fields.values() if repeated}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        field, kind, repeated = fields[tag >> 3]
        assert tag & 7 == WIRE.get(kind, 2), (name, field)
        if tag & 7 == 0:
            value, position = _varint(data, position)
            if kind == "sint":
                value = _unzigzag(value)
        elif tag & 7 == 1:
            (value,) = struct.unpack_from("<d", data, position)
            position += 8
        else:
            length, position = _varint(data, position)
            content = data[position : position + length]
            assert len(content) == length, "a field is cut"
            position += length
            value = _content(content, kind)
        if repeated:
            message[field].append(value)
        else:
            assert field not in message, (name, field)
            message[field] = value
    return message


def _content(content: bytes, kind: str) -> Any:
    if kind == "string":
        return content.decode()
    if kind == "packed_sint":
        values, position = [], 0
        while position < len(content):
            value, position = _varint(content, position)
            values.append(_unzigzag(value))
        return values
    return _message(content, kind)


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
