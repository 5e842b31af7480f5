"""The source `cri` follows one container of a pod: the contract, the start, rotations, restarts. IDs are those of the
acceptance cases that the specification of the follower lists."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar import errors, sources
from tests.contracts.source_contract import SourceContract, Subject
from tests.support.following import HURRY_POD, PodFollower, look
from tests.support.kubelet import Container
from tests.support.log_writer import LogWriter

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self.path = tmp_path

    @asynccontextmanager
    async def opened(self, content=b""):
        follower = PodFollower(self.path)
        (self.path / "app").mkdir()
        with LogWriter(self.path / "app" / "0.log") as writer:
            writer.write(content)
            async with follower.following() as reader:
                yield Subject(reader.source, writer.write, again=follower.source)


@pytest.fixture
def pod(tmp_path):
    return tmp_path / "shop_orders-0_c0ffee"


@pytest.fixture
def container(pod):
    made = Container(pod)
    made.start()
    yield made
    made.exit()


@pytest.fixture
def follower(pod):
    return PodFollower(pod)


# A: discovery and start


async def test_a01_what_is_there_is_read_once_in_order(follower, container):
    expected = container.lines("one", "two", "three")
    async with follower.following() as reader:
        await reader.expect(expected)
        await reader.silence()


async def test_a02_from_the_end_old_lines_are_left_out(pod, container):
    container.lines("old")
    container.rotate()
    container.lines("old too")
    async with PodFollower(pod, start_at="end").following() as reader:
        await reader.silence()
        await reader.expect(container.lines("new"))
        container.rotate()
        await reader.expect(container.lines("newer"))
        await reader.silence()


async def test_a02_from_the_end_compressed_generations_stay_left_out_over_a_restart(pod, container):
    for number in range(3):
        container.lines(f"old {number}")
        container.rotate()
    follower = PodFollower(pod, start_at="end")
    async with follower.following() as reader:
        await reader.expect(container.lines("new"))
        saved = follower.saved(reader)
    container.rotate()
    async with follower.following(saved) as reader:
        await reader.expect(container.lines("newer"))
        await reader.silence()


@pytest.mark.parametrize("start_at", ["beginning", "end"])
async def test_a03_what_appears_later_is_read_from_its_start(pod, start_at):
    container = Container(pod)
    follower = PodFollower(pod, start_at=start_at)
    async with follower.following() as reader:
        await reader.silence()
        assert reader.source.attached, "a directory that does not exist yet is waited for"
        container.start()
        await reader.expect(container.lines("first", "second"))
        container.start()
        await reader.expect(container.lines("of the second start"))
    container.exit()


async def test_a04_what_is_there_and_what_is_appended_comes_once(follower, container):
    expected = container.lines("old")
    async with follower.following() as reader:
        await reader.expect(expected)
        await reader.expect(container.lines("new"))
        await reader.silence()

    assert follower.lost == {}
    assert follower.rotations == follower.truncations == 0


async def test_a05_the_pods_directory_appears_late(tmp_path):
    follower = PodFollower(tmp_path / "later")
    async with follower.following() as reader:
        await reader.silence()
        container = Container(tmp_path / "later")
        container.start()
        await reader.expect(container.lines("first"))
        container.exit()

    assert "source_waiting" in follower.events


@pytest.mark.parametrize(("start_at", "expected"), [("beginning", ("old", "new")), ("end", ("new",))])
async def test_a06_a_file_without_permission_is_read_when_it_gets_one(start_at, expected):
    with tempfile.TemporaryDirectory() as name:
        pod = Path(name)
        os.chmod(name, 0o755)  # noqa: PTH101  in a coroutine a Path may not
        container = Container(pod)
        container.start()
        written = {"old": container.line("old")}
        container.path.chmod(0)
        follower = PodFollower(pod, start_at=start_at)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            async with follower.following() as reader:
                await reader.silence()
                assert not reader.source.attached
                if root:
                    os.seteuid(0)
                container.path.chmod(0o644)
                written["new"] = container.line("new")
                await reader.expect(b"".join(written[key] for key in expected))
                assert reader.source.attached
        finally:
            if root:
                os.seteuid(0)
        container.exit()


def create(**source):
    return sources.create(sources.Config(kind="cri", **source), None)


def test_a08_the_sidecars_own_container_is_refused():
    with pytest.raises(errors.ConfigError, match="the sidecar's own"):
        create(path="/pods/x", container=sources.OWN_CONTAINER)


@pytest.mark.parametrize("container", ["", "..", "a/b"])
def test_a08_a_container_must_be_named(container):
    with pytest.raises(errors.ConfigError, match=r"source\.container"):
        create(path="/pods/x", container=container)


async def test_a08_other_containers_and_other_files_are_not_read(follower, container, pod):
    other = Container(pod, "gin-sidecar")
    other.start()
    other.lines("its own")
    (container.directory / "0.log.20260702-120000.tmp").write_bytes(b"half made\n")
    (container.directory / "notes.txt").write_bytes(b"notes\n")
    (container.directory / "0.log.bak").write_bytes(b"a copy\n")
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        await reader.silence()
    other.exit()


async def test_a09_an_empty_file_says_nothing_until_it_is_written_to(follower, container):
    async with follower.following() as reader:
        await reader.silence()
        container.rotate()
        await reader.silence()
        await reader.expect(container.lines("first"))


async def test_a13_a_short_life_is_read_whole(follower, pod):
    container = Container(pod)
    async with follower.following() as reader:
        await reader.silence()
        container.start()
        expected = container.lines("one", "two", "three")
        container.exit()
        await look(reader)  # within 200 ms of its start
        container.delete(0)
        await reader.expect(expected[len(reader.data) :])
        container.start()
        await reader.expect(container.lines("four"))
    container.exit()

    assert follower.lost == {}


# B: rotation


async def test_b01_b09_the_rest_of_the_old_file_comes_first(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("read"))
        expected = container.lines("unread")
        container.rename()
        expected += container.lines("through the old descriptor")
        container.reopen()
        await reader.expect(expected + container.lines("new"))

    assert follower.rotations == 1
    assert len(reader.logs) == 2


async def test_b02_b15_late_bytes_of_two_old_files_are_read(follower, container):
    """containerd opens the new file before its old writers are done."""
    async with follower.following() as reader:
        await reader.expect(container.lines("1"))
        container.rename()
        first = container.detach()
        container.reopen()
        await reader.expect(container.lines("2"))
        container.rename()
        second = container.detach()
        container.reopen()
        await reader.expect(container.lines("3"))
        await reader.expect(container.write_to(first, "late 1"))
        await reader.expect(container.write_to(second, "late 2"))
        await reader.expect(container.lines("3 again"))
        await reader.silence()
        os.close(first)
        os.close(second)

    assert follower.lost == {}


async def test_b08_a_held_file_is_followed_out_of_the_directory(follower, container, tmp_path):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        container.path.rename(tmp_path / "elsewhere")
        await reader.expect(container.lines("two"))


async def test_b12_the_kubelet_dies_between_rename_and_reopen(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("before"))
        container.rename()
        await reader.expect(container.lines("after the rename"))
        await reader.silence(times=5)
        expected = container.lines("much later")
        container.reopen()
        await reader.expect(expected + container.lines("new"))

    assert follower.rotations == 1


async def test_b13_a_rename_that_is_taken_back_gives_nothing_twice(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        renamed = container.rename()
        await reader.expect(container.lines("two"))
        renamed.rename(container.path)
        await reader.expect(container.lines("three"))
        await reader.silence()

    assert len(reader.logs) == 1
    assert follower.rotations == 0


async def test_b14_a_followed_file_is_followed_under_an_unfinished_name(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        renamed = container.rename(".tmp")
        await reader.expect(container.lines("two"))
        renamed.rename(renamed.with_suffix(""))
        await reader.expect(container.lines("three"))
        container.reopen()
        await reader.expect(container.lines("four"))
        await reader.silence()


async def test_b19_an_inode_that_comes_back_is_another_file(pod, container):
    """What the kubelet does: the new file gets the inode of the one that was compressed."""
    follower = PodFollower(pod, timing=HURRY_POD)
    async with follower.following() as reader:
        for number in range(6):
            await reader.expect(container.lines(f"the same length {number}"))
            container.rotate()
            await reader.silence(times=3)

    assert follower.lost == {}
    assert len(reader.logs) == 6


async def test_b21_docker_links_are_followed_and_their_rotations(follower, pod, tmp_path):
    store = tmp_path / "docker" / "abc"
    store.mkdir(parents=True)
    (pod / "app").mkdir(parents=True)
    (pod / "app" / "0.log").symlink_to(store / "abc-json.log")
    with LogWriter(store / "abc-json.log") as writer:
        expected = writer.lines('{"log":"one\\n","stream":"stdout","time":"2026-07-02T12:00:00.000000001Z"}')
        writer.rotate()
        expected += writer.lines('{"log":"two\\n","stream":"stdout","time":"2026-07-02T12:00:01.000000001Z"}')
        async with follower.following() as reader:
            await reader.expect(expected)
            assert reader.source.describe()["format"] == "docker json-file"
            expected = writer.lines('{"log":"three\\n","stream":"stdout","time":"2026-07-02T12:00:02.000000001Z"}')
            writer.rotate()
            expected += writer.lines('{"log":"four\\n","stream":"stdout","time":"2026-07-02T12:00:03.000000001Z"}')
            await reader.expect(expected)
            await reader.silence()


async def test_b21_a_link_that_leads_nowhere_is_told(follower, pod, tmp_path):
    (pod / "app").mkdir(parents=True)
    (pod / "app" / "0.log").symlink_to(tmp_path / "not mounted")
    async with follower.following() as reader:
        await reader.silence()
        assert not reader.source.attached
        with LogWriter(tmp_path / "not mounted") as writer:
            await reader.expect(writer.lines("there"))
        assert reader.source.attached


# C, D: truncation and deletion


async def test_c01_c05_a_truncated_file_is_read_anew(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        os.truncate(container.path, 0)
        await reader.expect(container.lines("another, and longer than before"))

    assert follower.truncations == 1
    assert follower.lost == {}


async def test_c03_the_rest_of_a_truncated_file_comes_from_its_copy(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        expected = container.lines("unread")
        (container.directory / "0.log.1").write_bytes(container.path.read_bytes())
        os.truncate(container.path, 0)
        await reader.expect(expected + container.lines("new"))
        await reader.silence()

    assert follower.lost == {}


@pytest.mark.parametrize("at", [0, 10, 1000])
async def test_c03_a_copy_in_the_making_is_no_file_of_its_own(follower, container, at):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        expected = container.lines("unread")
        content = container.path.read_bytes()
        with (container.directory / "0.log.1").open("wb", buffering=0) as copy:
            copy.write(content[:at])
            await look(reader)
            copy.write(content[at:])
            await look(reader)
        os.truncate(container.path, 0)
        await reader.expect(expected + container.lines("new"))
        await reader.silence()

    assert follower.lost == {}


async def test_d01_a_deleted_and_recreated_file_is_read_from_its_start(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("one"))
        container.path.unlink()
        container.reopen()
        await reader.expect(container.lines("two"))


async def test_d02_a_deleted_file_is_drained_and_then_closed(pod, container):
    follower = PodFollower(pod, timing=HURRY_POD)
    async with follower.following() as reader:
        await reader.expect(container.lines("read"))
        expected = container.lines("unread")
        container.path.unlink()
        container.exit()
        await reader.expect(expected)
        (log,) = reader.logs
        await reader.ends(log)

    assert follower.lost == {}
    assert reader.chunks[-1].final, "nobody finishes what it left unfinished"


# E, F: what framing must hear


async def test_e02_f04_the_end_of_a_generation_is_told_before_the_next_begins(follower, container):
    async with follower.following() as reader:
        expected = container.line("begun ", tag="P")
        await reader.expect(expected)
        container.rotate()
        await reader.expect(container.line("and finished"))

    ends = [chunk.end_of_log for chunk in reader.chunks]
    assert ends == [False, True, False]
    assert not reader.chunks[1].final


async def test_f05_the_end_of_a_container_is_final(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.line("begun ", tag="P"))
        container.start()
        await reader.expect(container.line("of another start"))

    assert [chunk.final for chunk in reader.chunks] == [False, True, False]


# H: restarts


async def test_h01_the_rest_of_a_start_comes_before_the_next_one(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("banner"))
        expected = container.lines("last words")
        container.start()
        expected += container.lines("banner")
        await reader.expect(expected)

    assert follower.rotations == 0, "a restart is no rotation"
    assert len(reader.logs) == 2


async def test_h01_starts_that_exist_are_read_in_their_order(follower, container):
    expected = b""
    for number in range(11):  # 10.log sorts behind 9.log
        expected += container.lines(f"in start {number}")
        container.start()
    async with follower.following() as reader:
        await reader.expect(expected)
        await reader.silence()


async def test_h02_a_crash_loop_with_a_collector_loses_nothing(follower, container):
    async with follower.following() as reader:
        expected = b""
        for number in range(10):
            expected += container.lines(*(f"{number}: {row}" for row in range(5)))
            await reader.once(0.0)
            await look(reader)
            container.start()
            if container.restart >= 2:
                container.delete(container.restart - 2)
        await reader.expect(expected[len(reader.data) :])

    assert reader.data == expected
    assert follower.lost == {}


# I: limits


async def test_i08_deleted_bytes_that_nobody_reads_are_bounded_and_counted_exactly(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("read"))
        written = b""
        for number in range(14):
            written += container.lines(f"unread {number:02}")
            await look(reader)
            container.start()
            await look(reader)
            container.delete(container.restart - 1)
        last = container.lines("last")
        while not reader.data.endswith(last):
            await reader.once()
        received = reader.data[len(reader.chunks[0].data) : -len(last)]

    assert written.endswith(received)
    assert follower.lost == {"generation_cap": len(written) - len(received)}
    assert len(received) < len(written)


async def test_i04_nobody_reads_while_the_log_is_rotated_and_compressed(follower, container):
    async with follower.following() as reader:
        await reader.expect(container.lines("read"))
        expected = b""
        for number in range(4):
            expected += container.lines(f"unread {number}")
            await look(reader)
            container.rotate()
        expected += container.lines("last")
        await reader.expect(expected)
        await reader.silence()

    assert follower.lost == follower.gaps == {}


def test_it_says_what_it_can_promise(follower, container):
    container.line("one")
    described = follower.source().describe()

    assert described["source"] == "cri"
    assert described["container"] == "app"
    assert {"uid", "gid", "mode", "owner", "why"} <= set(described)
    assert described["lossless"] is True


async def test_once_started_it_names_the_runtimes_format_and_the_mode_of_the_file(follower, container):
    container.line("one")
    container.path.chmod(0o640)
    async with follower.following() as reader:
        described = reader.source.describe()

    assert described["format"] == "CRI"
    assert described["mode"] == "-rw-r-----"
