"""The source `file` follows a growing file: the contract, what is found at the start, and what is refused."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from sidecar.errors import SourceError
from tests.contracts.source_contract import SourceContract, Subject, unread
from tests.support.following import HURRY, Follower
from tests.support.log_writer import LogWriter
from tests.support.patience import PATIENCE
from tests.support.reading import CHUNK_BYTES

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self.path = tmp_path / "app.log"

    @asynccontextmanager
    async def opened(self, content=b""):
        follower = Follower(self.path)
        with LogWriter(self.path) as writer:
            writer.write(content)
            async with follower.following() as reader:
                yield Subject(reader.source, writer.write, again=follower.source)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.log"


@pytest.fixture
def follower(path):
    return Follower(path)


async def test_a01_a04_what_exists_and_what_is_appended_is_read_once(follower, path):
    with LogWriter(path) as writer:
        old = writer.lines("old 1", "old 2")
        async with follower.following() as reader:
            await reader.expect(old)
            await reader.expect(writer.lines("new"))
            await reader.silence()

    assert follower.lost == {}
    assert follower.rotations == follower.truncations == 0


async def test_a02_from_the_end_only_what_is_written_from_now_on_is_read(path):
    with LogWriter(path) as writer:
        writer.lines("old 1", "old 2")
        async with Follower(path, start_at="end").following() as reader:
            await reader.silence()
            await reader.expect(writer.lines("new"))


async def test_a03_rule_17_a_file_that_appears_later_is_read_from_its_start_even_from_the_end(path):
    async with Follower(path, start_at="end").following() as reader:
        await reader.silence()
        assert reader.source.attached, "a path that does not exist yet is waited for"
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("first", "second"))


async def test_waiting_for_a_path_is_told(follower):
    async with follower.following() as reader:
        await reader.silence()

    assert follower.events == ["source_waiting"]


async def test_a05_a_missing_directory_is_waited_for_too(tmp_path):
    path = tmp_path / "logs" / "app.log"
    follower = Follower(path)
    async with follower.following() as reader:
        await reader.silence()
        assert reader.source.attached

        path.parent.mkdir()
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("first"))

    assert follower.counted("sidecar_source_failures_total", reason="missing") >= 1


async def test_a09_an_empty_file_says_nothing_until_it_is_written_to(follower, path):
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.silence()
            await reader.expect(writer.lines("first"))


async def test_e01_a_torn_line_comes_in_two_parts_that_join_up(follower, path):
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            writer.tear("grüße\n".encode(), 3)
            await reader.expect(b"gr\xc3")
            writer.mend()
            await reader.expect(b"\xbc\xc3\x9fe\n")

    assert [chunk.start.offset for chunk in reader.chunks] == [0, 3]


async def test_rule_27_a_large_file_comes_in_turns(follower, path):
    content = b"x" * (2 * CHUNK_BYTES) + b"y"
    path.write_bytes(content)

    async with follower.following() as reader:
        await reader.expect(content)

    assert [len(chunk.data) for chunk in reader.chunks] == [CHUNK_BYTES, CHUNK_BYTES, 1]


async def test_a_file_without_a_newline_is_not_ended_by_silence(path):
    follower = Follower(path, timing=HURRY)
    path.write_bytes(b"no newline")

    async with follower.following() as reader:
        await reader.expect(b"no newline")
        await reader.silence(times=5)

    assert reader.ended == []


# rotated files at the start


def age(*paths, step=10):
    """Give files last writes in this order, the last one now."""
    for index, one in enumerate(reversed(paths)):
        moment = one.stat().st_mtime_ns - index * step * 10**9
        os.utime(one, ns=(moment, moment))


ROTATIONS = {
    "counted": ("app.log.2", "app.log.1"),
    "dated": ("app.log-20260703", "app.log-20260704"),
    "stamped": ("app.log.20260704-110000", "app.log.20260704-120000"),
    "lumberjack": ("app-2026-07-03T12-00-00.000.log", "app-2026-07-04T12-00-00.000.log"),
}


@pytest.mark.parametrize("names", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("same_tick", [False, True], ids=["", "same tick"])
async def test_rule_16_rotated_files_are_read_first_oldest_first(follower, path, tmp_path, names, same_tick):
    for name in (*names, "app.log"):
        (tmp_path / name).write_bytes(f"in {name}\n".encode())
    age(*(tmp_path / name for name in names), path, step=0 if same_tick else 10)
    if same_tick:
        for name in names:
            os.utime(tmp_path / name, ns=(1, 1))

    async with follower.following() as reader:
        await reader.expect("".join(f"in {name}\n" for name in (*names, "app.log")).encode())
        await reader.silence()

    assert len(reader.logs) == 3
    assert follower.rotations == 0, "nothing was rotated while we looked"


@pytest.mark.parametrize(
    "name",
    ["app.log.1.zst", "app.log.1.tmp", "app.log.bak", "app.logs", "other.log.1", "app-backup.log", "app.log.conf"],
)
async def test_rule_05_other_files_beside_the_log_are_left_alone(follower, path, tmp_path, name):
    (tmp_path / name).write_bytes(b"something else\n")
    path.write_bytes(b"the log\n")

    async with follower.following() as reader:
        await reader.expect(b"the log\n")
        await reader.silence()


async def test_from_the_end_rotated_files_are_left_alone_but_for_their_late_bytes(path):
    """The sidecar starts between a rename and the moment when the writer reopens."""
    with LogWriter(path) as writer:
        writer.lines("old")
        writer.rename()
        async with Follower(path, start_at="end").following() as reader:
            await reader.silence()
            late = writer.lines("late")
            await reader.expect(late)
            writer.reopen()
            await reader.expect(writer.lines("new"))


async def test_from_the_end_files_rotated_long_ago_stay_unread_at_the_next_rotation(path):
    with LogWriter(path) as writer:
        for number in range(12):
            writer.lines(f"old {number}")
            writer.rotate()
        async with Follower(path, start_at="end").following() as reader:
            await reader.expect(writer.lines("new 1"))
            writer.rotate()
            await reader.expect(writer.lines("new 2"))
            await reader.silence()


# what cannot be read


@contextmanager
def nobody(directory):
    """Act as a user without rights, where the tests run as root; others have none on a file without mode bits."""
    root = os.geteuid() == 0
    directory.chmod(0o755)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(("start_at", "expected"), [("beginning", b"old\nnew\n"), ("end", b"new\n")])
async def test_a06_rule_19_a_file_without_permission_is_tried_again_until_it_has_one(start_at, expected):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "app.log"
        path.write_bytes(b"old\n")
        path.chmod(0)
        follower = Follower(path, start_at=start_at)
        with nobody(path.parent):
            async with follower.following() as reader:
                await reader.silence()
                assert not reader.source.attached
                assert follower.events == ["source_waiting"]
                assert follower.counted("sidecar_source_failures_total", reason="denied") >= 1

                if os.geteuid() != os.getuid():
                    os.seteuid(0)
                path.chmod(0o644)
                with path.open("ab") as log:
                    log.write(b"new\n")
                await reader.expect(expected)
                assert reader.source.attached


async def test_a_path_below_a_file_is_not_attached_and_waited_out(follower, path):
    path.parent.joinpath("plain").write_bytes(b"not a directory")
    follower.path = path.parent / "plain" / "app.log"

    async with follower.following() as reader:
        assert not reader.source.attached
        (path.parent / "plain").unlink()
        (path.parent / "plain").mkdir()
        follower.path.write_bytes(b"one\n")
        await reader.expect(b"one\n")
        assert reader.source.attached


async def test_a_directory_under_the_path_is_not_attached_and_waited_out(follower, path):
    path.mkdir()
    async with follower.following() as reader:
        await reader.silence()
        assert not reader.source.attached

        path.rmdir()
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("a file at last"))
            assert reader.source.attached


async def test_a_fifo_under_the_path_blocks_nobody(follower, path):
    os.mkfifo(path)
    async with follower.following() as reader:
        await reader.silence()
        assert not reader.source.attached


@contextmanager
def descriptor_is(descriptor, path):
    """Let one of our own descriptors write to the path."""
    kept = os.dup(descriptor)
    with path.open("ab") as log:
        os.dup2(log.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@pytest.mark.parametrize(("descriptor", "name"), [(1, "stdout"), (2, "stderr")])
async def test_a08_rule_20_the_sidecar_does_not_follow_its_own_output(follower, path, descriptor, name, capfd):
    with capfd.disabled(), descriptor_is(descriptor, path):
        source = follower.source()
        with pytest.raises(SourceError, match=f"is the sidecar's own {name}"):
            await source.start()
        await source.close()


async def test_nor_when_it_appears_later(follower, path, tmp_path, capfd):
    with capfd.disabled(), descriptor_is(1, tmp_path / "out"):
        async with follower.following() as reader:
            await reader.silence()
            (tmp_path / "out").rename(path)
            with pytest.raises(SourceError, match="own stdout"):
                await reader.once()


# while nobody reads


async def test_i04_rule_26_discovery_goes_on_while_nobody_reads(follower, path, tmp_path):
    """A full queue stops the reading. Files that come and go meanwhile are held, so nothing is lost."""
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("read"))
            expected = writer.lines("unread 0")
            for number in range(1, 4):
                writer.rename(f".{number}")
                writer.reopen()
                before = follower.rotations
                async with asyncio.timeout(PATIENCE):
                    while follower.rotations == before:
                        await asyncio.sleep(HURRY.discovery)
                (tmp_path / f"app.log.{number}").unlink()
                expected += writer.lines(f"unread {number}")

            await unread(reader.source, len(expected))
            await reader.expect(expected)

    assert follower.lost == {}


async def test_lines_written_just_before_stop_in_a_new_file_are_read(follower, path):
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("before"))
            expected = writer.lines("last in the old file")
            writer.rotate()
            expected += writer.lines("first in the new file")

            reader.source.stop()

            assert await reader.rest() == expected


async def test_rule_37_it_says_whose_the_file_is_and_how_it_may_be_read(follower, path):
    path.touch(0o640)
    path.chmod(0o640)

    described = follower.source().describe()

    assert described["mode"] == "-rw-r-----"
    assert described["owner"] == f"{os.getuid()}:{os.getgid()}"
    assert described["path"] == str(path)
    assert described["lossless"] is True
