"""The source `file` through every kind of rotation, and a whole pipe's worth of them. IDs are the acceptance cases'."""

from __future__ import annotations

import gzip
import itertools
import shutil
from collections import Counter

import pytest

from sidecar.model import Position
from sidecar.sources import generation, succession
from tests.support.following import HURRY, PATIENT, Follower, GlobFollower, look
from tests.support.log_writer import LogWriter

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify (B04)


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


async def everything(reader):
    """Read until nothing more comes, and return the lines."""
    quiet = 0
    while quiet < 3:
        chunk = await reader.once(0.02)
        quiet = 0 if chunk.data else quiet + 1
    return reader.data.splitlines()


# B05: {no rotation, no deletion, deletion, deletion of what is beyond the head} × {rename, copy} × {stamped, counted}

AMOUNTS = {
    # rotations, kept files, lines a file, bytes a line
    "no rotation": (0, None, 20, 40),
    "no deletion": (6, None, 20, 40),
    "deletion": (6, 2, 20, 40),
    "deletion beyond the head": (6, 2, 20, 400),
}


@pytest.mark.parametrize("naming", ["stamped", "counted"])
@pytest.mark.parametrize("how", ["rotate", "copytruncate"])
@pytest.mark.parametrize("amounts", AMOUNTS.values(), ids=AMOUNTS)
@pytest.mark.parametrize("read_every", [1, 7, 1000], ids=["read at once", "read at times", "read at last"])
async def test_b05_the_rotation_matrix(path, writer, amounts, how, naming, read_every):
    rotations, kept, count, width = amounts
    follower = Follower(path)
    written = []
    numbers = itertools.count()
    async with follower.following() as reader:
        for rotation in range(rotations + 1):
            for _ in range(count):
                number = f"{next(numbers):06}"
                text = number + "." * (width - 12) + number  # told apart by either end, as lines with a time are
                written.append(text.encode())
                writer.lines(text)
                if len(written) % read_every == 0:
                    await reader.once(0.01)
            if rotation < rotations:
                suffix = ".1" if naming == "counted" else f".20260704-12{rotation:04}"
                getattr(writer, how)(suffix)
            if kept is not None:
                old = sorted(path.parent.glob("app.log.*"), key=lambda one: one.stat().st_mtime_ns)
                for one in old[:-kept]:
                    one.unlink()
        got = await everything(reader)

    assert max(Counter(got).values()) == 1, "never a duplicate"
    assert set(got) <= set(written)
    assert got == sorted(got), "in order"
    if kept is None:
        assert got == written
        assert follower.lost == {}
    else:
        assert set(written[-(kept + 1) * count :]) <= set(got), "what is still on disk"


async def test_b04_the_same_scenario_gives_the_same_chunks_with_and_without_inotify(tmp_path):
    """The other tests run once each way; this one compares the two byte by byte, position by position."""
    given = {}
    for inotify in (True, False):
        directory = tmp_path / str(inotify)
        directory.mkdir()
        follower = Follower(directory / "app.log")
        follower.inotify = inotify
        with LogWriter(directory / "app.log") as writer:
            async with follower.following() as reader:
                for number in range(4):
                    await reader.expect(writer.lines(f"{number} one"))
                    written = writer.lines(f"{number} unread")
                    (writer.rotate if number % 2 else writer.copytruncate)()
                    await reader.expect(written + writer.lines(f"{number} two"))
        names = {log: index for index, log in enumerate(reader.logs)}
        bytes_at = [
            (names[chunk.start.log], chunk.start.offset + at, byte)
            for chunk in reader.chunks
            for at, byte in enumerate(chunk.data)
        ]
        given[inotify] = bytes_at, [names[log] for log in reader.ended], follower.rotations, follower.truncations

    assert given[True] == given[False]


@pytest.mark.parametrize("over", [Follower, GlobFollower], ids=["path", "glob"])
async def test_a13_a_file_that_lives_for_a_moment_is_read_whole(path, over):
    follower = over(path if over is Follower else path.with_name("*.log"), timing=PATIENT)
    async with follower.following() as reader:
        await reader.silence()
        with LogWriter(path) as writer:
            first = writer.lines("one")
            await reader.expect(first)  # it is held from here on
            rest = writer.lines("two", "three")
            writer.delete()
        await reader.expect(rest)


async def test_i04_nobody_reads_while_the_log_is_rotated_and_compressed_three_times(follower, writer):
    async with follower.following() as reader:
        await reader.expect(writer.lines("read"))
        expected = b""
        for number in range(3):
            expected += writer.lines(f"unread {number}")
            await look(reader)
            rotated = writer.rotate(f".20260704-12000{number}")
            await look(reader)
            compressed = rotated.with_name(rotated.name + ".gz")
            compressed.write_bytes(gzip.compress(rotated.read_bytes()))
            shutil.copystat(rotated, compressed)
            rotated.unlink()
        expected += writer.lines("last")
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_i05_what_is_never_acknowledged_is_read_again_at_each_start(follower, writer):
    """A sink that fails holds the position, however often; the end-to-end twin is in test_run_file."""
    expected = writer.lines(*(f"line {number}" for number in range(100)))
    saved = None
    for _ in range(5):
        async with follower.following(saved) as reader:
            await reader.expect(expected)
            saved = reader.source.snapshot({})
            assert [one["offset"] for one in saved["generations"]] == [0]

    assert follower.lost == {}


async def test_g03_shutdown_with_acknowledgements_outstanding_gives_every_line_over_two_runs(follower, writer):
    lines = [f"line {number:04}\n".encode() for number in range(4000)]
    writer.write(b"".join(lines))
    async with follower.following() as reader:
        await reader.once()
        (log,) = reader.logs
        for acknowledged in (0, 1, 1999, 4000):
            saved = reader.source.snapshot({log: Position(log, acknowledged * len(lines[0]))})
            async with follower.following(saved) as again:
                await again.expect(b"".join(lines[acknowledged:]))
                await again.silence()

    assert reader.data == b"".join(lines)


def test_b16_the_grace_of_a_rotated_file_counts_from_its_last_byte_not_from_its_rotation(tmp_path):
    """50 MiB, a slow consumer (one turn a second, 200 s in all), and a grace of 5 s."""
    told = Follower(tmp_path / "app.log")
    generations = succession.Succession(told.telemetry, succession.Timing(), lambda _: [])
    size = 50 << 20
    logs = []
    for name, length in (("old", size), ("new", 3)):
        file = tmp_path / name
        with file.open("wb") as opened:
            opened.truncate(length)
        logs.append(f"log of {name}")
        generations.add(generation.Generation(generation.open_log(str(file)), str(file), logs[-1]), 0.0)
    read = dict.fromkeys(logs, 0)
    ended = {}
    now = 0.0
    while read[logs[1]] < 3 or logs[0] not in ended:
        now += 1.0
        chunk = generations.turn(now)
        if chunk is not None:
            read[chunk.start.log] += len(chunk.data)
            if chunk.end_of_log:
                ended[chunk.start.log] = now
    generations.close()

    turns = size // generation.CHUNK_BYTES
    assert read[logs[0]] == size
    assert ended[logs[0]] >= turns + 5.0
    assert told.lost == told.gaps == {}


async def test_rule_36_a_run_without_faults_ends_with_every_loss_counter_at_zero(path):
    follower = Follower(path, timing=HURRY)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            for number in range(5):
                await reader.expect(writer.lines(f"{number}"))
                writer.rotate()
            await reader.expect(writer.lines("last"))
            reader.source.stop()
            await reader.rest()

    assert follower.lost == follower.gaps == {}
    assert follower.truncations == 0


async def test_a_file_that_had_the_name_for_a_moment_comes_behind_the_one_before_it(writer, follower):
    """Found by C13: rename, reopen and rename again between two looks, of a file that nothing was read of."""
    async with follower.following() as reader:
        await reader.expect(writer.lines("one"))
        writer.rotate()
        await reader.silence()
        writer.rename()
        expected = writer.lines("two")
        writer.reopen()
        writer.rename()
        expected += writer.lines("three")
        await reader.expect(expected)
