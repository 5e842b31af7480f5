"""The source `file` with a glob: each file of its own, none twice. IDs are those of the acceptance cases."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from tests.support.following import PATIENT, GlobFollower
from tests.support.log_writer import LogWriter

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


@pytest.fixture
def follower(tmp_path):
    return GlobFollower(tmp_path / "*.log*", timing=PATIENT)


@asynccontextmanager
async def writers(*paths):
    made = [LogWriter(path) for path in paths]
    yield made
    for one in made:
        one.close()


async def test_every_file_is_read_and_a_new_one_from_its_start(tmp_path):
    follower = GlobFollower(tmp_path / "*.log", start_at="end")
    async with writers(tmp_path / "a.log", tmp_path / "b.log") as (first, second):
        first.lines("old")
        async with follower.following() as reader:
            await reader.silence()
            await reader.expect(first.lines("in a"))
            await reader.expect(second.lines("in b"))
            with LogWriter(tmp_path / "c.log") as third:
                await reader.expect(third.lines("in c", "and more"))
                await reader.silence()


async def test_nothing_is_there_yet(follower, tmp_path):
    async with follower.following() as reader:
        await reader.silence()
        assert reader.source.attached
        with LogWriter(tmp_path / "a.log") as writer:
            await reader.expect(writer.lines("first"))


async def test_b07_a_file_moved_inside_the_glob_is_not_read_again(tmp_path):
    follower = GlobFollower(tmp_path / "*.log")
    async with writers(tmp_path / "a.log") as (writer,), follower.following() as reader:
        await reader.expect(writer.lines("one"))
        (tmp_path / "a.log").rename(tmp_path / "moved.log")
        await reader.expect(writer.lines("two"))
        await reader.silence(times=4)
        writer.reopen()
        await reader.expect(writer.lines("three"))
        await reader.silence()


async def test_rotated_files_are_read_once_though_the_glob_names_them(follower, tmp_path):
    async with writers(tmp_path / "a.log") as (writer,):
        expected = writer.lines("one")
        writer.rotate()
        expected += writer.lines("two")
        async with follower.following() as reader:
            await reader.expect(expected)
            for number in range(3):
                writer.rotate()
                await reader.expect(writer.lines(f"rotation {number}"))
            await reader.silence()

    assert follower.lost == {}


async def test_g01_g05_each_file_goes_on_where_it_stood(follower, tmp_path):
    async with writers(tmp_path / "a.log", tmp_path / "b.log") as (first, second):
        async with follower.following() as reader:
            await reader.expect(first.lines("a 1"))
            await reader.expect(second.lines("b 1"))
            saved = json.loads(json.dumps(reader.source.snapshot(reader.positions)))
        expected = first.lines("a 2")
        first.rotate()
        expected += first.lines("a 3")
        async with follower.following(saved) as reader:
            await reader.expect(expected)
            await reader.expect(second.lines("b 2"))
            await reader.silence()

    assert follower.lost == follower.gaps == {}


async def test_what_is_there_is_read_after_stop_and_then_comes_the_end(follower, tmp_path):
    async with writers(tmp_path / "a.log", tmp_path / "b.log") as (first, second), follower.following() as reader:
        await reader.silence()
        expected = first.lines("last in a") + second.lines("last in b")
        assert reader.source.unread() == len(expected)

        reader.source.stop()

        assert sorted((await reader.rest()).splitlines()) == sorted(expected.splitlines())
        assert await reader.source.read(0.0) is None


async def test_a_damaged_state_is_reported(follower, tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    for files in (None, [1], [{"number": -1}]):
        saved = {"kind": "file", "path": str(follower.path), "serial": 1, "files": files}
        async with follower.following(saved) as reader:
            await reader.expect(b"one\n")

    assert follower.counted("sidecar_checkpoint_invalid_total", reason="damaged") == 3
