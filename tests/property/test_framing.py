"""Laws of framing: no cut of the bytes changes what comes out, and what was handed over is what lies before the boundary."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st

from sidecar import framing
from sidecar.model import Lines, Mark

EPOCH_S = 1_791_277_503  # 2026-10-06T09:05:03Z


@dataclass
class Read:
    """Everything that came out, of any number of calls."""

    rows: list[tuple] = field(default_factory=list)  # text, stream, stamp, start, mark
    joined: int = 0
    lost: int = 0
    malformed: int = 0

    def take(self, lines: Lines, starts: list[int]) -> None:
        for index, text in enumerate(lines.texts):
            stream = lines.streams if isinstance(lines.streams, str) else lines.streams[index]
            stamp = lines.stamps[index] if lines.stamps is not None else None
            if lines.starts is not None:
                assert lines.starts == starts
            self.rows.append((text, stream, stamp, starts[index], lines.marks.get(index)))
        assert len(starts) == len(lines.texts)
        assert set(lines.marks) <= set(range(len(lines.texts)))
        self.joined += lines.joined
        self.lost += lines.lost_bytes
        self.malformed += lines.malformed


def feed(framer: framing.Framer, data: bytes, cuts: list[int], offset: int = 0) -> Read:
    read, edges = Read(), sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for low, high in pairwise(edges):
        lines = framer.feed(data[low:high], offset + low)
        read.take(lines, framer.starts())
    return read


def end(framer: framing.Framer, read: Read) -> Read:
    lines = framer.flush()
    read.take(lines, framer.starts())
    return read


contents = st.one_of(
    st.sampled_from([b"", b"\r", b"a\r", b"\r\r", b"x" * 30, b"{}", b"\xc3", b"word"]),
    st.binary(max_size=6).map(lambda text: text.replace(b"\n", b"")),
)
# A time as a runtime writes it, and its nanoseconds.
MOMENTS = [
    (f"2026-10-06T09:05:{second:02d}{fraction}{zone}", (EPOCH_S - 3 + second - ahead) * 1_000_000_000 + ns)
    for second in (0, 3, 59)
    for fraction, ns in (("", 0), (".1", 100_000_000), (".000000001", 1), (".12345678", 123_456_780))
    for zone, ahead in (("Z", 0), ("+02:00", 7200), ("-05:30", -19_800))
]
moments = st.sampled_from(MOMENTS)
streams = st.sampled_from(["stdout", "stderr"])
tags = st.sampled_from(["F", "F", "F", "F", "P", "F:x", "P:x", "X"])
cri_lines = st.builds(
    lambda at, of, tag, text: f"{at[0]} {of} {tag} ".encode() + text, moments, streams, tags, contents
)
docker_lines = st.builds(
    lambda at, of, text, ends: orjson.dumps({"log": text.decode("latin-1") + ends, "stream": of, "time": at[0]}),
    moments,
    streams,
    contents,
    st.sampled_from(["", "\n"]),
)


# Logs of one wrapping with some lines of others in between, terminated or not.
blobs = st.one_of(
    st.tuples(st.lists(st.one_of(cri_lines, cri_lines, cri_lines, contents), max_size=9), contents),
    st.tuples(st.lists(st.one_of(docker_lines, docker_lines, contents), max_size=9), contents),
    st.tuples(st.lists(contents, max_size=9), contents),
).map(lambda parts: b"\n".join([*parts[0], parts[1]]))
limits = st.sampled_from([1, 5, 20, 1 << 20])
cut_lists = st.lists(st.integers(0, 2000), max_size=12)


@given(blobs, limits, cut_lists)
def test_no_cut_of_the_bytes_changes_what_comes_out(blob, limit, cuts):
    cuts = cuts or list(range(len(blob)))  # none: byte by byte
    whole, parts = framing.Framer(max_line_bytes=limit), framing.Framer(max_line_bytes=limit)

    expected = feed(whole, blob, [])
    read = feed(parts, blob, cuts)

    assert read == expected
    assert (parts.boundary, parts.encoding, parts.pending) == (whole.boundary, whole.encoding, whole.pending)
    assert end(parts, read) == end(whole, expected)


@given(blobs, limits, cut_lists)
def test_every_physical_line_is_accounted_for(blob, limit, cuts):
    framer = framing.Framer(max_line_bytes=limit)

    read = end(framer, feed(framer, blob, cuts))

    unterminated = not blob.endswith(b"\n") and bool(blob)
    assert len(read.rows) + read.joined == blob.count(b"\n") + unterminated
    assert framer.pending == 0
    assert framer.boundary == len(blob)


@given(blobs, limits, st.integers(0, 2000))
def test_reading_again_from_the_boundary_misses_nothing(blob, limit, cut):
    """A restart reads on from the boundary: with what each stream has handed over before, everything is there once."""
    cut %= len(blob) + 1
    framer = framing.Framer(max_line_bytes=limit)
    everything = framing.Framer(max_line_bytes=limit)
    expected = feed(everything, blob, [])

    before = feed(framer, blob[:cut], [])
    again = framing.Framer(max_line_bytes=limit, encoding=framer.encoding)
    after = feed(again, blob[framer.boundary :], [], framer.boundary)

    fresh = [row for row in after.rows if row[3] >= framer.boundary_of(row[1])]
    if framer.encoding is not None and framer.encoding is not framing.Encoding.PLAIN:
        # A malformed line has the time of the line before it, which another life may not have seen.
        forget = lambda row: row if row[1] else (*row[:2], None, *row[3:])  # noqa: E731
        assert sorted(map(forget, before.rows + fresh), key=repr) == sorted(map(forget, expected.rows), key=repr)
    else:
        assert before.rows + after.rows == expected.rows


@given(st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"\r"))), limits, cut_lists)
def test_a_plain_log_is_its_bytes_split_at_newlines(texts, limit, cuts):
    blob = b"plain\n" + b"".join(text + b"\n" for text in texts)

    read = feed(framing.Framer(max_line_bytes=limit), blob, cuts)

    stripped = [text.removesuffix(b"\r") for text in [b"plain", *texts]]
    assert [row[0] for row in read.rows] == [text[:limit] for text in stripped]
    assert read.lost == sum(max(0, len(text) - limit) for text in stripped)
    for text, _, stamp, start, mark in read.rows:
        assert blob[start : start + len(text)] == text
        assert start == 0 or blob[start - 1 : start] == b"\n"
        assert stamp is None
        assert mark in (None, Mark.TRUNCATED)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            contents.filter(lambda text: not text.endswith(b"\r")),
            st.integers(1, 5),
            moments,
        )
    ),
    st.randoms(use_true_random=False),
    cut_lists,
)
def test_cri_pieces_give_back_what_the_application_wrote(written, order, cuts):
    """An oracle: each stream cuts its lines into pieces, and the streams interleave as they like."""
    queues = {"stdout": [], "stderr": []}
    expected = {"stdout": [], "stderr": []}
    for stream, text, size, (time, ns) in written:
        pieces = [text[at : at + size] for at in range(0, len(text), size)] or [b""]
        for index, piece in enumerate(pieces):
            tag = "F" if index == len(pieces) - 1 else "P"
            queues[stream].append(f"{time} {stream} {tag} ".encode() + piece + b"\n")
        expected[stream].append((text, ns))
    blob = b"2026-10-06T09:05:03Z stdout F begin\n"
    while any(queues.values()):
        blob += order.choice([queue for queue in queues.values() if queue]).pop(0)

    read = feed(framing.Framer(max_line_bytes=1 << 20), blob, cuts)

    for stream, lines in expected.items():
        assert [(row[0], row[2]) for row in read.rows[1:] if row[1] == stream] == lines
    assert read.malformed == read.lost == 0


@given(
    st.lists(
        st.tuples(st.text('ab é😀\u2028\0\t\r"\\', max_size=10).filter(lambda text: not text.endswith("\r")), moments)
    ),
    cut_lists,
)
def test_docker_content_comes_back_as_it_was_written(written, cuts):
    rows = [{"log": text + "\n", "stream": "stderr", "time": time} for text, (time, _) in written]
    blob = b"".join(orjson.dumps(row) + b"\n" for row in rows)

    read = feed(framing.Framer(max_line_bytes=1 << 20), blob, cuts)

    assert [(row[0].decode(), row[2]) for row in read.rows] == [(text, ns) for text, (_, ns) in written]
