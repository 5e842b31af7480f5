"""Nothing that a log line holds can fail a scrape, and nobody's Accept header either."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.metrics import exposition, families, negotiation
from sidecar.metrics.exposition import PROTOBUF, TEXT
from tests.support import protobuf_reader
from tests.support.measured import OPENMETRICS, Measured, read

anything = st.one_of(
    st.text(st.characters(), max_size=30),  # surrogates and control characters included
    st.text('\\"\n{}=,%# \0\r\x85\u2028', max_size=20),
    st.sampled_from(["/orders/:id", "other", "unmatched", "x" * 10_000, "\ud800", 'le="+Inf"} 7\n', "%s%d%%"]),
    st.integers(),
    st.none(),
)


@given(
    st.lists(
        st.tuples(anything, anything, anything, st.integers(min_value=100, max_value=599), anything),
        min_size=1,
        max_size=5,
    )
)
@example([("GET", "/ws", None, 101, None)])  # of which no duration is kept: a quantile of nothing
@settings(max_examples=60)
def test_rule_17_any_label_gives_a_page_that_every_parser_reads(lines: list[tuple]) -> None:
    measured = Measured(quantiles=[0.5], buckets=[0.1])
    for method, route, path, status, trace_id in lines:
        trace = trace_id if isinstance(trace_id, str) else ""
        measured.observe(1.0, method=method, route=route, path=path, status=status, trace_ids=[trace])
    names = families.NAMES

    text = read(measured.page(TEXT, names))
    openmetrics = read(measured.page(OPENMETRICS, names), openmetrics=True)
    found = protobuf_reader.families(exposition.render(PROTOBUF, measured.registry, measured.requests, names))

    assert text == pytest.approx(openmetrics, rel=0, abs=0, nan_ok=True)
    assert sum(value for name, value in text.items() if name.startswith("http_requests_total")) == len(lines)
    assert sum(metric["counter"]["value"] for metric in found["http_requests_total"]["metric"]) == len(lines)
    for metric in found["http_requests_total"]["metric"]:
        assert all(len(value) <= 256 for value in protobuf_reader.labels(metric).values())


@given(st.floats())
def test_a_number_is_read_back_as_it_was(value: float) -> None:
    text = families.number(value)

    back = float(text)

    assert back == value or (math.isnan(back) and math.isnan(value))


tokens = st.sampled_from(
    [
        "application/openmetrics-text",
        "text/plain",
        "*/*",
        "text/*",
        "application/vnd.google.protobuf",
        "proto=io.prometheus.client.MetricFamily",
        "encoding=delimited",
        "version=1.0.0",
        "version=0.0.4",
        "version=abc",
        "version=",
        'version="1.0.0',
        "q=0",
        "q=1",
        "q=0.5",
        "q=",
        "q=nan",
        "escaping=allow-utf-8",
        ";",
        ",",
        "=",
        '"',
        "\\",
        " ",
    ]
)
headers = st.one_of(st.text(st.characters(), max_size=60), st.lists(tokens, max_size=20).map("".join))
CONTENT_TYPES = {
    "text/plain; version=0.0.4; charset=utf-8",
    "application/openmetrics-text; version=0.0.1; charset=utf-8",
    *(
        f"application/openmetrics-text; version=1.0.0; charset=utf-8; escaping={escaping}"
        for escaping in ("allow-utf-8", "underscores", "dots", "values")
    ),
    PROTOBUF.content_type,
}


@given(headers, st.booleans())
@settings(max_examples=200)
def test_rule_15_any_header_gets_one_of_the_formats_that_are_written(header: str, protobuf: bool) -> None:
    form = negotiation.negotiate(header, protobuf=protobuf)

    assert form.content_type in CONTENT_TYPES
    assert protobuf or form != PROTOBUF


@given(headers)
def test_rule_16_any_header_says_whether_it_takes_gzip(header: str) -> None:
    assert negotiation.accepts_gzip(header) in (True, False)


@given(st.lists(st.tuples(st.sampled_from(["text/plain", "application/openmetrics-text"]), st.integers(0, 1000))))
def test_rule_15_the_highest_weight_wins_and_the_first_of_equals(ranges: list[tuple[str, int]]) -> None:
    """A type that is named twice counts with the weight it is named with first."""
    header = ",".join(f"{name};q={weight / 1000}" for name, weight in ranges)
    weights: dict[str, int] = {}
    for name, weight in ranges:
        weights[name] = max(weight, weights.get(name, 0))

    form = negotiation.negotiate(header)

    chosen = form.content_type.partition(";")[0]
    if max(weights.values(), default=0):
        assert weights[chosen] == max(weights.values())
    else:
        assert form == TEXT
