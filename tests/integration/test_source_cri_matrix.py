"""The acceptance cases of files in general, on the source `cri`: truncation, replacement, what nobody acknowledged, and
when a start of the container is over. Their twins on `file` are in test_source_file_matrix and beside it."""

from __future__ import annotations

import os

import pytest

from sidecar.model import Position
from sidecar.sources import cri, generation, succession
from tests.support.following import PodFollower, look
from tests.support.kubelet import Container
from tests.support.log_writer import LogWriter
from tests.support.reading import CHUNK_BYTES

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path)
    made.start()
    yield made
    made.exit()


@pytest.fixture
def follower(tmp_path):
    return PodFollower(tmp_path)


# C: truncation and replacement, which no runtime does, and people do


async def test_c04_copytruncate_again_and_again_with_unread_rests_gives_the_exact_lines(follower, container):
    async with follower.following() as reader:
        for number in range(3):
            await reader.expect(container.lines(*(f"{number} read {line}" for line in range(30))))
            expected = container.lines(*(f"{number} unread {line}" for line in range(30)))
            copy = container.directory / f"0.log.20260702-12000{number}"
            copy.write_bytes(container.path.read_bytes())
            os.truncate(container.path, 0)
            expected += container.lines(*(f"{number} new {line}" for line in range(30)))
            await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}
    assert follower.truncations == 3


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["some NULs", "a hole"])
async def test_c08_rule_09_a_hole_of_nuls_is_skipped_and_counted_and_the_line_behind_it_is_whole(
    follower, container, size
):
    """A runtime that writes at its own offset, after somebody emptied the file."""
    head = b"2026-07-02T12:00:00.5Z stdout F "
    old = head + b"x" * (size - len(head) - 1) + b"\n"
    new = head + b"new\n"
    with LogWriter(container.path, append=False) as runtime:
        async with follower.following() as reader:
            runtime.write(old)
            await reader.expect(old)
            runtime.truncate()
            runtime.write(new)
            await reader.expect(new)
            runtime.write(new)
            await reader.expect(new)
            await reader.silence()

    assert follower.lost == {"nuls": size}
    assert follower.gaps == {}


def put_in_place(container, content):
    """Put another file under the runtime's name, in one step, as editors do."""
    before = container.path.stat().st_ino
    beside = container.directory / "beside"
    beside.write_bytes(content)
    beside.rename(container.path)
    assert container.path.stat().st_ino != before


async def test_c12_a_file_replaced_by_one_with_its_content_and_more_goes_on_at_the_old_offset(follower, container):
    """`sed -i` on a container's log. The runtime, which does not know of it, goes on in the old file until a rotation."""
    async with follower.following() as reader:
        old = container.lines("one", "two", "three")
        await reader.expect(old)
        unread = container.lines("unread")
        more = b"2026-07-02T12:00:09Z stdout F more\n"
        put_in_place(container, old + unread + more)
        await reader.expect(unread + more)
        await reader.expect(container.lines("through the runtime's descriptor"))
        with LogWriter(container.path) as editor:
            await reader.expect(editor.lines("2026-07-02T12:00:10Z stdout F appended"))
        await reader.silence()
        saved = follower.saved(reader)
    assert follower.lost == follower.gaps == {}

    async with follower.following(saved) as reader:
        await reader.silence()
        container.rename()
        container.reopen()
        await reader.expect(container.lines("after a rotation"))

    assert follower.lost == {}
    assert follower.gaps == {"rotated_away": 1}, "what the runtime wrote into the nameless file meanwhile, nobody knows"


OTHER = {
    "another head": b"2026-07-02T12:00:08Z stdout F other\n2026-07-02T12:00:09Z stdout F more, and longer than that\n"
    * 3,
    "less": b"2026-07-02T12:00:08Z stdout F less\n",
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
async def test_c12_a_file_replaced_by_one_with_other_content_is_read_from_its_start(follower, container, content):
    async with follower.following() as reader:
        await reader.expect(container.lines("one", "two", "three"))
        unread = container.lines("unread, and held")
        put_in_place(container, content)
        await reader.expect(unread + content)
        await reader.silence()

    assert len(reader.logs) == 2
    assert follower.lost == follower.gaps == {}


# G, I: what nobody acknowledged


async def test_g03_shutdown_with_acknowledgements_outstanding_gives_every_line_over_two_runs(follower, container):
    """4000 lines of two generations; the first run dies with so many of them acknowledged."""
    lines = [container.line(f"line {number:04}") for number in range(2000)]
    async with follower.following() as reader:
        await reader.expect(b"".join(lines))
        container.rotate()
        lines += [container.line(f"line {number:04}") for number in range(2000, 4000)]
        await reader.expect(b"".join(lines[2000:]))
        old, new = reader.logs
        for count in (0, 1, 1999, 2000, 2001, 4000):
            acknowledged = {old: Position(old, len(b"".join(lines[: min(count, 2000)])))}
            if count > 2000:
                acknowledged[new] = Position(new, len(b"".join(lines[2000:count])))
            saved = reader.source.snapshot(acknowledged)
            async with follower.following(saved) as again:
                if count < 4000:
                    await again.expect(b"".join(lines[count:]))
                await again.silence()

    assert follower.lost == follower.gaps == {}


async def test_i05_rule_22_what_is_never_acknowledged_is_read_again_at_each_start(follower, container):
    """A sink that fails holds the position, however often and whatever the kubelet does meanwhile."""
    expected = container.lines(*(f"line {number}" for number in range(100)))
    saved = None
    for number in range(5):
        async with follower.following(saved) as reader:
            await reader.expect(expected)
            saved = reader.source.snapshot({})
            assert {one["offset"] for one in saved["generations"]} == {0}
        if number % 2:
            container.start()
        else:
            container.rotate()
        expected += container.lines(f"after {number}")

    assert follower.lost == follower.gaps == {}


# Rules 27 and 30


async def test_rule_27_late_bytes_of_an_old_generation_come_though_the_new_one_never_pauses(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        container.rename()
        old = container.detach()
        container.reopen()
        await reader.expect(container.lines("two"))
        have = len(reader.chunks)
        filled = b"2026-07-02T12:00:09Z stdout F " + b"x" * 1000 + b"\n"
        container.raw(filled * (8 * CHUNK_BYTES // len(filled)))
        late = container.write_to(old, "late")
        os.close(old)
        while not any(chunk.data == late for chunk in reader.chunks[have:]):
            await reader.once()
        turns = [chunk.data == late for chunk in reader.chunks[have:] if chunk.data].index(True)

    assert turns <= 2, "one turn is one chunk, and then it is the other's"


class Turns:
    """Generations of one container on a clock of the test's, with the product's timing."""

    def __init__(self, container, telemetry):
        self.container = container
        self.listed_all = True
        self.now = 0.0
        self.generations = succession.Succession(telemetry, cri.TIMING, lambda _: [], lambda: self.listed_all)

    def hold(self, path, before=None):
        one = generation.Generation(generation.open_log(str(path)), str(path), path.name)
        one.instance = int(path.name.split(".")[0])
        self.generations.add(one, self.now, before)
        return one

    def take(self, seconds):
        """Take turns, two hundred a second; return what came."""
        begin, self.now = self.now, self.now + seconds
        chunks = [self.generations.turn(begin + step / 200) for step in range(round(seconds * 200))]
        return [
            (chunk.start.log, chunk.data, chunk.final if chunk.end_of_log else None)
            for chunk in chunks
            if chunk is not None
        ]


@pytest.fixture
def turns(tmp_path, container):
    made = Turns(container, PodFollower(tmp_path).telemetry)
    yield made
    made.generations.close()


def test_rule_30_the_next_start_begins_behind_the_old_one_and_closes_it_after_a_second_of_quiet(turns, container):
    """Last words come every 0.09 s, then once more within the second, then nothing more."""
    written = container.lines("one")
    turns.hold(container.path)
    assert turns.take(0.5) == [("0.log", written, None)]
    old = container.detach()
    container.start()
    new = container.lines("of the next start")
    turns.hold(container.path)
    for number in range(5):
        word = container.write_to(old, f"last words {number}", tag="P")
        assert turns.take(0.09) == [("0.log", word, None)]

    assert turns.take(0.01) == []
    assert turns.take(0.8) == [("1.log", new, None)]
    word = container.write_to(old, "the very last words", tag="P")
    os.close(old)
    assert turns.take(0.99) == [("0.log", word, None)]
    assert turns.take(0.1) == [("0.log", b"", True)]
    assert turns.take(9.0) == []


def test_f04_the_end_of_a_start_waits_for_a_listing_that_saw_every_file(turns, container):
    """While files are renamed a listing may miss one: the one that has the rest of a line, with a start behind it."""
    begun = container.line("begun, ", tag="P")
    old = container.rename()
    container.reopen()
    finished = container.line("finished")
    between = container.path
    container.start()
    new = container.lines("of the next start")
    turns.listed_all = False
    turns.hold(old)
    young = turns.hold(container.path)

    assert turns.take(0.5) == [(old.name, begun, None)]
    turns.hold(between, before=young)
    turns.listed_all = True
    got = turns.take(2.0)

    assert got[:2] == [(old.name, b"", False), (between.name, finished, None)]
    assert got[2:] == [("1.log", new, None), (between.name, b"", True)]


def test_f04_a_log_says_which_one_it_goes_on_with_whatever_is_told_between(turns, container):
    """The first start is over; the second one is rotated, and nothing is in its new file yet."""
    turns.hold(container.path)
    container.start()
    begun = container.line("begun, ", tag="P")
    old = container.rename()
    container.reopen()
    turns.hold(old)
    turns.hold(container.path)

    assert turns.take(3.0) == [(old.name, begun, None), (old.name, b"", False), ("0.log", b"", True)]
    finished = container.line("finished")
    chunk = turns.generations.turn(turns.now)
    assert (chunk.start.log, chunk.data, chunk.continues) == ("1.log", finished, old.name)


def test_f05_where_no_listing_ever_saw_every_file_the_next_start_waits_for_the_grace_alone(turns, container):
    begun = container.line("begun, ", tag="P")
    old = container.path
    container.start()
    new = container.lines("of the next start")
    turns.listed_all = False
    turns.hold(old)
    turns.hold(container.path)

    assert turns.take(cri.TIMING.grace) == [(old.name, begun, None)]
    assert turns.take(0.5) == [(old.name, b"", True), ("1.log", new, None)]


async def test_f04_rule_29_told_to_stop_during_a_rotation_the_end_comes_before_the_rest_of_the_line(
    follower, container
):
    follower.timing = cri.TIMING
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        begun = container.line("begun, ", tag="P")
        container.rotate()
        finished = container.line("finished")
        reader.source.stop()
        assert await reader.rest() == begun + finished

    assert [(chunk.data, chunk.final) for chunk in reader.chunks if chunk.end_of_log] == [(b"", False)]
    assert reader.chunks[-1].data == finished


async def test_rule_30_late_words_of_a_start_that_is_over_are_delivered_all_the_same(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        (log,) = reader.logs
        old = container.detach()
        container.start()
        await reader.expect(container.lines("of the next start"))
        await reader.ends(log)
        await reader.expect(container.write_to(old, "late"))
        os.close(old)

    assert len(reader.logs) == 3
    assert follower.lost == follower.gaps == {}


async def test_rule_30_a_crash_loop_of_ten_starts_loses_nothing_that_was_on_disk_when_seen(follower, container):
    """Ten starts, each with unread lines, a piece without end, and two starts kept by the garbage collector."""
    expected = b""
    async with follower.following() as reader:
        for number in range(10):
            expected += container.lines(f"banner {number}", f"panic: in start {number}")
            expected += container.line(f"cut off in {number}", tag="P")
            await look(reader)
            if number < 9:
                container.start()
                if number:
                    container.delete(number - 1)
        await reader.expect(expected)
        await reader.silence()

    assert len(reader.logs) == 10
    assert [chunk.final for chunk in reader.chunks if chunk.end_of_log] == [True] * 9
    assert follower.lost == follower.gaps == {}
    assert follower.rotations == 0


async def test_rule_30_a_crash_loop_while_the_process_is_down_is_read_whole_and_in_order(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("in start 0"))
        saved = follower.saved(reader)
    expected = container.lines("last words of start 0")
    for number in range(1, 11):  # 10.log sorts behind 9.log
        container.start()
        expected += container.lines(f"in start {number}")

    async with follower.following(saved) as reader:
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}
