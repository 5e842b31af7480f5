"""Whatever bytes come, however they are cut: one record per line, no exception, the books balance."""

from __future__ import annotations

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.model import Chunk, Position
from tests.support import lines
from tests.support.pumping import cut, pump

PIECES = st.sampled_from(
    [
        b"\n", b"\n\n", b"\r\n", b" ", b"\x00", b"\xff\xfe", b"{", b"}", b"[GIN] ", b"[GIN-debug] ", b"panic: x", b"goroutine 1 [running]:",
        b"\tmain.go:1 +0x1", b"\x1b[31m2026/10/06 09:05:03 [Recovery] 2026/10/06 - 09:05:03 panic recovered:", b"\x1b[0m", b"Error #01: a",
        b"==================", b"WARNING: DATA RACE", b"fatal error: all goroutines are asleep - deadlock!", b"time=x level=INFO msg=a",
        b'2026-10-06T09:05:03.1Z\tINFO\tm\t{"a": 1}', b"9:05AM INF Request with errors: x", b" body_size=1 status=200", b"2026/10/06 09:05:03 x",
        b'{"log":"a\\n","stream":"stdout","time":"2026-10-06T09:05:03Z"}', b"2026-10-06T09:05:03Z stdout F x", b"2026-10-06T09:05:03Z stderr P y",
        lines.canonical(1)[0], lines.gin(1)[0], b'{"level":"info","ts":1.5,"msg":"m","status":200,"method":"GET","path":"/","latency":5}',
    ]
)  # fmt: skip
BYTES = st.lists(st.one_of(PIECES, st.binary(max_size=30)), max_size=40).map(b"".join)
SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)


def assert_accounted(pumped, data):
    metrics = pumped.metrics
    read = metrics.total("sidecar_lines_read_total")
    assert read == len(pumped.records) + metrics.total("sidecar_lines_joined_total") + metrics.total(
        "sidecar_lines_skipped_total"
    )
    assert metrics.total("sidecar_records_total") == len(pumped.records)
    assert metrics.total("sidecar_bytes_read_total") == len(data)
    # physical lines, each ended by a newline but perhaps the last
    assert read <= data.count(b"\n") + 1
    for record in pumped.records:
        assert isinstance(orjson.loads(record.line), dict)
        assert b"\n" not in record.line
    counted = sum(sum(one.statuses.values()) for one in pumped.requests.all())
    observed = sum(one.count for one in pumped.requests.all())
    assert counted == observed + metrics.total("sidecar_request_observations_rejected_total")


@given(data=BYTES, sizes=SIZES)
def test_any_bytes_become_records_and_the_books_balance(data, sizes):
    pumped = pump(cut(data, sizes))

    assert_accounted(pumped, data)


@given(data=BYTES, sizes=SIZES)
def test_how_the_bytes_are_cut_changes_nothing(data, sizes):
    whole, pieces = pump(cut(data, [])), pump(cut(data, sizes))

    assert [record.line for record in pieces.records] == [record.line for record in whole.records]
    assert [record.outcome for record in pieces.records] == [record.outcome for record in whole.records]


@given(data=BYTES, sizes=SIZES)
def test_the_watermark_never_passes_an_unfinished_line(data, sizes):
    pumped = pump(cut(data, sizes), keep_unfinished=True)

    watermark = pumped.tracker.watermark
    if watermark is not None:
        assert watermark.offset <= len(data)
        assert watermark.offset == 0 or data[watermark.offset - 1 : watermark.offset] == b"\n"


@given(first=BYTES, second=BYTES, sizes=SIZES)
def test_two_streams_of_a_command_keep_apart(first, second, sizes):
    def stream(name, data):
        return [Chunk(chunk.data, Position(name, chunk.start.offset), name) for chunk in cut(data, sizes)]

    out, err = stream("stdout", first), stream("stderr", second)
    mixed = [chunk for pair in zip(out, err, strict=False) for chunk in pair] + out[len(err) :] + err[len(out) :]

    pumped = pump(mixed, resumable=False)

    assert_accounted_streams(pumped, first + second)


def assert_accounted_streams(pumped, data):
    metrics = pumped.metrics
    read = metrics.total("sidecar_lines_read_total")
    assert read == len(pumped.records) + metrics.total("sidecar_lines_joined_total") + metrics.total(
        "sidecar_lines_skipped_total"
    )
    assert metrics.total("sidecar_bytes_read_total") == len(data)


@given(data=BYTES, limit=st.integers(1, 64), sizes=SIZES)
def test_what_is_cut_from_long_lines_is_counted(data, limit, sizes):
    pumped = pump(cut(data, sizes), max_line_bytes=limit)

    metrics = pumped.metrics
    assert metrics.total("sidecar_lost_bytes_total", reason="line_too_long") <= len(data)
    assert (metrics.total("sidecar_truncated_lines_total") > 0) == (metrics.total("sidecar_lost_bytes_total") > 0)
    assert metrics.total("sidecar_lines_read_total") == len(pumped.records) + metrics.total(
        "sidecar_lines_joined_total"
    ) + metrics.total("sidecar_lines_skipped_total")


@example(first=b"[GIN] ", second=b'{"log":"a\\n","stream":"stdout","time":"2026-10-06T09:05:03Z"}\n\n', sizes=[3])
@given(first=BYTES, second=BYTES, sizes=SIZES)
def test_around_a_rotation_each_log_has_its_own_watermark(first, second, sizes):
    old = cut(first, sizes, "old")
    end = len(first)
    chunks = [*old, Chunk(b"", Position("old", end), end_of_log=True), *cut(second, sizes, "new")]
    if second:
        chunks[len(old) + 1].continues = "old"

    pumped = pump(chunks)

    assert_accounted_streams(pumped, first + second)
    marks = pumped.tracker.watermarks
    assert marks["old"] == Position("old", end), "all of it was handed over in the end"
    if second:
        assert marks["new"].offset <= len(second)


def test_pieces_wait_for_the_log_that_goes_on_with_them_whatever_ends_or_begins_between():
    """Two starts of a container and files that nobody waits for: the pieces are not theirs."""
    piece = b"2026-10-06T09:05:03.%dZ stdout %s %s\n"
    first = piece % (1, b"P", b"begun, ")
    other = piece % (2, b"F", b"of another start")
    last = piece % (3, b"F", b"finished")
    chunks = [
        Chunk(first, Position("old", 0)),
        Chunk(b"", Position("old", len(first)), end_of_log=True),
        Chunk(b"", Position("over", 700), end_of_log=True, final=True),
        Chunk(other, Position("other", 0)),
        Chunk(last, Position("new", 0), continues="old"),
    ]

    pumped = pump(chunks)

    assert [orjson.loads(record.line)["message"] for record in pumped.records] == [
        "of another start",
        "begun, finished",
    ]
    assert not any(b"partial" in record.line for record in pumped.records)
    assert pumped.tracker.watermarks["old"] == Position("old", len(first))


def test_lines_of_two_writers_never_make_one_record():
    """Two files of one glob, or two starts of a container, whose lines come in between."""
    begun, rest = b"panic: boom\n\ngoroutine 1 [running]:\n", b"main.main()\n\t/app/main.go:7 +0x1d\nexit status 2\n"
    other = b"of another file\n"
    chunks = [
        Chunk(begun, Position("a", 0), writer="a"),
        Chunk(other, Position("b", 0), writer="b"),
        Chunk(rest, Position("a", len(begun)), writer="a"),
        Chunk(b"", Position("a", len(begun + rest)), end_of_log=True, final=True, writer="a"),
        Chunk(other, Position("b", len(other)), writer="b"),
    ]

    pumped = pump(chunks)

    assert [orjson.loads(record.line)["message"] for record in pumped.records] == [
        "of another file",
        "panic: boom",
        "of another file",
    ]
    assert pumped.records[1].line.count(b"main.go:7") == 1
    assert pumped.tracker.watermarks == {
        "a": Position("a", len(begun + rest)),
        "b": Position("b", 2 * len(other)),
    }
