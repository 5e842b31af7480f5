"""What stands on the wire, read by a reader that shares no code with the writer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sidecar.metrics import protobuf
from tests.support import protobuf_reader
from tests.support.measured import TRACE_ID

BOUNDS = (0.01, 0.1, math.inf)


def histogram(counts: dict[int, int], **changes: Any) -> dict[str, Any]:
    total = sum(counts.values())
    fields: dict[str, Any] = {
        "count": total,
        "total": 1.5,
        "bounds": BOUNDS,
        "cells": [0, total, 0],
        "exemplars": [None, None, None],
        "schema": 5,
        "zero_threshold": 2.0**-128,
        "zeros": 0,
        "counts": counts,
        "created": 1.25,
        **changes,
    }
    metric = protobuf.histogram(protobuf.labels({"path": "/x"}), **fields)
    body = protobuf.family("h", "Help.", protobuf.HISTOGRAM, [metric])
    return protobuf_reader.families(body)["h"]["metric"][0]["histogram"]


def test_rule_21_a_small_histogram_is_these_bytes() -> None:
    """Written down by hand from metrics.proto."""
    metric = protobuf.histogram(
        protobuf.labels({"a": "b"}),
        count=3,
        total=0.5,
        bounds=(0.25, math.inf),
        cells=[2, 1],
        exemplars=[("ab", 0.125, 2.5), None],
        schema=-1,
        zero_threshold=0.0,
        zeros=1,
        counts={-1: 1, 0: 1},
        created=1.0,
    )
    half, quarter, eighth, infinity = "000000000000e03f", "000000000000d03f", "000000000000c03f", "000000000000f07f"
    exemplar = f"0a0e0a0874726163655f696412026162 11{eighth} 1a0808021080cab5ee01"
    expected = f"""
        0a06 0a0161 120162
        3a8d 01
          0803 11{half}
          1a30 0802 11{quarter} 1a23 {exemplar}
          1a0b 0803 11{infinity}
          2801 310000000000000000 3801
          6204 0801 1002
          6a02 0200
          7a04 0801 1000
          8201 23 {exemplar}
    """
    content = bytes.fromhex("".join(expected.split()))

    assert metric.hex() == content.hex()


def test_a_family_says_its_length_first() -> None:
    body = protobuf.family("n", "H", protobuf.GAUGE, [protobuf.gauge(b"", 1.0)])

    assert body.hex() == "15 0a016e 120148 1801 220b 1209 09000000000000f03f".replace(" ", "")


@pytest.mark.parametrize(
    "counts",
    [
        {0: 1},
        {-4096: 1, 525: 2**40},
        {bucket: bucket % 7 + 1 for bucket in range(-300, 300)},
        dict.fromkeys(range(-300, 300, 3), 1),
        {5: 100, 6: 1, 8: 1_000_000, -3: 7},
    ],
    ids=["one", "far", "dense", "sparse", "steps"],
)
def test_rule_21_native_buckets_survive_spans_and_deltas(counts: dict[int, int]) -> None:
    read = histogram(counts)

    assert protobuf_reader.native(read) == counts
    assert read["sample_count"] == sum(counts.values())
    assert read["bucket"][-1]["cumulative_count"] == read["sample_count"]
    assert all(first["offset"] > 0 for first in read["positive_span"][1:])


def test_rule_21_an_empty_histogram_has_a_span_that_does_nothing() -> None:
    read = histogram({})

    assert read["positive_span"] == [{"offset": 0, "length": 0}]
    assert "positive_delta" not in read
    assert protobuf_reader.native(read) == {}


def test_rule_20_a_native_histogram_has_classic_buckets_too() -> None:
    read = histogram({0: 4}, cells=[1, 2, 1])

    assert [(bucket["upper_bound"], bucket["cumulative_count"]) for bucket in read["bucket"]] == [
        (0.01, 1),
        (0.1, 3),
        (math.inf, 4),
    ]
    assert (read["schema"], read["zero_threshold"], read["zero_count"]) == (5, 2.0**-128, 0)


def test_rule_21_exemplars_stand_in_their_bucket_and_in_the_native_part_with_their_time() -> None:
    read = histogram({0: 1}, exemplars=[None, (TRACE_ID, 0.067, 1_700_000_000.25), None])

    (native,) = read["exemplars"]
    assert native == read["bucket"][1]["exemplar"]
    assert protobuf_reader.labels(native) == {"trace_id": TRACE_ID}
    assert native["timestamp"] == {"seconds": 1_700_000_000, "nanos": 250_000_000}
    assert native["value"] == 0.067


@pytest.mark.parametrize("schema", [-4, -1, 0, 5, 8])
def test_a_schema_may_be_negative(schema: int) -> None:
    assert histogram({0: 1}, schema=schema)["schema"] == schema


def test_the_other_kinds_are_read_back_as_they_were_written() -> None:
    pairs = protobuf.labels({"method": "GET", "path": '/é"\n'})
    families = protobuf_reader.families(
        protobuf.family(
            "c_total", "C.", protobuf.COUNTER, [protobuf.counter(pairs, 7.5, 3.0), protobuf.counter(b"", 0)]
        )
        + protobuf.family("g", "G.", protobuf.GAUGE, [protobuf.gauge(pairs, -math.inf)])
        + protobuf.family("u", "U.", protobuf.UNTYPED, [protobuf.untyped(pairs, 1e300)])
        + protobuf.family(
            "s",
            "S.",
            protobuf.SUMMARY,
            [
                protobuf.summary(
                    pairs, count=2, total=2**53 + 0.0, quantiles=[(0.5, math.nan), (0.99, 2.0)], created=9.0
                )
            ],
        )
    )

    counters = families["c_total"]["metric"]
    assert [metric["counter"]["value"] for metric in counters] == [7.5, 0]
    assert counters[0]["counter"]["created_timestamp"] == {"seconds": 3, "nanos": 0}
    assert protobuf_reader.labels(counters[0]) == {"method": "GET", "path": '/é"\n'}
    assert families["g"]["metric"][0]["gauge"]["value"] == -math.inf
    assert families["u"]["metric"][0]["untyped"]["value"] == 1e300
    summary = families["s"]["metric"][0]["summary"]
    assert (summary["sample_count"], summary["sample_sum"]) == (2, 2.0**53)
    assert math.isnan(summary["quantile"][0]["value"])
    assert [families[name]["type"] for name in ("c_total", "g", "u", "s")] == ["COUNTER", "GAUGE", "UNTYPED", "SUMMARY"]


def test_what_cannot_be_utf8_does_not_fail_a_page() -> None:
    metric = protobuf.gauge(protobuf.labels({"path": "\ud800"}), 1.0)

    families = protobuf_reader.families(protobuf.family("g", "G.", protobuf.GAUGE, [metric]))

    assert protobuf_reader.labels(families["g"]["metric"][0]) == {"path": "?"}
