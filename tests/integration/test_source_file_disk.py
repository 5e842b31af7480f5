"""The sources of files on a disk that does not answer: nobody but who looks at it waits for it (rule 35)."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import signal
import sys
import threading

import pytest

from tests.support import hung
from tests.support.descriptors import open_files
from tests.support.following import Follower, GlobFollower, PodFollower
from tests.support.kubelet import Container
from tests.support.log_writer import LogWriter
from tests.support.running import Sidecar, assert_balanced


class Disk:
    """What is asked of a directory, and by which thread; it can be made to answer nobody."""

    def __init__(self, directory, monkeypatch):
        self.callers = {}  # by call
        self.held = threading.Event()  # somebody waits
        self._answers = threading.Event()
        self._answers.set()
        for name, call in hung.watched(directory, self._asked).items():
            monkeypatch.setattr(os, name, call)

    def _asked(self, name):
        if not by_the_sidecar():
            return  # the test itself is asked nothing
        self.callers.setdefault(name, set()).add(threading.get_ident())
        if not self._answers.is_set():
            self.held.set()
            self._answers.wait(20.0)

    def hang(self):
        self.held.clear()
        self._answers.clear()

    def recover(self):
        self._answers.set()


def by_the_sidecar():
    frame = sys._getframe()
    while frame is not None:
        if f"{os.sep}sidecar{os.sep}" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def disk(tmp_path, monkeypatch):
    made = Disk(tmp_path, monkeypatch)
    yield made
    made.recover()


async def a_life_of_a_file(path, follower):
    """Everything that can happen to a file, and everything that is asked of a source."""
    with LogWriter(path) as writer:
        expected = writer.lines("there before")
        async with follower.following() as reader:
            await reader.expect(expected)
            await reader.expect(writer.lines("one"))
            writer.rotate()
            await reader.expect(writer.lines("after a rotation"))
            writer.copytruncate()
            await reader.expect(writer.lines("after a copy"))
            told_at_once(reader.source)
            saved = follower.saved(reader)
            writer.lines("left for the next start")
            reader.source.stop()
            await reader.rest()
        async with follower.following(saved) as reader:
            await reader.expect(b"left for the next start\n")


async def a_life_of_a_container(path, follower):
    container = Container(path)
    container.start()
    expected = container.lines("there before")
    async with follower.following() as reader:
        await reader.expect(expected)
        container.rotate()
        await reader.expect(container.lines("after a rotation"))
        container.compress()
        container.start()
        await reader.expect(container.lines("in the next start"))
        told_at_once(reader.source)
        saved = follower.saved(reader)
        container.lines("left for the next start")
        reader.source.stop()
        rest = await reader.rest()
    container.exit()
    async with follower.following(saved) as reader:
        await reader.expect(rest)


def told_at_once(source):
    """Ask what the loop asks: it answers though the disk does not."""
    assert source.snapshot({})["generations" if "generations" in source.snapshot({}) else "files"]
    assert source.describe()["path"]
    assert source.unread() >= 0


LIVES = {
    "file": (a_life_of_a_file, Follower, "app.log"),
    "glob": (a_life_of_a_file, GlobFollower, "app*.log"),
    "cri": (a_life_of_a_container, PodFollower, ""),
}


@pytest.mark.parametrize(("life", "over", "name"), LIVES.values(), ids=LIVES)
async def test_rule_35_the_loop_asks_the_disk_for_nothing(tmp_path, disk, life, over, name):
    follower = over(tmp_path / name)
    await life(tmp_path / "app.log" if life is a_life_of_a_file else tmp_path, follower)

    assert {"open", "stat", "fstat", "pread"} <= set(disk.callers)
    assert {name for name, threads in disk.callers.items() if threading.get_ident() in threads} == set()
    assert follower.lost == follower.gaps == {}


@pytest.mark.parametrize("over", [Follower, GlobFollower], ids=["path", "glob"])
async def test_rule_35_a_disk_that_does_not_answer_holds_up_nobody_else_and_loses_nothing(tmp_path, disk, over):
    follower = over(tmp_path / ("app.log" if over is Follower else "*.log"))
    with LogWriter(tmp_path / "app.log") as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("one"))
            saved = follower.saved(reader)
            disk.hang()
            expected = writer.lines("two")
            writer.rotate()
            expected += writer.lines("three")
            async with asyncio.timeout(10.0):
                while not disk.held.is_set():
                    await reader.once(0.001)
            for _ in range(3):
                assert (await reader.once(0.001)).data == b""
            told_at_once(reader.source)
            assert follower.saved(reader) == saved
            disk.recover()
            await reader.expect(expected)

    assert follower.lost == follower.gaps == {}


async def test_rule_35_a_source_can_be_left_though_its_disk_does_not_answer(tmp_path, disk):
    before = sorted(open_files())
    follower = Follower(tmp_path / "app.log")
    with LogWriter(tmp_path / "app.log") as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("one"))
            disk.hang()
            async with asyncio.timeout(10.0):
                while not disk.held.is_set():
                    await reader.once(0.001)
            reader.source.stop()
            assert (await reader.once(0.001)).data == b"", "what is there is not known"
    disk.recover()
    await asyncio.to_thread(reader.source._lookout._thread.join)
    await reader.source.close()

    assert sorted(open_files()) == before


@pytest.mark.parametrize("kind", ["file", "cri"])
async def test_rule_35_the_whole_sidecar_answers_and_ends_though_the_disk_does_not_answer(tmp_path, kind):
    logs, flag = tmp_path / "logs", tmp_path / "hangs"
    container = Container(logs)
    container.start()
    container.lines("one", "two")
    path = logs if kind == "cri" else container.path
    settings = [
        f"source.kind={kind}", f"source.path={path}", "source.container=app", "source.idle_flush=50ms",
        "drain_seconds=200ms",
    ]  # fmt: skip
    program = ("tests.support.hung", str(logs), str(flag))
    async with Sidecar(settings, stdin=None, program=program) as sidecar:
        assert_balanced(await sidecar.until("sidecar_records_total", 2))
        flag.touch()
        async with asyncio.timeout(10.0):
            while not flag.with_suffix(".felt").exists():
                await asyncio.sleep(0.01)
        container.lines("three")
        assert await sidecar.get("/livez") == (200, "ok\n")
        assert [(await sidecar.get(path))[0] for path in ("/health", "/metrics", "/")] == [200] * 3
        flag.unlink()
        await sidecar.until("sidecar_records_total", 3)
        flag.with_suffix(".felt").unlink()
        flag.touch()
        async with asyncio.timeout(10.0):
            while not flag.with_suffix(".felt").exists():
                await asyncio.sleep(0.01)
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 3, "drain_seconds passed before everything was read"
    container.exit()


async def test_rule_19_a_disk_that_fails_is_counted_and_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    pread, failures = os.pread, [errno.EIO] * 3

    def failing(descriptor, count, offset):
        if failures and count == 4:
            raise OSError(failures[0], os.strerror(failures.pop()))
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", failing)
    follower = Follower(path)
    async with follower.following() as reader:
        await reader.expect(b"one\n")

    assert follower.counted("sidecar_source_failures_total", reason="io") == 3
    assert follower.events == ["source_waiting"]
    assert follower.lost == follower.gaps == {}


async def test_a_large_archive_is_known_again(tmp_path):
    """24 MiB, read in an earlier life and compressed while down."""
    path = tmp_path / "app.log"
    follower = Follower(path)
    with LogWriter(path) as writer:
        written = b"".join(b"line %0250d\n" % number for number in range(96_000))
        path.write_bytes(written)
        async with follower.following() as reader:
            await reader.expect(written)
            saved = follower.saved(reader)
        rotated = writer.rotate("-20260703")
        compressed = rotated.with_name(rotated.name + ".gz")
        compressed.write_bytes(gzip.compress(rotated.read_bytes(), 1))
        rotated.unlink()
        expected = writer.lines("new")
    async with follower.following(saved) as reader:
        await reader.expect(expected)

    assert follower.lost == follower.gaps == {}
