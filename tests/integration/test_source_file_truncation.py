"""The source `file` through truncation and copytruncate: the new content whole, the old one as far as it can be had."""

from __future__ import annotations

import os

import pytest

from tests.support.following import Follower
from tests.support.log_writer import LogWriter
from tests.support.reading import CHUNK_BYTES

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


@pytest.fixture
def follower(path):
    return Follower(path)


@pytest.fixture
def writer(path):
    with LogWriter(path) as made:
        yield made


async def test_c01_c10_rule_08_a_truncated_log_ends_and_begins_anew(follower, writer):
    async with follower.following() as reader:
        writer.write(b"old line\nhalf a li")
        await reader.expect(b"old line\nhalf a li")
        writer.truncate()
        await reader.ends(next(iter(reader.logs)))
        await reader.expect(writer.lines("new line"))

    assert len(reader.logs) == 2, "the half line and the new one are not one line"
    assert reader.chunks[-1].start.offset == 0
    assert follower.truncations == 1
    assert follower.rotations == 0
    assert follower.lost == {}


async def test_c05_a_log_truncated_and_written_past_the_old_size_between_two_looks_is_read_whole(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("old"))
        writer.truncate()
        await reader.expect(writer.lines("a new line that is longer", "and another"))

    assert follower.truncations == 1


async def test_likewise_to_the_very_same_size(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("old"))
        writer.truncate()
        await reader.expect(writer.lines("new"))


async def test_c07_equal_beginnings_hide_no_truncation(follower, writer):
    banner = b"[GIN-debug] [WARNING] Running in debug mode. Switch to release mode in production.\n" * 20
    async with follower.following() as reader:
        writer.write(banner + b"first start\n")
        await reader.expect(banner + b"first start\n")
        writer.truncate()
        writer.write(banner + b"second start, and more\n")
        await reader.expect(banner + b"second start, and more\n")


async def test_rule_36_bytes_that_were_seen_and_not_read_before_a_truncation_are_counted(follower, writer):
    async with follower.following() as reader:
        writer.write(b"x" * (CHUNK_BYTES + 100))
        await reader.once()
        writer.truncate()
        await reader.expect(writer.lines("new"))

    assert follower.lost == {"truncated_file": 100}
    assert follower.gaps == {"truncated_file": 1}


async def test_cutting_off_only_what_was_not_read_goes_on_and_counts(follower, writer):
    async with follower.following() as reader:
        writer.write(b"x" * (CHUNK_BYTES + 100))
        await reader.once()
        writer.truncate(CHUNK_BYTES + 40)
        await reader.expect(b"x" * 40)

    assert follower.lost == {"truncated_file": 60}
    assert len(reader.logs) == 1


async def test_c02_c03_copytruncate_reads_the_rest_from_the_copy_and_then_the_new_content(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = writer.lines("unread")
        writer.copytruncate()
        expected += writer.lines("new")
        await reader.expect(expected)
        await reader.silence()

    assert [*reader.logs.values()] == [b"read\nunread\n", b"new\n"]
    assert len(reader.ended) == 1
    assert follower.truncations == 1
    assert follower.lost == {}


async def test_a_copy_of_what_was_read_whole_is_not_read_again(follower, writer):
    async with follower.following() as reader:
        for number in range(4):
            await reader.expect(writer.lines(f"line {number}"))
            writer.copytruncate()
            await reader.silence()

    assert follower.truncations == 4


async def test_two_copytruncates_between_two_looks_lose_nothing(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = writer.lines("unread")
        for number in range(3):
            writer.copytruncate()
            expected += writer.lines(f"content {number}, longer than before")
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == {}


@pytest.mark.parametrize("looked", ["before it was written to", "never"])
async def test_c03_a_file_copied_and_cut_off_before_anybody_read_it_is_read_though_nothing_follows(
    follower, writer, looked
):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        writer.rotate()
        if looked != "never":
            await reader.silence()
        expected = writer.lines("unread")
        writer.copytruncate()
        await reader.expect(expected)
        await reader.silence()
        await reader.expect(writer.lines("new"))

    assert follower.lost == {}


async def test_c03_so_it_is_right_before_stop(follower, writer):
    async with follower.following() as reader:
        await reader.silence()
        expected = writer.lines("unread")
        writer.copytruncate()

        reader.source.stop()

        assert await reader.rest() == expected


@pytest.mark.parametrize("suffix", [".1", "-20260704", ".20260704-120000"])
async def test_c04_many_copytruncates_with_unread_rests(follower, writer, suffix):
    async with follower.following() as reader:
        for number in range(3):
            await reader.expect(writer.lines(*(f"{number} read {line}" for line in range(30))))
            expected = writer.lines(*(f"{number} unread {line}" for line in range(30)))
            writer.copytruncate(suffix if suffix == ".1" else f"{suffix}{number}")
            expected += writer.lines(*(f"{number} new {line}" for line in range(30)))
            await reader.expect(expected)

    assert follower.lost == {}
    assert follower.truncations == 3


@pytest.mark.parametrize("size", [10, 1000, 3 << 20], ids=["in a block", "some NULs", "a hole"])
async def test_c08_rule_09_a_hole_of_nuls_is_skipped_and_counted(path, follower, size):
    """A writer without O_APPEND goes on at its old offset."""
    with LogWriter(path, append=False) as writer:
        async with follower.following() as reader:
            writer.write(b"x" * (size - 1) + b"\n")
            await reader.expect(b"x" * (size - 1) + b"\n")
            writer.truncate()
            await reader.expect(writer.lines("new", "\0 inside a line stays"))
            await reader.expect(writer.lines("newer"))

    assert follower.lost == {"nuls": size}
    assert follower.gaps == {}
    assert reader.chunks[-1].start.offset == size + len(b"new\n\0 inside a line stays\n")


async def test_a_hole_that_is_seen_before_what_follows_it(path, follower):
    async with follower.following() as reader:
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("old"))
            writer.truncate()
            await reader.silence()
            os.truncate(path, 1 << 20)
            await reader.silence()
            await reader.expect(writer.lines("new"))

    assert follower.lost == {"nuls": 1 << 20}


async def test_a_truncation_right_before_stop_is_part_of_what_is_there(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = writer.lines("unread")
        writer.copytruncate()
        expected += writer.lines("new")

        reader.source.stop()

        assert await reader.rest() == expected


async def test_a_rotated_file_that_is_truncated_has_its_old_content_told_as_lost(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("old"))
        renamed = writer.rotate()
        await reader.expect(writer.lines("new"))
        os.truncate(renamed, 0)
        with renamed.open("ab") as late:
            late.write(b"odd\n")
        await reader.expect(b"odd\n")
        await reader.expect(writer.lines("newer"))

    assert follower.truncations == 1
