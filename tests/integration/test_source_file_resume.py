"""The source `file` over a downtime: it finds what it followed under its new name, and what nobody has seen."""

from __future__ import annotations

import gzip
import json
import random
import shutil

import pytest

from sidecar.model import Position
from tests.support.following import HURRY, Follower
from tests.support.kubelet import damage
from tests.support.log_writer import LogWriter, replace

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


@pytest.fixture(params=["beginning", "end"])
def follower(path, request):
    return Follower(path, start_at=request.param)


@pytest.fixture
def writer(path):
    with LogWriter(path) as made:
        yield made


async def life(follower, writer, *texts, saved=None):
    """One process that reads these lines and dies with all of them delivered; return its checkpoint."""
    async with follower.following(saved) as reader:
        await reader.expect(writer.lines(*texts))
        return follower.saved(reader)


@pytest.mark.parametrize("size", [1, 2000])
async def test_g01_lines_written_while_down_are_read_once(follower, writer, size):
    saved = await life(follower, writer, "one" * size, "two" * size)
    missed = writer.lines("three" * size, "four" * size)

    async with follower.following(saved) as reader:
        await reader.expect(missed)
        await reader.silence()

    assert follower.lost == {}
    assert follower.rotations == follower.truncations == 0


async def test_positions_carry_the_same_log_and_offset_over_a_restart(follower, writer):
    """They are what an event is named by."""
    saved = await life(follower, writer, "one")
    writer.lines("two")

    async with follower.following(saved) as reader:
        await reader.once()

    assert reader.chunks[0].start == Position(saved["generations"][0]["log"], 4)


async def test_g02_rule_22_what_was_read_and_not_delivered_is_read_again(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one", "two"))
        (log,) = reader.logs
        saved = reader.source.snapshot({log: Position(log, 4)})

    async with follower.following(saved) as reader:
        await reader.expect(b"two\n")


async def test_g04_an_unfinished_line_is_completed_after_the_restart(follower, writer):
    async with follower.following() as reader:
        writer.tear(b"one\ntwo halves\n", 7)
        await reader.expect(b"one\ntwo")
        (log,) = reader.logs
        saved = reader.source.snapshot({log: Position(log, 4)})
    writer.mend()

    async with follower.following(saved) as reader:
        await reader.expect(b"two halves\n")


@pytest.mark.parametrize("suffix", [".1", "-20260704", ".whatever", ".20260704-120000.tmp"])
async def test_g05_a_file_renamed_while_down_goes_on_and_the_new_one_follows(follower, writer, suffix):
    saved = await life(follower, writer, "one")
    expected = writer.lines("two")
    writer.rename(suffix)
    expected += writer.lines("three, after the rename")
    writer.reopen()
    expected += writer.lines("four, in the new file")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.rotations == 1
    assert follower.lost == follower.gaps == {}


async def test_a_link_turned_to_another_file_while_down(follower, path, tmp_path):
    path.symlink_to("one")
    with LogWriter(tmp_path / "one") as first, LogWriter(tmp_path / "two") as second:
        saved = await life(follower, first, "in one")
        expected = first.lines("in one, while down")
        path.unlink()
        path.symlink_to("two")
        expected += second.lines("in two")

        async with follower.following(saved) as reader:
            await reader.expect(expected)

    assert follower.rotations == 1
    assert follower.gaps == {}


async def test_rule_25_files_that_came_and_were_rotated_while_down_are_read_in_order(follower, writer):
    saved = await life(follower, writer, "one")
    expected = b""
    for number in range(4):
        expected += writer.lines(f"before rotation {number}")
        writer.rotate()
    expected += writer.lines("in the last file")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.rotations == 4
    assert follower.gaps == {}


async def test_files_that_were_read_in_an_earlier_life_are_not_read_again(follower, writer):
    async with follower.following() as reader:
        for number in range(12):
            await reader.expect(writer.lines(f"line {number}"))
            writer.rotate()
        await reader.expect(writer.lines("last"))
        saved = follower.saved(reader)
    writer.rotate()
    expected = writer.lines("new")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()


async def test_the_undelivered_end_of_a_file_rotated_before_the_crash_is_read_again(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one", "two"))
        (old,) = reader.logs
        writer.rotate()
        await reader.expect(writer.lines("three"))
        saved = reader.source.snapshot({old: Position(old, 4)})

    async with follower.following(saved) as reader:
        await reader.expect(b"two\nthree\n")
        await reader.silence()

    assert follower.lost == {}


async def test_late_bytes_of_an_old_file_and_of_the_new_one_have_positions_of_their_own(follower, writer, path):
    """Both are being read when the process dies."""
    async with follower.following() as reader:
        await reader.expect(writer.lines("old"))
        writer.rename()
        with LogWriter(path) as new:
            await reader.expect(new.lines("new 1"))
            await reader.expect(writer.lines("late 1"))
            saved = follower.saved(reader)
            expected = writer.lines("late 2") + new.lines("new 2")

            async with follower.following(saved) as again:
                await again.expect(expected)
                await again.silence()


async def test_a_log_that_had_ended_and_grew_again_is_not_read_twice(path):
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("old"))
            writer.rename()
            path.touch()
            await reader.ends(next(iter(reader.logs)))
            await reader.expect(writer.lines("late"))
            old, _late = reader.logs
            everything = follower.saved(reader)
            only_old = reader.source.snapshot({old: Position(old, 4)})
            nothing = reader.source.snapshot({})

        for saved, expected in ((everything, b""), (only_old, b"late\n"), (nothing, b"old\nlate\n")):
            async with follower.following(json.loads(json.dumps(saved))) as reader:
                await reader.expect(expected)
                await reader.expect(writer.lines("later"))
            shrink(path.with_name("app.log.1"), len("later\n"))


def shrink(path, count):
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(content) - count)


async def test_g07_truncated_while_down_the_new_content_is_read_whole(follower, writer):
    saved = await life(follower, writer, "one, which is long")
    writer.truncate()
    expected = writer.lines("two")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.truncations == 1
    assert follower.rotations == 0
    assert follower.counted("sidecar_checkpoint_invalid_total", reason="ahead_of_file") == 1


async def test_c06_g07_truncated_while_down_and_grown_beyond_the_saved_offset(follower, writer):
    saved = await life(follower, writer, "one")
    writer.truncate()
    expected = writer.lines("something else", "and more of it")

    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert follower.truncations == 1
    assert follower.counted("sidecar_checkpoint_invalid_total", reason="ahead_of_file") == 0


async def test_c06_copytruncate_while_down_reads_the_rest_from_the_copy(follower, writer):
    saved = await life(follower, writer, "one")
    expected = writer.lines("two")
    writer.copytruncate()
    expected += writer.lines("three")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}
    assert follower.truncations == 1


async def test_several_copytruncates_while_down_lose_nothing(follower, writer):
    saved = await life(follower, writer, "one")
    expected = writer.lines("two")
    for number in range(3):
        writer.copytruncate()
        expected += writer.lines(f"content {number}")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_a_copy_whose_original_goes_on_is_not_read(follower, writer, path):
    """Somebody saved the log by hand, or copytruncate is half done."""
    saved = await life(follower, writer, "one")
    shutil.copy(path, path.with_name("app.log.1"))
    expected = writer.lines("two")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()
        writer.truncate()
        await reader.silence()
        await reader.expect(writer.lines("three"))

    assert follower.lost == {}


async def test_deleted_and_recreated_while_down_the_new_file_is_read_whole_and_the_gap_is_counted(follower, writer):
    saved = await life(follower, writer, "the same")
    writer.delete()
    writer.close()
    writer.reopen()  # on ext4 it has the old one's inode
    expected = writer.lines("the same but longer")

    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert follower.lost == {}
    assert follower.gaps in ({"rotated_away": 1}, {}), "where the inode came back it looks like a truncation"
    assert follower.truncations + sum(follower.gaps.values()) == 1


GIN = '[GIN] 2026/07/04 - 12:00:%02d | 200 |    1.5ms |  10.0.0.1 | GET      "/orders/1"'
EPOCH = '{"level":"info","ts":17831664%02d.123,"msg":"%s"}'
BANNER = "[GIN-debug] [WARNING] Running in debug mode. Switch to release mode in production."
TIMED = {
    "Gin": ["start", GIN % 1, GIN % 2],
    "seconds since the epoch": [EPOCH % (1, "one"), EPOCH % (2, "two")],
    "a banner, and a line with a time": [BANNER * 10, GIN % 1],
    "a line with a time, and more than the mark holds": [GIN % 1, "x" * 1000],
}


@pytest.mark.parametrize("texts", TIMED.values(), ids=TIMED)
async def test_c12_replaced_while_down_by_its_content_and_more_it_goes_on_at_the_old_offset(
    follower, writer, path, texts
):
    saved = await life(follower, writer, *texts)
    unread = writer.lines("unread")
    replace(path, path.read_bytes() + b"more\n")

    async with follower.following(saved) as reader:
        await reader.expect(unread + b"more\n")
        with LogWriter(path) as again:
            await reader.expect(again.lines("appended"))
        await reader.silence()
        saved = follower.saved(reader)

    async with follower.following(saved) as reader:
        await reader.silence()

    assert follower.rotations == follower.truncations == 0
    assert follower.lost == follower.gaps == {}


async def test_c12_rule_22_replaced_while_down_what_was_not_delivered_is_read_again(path, writer):
    follower = Follower(path)
    first, second = writer.lines(GIN % 1), writer.lines(GIN % 2)
    async with follower.following() as reader:
        await reader.expect(first + second)
        (log,) = reader.logs
        saved = reader.source.snapshot({log: Position(log, len(first))})
    replace(path, path.read_bytes() + b"more\n")

    async with follower.following(saved) as reader:
        await reader.expect(second + b"more\n")
        assert reader.chunks[0].start == Position(log, len(first))

    assert follower.lost == follower.gaps == {}


async def test_c12_replaced_while_down_after_a_rotation_both_are_found(follower, writer, path):
    saved = await life(follower, writer, GIN % 1)
    async with follower.following(saved) as reader:
        expected = writer.lines(GIN % 2)
        writer.rotate()
        expected += writer.lines(GIN % 3)
        await reader.expect(expected)
        saved = follower.saved(reader)
    replace(path, path.read_bytes() + b"more\n")

    async with follower.following(saved) as reader:
        await reader.expect(b"more\n")
        await reader.silence()

    assert follower.lost == follower.gaps == {}


OTHERS = {
    "other lines": lambda old: b"other\n" + old,
    "another head": lambda old: b"!" + old[1:] + b"more\n",
    "another tail": lambda old: old[:-2] + b"!\n" + b"more\n",
    "less": lambda old: old[: len(old) // 2],
    "nothing": lambda old: b"",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_c12_g07_replaced_while_down_by_other_content_it_is_read_from_its_start(follower, writer, path, other):
    saved = await life(follower, writer, *(GIN % number for number in range(20)))
    content = other(path.read_bytes())
    replace(path, content)

    async with follower.following(saved) as reader:
        await reader.expect(content)
        with LogWriter(path) as again:
            await reader.expect(again.lines("appended"))

    assert follower.lost == {}
    assert follower.gaps == {"rotated_away": 1}


async def test_c12_rule_07_replaced_while_down_content_without_a_time_proves_nothing(follower, writer, path):
    """A restarted program writes the same banner; rather twice than never."""
    saved = await life(follower, writer, BANNER, BANNER)
    content = path.read_bytes() + b"another start\n"
    replace(path, content)

    async with follower.following(saved) as reader:
        await reader.expect(content)


async def test_rule_36_what_was_read_and_not_delivered_and_is_gone_is_counted(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one", "two"))
        saved = reader.source.snapshot({})
        writer.delete()
        writer.reopen()

    async with follower.following(saved) as reader:
        await reader.expect(writer.lines("three"))

    assert follower.lost == {"rotated_away": 8}
    assert follower.gaps == {"rotated_away": 1}


def compress(path):
    """What gzip does: the compressed file has the original's times, and the original goes."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    shutil.copystat(path, target)
    path.unlink()


async def test_e14_g06_the_rest_of_generations_compressed_while_down_is_read_in_order(follower, writer):
    saved = await life(follower, writer, "one")
    expected = writer.lines("two")
    compress(writer.rotate("-20260703"))
    expected += writer.lines("three")
    compress(writer.rotate("-20260704"))
    expected += writer.lines("four")
    writer.rotate("-20260705")
    expected += writer.lines("five")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()
        saved = follower.saved(reader)
    async with follower.following(saved) as reader:
        await reader.silence()
        await reader.expect(writer.lines("six"))

    assert follower.lost == follower.gaps == {}


async def test_e14_a_generation_that_was_delivered_and_then_compressed_is_not_read_again(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        rotated = writer.rotate()
        await reader.expect(writer.lines("two"))
        saved = follower.saved(reader)
    compress(rotated)

    async with follower.following(saved) as reader:
        await reader.silence()
        await reader.expect(writer.lines("three"))

    assert follower.lost == follower.gaps == {}


async def test_rule_21_e14_compressed_generations_are_read_at_a_first_start_from_the_beginning(path, writer):
    expected = writer.lines("one")
    compress(writer.rotate("-20260703"))
    expected += writer.lines("two")
    writer.rotate("-20260704")
    expected += writer.lines("three")

    async with Follower(path).following() as reader:
        await reader.expect(expected)
        await reader.silence()
    async with Follower(path, start_at="end").following() as reader:
        await reader.silence()


def compressed_copy(writer):
    compress(writer.copytruncate("-20260704"))


ROTATIONS = {
    "copied": lambda writer: writer.copytruncate(),
    "copied and compressed": compressed_copy,
    "renamed": lambda writer: writer.rotate(),
    "renamed and compressed": lambda writer: compress(writer.rotate("-20260704")),
}


@pytest.mark.parametrize("follows", ["something new", "nothing yet"])
@pytest.mark.parametrize("begins", ["with lines", "empty"])
@pytest.mark.parametrize("rotate", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("idle_lives", range(3))
async def test_rule_25_a_log_of_which_nothing_was_read_is_found_however_often_nobody_reads_it(
    path, writer, rotate, begins, follows, idle_lives
):
    follower = Follower(path)
    expected = writer.lines("there at the start") if begins == "with lines" else b""
    async with follower.following() as reader:
        saved = follower.saved(reader)
    expected += writer.lines("written while down")
    rotate(writer)
    if follows == "something new":
        expected += writer.lines("after the rotation")
    for _ in range(idle_lives):
        async with follower.following(saved) as reader:
            saved = follower.saved(reader)

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.expect(writer.lines("after the start"))
        await reader.silence()
        saved = follower.saved(reader)
    async with follower.following(saved) as reader:
        await reader.silence()

    assert follower.lost == {}
    assert follower.gaps == {} or rotate is ROTATIONS["renamed and compressed"], "nobody knows whether this is all"
    assert (follower.rotations, follower.truncations) in {(1, 0), (0, 1)}


async def test_rule_06_the_inode_of_a_file_that_nothing_was_read_of_makes_no_other_programs_file_the_log(path, writer):
    """Nothing but the name tells them apart: the inode of a deleted file is the next one's."""
    follower = Follower(path)
    async with follower.following() as reader:
        saved = follower.saved(reader)
    writer.lines("maybe another program's")
    path.rename(path.with_name("private.txt"))
    writer.reopen()

    async with follower.following(saved) as reader:
        await reader.expect(writer.lines("in the log"))
        await reader.silence()

    assert follower.gaps == {"rotated_away": 1}


async def test_rule_06_an_empty_file_that_is_gone_takes_nothing_from_the_log_that_has_its_inode_now(path, writer):
    follower = Follower(path)
    async with follower.following() as reader:
        empty = writer.rotate()
        await reader.expect(writer.lines(GIN % 1))
        saved = follower.saved(reader)
    replaced = path.with_name("beside")
    replaced.write_bytes(path.read_bytes() + b"more\n")
    saved["generations"][0]["inode"] = replaced.stat().st_ino
    replaced.rename(path)
    empty.unlink()

    async with follower.following(saved) as reader:
        await reader.expect(b"more\n")
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_a_copy_that_was_read_is_not_read_again_when_the_log_is_renamed_while_down(path, writer):
    """Copy and log have the same time of their last write, and nothing was read of the log since."""
    follower = Follower(path, timing=HURRY)
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        copy = writer.copytruncate("-20260704")
        shutil.copystat(path, copy)
        await reader.ends(next(iter(reader.logs)))
        await reader.silence()
        saved = follower.saved(reader)
    writer.rotate("-20260705")

    async with follower.following(saved) as reader:
        await reader.silence()
        await reader.expect(writer.lines("two"))


@pytest.mark.parametrize("how", ["cut", "head", "middle"])
@pytest.mark.parametrize("when", ["there at the first start", "made while down"])
async def test_e14_a_damaged_archive_is_read_to_its_damage_and_counted_once_over_all_restarts(path, writer, how, when):
    follower = Follower(path)
    saved = await life(follower, writer, "one") if when == "made while down" else None
    rows = writer.lines(*(f"{random.Random(number).getrandbits(400):x}" for number in range(3000)))
    rotated = writer.rotate("-20260703")
    compress(rotated)
    damage(rotated.with_name(rotated.name + ".gz"), how)
    last = writer.lines("last")

    async with follower.following(saved) as reader:
        while not reader.data.endswith(last):
            await reader.once()
        saved = follower.saved(reader)
    counted = follower.lost, follower.gaps
    got = reader.data.removesuffix(last)
    for number in range(3):
        async with follower.following(saved) as again:
            await again.silence()
            await again.expect(writer.lines(f"life {number}"))
            saved = follower.saved(again)

    assert (follower.lost, follower.gaps) == counted
    assert follower.gaps["read_error"] == 1
    assert rows.startswith(got) or (b"one\n" + rows).startswith(got) or how == "middle", "nobody can tell a flipped bit"
    assert how != "cut" or 0.4 <= len(got) / len(rows) <= 0.6


async def test_g11_rule_06_an_inode_that_came_back_with_the_same_banner_is_another_file(follower, writer):
    banner = "[GIN-debug] [WARNING] Running in debug mode. Switch to release mode in production." * 10
    saved = await life(follower, writer, banner, "first start")
    writer.truncate()
    expected = writer.lines(banner, "second start", "which is longer")

    async with follower.following(saved) as reader:
        await reader.expect(expected)


async def test_waiting_for_a_path_survives_a_restart(follower, path):
    async with follower.following() as reader:
        await reader.silence()
        saved = follower.saved(reader)

    with LogWriter(path) as writer:
        expected = writer.lines("written while down")
        async with follower.following(saved) as reader:
            await reader.expect(expected)


async def test_the_path_is_gone_and_the_renamed_file_still_written_to(follower, writer):
    saved = await life(follower, writer, "one")
    writer.rename()
    expected = writer.lines("two")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.expect(writer.lines("three"))
        writer.reopen()
        await reader.expect(writer.lines("four"))

    assert follower.rotations == 1


async def test_many_lives_give_every_line_once(follower, writer):
    saved, received, written = None, b"", b""
    for number in range(10):
        async with follower.following(saved) as reader:
            if not number:
                await reader.silence()
            written += writer.lines(f"{number} up")
            if number % 3 == 0:
                writer.rotate()
            if number % 4 == 3:
                written += writer.lines(f"{number} before the copy")
                writer.copytruncate()
            await reader.expect(written[len(received) + len(reader.data) :])
            received += reader.data
            saved = follower.saved(reader)
        written += writer.lines(f"{number} down")
        if number % 2:
            writer.rotate()

    async with follower.following(saved) as reader:
        await reader.expect(f"{number} down\n".encode())
        await reader.silence()
    assert received + reader.data == written
    assert follower.lost == follower.gaps == {}
