"""inotify ends a wait sooner and is trusted with nothing else (rules 18, 19, 37; I07). IDs are the acceptance cases'."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar.sources import file, filesystem, succession, wake
from tests.support import virtual_time
from tests.support.following import PATIENT, Follower, GlobFollower, PodFollower
from tests.support.kubelet import Container
from tests.support.log_writer import LogWriter
from tests.support.patience import PATIENCE
from tests.support.reading import Reader

# Polling that nobody lives to see: what is read was found because the kernel said so.
ASLEEP = succession.Timing(poll=3600.0, idle_poll=3600.0, settle=0.001, grace=3600.0, discovery=3600.0)

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


def failures(follower):
    reasons = ("overflow", "watch_limit", "instance_limit", "denied", "unavailable", "other")
    counted = {reason: follower.counted("sidecar_inotify_failures_total", reason=reason) for reason in reasons}
    return {reason: count for reason, count in counted.items() if count}


async def look_once(reader):
    """Let the source look, so that its next look is an hour away."""
    await reader.once(0.001)


async def test_a_line_is_found_though_the_next_look_is_an_hour_away(path):
    with LogWriter(path) as writer:
        async with Follower(path, timing=ASLEEP).following() as reader:
            await look_once(reader)
            waiting = asyncio.create_task(reader.once(3600.0))
            await asyncio.sleep(0)
            written = writer.lines("one")
            await waiting

    assert reader.data == written


async def test_so_are_a_file_that_appears_and_a_link_that_is_written_to_elsewhere(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    async with Follower(path, timing=ASLEEP).following() as reader:
        await look_once(reader)
        with LogWriter(tmp_path / "elsewhere" / "real.log") as writer:
            path.symlink_to(writer.path)
            await reader.expect(writer.lines("one"))


async def test_so_is_a_file_of_a_glob(tmp_path):
    async with GlobFollower(tmp_path / "*.log", timing=ASLEEP).following() as reader:
        await look_once(reader)
        with LogWriter(tmp_path / "new.log") as writer:
            await reader.expect(writer.lines("one"))


async def test_so_is_a_container_that_starts(tmp_path):
    tmp_path.joinpath("pod").mkdir()
    container = Container(tmp_path / "pod")
    async with PodFollower(tmp_path / "pod", timing=ASLEEP).following() as reader:
        await look_once(reader)
        container.start()
        await reader.expect(container.lines("one"))
    container.exit()


async def test_a_file_rotated_and_deleted_while_nobody_reads_is_held(path):
    follower = Follower(path, timing=ASLEEP)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            expected = writer.lines("in the old file")
            renamed = writer.rename()
            writer.reopen()
            async with asyncio.timeout(PATIENCE):
                while not follower.rotations:
                    await asyncio.sleep(0.001)  # the loop's own turn: nobody reads
            renamed.unlink()
            reader.source.stop()
            assert await reader.rest() == expected


async def test_without_it_the_kernel_is_not_asked(path):
    async with file_of(path, inotify=False) as source:
        assert not source.describe()["inotify"]
        assert not [one for one in open_files() if "inotify" in one]


async def test_closing_gives_the_queue_back(path):
    async with file_of(path) as source:
        assert source.describe()["inotify"]
        assert len([one for one in open_files() if "inotify" in one]) == 1

    assert not [one for one in open_files() if "inotify" in one]


async def test_many_files_of_a_glob_share_one_queue(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.log").touch()
    async with GlobFollower(tmp_path / "*.log").following() as reader:
        await reader.silence()
        assert len([one for one in open_files() if "inotify" in one]) == 1


# what fails


class Broken:
    """A kernel that refuses one of its calls so often."""

    def __init__(self, call, number, times=1 << 30):
        self.call, self.number, self.times = call, number, times
        self.linux = wake.Linux()

    def _refuse(self, call):
        if call == self.call and self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))

    def init(self):
        self._refuse("init")
        return self.linux.init()

    def add_watch(self, *arguments):
        self._refuse("add_watch")
        return self.linux.add_watch(*arguments)

    def remove_watch(self, *arguments):
        self.linux.remove_watch(*arguments)


REFUSALS = {
    "no watch left": ("add_watch", errno.ENOSPC, "watch_limit"),
    "no instance left": ("init", errno.EMFILE, "instance_limit"),
    "no descriptor left": ("init", errno.ENFILE, "instance_limit"),
    "no such call": ("init", errno.ENOSYS, "unavailable"),
    "a sandbox": ("init", errno.EPERM, "unavailable"),
    "an odd file system": ("add_watch", errno.EINVAL, "unavailable"),
    "no right to": ("add_watch", errno.EACCES, "denied"),
    "a disk that fails": ("add_watch", errno.EIO, "other"),
}


@pytest.mark.parametrize(("call", "number", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_i07_rule_19_a_kernel_that_refuses_is_counted_told_once_and_polled_without(path, call, number, reason):
    follower = Follower(path)
    listener = wake.Wake(follower.telemetry, lambda: None, kernel=lambda: Broken(call, number))
    listener.start()
    source = file.File(str(path), follower.telemetry, timing=PATIENT, shared=listener)
    await source.start()
    reader = Reader(source)
    with LogWriter(path) as writer:
        for text in ("one", "two"):
            await reader.expect(writer.lines(text))
            writer.rotate()
        await reader.expect(writer.lines("three"))
    await source.close()
    listener.close()

    assert failures(follower) == {reason: 1}, "and tried again later, not at each look"
    assert follower.events.count("inotify_failed") == 1
    assert follower.lost == follower.gaps == {}
    assert not source.describe()["inotify"]


@pytest.mark.parametrize(("call", "number"), [("add_watch", errno.ENOSPC), ("init", errno.EMFILE)])
def test_i07_rule_19_what_was_refused_is_tried_again(path, call, number):
    follower = Follower(path)

    async def main():
        listener = wake.Wake(follower.telemetry, lambda: None, kernel=lambda: broken)
        listener.start()
        refused = [listener.watch(str(path.parent)) for _ in range(3)]
        await asyncio.sleep(31.0)
        once_more = listener.watch(str(path.parent))
        await asyncio.sleep(31.0)
        granted = listener.watch(str(path.parent))
        listener.close()
        return refused, once_more, granted

    broken = Broken(call, number, times=2)

    assert virtual_time.run(main()) == ([False] * 3, False, True)
    assert sum(failures(follower).values()) == 2
    assert follower.events == ["inotify_failed"]


async def test_i07_rule_19_a_process_without_descriptors_starts_and_reads_when_it_has_some_again(path):
    """EMFILE by the real limit: neither inotify nor the log can be opened."""
    follower = Follower(path)
    with LogWriter(path) as writer:
        expected = writer.lines("one")
        source = follower.source()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await source.start()
            assert (await source.read(0.01)).data == b""
            assert not source.attached
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await Reader(source).expect(expected + writer.lines("two"))
        assert source.attached
        await source.close()

    assert failures(follower) == {"instance_limit": 1}
    assert follower.counted("sidecar_source_failures_total", reason="descriptors") >= 1


async def test_i07_rule_19_a_queue_that_runs_over_is_counted_and_nothing_is_lost(path):
    follower = Follower(path)
    with LogWriter(path) as writer, LogWriter(path.with_name("other")) as other:
        async with follower.following() as reader:
            expected = b""
            for number in range(QUEUE // 2 + 10):  # two events that are not alike, or the kernel makes them one
                other.write(b".")
                expected += writer.lines(f"{number}")
            await reader.expect(expected)
            await reader.expect(writer.lines("and on it goes"))
            await reader.until(lambda: failures(follower))  # told at the end of what the kernel has in its queue

    assert failures(follower) == {"overflow": 1}
    assert follower.lost == follower.gaps == {}


async def heard(count):
    async with asyncio.timeout(PATIENCE):
        await count.wait()
    count.clear()


async def test_rule_19_a_directory_that_is_deleted_or_moved_is_watched_again_when_it_is_back(tmp_path):
    directory = tmp_path / "logs"
    stirred = asyncio.Event()
    follower = Follower(directory / "app.log")
    listener = wake.Wake(follower.telemetry, stirred.set, rest=0.001)
    listener.start()
    assert not listener.watch(str(directory)), "not there yet"
    for leave in (directory.rmdir, lambda: directory.rename(tmp_path / "moved")):
        directory.mkdir()
        assert listener.watch(str(directory))
        leave()
        await heard(stirred)
        async with asyncio.timeout(PATIENCE):
            while listener.watching:
                await asyncio.sleep(0.001)
        assert not listener.watch(str(directory))
    directory.mkdir()
    assert listener.watch(str(directory))
    stirred.clear()
    (directory / "app.log").touch()
    await heard(stirred)
    listener.close()

    assert failures(follower) == {}


def test_rule_18_a_directory_that_stirs_all_the_time_wakes_nobody_more_often_than_asked(path):
    """Time stands still while the writer writes: whatever happens meanwhile is one word."""
    times = []

    async def main():
        loop = asyncio.get_running_loop()
        listener = wake.Wake(Follower(path).telemetry, lambda: times.append(loop.time()), rest=0.05)
        listener.start()
        listener.watch(str(path.parent))
        with LogWriter(path) as writer:
            for _ in range(200):
                writer.write(b".")
                await asyncio.sleep(0.001)
        listener.close()

    virtual_time.run(main())

    assert 3 <= len(times) <= 6
    assert all(later - earlier > 0.0499 for earlier, later in pairwise(times))


# what is said at start-up


async def test_rule_37_each_source_of_files_says_what_it_stands_on(tmp_path):
    container = Container(tmp_path / "pod")
    container.start()
    told = []
    for follower in (
        Follower(tmp_path / "app.log"),
        GlobFollower(tmp_path / "logs" / "*.log"),
        PodFollower(tmp_path / "pod"),
    ):
        async with follower.following() as reader:
            told.append(reader.source.describe())
    container.exit()

    assert [(one["inotify"], one["file_system"]) for one in told] == [
        (True, filesystem.kind(str(tmp_path))),
        (False, filesystem.kind(str(tmp_path))),  # there is no such directory yet
        (True, filesystem.kind(str(tmp_path))),
    ]
    assert filesystem.kind(str(tmp_path)) != "unknown"


def test_rule_37_the_type_is_that_of_the_innermost_mount_and_of_the_latest_on_it(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:20 / /proc rw - proc proc rw\n"
        "torn\n"
        "24 22 0:30 /a /var/log rw - nfs4 server:/a rw\n"
        "25 22 0:31 / /var/log/pods rw master:3 - xfs /dev/sdb rw\n"
        "26 22 0:32 / /var/log/pods rw - tmpfs tmpfs rw\n"
        "27 22 0:33 / /with\\040space rw - overlay overlay rw\n"
    )

    def kind(path):
        return filesystem.kind(path, str(mounts))

    assert [kind(one) for one in ("/srv", "/var/log/app", "/var/log/pods/a/0.log", "/with space/x", "/var/logs")] == [
        "ext4",
        "nfs4",
        "tmpfs",
        "overlay",
        "ext4",
    ]
    assert filesystem.kind("/srv", str(tmp_path / "nothing")) == "unknown"


def file_of(path, *, inotify=True):
    follower = Follower(path)
    follower.inotify = inotify

    class Opened:
        async def __aenter__(self):
            self.source = follower.source()
            await self.source.start()
            return self.source

        async def __aexit__(self, *_):
            await self.source.close()

    return Opened()


def open_files():
    return [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
