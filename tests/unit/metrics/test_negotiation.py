"""Which format an Accept header gets."""

from __future__ import annotations

import pytest

from sidecar.metrics import negotiation
from sidecar.metrics.negotiation import Kind

PROTO = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OPEN = "application/openmetrics-text"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_42_NATIVE = (
    f"{PROTO},application/openmetrics-text;version=1.0.0;q=0.8,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, TEXT_TYPE),
        ("", TEXT_TYPE),
        ("*/*", TEXT_TYPE),
        ("text/*", TEXT_TYPE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT_TYPE),
        ("text/plain", TEXT_TYPE),
        ("text/plain;version=0.0.4", TEXT_TYPE),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT_TYPE),
        ("application/json", TEXT_TYPE),
        (OPEN, OPEN_TYPE),
        ("APPLICATION/OpenMetrics-Text; VERSION=1.0.0", OPEN_TYPE),
        ('application/openmetrics-text; version="1.0.0"', OPEN_TYPE),
        ("application/*", OPEN_TYPE),
        (f"{OPEN};version=0.0.1", "application/openmetrics-text; version=0.0.1; charset=utf-8"),
        (PROMETHEUS_2_42, OPEN_TYPE),
        (PROMETHEUS_3, OPEN_TYPE.replace("underscores", "allow-utf-8")),
        (f"{OPEN};version=1.0.0;escaping=<script>", OPEN_TYPE),
        # weights
        (f"{OPEN};version=1.0.0;q=0.1,text/plain;q=0.9", TEXT_TYPE),
        (f"text/plain;q=0.1,{OPEN};q=0.9", OPEN_TYPE),
        (f"{OPEN},text/plain", OPEN_TYPE),
        (f"text/plain,{OPEN}", TEXT_TYPE),
        (f"{OPEN};q=0", TEXT_TYPE),
        (f"{OPEN};q=0.0,*/*", TEXT_TYPE),
        ("text/plain;q=0,*/*", OPEN_TYPE),
        (f"text/plain;q=0,*/*;q=0.5,{OPEN};q=0", TEXT_TYPE),
        ("text/plain;q=0", TEXT_TYPE),
        (f"{OPEN};version=1.0.0;q=0,{OPEN}", "application/openmetrics-text; version=0.0.1; charset=utf-8"),
        (f"{OPEN};q=5,text/plain;q=0.9", OPEN_TYPE),
        (f"{OPEN};q=high,text/plain;q=0.1", TEXT_TYPE),
        (f"{OPEN};q=nan", TEXT_TYPE),
        (f"{OPEN};q=-1", TEXT_TYPE),
        (f"{OPEN};q=.", TEXT_TYPE),
        (f"{OPEN};q=.5", OPEN_TYPE),
        # versions we do not write
        (f"{OPEN};version=2.0.0", TEXT_TYPE),
        (f"{OPEN};version=99.0.0", TEXT_TYPE),
        (f"{OPEN};version=abc", TEXT_TYPE),
        (f"{OPEN};version=", TEXT_TYPE),
        (f"{OPEN};version=2.0.0,{OPEN};version=1.0.0;q=0.5", OPEN_TYPE),
        # noise
        (";;;,,,", TEXT_TYPE),
        (f'x/y;a="b,{OPEN}"', TEXT_TYPE),
        (f'x/y;a="b\\"";q=1,{OPEN}', OPEN_TYPE),
        (f'"{OPEN}', TEXT_TYPE),
        ("\ud800\x00", TEXT_TYPE),
        ("," * 100_000 + OPEN, TEXT_TYPE),
    ],
)
def test_rule_15_a_header_gets_the_format_it_weighs_highest_and_a_version_that_is_written(
    accept: str | None, content_type: str
) -> None:
    assert negotiation.negotiate(accept).content_type == content_type


@pytest.mark.parametrize("accept", [PROTO, PROMETHEUS_2_42_NATIVE, f"{PROTO};q=0.9,*/*;q=0.5", PROTO.upper()])
def test_rule_15_protobuf_is_for_whoever_names_it(accept: str) -> None:
    form = negotiation.negotiate(accept)

    assert form == negotiation.PROTOBUF
    assert form.content_type == (
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    )


@pytest.mark.parametrize(
    "accept",
    [
        "application/vnd.google.protobuf",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
        "application/vnd.google.protobuf;encoding=delimited",
        f"{PROTO};q=0",
        "application/*",
        "*/*",
    ],
)
def test_rule_15_protobuf_is_for_nobody_else(accept: str) -> None:
    assert negotiation.negotiate(accept).kind is not Kind.PROTOBUF


def test_rule_15_without_native_histograms_protobuf_is_not_offered() -> None:
    assert negotiation.negotiate(PROMETHEUS_2_42_NATIVE, protobuf=False).content_type == OPEN_TYPE
    assert negotiation.negotiate(PROTO, protobuf=False) == negotiation.TEXT


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, deflate", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
        ("identity", False),
        ("gzipped", False),
        ("br", False),
        ("gzip;q=much", False),
    ],
)
def test_rule_16_gzip_is_for_whoever_accepts_it(header: str | None, accepted: bool) -> None:
    assert negotiation.accepts_gzip(header) is accepted
