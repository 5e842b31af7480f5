"""The bytes of a push."""

from __future__ import annotations

import gzip
import time

import orjson
import pytest

from sidecar.loki import protobuf, wire
from sidecar.loki.streams import Streams
from sidecar.model import Outcome
from tests.support import loki_wire, records

STREAM = Streams({"pod": "p"}).of("orders", valid=True)
OVERFLOW = Streams({}, max_services=0).of("orders", valid=True)


def encode(made, stream=STREAM, times=None, **options):
    return wire.entries(stream, made, times or [record.time_ns for record in made], **options)


def test_json_holds_one_stream_with_string_times_lines_and_metadata():
    made = records.records(2, start_ns=5, step_ns=1)

    document = orjson.loads(gzip.decompress(wire.json_body(STREAM, encode(made))))

    assert document == {
        "streams": [
            {
                "stream": STREAM.labels,
                "values": [
                    [
                        str(5 + n),
                        made[n].line.decode(),
                        {
                            "trace_id": made[n].trace_id,
                            "span_id": made[n].span_id,
                            "detected_level": "info",
                            "format": "canonical",
                        },
                    ]
                    for n in range(2)
                ],
            }
        ]
    }


def test_equal_pushes_are_equal_bytes_whatever_the_time(monkeypatch):
    made = records.records(100)
    first = [write(STREAM, encode(made)) for write in (wire.json_body, protobuf.body)]

    monkeypatch.setattr(time, "time", lambda: 4e9)

    assert [write(STREAM, encode(made)) for write in (wire.json_body, protobuf.body)] == first


def test_protobuf_says_the_same_as_json():
    made = [
        *records.records(3),
        records.record("ünï\n\x00", trace_id="", span_id=""),
        records.record("bad", outcome=Outcome.INVALID, violations=(("a", "type"),)),
        records.record("x" * 300_000),
        records.record("whole second", time_ns=7 * 10**9),
    ]
    entries = encode(made)

    read = loki_wire.read_protobuf(loki_wire.unsnap(gzip.decompress(protobuf.body(STREAM, entries))))

    assert read == [(STREAM.labels, [(int(at), line, list(pairs.items())) for at, line, pairs in entries])]


def test_ids_that_a_record_does_not_have_are_left_out():
    (entry,) = encode([records.record(trace_id="", span_id="")])

    assert entry[2] == {"detected_level": "info", "format": "canonical"}


def test_an_invalid_record_says_what_is_wrong_bounded():
    made = records.record(
        outcome=Outcome.INVALID, violations=tuple((f"field{n}\ud800" + "x" * 100, "type") for n in range(50))
    )
    short = records.record(outcome=Outcome.INVALID, violations=(("trace_id", "required"), ("timestamp", "format")))

    long_entry, short_entry = encode([made, short])

    assert short_entry[2]["violation"] == "trace_id:required,timestamp:format"
    assert len(long_entry[2]["violation"]) <= 512
    long_entry[2]["violation"].encode()


def test_a_time_that_was_brought_to_the_present_says_what_it_was():
    future, past, far = (records.record(time_ns=ns) for ns in (253402300799_123456789, -1, 10**30))

    made = encode([future, past, far], times=[10**18, 10**18 + 1, 10**18 + 2])

    assert [entry[2]["original_timestamp"] for entry in made] == [
        "9999-12-31T23:59:59.123456789Z",
        "1969-12-31T23:59:59.999999999Z",
        f"{10**30}ns",
    ]


def test_a_time_that_moved_by_nanoseconds_says_nothing():
    (entry,) = encode([records.record(time_ns=5)], times=[9])

    assert entry[0] == "9"
    assert "original_timestamp" not in entry[2]


def test_a_shared_stream_says_the_service_in_metadata():
    (entry,) = encode([records.record(service_name="late")], stream=OVERFLOW)

    assert entry[2]["service_name"] == "late"


def test_a_line_of_the_greatest_length_stays_whole():
    record = records.record()
    record.line = b'"' + b"x" * (wire.MAX_LINE_BYTES - 2) + b'"'

    (entry,) = encode([record])

    assert entry[1].encode() == record.line
    assert "part" not in entry[2]


def test_a_longer_line_goes_in_parts_that_join_to_it():
    record = records.record()
    record.line = ('"' + "é日x" * 200_000 + '"').encode()

    made = encode([record])

    assert "".join(line for _, line, _ in made).encode() == record.line
    assert all(len(line.encode()) <= wire.MAX_LINE_BYTES for _, line, _ in made)
    assert [pairs["part"] for _, _, pairs in made] == [f"{n}/{len(made)}" for n in range(1, len(made) + 1)]
    assert {at for at, _, _ in made} == {str(record.time_ns)}


def test_bytes_that_are_no_text_become_replacement_characters():
    record = records.record()
    record.line = b'{"message":"\xff"}'

    assert encode([record, records.record()])[0][1] == '{"message":"\ufffd"}'


def test_plain_entries_have_no_metadata():
    record = records.record("x" * 300_000)

    assert [pairs for _, _, pairs in encode([record], plain=True)] == [{}, {}]


@pytest.mark.parametrize("count", [1, 50])
def test_the_weight_is_never_less_than_what_loki_will_hold(count):
    made = records.records(count) + [
        records.record(outcome=Outcome.INVALID, violations=(("x" * 600, "type"),), time_ns=-5) for _ in range(count)
    ]
    entries = encode(made, times=[1] * len(made))

    held = [
        len(line.encode()) + sum(len(k) + len(v.encode()) for k, v in pairs.items()) + 27 for _, line, pairs in entries
    ]

    assert all(weight >= size for weight, size in zip(wire.weights(made), held, strict=True))
