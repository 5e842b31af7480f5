"""Bytes become whole logical lines, whoever wraps them."""

from __future__ import annotations

import orjson
import pytest

from sidecar import framing
from sidecar.framing import Encoding
from sidecar.model import Mark

SECOND = 1_000_000_000
T = 1_791_277_503  # 2026-10-06T09:05:03Z


def framer(limit: int = 1 << 20, **more):
    return framing.Framer(max_line_bytes=limit, **more)


def cri(content: bytes, tag: bytes = b"F", stream: bytes = b"stdout", time: bytes = b"2026-10-06T09:05:03Z") -> bytes:
    return b"%s %s %s %s\n" % (time, stream, tag, content)


def docker(log: str, stream: str = "stdout", time: str = "2026-10-06T09:05:03.5Z", **more) -> bytes:
    return orjson.dumps({"log": log, "stream": stream, "time": time, **more}) + b"\n"


class TestPlain:
    def test_a_chunk_gives_its_whole_lines_and_keeps_the_rest(self):
        it = framer()

        lines = it.feed(b"one\ntwo\nthr", 0)

        assert lines.texts == [b"one", b"two"]
        assert (lines.streams, lines.stamps, lines.starts, lines.marks) == ("", None, None, {})
        assert (it.pending, it.boundary) == (3, 8)

    def test_a_line_over_several_chunks_comes_out_once(self):
        it = framer()

        assert it.feed(b"on", 0).texts == []
        assert it.feed(b"e", 2).texts == []
        assert it.feed(b"\n", 3).texts == [b"one"]
        assert (it.pending, it.boundary) == (0, 4)

    def test_an_empty_line_is_a_line(self):
        assert framer().feed(b"\n\na\n\n", 0).texts == [b"", b"", b"a", b""]

    @pytest.mark.parametrize("cut", range(8))
    def test_one_carriage_return_belongs_to_the_newline(self, cut):
        data, it = b"a\r\nb\r\r\n\r\n", framer()

        texts = it.feed(data[:cut], 0).texts + it.feed(data[cut:], cut).texts

        assert texts == [b"a", b"b\r", b""]

    def test_bytes_that_are_no_text_pass_through(self):
        assert framer().feed(b"\0\xff\xfe\x80\n", 0).texts == [b"\0\xff\xfe\x80"]

    def test_offsets_start_where_the_first_chunk_does(self):
        it = framer()

        it.feed(b"a\nb", 1000)
        lines = it.feed(b"c\nd\n", 1003)

        assert lines.texts == [b"bc", b"d"]
        assert it.starts() == [1002, 1005]
        assert it.starts() == [1002, 1005]
        assert it.boundary == 1007

    def test_starts_are_of_the_bytes_in_the_log_not_of_the_texts(self):
        it = framer(limit=4)

        it.feed(b"a\r\nlong line\nb\r\n", 0)

        assert it.starts() == [0, 3, 13]

    def test_a_feed_without_a_whole_line_has_no_starts(self):
        it = framer()
        it.feed(b"a\n", 0)
        it.feed(b"b", 2)

        assert it.starts() == []

    def test_chunks_that_are_not_contiguous_are_a_mistake(self):
        it = framer()
        it.feed(b"a\n", 0)

        with pytest.raises(ValueError, match="chunk begins at 3: expected 2"):
            it.feed(b"b\n", 3)

    def test_nothing_is_kept_after_flush(self):
        it = framer()
        it.feed(b"a\nno newline", 0)

        rest = it.flush()

        assert rest.texts == [b"no newline"]
        assert rest.marks == {0: Mark.PARTIAL}
        assert (rest.streams, rest.stamps, it.starts()) == ("", None, [2])
        assert (it.pending, it.boundary, it.flush().texts) == (0, 12, [])

    def test_what_comes_after_a_flush_is_a_new_line(self):
        it = framer()
        it.feed(b"prompt> ", 0)
        it.flush()

        assert it.feed(b"answer\n", 8).texts == [b"answer"]
        assert it.starts() == [8]


class TestLimit:
    def test_the_head_of_an_over_long_line_is_kept_and_the_rest_counted(self):
        lines = framer(limit=4).feed(b"abcdef\nab\nabcde\n", 0)

        assert lines.texts == [b"abcd", b"ab", b"abcd"]
        assert lines.marks == {0: Mark.TRUNCATED, 2: Mark.TRUNCATED}
        assert lines.lost_bytes == 3

    def test_a_line_as_long_as_the_limit_is_whole_with_its_carriage_return(self):
        lines = framer(limit=4).feed(b"abcd\r\nabcd\n", 0)

        assert (lines.texts, lines.marks, lines.lost_bytes) == ([b"abcd", b"abcd"], {}, 0)

    @pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
    def test_a_line_over_many_chunks_is_cut_once_and_goes_on_at_the_next_newline(self, size):
        data, it, texts, lost = b"0123456789\nok\n", framer(limit=4), [], 0
        for start in range(0, len(data), size):
            lines = it.feed(data[start : start + size], start)
            texts += lines.texts
            lost += lines.lost_bytes

        assert (texts, lost) == ([b"0123", b"ok"], 6)

    @pytest.mark.parametrize("head", [b"x", b"{", b"2"], ids=["plain", "json", "digit"])
    def test_memory_is_bounded_whatever_the_length(self, head):
        it, chunk = framer(limit=4096), b"x" * 65_536
        it.feed(head, 0)
        most = 0
        for index in range(64):
            it.feed(chunk, 1 + index * len(chunk))
            most = max(most, it.pending)
        lines = it.feed(b"\n", 1 + 64 * len(chunk))

        assert most <= 4096 + (128 << 10)
        assert len(lines.texts[0]) == 4096
        assert lines.lost_bytes == 1 + 64 * 65_536 - 4096

    def test_an_unterminated_over_long_line_counts_as_cut(self):
        it = framer(limit=4)
        it.feed(b"abcdef", 0)

        rest = it.flush()

        assert (rest.texts, rest.marks, rest.lost_bytes) == ([b"abcd"], {0: Mark.TRUNCATED}, 2)

    def test_a_limit_below_one_is_refused(self):
        with pytest.raises(ValueError, match="max_line_bytes is 0"):
            framer(limit=0)


class TestCri:
    def test_the_content_is_the_text_and_the_rest_are_columns(self):
        lines = framer().feed(cri(b"one") + cri(b"", stream=b"stderr") + cri(b" two  "), 0)

        assert lines.texts == [b"one", b"", b" two  "]
        assert lines.streams == ["stdout", "stderr", "stdout"]
        assert lines.stamps == [T * SECOND] * 3
        assert lines.starts == [0, 34, 65]  # 31 bytes of prefix and newline

    @pytest.mark.parametrize(
        ("time", "expected"),
        [
            (b"2026-10-06T09:05:03Z", T * SECOND),
            (b"2026-10-06T09:05:03.1Z", T * SECOND + 100_000_000),
            (b"2026-10-06T09:05:03.000000001Z", T * SECOND + 1),
            (b"2026-10-06T09:05:03.123456789+00:00", T * SECOND + 123_456_789),
            (b"2026-10-06T11:05:03.12+02:00", T * SECOND + 120_000_000),
            (b"2026-10-06T03:35:03-05:30", T * SECOND),
            (b"1969-12-31T23:59:59.999999999Z", -1),
            (b"9999-12-31T23:59:59.999999999Z", 253_402_300_799_999_999_999),
        ],
    )
    def test_times_are_exact_with_any_fraction_and_offset(self, time, expected):
        assert framer().feed(cri(b"x", time=time), 0).stamps == [expected]

    def test_pieces_join_per_stream_in_the_order_of_their_ends(self):
        it = framer()
        data = (
            cri(b"a1", b"P", time=b"2026-10-06T09:05:03.1Z")
            + cri(b"b1", b"P", b"stderr", b"2026-10-06T09:05:03.2Z")
            + cri(b"b2", b"F", b"stderr", b"2026-10-06T09:05:03.3Z")
            + cri(b"a2", b"P")
            + cri(b"a3")
            + cri(b"c")
        )

        lines = it.feed(data, 0)

        assert lines.texts == [b"b1b2", b"a1a2a3", b"c"]
        assert lines.streams == ["stderr", "stdout", "stdout"]
        assert lines.stamps == [T * SECOND + 200_000_000, T * SECOND + 100_000_000, T * SECOND]
        assert lines.starts == [35, 0, len(data) - len(cri(b"c"))]
        assert lines.joined == 3
        assert lines.physical == data.count(b"\n")

    def test_a_piece_in_flight_keeps_the_boundary_at_its_start(self):
        it = framer()
        head = cri(b"whole")
        piece = cri(b"piece", b"P")
        other = cri(b"other", stream=b"stderr")

        it.feed(head + piece + other, 0)

        assert it.boundary == len(head)
        assert it.boundary_of("stdout") == len(head)
        assert it.boundary_of("stderr") == len(head + piece + other)
        assert it.pending > 0

    def test_a_character_cut_between_pieces_is_whole_again(self):
        lines = framer().feed(cri("é".encode()[:1], b"P") + cri("é".encode()[1:]), 0)

        assert lines.texts == ["é".encode()]

    @pytest.mark.parametrize("tag", [b"F", b"F:x", b"X", b"N:P", b"PARTIAL"])
    def test_only_the_first_tag_counts_and_unknown_ones_are_whole_lines(self, tag):
        assert framer().feed(cri(b"first") + cri(b"x", tag), 0).texts == [b"first", b"x"]

    def test_a_partial_tag_may_have_others_behind_it(self):
        assert framer().feed(cri(b"a", b"P:x") + cri(b"b", b"F:y"), 0).texts == [b"ab"]

    @pytest.mark.parametrize(
        "bad",
        [
            b"panic: no prefix",
            b"",
            b"2026-10-06T09:05:03Z stdout F",
            b"2026-13-06T09:05:03Z stdout F x",
            b"2026-10-06T09:05:03 stdout F x",
            b"2026-10-06T09:05:03.Z stdout F x",
            b"2026-10-06T09:05:03.1234567890Z stdout F x",
            b"2026-10-06T09:05:03Z stdin F x",
            b"\0\0\0",
        ],
    )
    def test_a_malformed_line_stays_raw_and_is_counted(self, bad):
        lines = framer().feed(cri(b"a") + bad + b"\n" + cri(b"b"), 0)

        assert lines.texts == [b"a", bad, b"b"]
        assert lines.malformed == 1
        assert lines.streams == ["stdout", "", "stdout"]
        assert lines.stamps == [T * SECOND] * 3

    def test_a_malformed_line_does_not_end_a_line_in_pieces(self):
        lines = framer().feed(cri(b"a", b"P") + b"torn\n" + cri(b"b"), 0)

        assert lines.texts == [b"torn", b"ab"]

    def test_flush_gives_unfinished_lines_in_the_order_of_their_starts(self):
        it = framer()
        data = cri(b"err", b"P", b"stderr") + cri(b"out", b"P") + cri(b"put", b"P") + b"2026-10-06T09:"
        it.feed(data, 0)

        rest = it.flush()

        assert rest.texts == [b"2026-10-06T09:", b"err", b"output"]
        assert set(rest.marks.values()) == {Mark.PARTIAL}
        assert len(rest.marks) == 3
        assert rest.streams == ["", "stderr", "stdout"]
        assert (rest.joined, rest.malformed) == (1, 1)
        assert it.boundary == it.boundary_of("stdout") == len(data)

    def test_flush_reads_a_whole_prefix_without_newline(self):
        it = framer()
        it.feed(cri(b"a", b"P") + cri(b"b").removesuffix(b"\n"), 0)

        rest = it.flush()

        assert (rest.texts, rest.marks, rest.joined) == ([b"ab"], {0: Mark.PARTIAL}, 1)

    def test_the_limit_holds_for_the_joined_content(self):
        lines = framer(limit=5).feed(
            cri(b"abc", b"P") + cri(b"def", b"P") + cri(b"gh") + cri(b"abcdef") + cri(b"ok"), 0
        )

        assert lines.texts == [b"abcde", b"abcde", b"ok"]
        assert lines.marks == {0: Mark.TRUNCATED, 1: Mark.TRUNCATED}
        assert lines.lost_bytes == 4

    def test_the_prefix_does_not_count_against_the_limit(self):
        line = cri(b"abcde", b"F:" + b"x" * 62, b"stderr", b"2026-10-06T09:05:03.123456789+02:00")
        it = framer(limit=5)

        texts = [text for at in range(len(line)) for text in it.feed(line[at : at + 1], at).texts]

        assert texts == [b"abcde"]

    def test_one_carriage_return_before_the_end_belongs_to_the_newline(self):
        assert framer().feed(cri(b"a") + cri(b"b\r") + cri(b"c\r\r"), 0).texts == [b"a", b"b", b"c\r"]

    def test_an_over_long_line_that_is_whole_is_cut_like_any_other(self):
        lines = framer(limit=5).feed(cri(b"a") + cri(b"abcdef") + cri(b"abcde\r"), 0)

        assert lines.texts == [b"a", b"abcde", b"abcde"]
        assert (lines.marks, lines.lost_bytes) == ({1: Mark.TRUNCATED}, 1)

    def test_carried_pieces_hold_the_boundary_where_the_next_generation_is_read_from(self):
        old = framer()
        old.feed(cri(b"begun", b"P"), 0)
        new = framer(carried=old.carry())

        new.feed(cri(b"else", stream=b"stderr"), 700)

        assert new.boundary == new.boundary_of("stdout") == 700

    def test_a_carriage_return_at_the_end_of_the_joined_line_belongs_to_the_newline(self):
        lines = framer().feed(cri(b"a\r", b"P") + cri(b"") + cri(b"b\r", b"P") + cri(b"c\r"), 0)

        assert lines.texts == [b"a", b"b\rc"]

    def test_pieces_are_carried_to_the_next_generation_of_the_log(self):
        old = framer()
        old.feed(cri(b"whole") + cri(b"begun ", b"P", time=b"2026-10-06T09:05:03.5Z"), 0)

        new = framer(carried=old.carry())
        assert (old.flush().texts, new.boundary) == ([], 0)
        first = new.feed(cri(b"else", stream=b"stderr"), 0)
        assert new.boundary == 0
        second = new.feed(cri(b"finished"), len(cri(b"else")))

        assert (first.texts, second.texts) == ([b"else"], [b"begun finished"])
        assert second.stamps == [T * SECOND + 500_000_000]
        assert second.joined == 1
        assert new.boundary == len(cri(b"else") + cri(b"finished"))

    def test_carried_pieces_that_are_never_finished_are_flushed_with_their_columns(self):
        old = framer()
        old.feed(cri(b"begun", b"P", b"stderr"), 0)

        rest = framer(carried=old.carry()).flush()

        assert (rest.texts, rest.streams, rest.stamps) == ([b"begun"], ["stderr"], [T * SECOND])
        assert rest.marks == {0: Mark.PARTIAL}


class TestDocker:
    def test_content_stream_and_time_are_read(self):
        lines = framer().feed(docker("one\n") + docker("two\r\n", "stderr", attrs={"tag": "x"}), 0)

        assert lines.texts == [b"one", b"two"]
        assert lines.streams == ["stdout", "stderr"]
        assert lines.stamps == [T * SECOND + 500_000_000] * 2
        assert lines.starts == [0, len(docker("one\n"))]

    def test_content_without_newline_is_a_piece(self):
        it = framer()

        lines = it.feed(docker("a") + docker("x\n", "stderr") + docker("b\n"), 0)

        assert (lines.texts, lines.joined) == ([b"x", b"ab"], 1)

    def test_escapes_are_decoded_and_lone_surrogates_replaced(self):
        line = rb'{"log":"\u00e9\ud83d\ude00\ud800x\n","stream":"stdout","time":"2026-10-06T09:05:03Z"}' + b"\n"

        assert framer().feed(line, 0).texts == ["é😀\ufffdx".encode()]

    def test_a_piece_of_sixteen_kibibytes_of_escapes_fits_any_limit(self):
        lines = framer(limit=1024).feed(docker("\0" * 16_384 + "\n") + docker("ok\n"), 0)

        assert lines.texts == [b"\0" * 1024, b"ok"]
        assert lines.lost_bytes == 16_384 - 1024

    @pytest.mark.parametrize(
        "bad",
        [
            b"not json",
            b'{"log":"x\\n","stream":"stdout"}',
            b'{"log":"x\\n","stream":"stdout","time":"2026-10-06T09:05:03Z","level":"info"}',
            b'{"log":1,"stream":"stdout","time":"2026-10-06T09:05:03Z"}',
            b'{"log":"x\\n","stream":["stdout"],"time":"2026-10-06T09:05:03Z"}',
            b'{"log":"x\\n","stream":"stdout","time":"yesterday"}',
            b'{"log":"x\\n","stream":"stdout","time":"2026-10-06T09:05:03\\u0660Z"}',
            b'["log","stream","time"]',
            b"[" * 5000 + b"\\u",
        ],
    )
    def test_a_malformed_line_stays_raw_and_is_counted(self, bad):
        lines = framer().feed(docker("a\n") + bad + b"\n" + docker("b\n"), 0)

        assert (lines.texts, lines.malformed) == ([b"a", bad, b"b"], 1)


class TestEncoding:
    @pytest.mark.parametrize(
        ("first", "expected"),
        [
            (b"hello\n", Encoding.PLAIN),
            (b"\n", Encoding.PLAIN),
            (b'{"level":"info"}\n', Encoding.PLAIN),
            (b'{"time":"2026-10-06T09:05:03Z","level":"INFO","msg":"x"}\n', Encoding.PLAIN),
            (b"2026-10-06T09:05:03Z stdout is a word here\n", Encoding.PLAIN),
            (b"2026-10-06T09:05:03Z stdout F\n", Encoding.PLAIN),
            (b"2026-02-30T09:05:03Z stdout F x\n", Encoding.PLAIN),
            (b"x 2026-10-06T09:05:03Z stdout F x\n", Encoding.PLAIN),
            (cri(b"x"), Encoding.CRI),
            (cri(b"", b"P", b"stderr"), Encoding.CRI),
            (cri(b"x", b"F:later"), Encoding.CRI),
            (docker("x\n"), Encoding.DOCKER),
            (b'{"stream":"stdout", "time":"2026-10-06T09:05:03Z", "log":"x\\n"}\n', Encoding.DOCKER),
        ],
    )
    def test_the_first_line_tells(self, first, expected):
        it = framer()
        it.feed(first, 0)

        assert it.encoding is expected

    def test_later_content_cannot_switch_it(self):
        it = framer()

        lines = it.feed(b"plain\n" + cri(b"x") + docker("x\n"), 0)

        assert lines.texts == [b"plain", cri(b"x")[:-1], docker("x\n")[:-1]]
        assert lines.malformed == 0

    def test_an_unterminated_first_line_tells_at_flush(self):
        it = framer()
        it.feed(cri(b"x").removesuffix(b"\n"), 0)

        assert it.flush().texts == [b"x"]
        assert it.encoding is Encoding.CRI

    def test_it_can_be_given_where_reading_begins_in_the_middle(self):
        lines = framer(encoding=Encoding.CRI).feed(b"torn\n" + cri(b"x"), 500)

        assert lines.texts == [b"torn", b"x"]
        assert lines.malformed == 1
