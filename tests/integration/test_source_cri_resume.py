"""The source `cri` over a downtime: renamed, compressed, restarted and deleted meanwhile. IDs are those of the acceptance
cases that the specification of the follower lists."""

from __future__ import annotations

import json
import random

import pytest

from sidecar.model import Position
from sidecar.sources import podlog, podresume
from tests.support.following import HURRY_POD, PodFollower
from tests.support.kubelet import Container, compress, damage

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path)
    made.start()
    yield made
    made.exit()


@pytest.fixture(params=["beginning", "end"])
def follower(tmp_path, request):
    return PodFollower(tmp_path, start_at=request.param)


async def life(follower, container, *texts, saved=None):
    """One process that reads these lines and dies with all of them delivered; return its checkpoint."""
    async with follower.following(saved) as reader:
        await reader.expect(container.lines(*texts))
        return follower.saved(reader)


async def until(reader, content):
    await reader.until(lambda: content in reader.data)


# E14: compressed generations at a first start


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("count", [1, 20_000], ids=["one line", "more than a turn"])
async def test_e14_compressed_generations_are_read_first_and_whole(tmp_path, container, members, count):
    follower = PodFollower(tmp_path)
    expected = b"".join(container.line(f"compressed {number}") for number in range(count))
    compress(container.rotate(), members=members)
    expected += container.lines("rotated")
    container.rotate()
    expected += container.lines("active")

    async with follower.following() as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_e14_a_compressed_generation_that_was_read_is_not_read_after_a_restart(follower, container):
    saved = await life(follower, container, "one", "two")
    for number in range(4):
        container.rotate()
        saved = await life(follower, container, f"line {number}", saved=saved)

    async with follower.following(saved) as reader:
        await reader.silence()
        container.rotate()
        await reader.expect(container.lines("last"))
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_e14_compressed_generations_that_were_found_and_not_begun_are_no_gap_after_a_restart(tmp_path, container):
    """Killed over and over, right after its start: each life finds them, and none has read a byte."""
    follower = PodFollower(tmp_path)
    expected = b""
    for number in range(4):
        expected += container.lines(f"line {number}")
        container.rotate()
    saved = None
    for _ in range(3):
        async with follower.following(saved) as reader:
            saved = follower.saved(reader)

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_g06_a_generation_of_which_nothing_was_read_is_known_again_when_it_is_compressed(tmp_path, container):
    """Found, saved and killed; the line that ends in it is not torn from its beginning."""
    follower = PodFollower(tmp_path)
    begun = container.line("begun, ", tag="P")
    container.rotate()
    expected = begun + container.lines("finished")
    container.rotate()
    expected += container.lines("active")
    async with follower.following() as reader:
        saved = follower.saved(reader)
    container.compress()

    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert [chunk.final for chunk in reader.chunks if chunk.end_of_log] == [False, False]
    assert follower.lost == follower.gaps == {}


async def test_an_empty_generation_that_is_gone_is_no_gap_where_its_successor_was_read(tmp_path, container):
    follower = PodFollower(tmp_path)
    async with follower.following() as reader:
        empty = container.rotate()
        await reader.expect(container.lines("one"))
        saved = follower.saved(reader)
    saved["generations"][0]["ended"] = False  # killed before it was told
    empty.unlink()

    async with follower.following(saved) as reader:
        await reader.expect(container.lines("two"))
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_an_unread_generation_that_is_compressed_is_no_gap_where_an_older_one_is_still_there(tmp_path, container):
    """Who deletes the oldest first has deleted nothing else."""
    follower = PodFollower(tmp_path)
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        container.rotate()
        await reader.silence()
        saved = follower.saved(reader)
    expected = container.lines("two")
    container.rename()
    container.reopen()
    newest = saved["generations"][-1]
    assert (newest["end"], newest["ended"]) == (0, False)
    container.compress()
    newest["inode"] = 1  # for file systems that hand out inodes again at once
    expected += container.lines("three")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


@pytest.mark.parametrize("content", [(), ("unread",)])
async def test_an_unread_generation_that_had_been_rotated_is_no_gap_where_its_name_tells_its_archive(
    tmp_path, container, content
):
    follower = PodFollower(tmp_path)
    expected = container.lines(*content)
    container.rename()
    async with follower.following() as reader:
        saved = follower.saved(reader)
    assert [one["end"] for one in saved["generations"]] == [0]
    container.reopen()
    container.compress()

    async with follower.following(saved) as reader:
        await reader.expect(expected + container.lines("new"))
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_g06_a_generation_compressed_during_the_listing_at_the_start_is_found_all_the_same(tmp_path, container):
    """A listing is no moment: it may be too early for the new name and too late for the old one."""
    follower = PodFollower(tmp_path)
    saved = await life(follower, container, "one", "two")
    container.rotate()
    state = podresume.parse(saved, str(container.directory))

    def look():
        found = podlog.listed(container.directory)
        container.compress()
        return found

    (restored,), _ = podresume.restore(state, look, follower.telemetry)
    restored.close()

    assert restored.path.endswith(".gz")
    assert follower.lost == follower.gaps == {}


async def test_a_file_that_is_there_beats_its_compressed_twin(tmp_path, container):
    """The kubelet removes the original after it has given the compressed file its name."""
    follower = PodFollower(tmp_path)
    expected = container.lines("one")
    rotated = container.rotate()
    content = rotated.read_bytes()
    compress(rotated)
    rotated.write_bytes(content)
    expected += container.lines("two")

    async with follower.following() as reader:
        await reader.expect(expected)
        rotated.unlink()
        await reader.silence()


async def test_a_damaged_generation_is_a_gap_and_the_next_ones_are_read(tmp_path, container):
    follower = PodFollower(tmp_path)
    container.lines("one")
    made = compress(container.rotate())
    made.write_bytes(made.read_bytes()[:20])
    expected = container.lines("two")

    async with follower.following() as reader:
        await until(reader, expected)

    assert follower.gaps == {"read_error": 1}


@pytest.mark.parametrize("how", ["cut", "head", "middle"])
async def test_e14_a_damaged_generation_is_read_to_its_damage_and_counted_once_over_all_restarts(
    tmp_path, container, how
):
    follower = PodFollower(tmp_path)
    rows = container.lines(*(f"{random.Random(number).getrandbits(400):x}" for number in range(3000)))
    container.rotate()
    (compressed,) = container.compress()
    damage(compressed, how)
    saved = None
    async with follower.following() as reader:
        last = container.lines("last")
        await until(reader, last)
        saved = follower.saved(reader)
    counted = follower.lost, follower.gaps
    got = len(reader.data) - len(last)

    for number in range(3):
        async with follower.following(saved) as again:
            await again.silence()
            await again.expect(container.lines(f"life {number}"))
            saved = follower.saved(again)

    assert (follower.lost, follower.gaps) == counted
    assert follower.gaps == {"read_error": 1}
    assert rows.startswith(reader.data[:got]) or how == "middle", "what a flipped bit makes of a line, nobody can tell"
    assert how != "cut" or 0.4 <= got / len(rows) <= 0.6


# G: restart


async def test_g01_lines_written_while_down_are_read_once(follower, container):
    saved = await life(follower, container, "one", "two", "x" * 2000)
    missed = container.lines("three", "y" * 2000)

    async with follower.following(saved) as reader:
        await reader.expect(missed)
        await reader.silence()

    assert follower.lost == {}


async def test_g02_what_was_not_delivered_is_read_again(follower, container):
    async with follower.following() as reader:
        first, second = container.lines("one"), container.lines("two")
        await reader.expect(first + second)
        (log,) = reader.logs
        saved = reader.source.snapshot({log: Position(log, len(first))})

    async with follower.following(saved) as reader:
        await reader.expect(second)


async def test_g02_the_undelivered_end_of_a_compressed_generation_is_read_again(follower, container):
    async with follower.following() as reader:
        first, second = container.lines("one"), container.lines("two")
        await reader.expect(first + second)
        (old,) = reader.logs
        container.rotate()
        third = container.lines("three")
        await reader.expect(third)
        saved = json.loads(json.dumps(reader.source.snapshot({old: Position(old, len(first))})))
    container.compress()

    async with follower.following(saved) as reader:
        await reader.expect(second + third)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_g05_a_file_renamed_while_down_is_not_read_again(follower, container):
    saved = await life(follower, container, "one")
    expected = container.lines("two")
    container.rename()
    expected += container.lines("three, through the old descriptor")
    container.reopen()
    expected += container.lines("four")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()


@pytest.mark.parametrize("size", [1, 40_000])
async def test_g06_compressed_while_down_the_rest_comes_from_the_saved_offset_in_order(follower, container, size):
    texts = [f"line {number}" for number in range(size)]
    saved = await life(follower, container, *texts)
    expected = container.lines("unread", "unread too")
    for number in range(4):
        container.rotate()
        expected += container.lines(f"in generation {number}")
    assert len(list(container.directory.glob("*.gz"))) == 3

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_g07_another_file_at_the_path_is_read_from_its_start(follower, container):
    saved = await life(follower, container, "one, long enough")
    container.path.unlink()
    container.exit()
    container.reopen()
    expected = container.lines("two")

    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert follower.gaps == {"rotated_away": 1}


async def test_more_rotations_than_the_kubelet_keeps_are_a_gap_not_a_silence(follower, container):
    saved = await life(follower, container, "one")
    container.lines("lost")
    for number in range(4):
        container.rotate()
        container.lines(f"generation {number}")
    gone = sorted(container.directory.glob("0.log.*"))[:2]
    for path in gone:
        path.unlink()

    async with follower.following(saved) as reader:
        await until(reader, b"generation 3")

    assert follower.gaps == {"rotated_away": 1}


async def test_what_was_read_and_not_delivered_and_is_gone_is_counted_to_the_byte(follower, container):
    async with follower.following() as reader:
        written = container.lines("one", "two")
        await reader.expect(written)
        saved = reader.source.snapshot({})
    container.start()
    container.delete(0)
    expected = container.lines("three")

    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert follower.lost == {"rotated_away": len(written)}


async def test_g11_files_with_equal_beginnings_are_both_read(follower, container):
    """Gin's debug banner, and a runtime whose clock stands still."""
    banner = b"2026-07-02T12:00:00Z stdout F [GIN-debug] [WARNING] Running in debug mode.\n" * 20
    async with follower.following() as reader:
        await reader.expect(container.raw(banner))
        container.rotate()
        await reader.expect(container.raw(banner))
        saved = follower.saved(reader)
    container.rotate()
    container.raw(banner)
    expected = banner + container.raw(b"2026-07-02T12:00:00Z stdout F and then\n")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()


# H: starts


async def test_h01_restarted_while_down_the_rest_of_the_old_start_comes_first(follower, container):
    saved = await life(follower, container, "one")
    expected = container.lines("last words")
    for number in range(3):
        container.start()
        expected += container.lines(f"start {number}")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_many_lives_give_every_line_once(tmp_path, container):
    follower = PodFollower(tmp_path, timing=HURRY_POD)
    saved, received, written = None, b"", b""
    for number in range(12):
        async with follower.following(saved) as reader:
            written += container.lines(f"{number} up")
            if number % 3 == 0:
                container.rotate()
            if number % 5 == 4:
                container.start()
            await reader.expect(written[len(received) :])
            received += reader.data
            saved = follower.saved(reader)
        written += container.lines(f"{number} down")
        for _ in range(number % 3):
            container.rotate()
            written += container.lines(f"{number} down and rotated")

    async with follower.following(saved) as reader:
        await reader.expect(written[len(received) :])
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_rule_16_an_archive_that_was_closed_keeps_its_place_behind_an_older_file_that_is_held(
    tmp_path, container
):
    follower = PodFollower(tmp_path)
    expected = container.lines("in start 0")
    container.start()
    expected += container.lines("in start 1, compressed")
    compress(container.rotate())
    expected += container.lines("in start 1")
    async with follower.following() as reader:
        await reader.expect(expected)
        await reader.silence()
        saved = json.loads(json.dumps(reader.source.snapshot({})))

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_f04_pieces_whose_end_is_lost_are_not_joined_to_another_line(tmp_path, container):
    """Three generations, of which the middle one is deleted while the process is down."""
    follower = PodFollower(tmp_path)
    begun = container.line("begun, ", tag="P")
    container.rotate()
    lost = container.lines("finished", "and more")
    middle = container.rotate()
    new = container.lines("another line")
    async with follower.following() as reader:
        await reader.expect(begun + lost + new)
        saved = json.loads(json.dumps(reader.source.snapshot({})))
    middle.unlink()

    async with follower.following(saved) as reader:
        await reader.expect(begun + new)

    assert [chunk.final for chunk in reader.chunks if chunk.end_of_log] == [True]
    assert follower.lost == {"rotated_away": len(lost)}


async def test_f04_pieces_at_the_end_of_an_archive_wait_for_a_successor_that_has_no_name_yet(tmp_path, container):
    """Only a file that has a successor is compressed; at the start the successor may be between two names."""
    follower = PodFollower(tmp_path)
    saved = await life(follower, container, "before")
    begun = container.line("begun, ", tag="P")
    container.rename()
    container.compress()

    async with follower.following(saved) as reader:
        await reader.expect(begun)
        await reader.until(lambda: reader.ended)
        container.reopen()
        await reader.expect(container.line("finished"))

    assert [chunk.final for chunk in reader.chunks if chunk.end_of_log] == [False]


async def test_f04_pieces_go_past_an_empty_generation_that_an_earlier_life_ended(tmp_path, container):
    follower = PodFollower(tmp_path, timing=HURRY_POD)
    begun = container.line("begun, ", tag="P")
    async with follower.following() as reader:
        await reader.expect(begun)
        for ended in (1, 2):
            container.rotate()
            await reader.until(lambda count=ended: len(reader.ended) == count)
        finished = container.line("finished")
        await reader.expect(finished)
        (first,) = [one.start.log for one in reader.chunks if one.data == begun]
        saved = json.loads(json.dumps(reader.source.snapshot({})))  # nothing of it is delivered

    async with follower.following(saved) as reader:
        await reader.expect(begun + finished)

    (last,) = [one for one in reader.chunks if one.data == finished]
    assert last.continues == first
