"""Laws of multi-line assembly: grouping into calls changes nothing, and every line comes out once."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar import multiline
from sidecar.model import Lines, Mark

# Lines that begin, continue and end every kind of block, and some that only look like it.
LINES = [
    b"",
    b" \r",
    b'{"level":"info"}',
    b"{",
    b"}",
    b'[GIN] 2026/10/06 - 09:05:03 | 500 |   1.23ms |      10.42.0.17 | GET      "/orders/42"',
    b"Error #01: db: deadline exceeded",
    b"     Meta: map[k:1]",
    b"[GIN-debug] [WARNING] Running in debug mode.",
    b" - using env:\texport GIN_MODE=release",
    b"\x1b[31m2026/10/06 09:05:03 [Recovery] 2026/10/06 - 09:05:03 panic recovered:",
    b"\x1b[31m2026/10/06 09:05:03 write: broken pipe",
    b"2026/10/06 09:05:03 [Recovery] 2026/10/06 - 09:05:03 panic recovered:",
    b"GET /pipe HTTP/1.1\r",
    b"/src/orders/handler.go:26 (0x6e8830)",
    b"\x1b[0m",
    b"panic: boom",
    b"fatal error: all goroutines are asleep - deadlock!",
    b"runtime: out of memory",
    b"SIGQUIT: quit",
    b"PC=0x1",
    b"goroutine 1 [running]:",
    b"main.main()",
    b"main.main",
    b"\t/src/main.go:8 +0x691",
    b"created by main.main in goroutine 1",
    b"exit status 2",
    b"=" * 18,
    b"WARNING: DATA RACE",
    b"2026/10/06 09:05:03 http: panic serving 127.0.0.1:5: boom",
    b"2026/10/06 09:05:03 listening",
    b"2026-10-06T09:05:03.094Z\tERROR\tfailed",
    b"9:05AM ERR Request with errors: Error #01: x",
    b" body_size=7 status=500",
    b"\x1b[31mERRO\x1b[0m[0000] Error #01: x",
    b"Error #02: second  \x1b[31mclientIP\x1b[0m=10.42.0.17",
    b'10.42.0.17 - [Tue, 06 Oct 2026 09:05:03 UTC] "GET /e HTTP/1.1 500 4ms "" Error #01: boom',
    b'"',
    b"2026/10/06 09:05:03 /src/repo.go:42",
    b"[1.234ms] [rows:1] SELECT 1",
    b"\tFROM orders",
    b"plain words",
]
ACCESS, ERROR, RECOVERY, PANIC, GOROUTINE = LINES[5], LINES[6], LINES[10], LINES[16], LINES[21]
ZAP, FRAME, PLACE = LINES[31], LINES[23], LINES[24]
# Beginnings that hardly come about by chance, for what follows to go on or break.
BLOCKS = [
    [ACCESS, ERROR],
    [ACCESS, ERROR, b"{"],
    [ACCESS] * 3,
    [RECOVERY, b"boom"],
    [PANIC, b"", GOROUTINE],
    [GOROUTINE, b"main.main()", PLACE],
    [ZAP, FRAME],
    [ZAP, FRAME, PLACE],
    [LINES[27], LINES[28]],
    [LINES[39], LINES[40]],
    [LINES[36], ERROR],
    [LINES[32], ERROR],
    [LINES[8], LINES[9], b""],
    [b'{"level":"info"}'] * 3,
]
single = st.one_of(st.sampled_from(LINES), st.sampled_from(LINES), st.binary(max_size=4)).map(
    lambda text: [text.replace(b"\n", b"")]
)
physical = st.lists(st.one_of(single, single, st.sampled_from(BLOCKS)), max_size=16).map(
    lambda parts: list(chain.from_iterable(parts))
)
cut_lists = st.lists(st.integers(0, 40), max_size=8)
bounds = st.sampled_from(
    [{}, {"max_lines": 1}, {"max_lines": 3}, {"max_bytes": 40}, {"max_bytes": 120, "max_lines": 4}]
)
mark_maps = st.dictionaries(st.integers(0, 39), st.sampled_from([Mark.TRUNCATED, Mark.PARTIAL]), max_size=3)


def rows(lines: Lines) -> list[tuple]:
    assert lines.stamps is not None or not lines.texts
    assert lines.starts is not None or not lines.texts
    return [
        (text, lines.kinds.get(at), lines.marks.get(at), lines.starts[at], lines.stamps[at], lines.streams[at])
        for at, text in enumerate(lines.texts)
    ]


def run(texts, cuts, marks, bounds, *, check=lambda *_: None):
    it = multiline.Assembler(idle=10.0, **bounds)
    out, totals = [], Counter()
    edges = sorted({0, *(cut % (len(texts) + 1) for cut in cuts), len(texts)})
    for low, high in pairwise(edges):
        lines = Lines(
            texts[low:high],
            streams=["stderr"] * (high - low),
            stamps=[1000 + at for at in range(low, high)],
            starts=list(range(low, high)),
            marks={at - low: mark for at, mark in marks.items() if low <= at < high},
        )
        done = it.feed(lines, 0.0)
        out += rows(done)
        totals.update(texts=len(done.texts), joined=done.joined, blank=done.blank)
        check(it, out, totals, high)
    rest = it.flush()
    totals.update(texts=len(rest.texts), joined=rest.joined, blank=rest.blank)
    return out + rows(rest), totals


@given(physical, cut_lists, mark_maps, bounds)
def test_grouping_lines_into_calls_changes_nothing(texts, cuts, marks, bounds):
    expected = run(texts, [], marks, bounds)

    assert run(texts, cuts, marks, bounds) == expected
    assert run(texts, list(range(len(texts))), marks, bounds) == expected


@given(physical, cut_lists, bounds)
def test_what_came_in_is_out_or_pending_after_every_call(texts, cuts, bounds):
    def check(it, _out, totals, fed):
        assert totals.total() == fed - len(it.pending_places)
        assert it.pending == (len(it.pending_places) > 0)

    _, totals = run(texts, cuts, {}, bounds, check=check)

    assert totals.total() == len(texts)


@given(physical, cut_lists, bounds)
def test_every_line_that_is_not_blank_comes_out_once_unchanged(texts, cuts, bounds):
    out, totals = run(texts, cuts, {}, bounds)

    came = Counter(line for row in out for line in row[0].split(b"\n") if line.strip())
    assert came == Counter(text for text in texts if text.strip())
    inside = sum(not line.strip() for row in out for line in row[0].split(b"\n"))
    assert inside + totals["blank"] == sum(not text.strip() for text in texts)
    for text, kind, _, start, stamp, stream in out:
        assert text.split(b"\n")[0] == texts[start]
        assert (stamp, stream) == (1000 + start, "stderr")
        assert kind is None or kind in set(multiline.Kind)
        assert b"\n" not in text or kind is not None


@given(physical, cut_lists, bounds)
def test_everything_before_what_is_pending_is_out(texts, cuts, bounds):
    """A restart reads on from the first of `pending_places`: no line before it may be missing."""

    def check(it, out, totals, fed):
        begin = it.pending_places[0][1] if it.pending else fed
        out_of_order = [row for row in out if row[3] >= begin]  # passed in front of an open block
        lines = sum(row[0].count(b"\n") + 1 for row in out) + totals["blank"]
        assert lines == fed - len(it.pending_places)
        assert fed - begin - len(it.pending_places) == len(out_of_order)

    run(texts, cuts, {}, bounds, check=check)


@given(physical, st.integers(1, 6), st.integers(1, 200))
def test_no_block_exceeds_its_bounds(texts, max_lines, max_bytes):
    """One line alone may be longer than a block: it is not cut."""
    out, _ = run(texts, [], {}, {"max_lines": max_lines, "max_bytes": max_bytes})

    for row in out:
        assert row[0].count(b"\n") < max_lines
        assert len(row[0]) <= max_bytes or b"\n" not in row[0]
