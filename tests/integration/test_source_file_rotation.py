"""The source `file` through rotation by rename, deletion and re-creation: nothing lost, nothing twice, old before new."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from sidecar.sources import generation, known, succession
from tests.support.descriptors import open_files
from tests.support.following import HURRY, Follower, look
from tests.support.log_writer import LogWriter, replace

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


async def test_b09_b11_rule_02_the_rest_of_the_old_file_comes_before_the_new_one(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = writer.lines("unread")
        writer.rotate()
        expected += writer.lines("new")
        await reader.expect(expected)

    assert follower.rotations == 1
    assert follower.lost == {}
    assert len(reader.logs) == 2


async def test_b12_what_is_written_between_rename_and_reopen_is_read_in_order(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("before"))
        writer.rename()
        await reader.expect(writer.lines("after the rename"))
        await reader.silence(times=5)
        await reader.expect(writer.lines("long after it"))
        assert follower.rotations == 0, "there is no successor yet"

        expected = writer.lines("last words")
        writer.reopen()
        await reader.expect(expected + writer.lines("new"))

    assert follower.rotations == 1


async def test_b01_b15_rule_03_late_bytes_of_the_old_file_are_read_after_the_new_one_has_begun(follower, writer, path):
    """containerd swaps files before its old writer is done."""
    async with follower.following() as reader:
        await reader.expect(writer.lines("old"))
        writer.rename()
        with LogWriter(path) as new:
            await reader.expect(new.lines("new 1"))
            await reader.expect(writer.lines("late"))
            await reader.expect(new.lines("new 2"))

    assert [content for _, content in reader.logs.items()] == [b"old\nlate\n", b"new 1\nnew 2\n"]


async def test_a_writer_that_never_reopens_is_followed_while_its_successor_stays_empty(path):
    """logrotate made the new file and the program knows no SIGHUP: its lines come for as long as the file has a name."""
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("old"))
            writer.rename()
            path.touch()
            (log,) = reader.logs
            await reader.ends(log)
            await reader.expect(writer.lines("long after its end was told"))
            await reader.expect(writer.lines("and more"))

    assert len(reader.logs) == 2, "what was said to have ended has not grown: it is another log"


async def test_b10_e02_the_end_of_an_old_file_is_told_once_it_is_quiet(path):
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            writer.write(b"no newline")
            await reader.expect(b"no newline")
            writer.rotate()
            writer.write(b"another line\n")
            await reader.expect(b"another line\n")
            old, new = reader.logs
            await reader.ends(old)

    assert reader.logs[new] == b"another line\n", "not glued to the old file's rest"


async def test_two_rotations_between_two_looks_lose_no_file(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("first"))
        expected = b""
        for number in range(4):
            writer.rotate()
            expected += writer.lines(f"in file {number}")
        await reader.expect(expected)
        await reader.silence()

    assert follower.rotations == 4
    assert len(reader.logs) == 5


async def test_b02_two_renames_with_late_writes_to_each_file(follower, writer, path):
    async with follower.following() as reader:
        await reader.expect(writer.lines("1"))
        writer.rename(".1")
        with LogWriter(path) as second:
            await reader.expect(second.lines("2"))
            second.rename(".2")
            with LogWriter(path) as third:
                await reader.expect(third.lines("3"))
                await reader.expect(writer.lines("1 late"))
                await reader.expect(second.lines("2 late"))

    assert follower.lost == {}


async def test_b13_rule_04_a_file_that_gets_its_name_back_is_the_same_file(follower, writer, path):
    """The kubelet renames back when the runtime does not reopen."""
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        renamed = writer.rename(".20260704-120000")
        await reader.expect(writer.lines("two"))
        renamed.rename(path)
        await reader.expect(writer.lines("three"))
        await reader.silence()

    assert len(reader.logs) == 1
    assert follower.rotations == 0


async def test_even_when_another_file_had_the_name_meanwhile(follower, writer, path, tmp_path):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        renamed = writer.rename()
        with LogWriter(path) as other:
            await reader.expect(other.lines("intermezzo"))
            other.rename(".2")
        renamed.rename(path)
        await reader.expect(writer.lines("two"))
        await reader.silence()

    assert len(reader.logs) == 2


async def test_b08_b14_rule_05_a_followed_file_is_followed_under_any_name(follower, writer, tmp_path):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        renamed = writer.rename(".20260704-120000.tmp")
        await reader.expect(writer.lines("two"))
        (tmp_path / "elsewhere").mkdir()
        renamed.rename(tmp_path / "elsewhere" / "whatever")
        await reader.expect(writer.lines("three"))


async def test_rule_07_equal_beginnings_do_not_make_two_files_one(follower, writer, path):
    """Gin's debug banner begins the log of every start."""
    banner = b"[GIN-debug] [WARNING] Creating an Engine instance with the Logger and Recovery middleware.\n" * 20
    async with follower.following() as reader:
        writer.write(banner)
        await reader.expect(banner)
        writer.rotate()
        writer.write(banner)
        await reader.expect(banner)
        writer.delete()
        writer.reopen()
        writer.write(banner)
        await reader.expect(banner)

    assert len(reader.logs) == 3


async def test_d02_rule_10_a_deleted_file_is_drained_and_followed_until_another_has_its_name(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = writer.lines("unread")
        writer.delete()
        expected += writer.lines("after the deletion")
        await reader.expect(expected)
        writer.reopen()
        await reader.expect(writer.lines("recreated"))

    assert follower.lost == {}


async def test_c12_a_file_replaced_by_one_with_its_content_and_more_goes_on_at_the_old_offset(follower, writer, path):
    """What `sed -i` and editors do: write a file beside it, rename it over the old one."""
    async with follower.following() as reader:
        old = writer.lines("12:00:01 one", "12:00:02 two", "12:00:03 three")
        await reader.expect(old)
        unread = writer.lines("12:00:04 unread")
        replace(path, old + unread + b"12:00:05 more\n")
        await reader.expect(unread + b"12:00:05 more\n")
        with LogWriter(path) as again:
            await reader.expect(again.lines("12:00:06 appended"))
        await reader.silence()

    assert len(reader.logs) == 1
    assert follower.rotations == follower.truncations == 0
    assert follower.lost == follower.gaps == {}


TIMED = {
    "seconds since the epoch": [b'{"level":"info","ts":1783166401.123,"msg":"one"}'],
    "a banner as long as a sample, and a line with a time": [b"route" * 14_000, b"12:00:01 one"],
}


@pytest.mark.parametrize("texts", TIMED.values(), ids=TIMED)
async def test_c12_one_time_in_what_was_read_proves_it(follower, writer, path, texts):
    async with follower.following() as reader:
        old = b"".join(text + b"\n" for text in texts)
        writer.write(old)
        await reader.expect(old)
        replace(path, old + b"more\n")
        await reader.expect(b"more\n")

    assert len(reader.logs) == 1


OTHER = {
    "another head": b"12:00:01 other\n12:00:02 two\n12:00:03 three\n",
    "another tail": b"12:00:01 one\n12:00:02 two\n12:00:03 thre!\n12:00:04 more\n",
    "less": b"12:00:01 one\n",
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
async def test_c12_a_file_replaced_by_one_with_other_content_is_read_from_its_start(follower, writer, path, content):
    async with follower.following() as reader:
        await reader.expect(writer.lines("12:00:01 one", "12:00:02 two", "12:00:03 three"))
        replace(path, content)
        await reader.expect(content)

    assert len(reader.logs) == 2


async def test_c12_rule_07_content_without_a_time_proves_nothing(follower, writer, path):
    """A restarted program writes the same banner; rather twice than never."""
    async with follower.following() as reader:
        banner = writer.lines("[GIN-debug] Listening and serving HTTP on :8080")
        await reader.expect(banner)
        replace(path, banner + b"[GIN-debug] more\n")
        await reader.expect(banner + b"[GIN-debug] more\n")


async def test_d02_the_end_of_a_deleted_file_is_told_without_a_successor(path):
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("one"))
            writer.delete()
            (log,) = reader.logs
            await reader.ends(log)
            await reader.expect(writer.lines("and yet"))
            writer.reopen()
            await reader.expect(writer.lines("new"))


async def test_d01_rule_01_the_inode_of_a_held_file_cannot_come_back(follower, writer, path):
    """Not held, ext4 gives the inode of a deleted file to the next one."""
    async with follower.following() as reader:
        for number in range(5):
            old = writer.inode
            await reader.expect(writer.lines(f"line {number}"))
            writer.delete()
            writer.close()
            writer.reopen()
            assert writer.inode != old


async def test_b19_rule_06_the_inode_of_a_file_closed_long_ago_may_come_back(path):
    """What the kubelet does at each rotation: the new log gets the inode of the one before last."""
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            for number in range(4):
                await reader.expect(writer.lines(f"the same length {number}"))
                old = list(reader.logs)[-1]
                writer.rotate().unlink()
                await reader.ends(old)
                await reader.silence()  # and now it is closed

    assert follower.lost == {}


async def test_b21_a_link_that_is_turned_to_another_file_is_a_rotation(follower, path, tmp_path):
    with LogWriter(tmp_path / "one") as first, LogWriter(tmp_path / "two") as second:
        path.symlink_to("one")
        async with follower.following() as reader:
            await reader.expect(first.lines("in one"))
            (tmp_path / "new link").symlink_to("two")
            (tmp_path / "new link").rename(path)
            await reader.expect(second.lines("in two"))
            await reader.expect(first.lines("late in one"))

    assert follower.rotations == 1


async def test_rule_28_at_most_eight_old_files_are_held_once_they_have_ended(path):
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            for number in range(14):
                await reader.expect(writer.lines(f"line {number}"))
                old = list(reader.logs)[-1]
                writer.rotate(f".{number:02}")
                await reader.ends(old)
            await reader.expect(writer.lines("last"))
            await reader.silence()
            held = [name for name in open_files() if name.startswith(str(path))]

    assert len(held) - 2 == 8, "besides the log itself, open for writing and for reading"
    assert follower.lost == {}


async def test_i08_rule_28_rule_36_deleted_files_that_nobody_reads_are_bounded_and_counted_to_the_byte(
    follower, writer
):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        written = writer.lines("unread 00")
        for number in range(1, 12):
            writer.rotate(".1")
            await look(reader)
            writer.path.with_name("app.log.1").unlink()
            written += writer.lines(f"unread {number:02}")
        while not reader.data.endswith(b"unread 11\n"):
            await reader.once()
        received = reader.data[len(b"read\n") :]

    assert len(received) < len(written)
    assert follower.lost == {"generation_cap": len(written) - len(received)}
    assert written.endswith(received), "the oldest were given up"


@pytest.mark.parametrize("cut", [False, True], ids=["", "after a truncation"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("call", ["open", "listdir"])
async def test_names_that_move_on_while_they_are_looked_at_change_neither_what_is_read_nor_its_order(
    follower, writer, monkeypatch, call, times, cut
):
    """The log is opened, or its directory listed, and rotated so often before the next call."""
    real, moves, writing = getattr(os, call), list(range(times)), threading.Lock()

    def then_rotate(name, *rest, **more):
        got = real(name, *rest, **more)
        if str(name) in {str(writer.path), str(writer.path.parent)} and looked(rest):
            with writing:
                while moves:
                    expected.append(writer.lines(f"before move {moves[0]}"))
                    writer.rotate()
                    del moves[0]
        return got

    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = [writer.lines("unread")]
        monkeypatch.setattr(os, call, then_rotate)
        with writing:
            if cut:
                writer.copytruncate()
            writer.rotate()
            expected.append(writer.lines("in the new file"))
        async with asyncio.timeout(5.0):
            while moves:
                await asyncio.sleep(0.001)  # nobody reads
        expected.append(writer.lines("last"))
        await reader.expect(b"".join(expected))
        await reader.silence()

    assert follower.lost == follower.gaps == {}


def looked(flags):
    """Whether a call is no writer's."""
    return not flags or not flags[0] & os.O_WRONLY


async def test_b09_a_file_that_is_renamed_and_deleted_while_it_is_opened_comes_before_those_after_it(path, writer):
    follower = Follower(path)
    turns = succession.Succession(follower.telemetry, follower.timing, lambda _: [])
    beside = known.Known(str(path), turns, follower.telemetry)
    writer.lines("first")
    opened = generation.Generation(generation.open_log(str(path)), str(path), "first")
    writer.rotate(".1").unlink()
    writer.lines("second")
    times = os.fstat(opened.descriptor).st_atime_ns, os.fstat(opened.descriptor).st_mtime_ns
    os.utime(writer.rotate(".1"), ns=times)  # within one tick of the clock of files
    writer.lines("third")

    found = beside.unseen(opened=opened)

    assert [one.read() for one in found] == [b"first\n", b"second\n"]
    for one in found:
        one.close()
