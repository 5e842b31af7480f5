"""Lines of a real file, through source and framing: torn, cut, empty, long and ill. IDs are the acceptance cases'."""

from __future__ import annotations

import asyncio
import resource

import pytest

from sidecar.model import Mark
from tests.support.following import HURRY, Follower
from tests.support.framed import Framed
from tests.support.log_writer import LogWriter

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


@pytest.fixture
def writer(path):
    with LogWriter(path) as made:
        yield made


async def test_e01_two_writes_form_one_line(path, writer):
    async with Follower(path).following() as reader:
        lines = Framed(reader)
        writer.tear(b"one line\n", 3)
        await lines.once()
        assert lines.texts == []
        writer.mend()
        assert await lines.until(1) == [b"one line"]


async def test_e02_b10_a_last_line_without_newline_comes_once_at_the_end_of_its_generation(path, writer):
    async with Follower(path, timing=HURRY).following() as reader:
        lines = Framed(reader)
        writer.write(b"whole\nno newline")
        assert await lines.until(1) == [b"whole"]
        writer.rotate()
        writer.write(b"new\n")
        assert sorted(await lines.until(3)) == [b"new", b"no newline", b"whole"]


async def test_e04_rule_11_empty_lines_are_lines_and_are_read_once(path, writer):
    async with Follower(path).following() as reader:
        lines = Framed(reader)
        writer.write(b"\n\n\na\n\nb\n\n")
        await lines.until(7)
        await reader.silence()

    assert lines.texts == [b"", b"", b"", b"a", b"", b"b", b""]


async def test_e05_rule_11_one_carriage_return_goes_and_inner_ones_stay(path, writer):
    async with Follower(path).following() as reader:
        writer.write(b"a\r\nb\rc\r\r\nd\n")
        assert await Framed(reader).until(3) == [b"a", b"b\rc\r", b"d"]


TEXT = "grüße, 世界 🎉\n".encode()


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1))
async def test_e06_rule_11_a_character_is_whole_however_the_writes_cut_it(path, writer, size):
    async with Follower(path).following() as reader:
        lines = Framed(reader)
        for part in pieces(TEXT, size):
            writer.write(part)
            while reader.data != TEXT[: writer.size]:
                await lines.once()

    assert lines.texts == [TEXT[:-1]]


def pieces(text, size):
    return (text[begin : begin + size] for begin in range(0, len(text), size))


async def test_e07_what_is_no_text_stays_in_its_line(path, writer):
    async with Follower(path).following() as reader:
        writer.write(b"before\nill: \xff\xfe \xc3\nafter\n")
        texts = await Framed(reader).until(3)

    assert texts[1].decode(errors="replace") == "ill: \ufffd\ufffd \ufffd"
    assert (texts[0], texts[2]) == (b"before", b"after")


@pytest.mark.parametrize("size", [4097, 16385, (64 << 10) + 1, (256 << 10) - 1, (256 << 10) + 1])
async def test_e08_a_line_longer_than_any_buffer_is_intact(path, writer, size):
    async with Follower(path).following() as reader:
        writer.write(b"before\n" + b"x" * size + b"\nafter\n")
        assert await Framed(reader).until(3) == [b"before", b"x" * size, b"after"]


async def test_e09_rule_15_a_line_over_the_limit_is_cut_marked_and_its_neighbours_are_whole(path, writer):
    async with Follower(path).following() as reader:
        lines = Framed(reader, limit=1000)
        writer.write(b"before\n" + b"x" * 1_000_000 + b"\nafter\n")
        assert await lines.until(3) == [b"before", b"x" * 1000, b"after"]

    assert lines.marks == [None, Mark.TRUNCATED, None]
    assert lines.lost_bytes == 999_000


@pytest.mark.slow
async def test_e11_rule_15_two_gibibytes_without_a_newline_take_no_memory_and_the_next_line_is_whole(path):
    """A hole reads as NULs; only what surrounds it takes room on the disk."""
    size = 2 << 30
    with path.open("wb") as file:
        file.write(b"before\nx")
        file.seek(size)
        file.write(b"\nafter\n")
    follower = Follower(path)
    async with follower.following() as reader:
        reader.once = reader.source.read  # the reader would keep all of it
        lines = Framed(reader)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with asyncio.timeout(300.0):
            while len(lines.texts) < 3:
                await lines.once()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert (lines.texts[0], lines.texts[2]) == (b"before", b"after")
    assert lines.lost_bytes == size - len(b"before\n") - (1 << 20)
    assert grown < 16 << 10, "KiB"


async def test_e13_a_thousand_lines_are_a_thousand_lines(path, writer):
    expected = [f"line {number}".encode() for number in range(1000)]
    async with Follower(path).following() as reader:
        lines = Framed(reader)
        for number, text in enumerate(expected):
            writer.write(text + b"\n")
            if number % 97 == 0:
                await lines.once()
        await lines.until(1000)
        await reader.silence()

    assert lines.texts == expected
