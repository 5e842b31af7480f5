"""Lines that one write of a program made become one text; nothing else does.

The files in golden/multiline hold what programs printed, in reading order, with our verdict in the margin: the kind
where a block begins, `"` where it goes on, `.` a record of its own, `-` a blank line left out. `␛` is the escape
character, `␍` a carriage return. A row with `##` begins another program.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar import multiline
from sidecar.model import Lines, Mark

GOLDEN = Path(__file__).parent.parent / "golden" / "multiline"
ACCESS = b'[GIN] 2026/10/06 - 09:05:03 | 500 |   1.23ms |      10.42.0.17 | GET      "/orders/42"'
PANIC = [b"panic: boom", b"", b"goroutine 1 [running]:", b"main.main()", b"\t/src/main.go:8 +0x691"]
RECOVERY = [b"\x1b[31m2026/10/06 09:05:03 [Recovery] 2026/10/06 - 09:05:03 panic recovered:", b"boom", b"\x1b[0m"]
JSON = b'{"level":"info"}'


def assembler(**more) -> multiline.Assembler:
    return multiline.Assembler(idle=1.0, **more)


def assembled(texts: list[bytes], **more) -> list[tuple[str | None, bytes]]:
    """Return kind and text of everything that comes out of lines fed at once."""
    it = assembler(**more)
    return [
        (lines.kinds.get(index), text)
        for lines in (it.feed(Lines(list(texts)), 0.0), it.flush())
        for index, text in enumerate(lines.texts)
    ]


def _programs():
    for path in sorted(GOLDEN.glob("*.txt")):
        for part in path.read_text(encoding="utf-8").removeprefix("## ").split("\n## "):
            title, *rows = part.split("\n")
            margin = [row[:14].strip() for row in rows if row]
            texts = [row[17:].replace("␛", "\x1b").replace("␍", "\r").encode() for row in rows if row]
            yield pytest.param(margin, texts, id=f"{path.stem}: {title}")


PROGRAMS = list(_programs())


@pytest.mark.parametrize("size", [1000, 1], ids=["at once", "line by line"])
@pytest.mark.parametrize(("margin", "texts"), PROGRAMS)
def test_what_programs_print_is_grouped_as_the_margin_says(margin, texts, size):
    groups: list[list[int]] = []
    open_block: list[int] = []
    for index, verdict in enumerate(margin):
        if verdict == '"':
            open_block.append(index)
        elif verdict != "-":
            groups.append([index])
            open_block = groups[-1] if verdict != "." else open_block
    expected = [
        (margin[group[0]] if len(group) > 1 else None, b"\n".join(texts[index] for index in group))
        for group in sorted(groups, key=lambda group: group[-1])  # a block comes out when it ends
    ]
    it, found, joined, blank = assembler(), [], 0, 0

    for start in range(0, len(texts) + size, size):
        more = Lines(texts[start : start + size])
        lines = it.feed(more, 0.0) if start < len(texts) else it.flush()
        found += [(lines.kinds.get(index), text) for index, text in enumerate(lines.texts)]
        joined += lines.joined
        blank += lines.blank

    assert found == expected
    assert (joined, blank) == (margin.count('"'), margin.count("-"))


def test_every_kind_stands_in_a_golden_file():
    shown = {verdict for parameters in PROGRAMS for verdict in parameters.values[0]}

    assert shown - {".", "-", '"'} == set(multiline.Kind)


class TestPassingOn:
    def test_a_batch_of_json_comes_back_as_the_same_object(self):
        lines = Lines([JSON, b"{", b'{"a":1'])

        assert assembler().feed(lines, 0.0) is lines

    def test_no_lines_come_back_as_the_same_object(self):
        lines = Lines([], joined=3)

        assert assembler().feed(lines, 0.0) is lines

    def test_the_counts_of_framing_travel_with_the_call_that_brought_them(self):
        it = assembler()

        done = it.feed(Lines([ACCESS], joined=2, lost_bytes=7, malformed=1), 0.0)
        rest = it.flush()

        assert (done.texts, done.joined, done.lost_bytes, done.malformed) == ([], 2, 7, 1)
        assert (rest.texts, rest.joined, rest.lost_bytes, rest.malformed) == ([ACCESS], 0, 0, 0)

    def test_lines_of_nothing_but_white_space_are_left_out_and_counted(self):
        lines = assembler().feed(Lines([b"", b"a", b" \t", b"\r", b"b"]), 0.0)

        assert (lines.texts, lines.blank, lines.physical) == ([b"a", b"b"], 3, 5)

    def test_columns_follow_their_texts(self):
        it = assembler()
        texts = [b"", *RECOVERY, b"plain", ACCESS, b"Error #01: x", b"Error #02: y"]
        numbers = list(range(len(texts)))

        lines = it.feed(Lines(texts, streams=["stderr"] * 8, stamps=[100 + n for n in numbers], starts=numbers), 0.0)
        rest = it.flush()

        assert (lines.stamps, lines.starts, lines.streams) == ([101, 104], [1, 4], ["stderr"] * 2)
        assert (rest.stamps, rest.starts, rest.streams) == ([105], [5], ["stderr"])

    def test_a_block_over_several_calls_has_the_columns_of_its_first_line(self):
        it = assembler()
        it.feed(Lines(RECOVERY[:1], streams=["stderr"], stamps=[1], starts=[10]), 0.0)
        it.feed(Lines(RECOVERY[1:2], streams=["stderr"], stamps=[2], starts=[20]), 0.0)

        lines = it.feed(Lines([RECOVERY[2], b"next"], streams=["stderr"] * 2, stamps=[3, 4], starts=[30, 40]), 0.0)

        assert lines.texts == [b"\n".join(RECOVERY), b"next"]
        assert (lines.stamps, lines.starts, lines.streams) == ([1, 4], [10, 40], ["stderr"] * 2)

    @pytest.mark.parametrize(("second", "third"), [(None, Mark.TRUNCATED), (Mark.TRUNCATED, Mark.PARTIAL)])
    def test_the_worst_mark_of_its_lines_marks_a_block(self, second, third):
        marks = {index: mark for index, mark in ((1, second), (2, third)) if mark}

        assert assembler().feed(Lines(list(RECOVERY), marks=marks), 0.0).marks == {0: Mark.TRUNCATED}

    def test_marks_stay_with_their_lines(self):
        it = assembler()

        lines = it.feed(Lines([ACCESS, JSON, ACCESS], marks={1: Mark.TRUNCATED, 2: Mark.PARTIAL}), 0.0)
        more = it.feed(Lines([b"", b"x", b"y"], marks={2: Mark.PARTIAL}), 0.0)

        assert (lines.texts, lines.marks) == ([ACCESS, JSON], {1: Mark.TRUNCATED})
        assert (more.texts, more.marks) == ([ACCESS, b"x", b"y"], {0: Mark.PARTIAL, 2: Mark.PARTIAL})


def starts(it):
    return [start for _, start in it.pending_places]


class TestPending:
    def test_an_access_line_waits_for_its_errors(self):
        it = assembler()

        done = it.feed(Lines([ACCESS, ACCESS], starts=[5, 90]), 0.0)

        assert done.texts == [ACCESS]
        assert (it.pending, starts(it)) == (True, [90])

    def test_nothing_is_pending_after_flush(self):
        it = assembler()
        it.feed(Lines(RECOVERY[:2]), 0.0)

        assert it.flush().texts == [b"\n".join(RECOVERY[:2])]
        assert (it.pending, it.pending_places) == (False, [])
        assert it.flush().physical == 0

    def test_a_block_is_flushed_when_nothing_was_added_for_the_idle_time(self):
        it = assembler()
        it.feed(Lines(PANIC[:2]), 0.0)
        it.feed(Lines(PANIC[2:]), 0.5)

        assert it.idle_flush(1.4) is None
        done = it.idle_flush(1.5)

        assert done is not None
        assert done.texts == [b"\n".join(PANIC)]
        assert done.kinds == {0: "go_panic"}
        assert it.idle_flush(9.0) is None

    def test_a_block_is_idle_on_a_stream_that_is_busy_with_other_records(self):
        it = assembler()
        it.feed(Lines(list(PANIC)), 0.0)

        first = it.feed(Lines([JSON, b"[GIN-debug] x"]), 0.9)
        second = it.feed(Lines([JSON, b"[GIN-debug] y"]), 1.0)

        assert first.texts == [JSON, b"[GIN-debug] x"]
        assert second.texts == [JSON, b"[GIN-debug] y", b"\n".join(PANIC)]

    def test_a_late_call_that_continues_a_block_does_not_cut_it(self):
        it = assembler()
        it.feed(Lines(RECOVERY[:2]), 0.0)

        assert it.feed(Lines(RECOVERY[2:]), 60.0).texts == [b"\n".join(RECOVERY)]

    def test_a_line_that_is_only_perhaps_part_of_the_block_is_pending_too(self):
        it = assembler()
        line = b"2026-10-06T09:05:03.094Z\tERROR\tfailed"
        it.feed(Lines([line, b"main.main"], starts=[0, 40]), 0.0)
        assert starts(it) == [0, 40]

        rest = it.flush()

        assert (rest.texts, rest.kinds, rest.starts) == ([line, b"main.main"], {}, [0, 40])

    def test_blank_lines_behind_a_block_are_left_out_of_it(self):
        it = assembler()
        it.feed(Lines([*PANIC, b"", b"\r"]), 0.0)

        rest = it.flush()

        assert (rest.texts, rest.joined, rest.blank) == ([b"\n".join(PANIC)], len(PANIC) - 1, 2)


class TestBounds:
    def test_a_block_of_too_many_lines_comes_in_parts_of_its_kind(self):
        lines = [b"panic: x", *(b"line %d" % n for n in range(6))]

        parts = assembled(lines, max_lines=3)

        assert parts == [
            ("go_panic", b"panic: x\nline 0\nline 1"),
            ("go_panic", b"line 2\nline 3\nline 4"),
            ("go_panic", b"line 5"),
        ]

    def test_a_block_of_too_many_bytes_comes_in_parts_of_its_kind(self):
        parts = assembled([RECOVERY[0], b"x" * 100, b"y" * 90, b"z" * 500, RECOVERY[2]], max_bytes=200)

        assert [kind for kind, _ in parts] == ["gin_recovery"] * 4
        assert b"\n".join(text for _, text in parts) == b"\n".join(
            [RECOVERY[0], b"x" * 100, b"y" * 90, b"z" * 500, RECOVERY[2]]
        )
        assert [len(text) for _, text in parts[1:]] == [90, 500, 4]

    def test_exactly_the_bound_is_one_block(self):
        size = len(b"\n".join(RECOVERY))

        assert len(assembled(RECOVERY, max_lines=3, max_bytes=size)) == 1
        assert len(assembled(RECOVERY, max_lines=3, max_bytes=size - 1)) == 2
        assert len(assembled(RECOVERY, max_lines=2, max_bytes=size)) == 2

    def test_the_start_of_what_is_pending_moves_with_the_parts(self):
        it = assembler(max_lines=2)

        it.feed(Lines([b"panic: x", b"a", b"b", b"c", b"d"], starts=[0, 9, 11, 13, 15]), 0.0)

        assert starts(it) == [15]

    def test_a_last_part_of_blank_lines_is_no_record(self):
        it = assembler(max_lines=2)
        it.feed(Lines([b"panic: x", b"a", b"", b""]), 0.0)

        rest = it.flush()

        assert (rest.texts, rest.blank) == ([], 2)


class TestUncertain:
    """What ends a block or never begins one stands for itself."""

    def test_recovery_ends_at_an_access_line_when_its_end_is_lost(self):
        assert assembled([*RECOVERY[:2], ACCESS, b"x"]) == [
            ("gin_recovery", b"\n".join(RECOVERY[:2])),
            (None, ACCESS),
            (None, b"x"),
        ]

    def test_recovery_ends_where_another_begins(self):
        assert assembled([*RECOVERY[:2], *RECOVERY]) == [
            ("gin_recovery", b"\n".join(RECOVERY[:2])),
            ("gin_recovery", b"\n".join(RECOVERY)),
        ]

    def test_recovery_takes_json_because_a_panic_value_may_be_json(self):
        block = [RECOVERY[0], JSON, RECOVERY[2]]

        assert assembled(block) == [("gin_recovery", b"\n".join(block))]

    @pytest.mark.parametrize(
        "lines",
        [
            [b"\x1b[31m2026/10/06 09:05:03 red but no Recovery", b"next"],
            [b"\x1b[31m2026/10/06 09:05:03 red and complete\x1b[0m", b"GET / HTTP/1.1"],
            [b"2026/10/06 09:05:03 [Recovery] is a word", b"next"],
            [b"Error #01: an orphan", b"Error #02: another"],
            [b"={18}", b"WARNING: DATA RACE"],
            [b"=" * 19, b"WARNING: DATA RACE"],
            [b"SIGQUIT: quit", b"the second line is no program counter"],
            [b"runtime: gc", b"runtime error"],
            [b"http: panic serving without a date", b"goroutine x"],
            [b"goroutine 1 [running]:", b"next"],
            [b"9:05AM ERR failed with errors: 3", b" k=v"],
            [b"ERRO[0000] Error #01: x  k=v", b"next"],
            [b"2026/10/06 09:05:03 /src/repo.go:42", b"no statement"],
            [b"  indented", b"\ttoo"],
            [ACCESS, b"no error", b"Error #01: too late"],
        ],
    )
    def test_lines_that_only_look_like_a_block_stay_alone(self, lines):
        assert assembled(lines) == [(None, line) for line in lines]

    def test_a_block_of_one_line_has_no_kind(self):
        assert assembled([b"panic: alone"]) == [(None, b"panic: alone")]

    def test_errors_end_at_every_line_that_begins_a_record(self):
        begins = [
            JSON,
            b"[GIN-debug] GET /x --> main.x (3 handlers)",
            b"time=2026-10-06T09:05:03Z level=INFO msg=x",
            b"level=info msg=x",
            b"t=2026-10-06T09:05:03Z lvl=info",
            b"2026-10-06T09:05:03.094Z\tINFO\tx",
            b"1.7954400761938422e+09\tinfo\tx",
            b"2026-10-06 09:05:03 anything dated",
            b"orders: 2026/10/06 09:05:03 package log with a prefix",
            b"9:05AM INF x",
            b"\x1b[90m9:05AM\x1b[0m \x1b[32mINF\x1b[0m x",
            b"\x1b[36mINFO\x1b[0m[0000] x",
            b'10.0.0.1 - [Tue, 06 Oct 2026 09:05:03 UTC] "GET / HTTP/1.1 200 1ms "" "',
            b"I1006 09:05:03.000000       1 main.go:1] klog",
        ]
        for line in begins:
            assert assembled([ACCESS, b"Error #01: x", b"more", line]) == [
                ("gin_errors", ACCESS + b"\nError #01: x\nmore"),
                (None, line),
            ], line

    def test_errors_of_a_coloured_console_end_at_their_fields(self):
        head = b"\x1b[90m9:05AM\x1b[0m \x1b[31mERR\x1b[0m \x1b[1mRequest with errors: Error #01: x"
        fields = b"\x1b[0m \x1b[36mbody_size=\x1b[0m7"

        assert assembled([head, fields, b"words"]) == [
            ("zerolog_errors", head + b"\n" + fields),
            (None, b"words"),
        ]

    def test_goroutines_may_have_blank_lines_between_them_and_end_with_anything_else(self):
        lines = [*PANIC[2:], b"", b"goroutine 9 [select]:", *PANIC[3:], b"...additional frames elided..."]

        assert assembled([*lines, b"", b"words"]) == [("go_trace", b"\n".join(lines)), (None, b"words")]

    def test_an_error_text_may_hold_json_on_several_lines(self):
        lines = [ACCESS, b"Error #01: refused:", b"{", b' "code": 7', b"}", b"     Meta: m"]

        assert assembled(lines) == [("gin_errors", b"\n".join(lines))]

    @pytest.mark.parametrize(
        "block",
        [
            RECOVERY,
            [b"=" * 18, b"WARNING: DATA RACE", b"x", b"=" * 18],
            [b"2026/10/06 09:05:03 http: panic serving 1.2.3.4:5: x", b"goroutine 1 [running]:"],
            PANIC,
            [b"SIGQUIT: quit", b"PC=0x1"],
        ],
        ids=["recovery", "race", "http", "panic", "signal"],
    )
    def test_a_block_that_begins_behind_the_goroutines_of_a_panic_ends_it(self, block):
        assert [text for _, text in assembled([*PANIC, *block])] == [b"\n".join(PANIC), b"\n".join(block)]

    def test_one_failure_of_the_runtime_may_lead_to_another(self):
        lines = [b"panic: x", b"fatal error: panic holding locks", b"panic during panic", b"", *PANIC[2:]]

        assert assembled(lines) == [("go_panic", b"\n".join(lines))]
