"""inotify ends a wait sooner and is trusted with nothing else (rules 18, 19, 37; I07). IDs are the acceptance cases'."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar import telemetry
from sidecar.sources import cri, filesystem, succession, wake
from tests.support.clock import Clock
from tests.support.descriptors import open_files
from tests.support.following import HURRY, PATIENT, Follower, GlobFollower, PodFollower
from tests.support.kubelet import Container
from tests.support.log_writer import LogWriter
from tests.support.patience import PATIENCE
from tests.support.reading import Reader

# Polling that nobody lives to see: what is read was found because the kernel said so.
ASLEEP = succession.Timing(
    poll=3600.0, idle_poll=3600.0, watched=3600.0, rest=0.001, settle=0.001, grace=3600.0, discovery=3600.0
)
# Nobody lives to see a second look at what rests where the kernel tells.
TRUSTING = replace(HURRY, watched=3600.0)

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


def failures(follower):
    reasons = telemetry.catalogue.INOTIFY_FAILURES
    counted = {reason: follower.counted("sidecar_inotify_failures_total", reason=reason) for reason in reasons}
    return {reason: count for reason, count in counted.items() if count}


async def rest(reader):
    """Read until only a word of the kernel makes the source look again; return how often it has looked."""
    lookout = reader.source._lookout
    async with asyncio.timeout(5.0):
        while not lookout._tail._relying or lookout._awake_since is not None:
            await reader.once(0.001)
    return lookout.looks


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
    follower = Follower(path, timing=replace(PATIENT, watched=3600.0))
    source = follower.source(kernel=lambda: Broken(call, number))
    await source.start()
    reader = Reader(source)
    with LogWriter(path) as writer:
        for text in ("one", "two"):
            await reader.expect(writer.lines(text))
            writer.rotate()
        await reader.expect(writer.lines("three"))
    await source.close()

    assert failures(follower) == {reason: 1}, "and tried again later, not at each look"
    assert follower.events.count("inotify_failed") == 1
    assert follower.lost == follower.gaps == {}
    assert not source.describe()["inotify"]


@pytest.mark.parametrize(("call", "number"), [("add_watch", errno.ENOSPC), ("init", errno.EMFILE)])
def test_i07_rule_19_what_was_refused_is_tried_again(path, call, number):
    follower, clock, broken = Follower(path), Clock(), Broken(call, number, times=2)
    listener = wake.Wake(follower.telemetry, kernel=lambda: broken, clock=clock)
    granted = []
    for later in (0.0, 0.0, 29.0, 2.0, 31.0):
        clock.now += later
        granted.append(listener.watch(str(path.parent)))
    listener.close()

    assert granted == [False, False, False, False, True]
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
    follower = Follower(path, timing=replace(PATIENT, rest=3600.0))  # emptied by who reads alone
    with LogWriter(path) as writer, LogWriter(path.with_name("other")) as other:
        async with follower.following() as reader:
            expected = b""
            for number in range(QUEUE):  # two events that are not alike each time, or the kernel makes them one
                other.write(b".")
                expected += writer.lines(f"{number}")
            await reader.expect(expected)
            await reader.expect(writer.lines("and on it goes"))
            await reader.until(lambda: failures(follower))  # told at the end of what the kernel has in its queue

    assert failures(follower) == {"overflow": 1}
    assert follower.lost == follower.gaps == {}


def heard(listener):
    """Wait for a word."""
    assert select.select([listener.descriptor], [], [], PATIENCE)[0]
    assert listener.heard()


def test_rule_19_a_directory_that_is_deleted_or_moved_is_watched_again_when_it_is_back(tmp_path):
    directory = tmp_path / "logs"
    follower = Follower(directory / "app.log")
    listener = wake.Wake(follower.telemetry)
    assert not listener.watch(str(directory)), "not there yet"
    for leave in (directory.rmdir, lambda: directory.rename(tmp_path / "moved")):
        directory.mkdir()
        assert listener.watch(str(directory))
        leave()
        while listener.watching:
            heard(listener)
        assert not listener.watch(str(directory))
    directory.mkdir()
    assert listener.watch(str(directory))
    (directory / "app.log").touch()
    heard(listener)
    listener.close()

    assert failures(follower) == {}


async def test_rule_18_a_directory_that_stirs_all_the_time_wakes_nobody_more_often_than_asked(path):
    async with Follower(path, timing=replace(TRUSTING, rest=3600.0)).following() as reader:
        before = await rest(reader)
        with LogWriter(path.with_name("other")) as other:
            async with asyncio.timeout(5.0):
                while reader.source._lookout.looks == before:
                    await reader.once(0.001)
            heard_once = reader.source._lookout.looks
            for _ in range(50):
                other.write(b".")
                await reader.once(0.001)
            assert reader.source._lookout.looks == heard_once


# how long what rests is left alone


def test_rule_18_no_look_is_more_than_a_second_away():
    for timing in (succession.Timing(), cri.TIMING):
        assert max(timing.poll, timing.idle_poll, timing.watched, timing.discovery) <= 1.0
        assert timing.idle_poll <= 0.2


async def test_what_rests_is_left_alone_where_the_kernel_tells(path):
    async with Follower(path, timing=TRUSTING).following() as reader:
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("one"))
            looks = await rest(reader)
            await reader.silence(times=5)
            assert reader.source._lookout.looks == looks
            await reader.expect(writer.lines("two"))


async def test_an_old_file_that_has_not_ended_is_no_rest(path):
    """What time alone brings is no word of the kernel's."""
    async with Follower(path, timing=TRUSTING).following() as reader:
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("one"))
            writer.rotate()
            await reader.ends(next(iter(reader.logs)))
            await reader.expect(writer.lines("two"))
            writer.delete()
            await reader.ends(list(reader.logs)[-1])


class Deaf(Broken):
    """A kernel that watches, and tells nothing: so it is where another machine writes."""

    def __init__(self):
        super().__init__("", 0)

    def add_watch(self, *_):
        return 1


@pytest.mark.parametrize("over", [Follower, GlobFollower], ids=["path", "glob"])
async def test_rule_18_a_kernel_that_was_silent_while_something_grew_is_relied_on_no_more(path, over):
    follower = over(path if over is Follower else path.with_name("*.log"), timing=replace(HURRY, watched=0.2))
    with LogWriter(path) as writer:
        source = follower.source(kernel=Deaf)
        await source.start()
        reader = Reader(source)
        await reader.silence()
        assert source._lookout._wake.reliable
        await reader.expect(writer.lines("found late"))
        await reader.silence()
        assert not source._lookout._wake.reliable
        for number in range(5):
            await reader.expect(writer.lines(f"line {number}"))
        await source.close()

    assert failures(follower) == {"silent": 1}
    assert follower.lost == follower.gaps == {}


async def test_a_kernel_that_tells_of_everything_is_relied_on_all_the_time(path):
    follower = Follower(path, timing=replace(HURRY, watched=0.002))  # many find before they hear
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            for number in range(300):
                await reader.expect(writer.lines(f"line {number}"))
                if number % 20 == 0:
                    writer.rotate(f".{number}")
                await reader.once(0.002)

    assert failures(follower) == {}


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
