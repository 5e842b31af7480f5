"""The source `file` with a glob: each file of its own, none twice. IDs are those of the acceptance cases."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contracts.source_contract import SourceContract, Subject, lines, unread
from tests.support.descriptors import open_files
from tests.support.following import HURRY, PATIENT, GlobFollower, look
from tests.support.log_writer import LogWriter
from tests.support.reading import Reader

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self.path = tmp_path

    @asynccontextmanager
    async def opened(self, content=b""):
        follower = GlobFollower(self.path / "*.log")
        with LogWriter(self.path / "app.log") as writer:
            writer.write(content)
            async with follower.following() as reader:
                yield Subject(reader.source, writer.write, again=follower.source)

    async def test_a_saved_state_that_makes_no_sense_is_reported_not_raised(self):
        async with self.opened(lines(5)) as subject:
            state = subject.source.snapshot({})
            one = state["files"][0]
            first = one["state"]["generations"][0]
            for generations in (None, [1], [first | {"offset": -1}], [first | {"inode": "x"}]):
                spoiled = one | {"state": one["state"] | {"generations": generations}}
                again = subject.again(state | {"files": [spoiled]})
                await again.start()
                await Reader(again).expect(lines(5))
                await again.close()


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


async def test_c04_three_files_are_copied_and_cut_off_three_times_each(tmp_path):
    """As OpenTelemetry's TestMultiCopyTruncateSlow: 3 files, 3 rotations, 30 lines."""
    follower = GlobFollower(tmp_path / "*.log")
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(LogWriter(tmp_path / f"{name}.log")) for name in "abc"]
        async with follower.following() as reader:
            written = []
            for rotation in range(4):
                for line in range(30):
                    for name, writer in zip("abc", writers, strict=True):
                        text = f"{name} {rotation} {line}"
                        written.append(text.encode())
                        writer.lines(text)
                        if line == 15:
                            await reader.once()
                if rotation < 3:
                    for writer in writers:
                        writer.copytruncate()
            async with asyncio.timeout(10.0):
                while reader.data.count(b"\n") < len(written):
                    await reader.once()
            await reader.silence()

    assert sorted(reader.data.splitlines()) == sorted(written)
    assert follower.lost == follower.gaps == {}


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
        await unread(reader.source, len(expected))

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


# a program that names its log anew again and again


async def weight(reader):
    """Return how many files it follows, and how many descriptors that takes."""
    reader.source.describe()  # answers what was known before, and asks
    await look(reader)
    described = reader.source.describe()
    directory = f"{Path(str(described['path'])).parent}/"
    return len(described["files"]), sum(name.startswith(directory) for name in open_files())


async def gone(reader, number):
    """Read until it follows no more files than that."""
    for _ in range(1000):
        followed, _ = await weight(reader)
        if followed <= number:
            return
        await reader.once(0.01)
    raise AssertionError(f"{followed} files are followed, {number} exist")


async def test_endless_new_names_cost_what_the_files_on_disk_cost(tmp_path):
    """Each start writes to a file of its own, and somebody removes all but the last two."""
    follower = GlobFollower(tmp_path / "app-*.log", timing=HURRY)
    paths = []
    async with follower.following() as reader:
        for number in range(40):
            paths.append(tmp_path / f"app-{number:05}.log")
            with LogWriter(paths[-1]) as writer:
                await reader.expect(writer.lines(f"start {number}"))
            for old in paths[:-2]:
                old.unlink(missing_ok=True)
        await gone(reader, 2)

        followed, held = await weight(reader)
        state = reader.source.snapshot(reader.positions)

    assert followed == 2
    assert held == 2
    assert [one["file"] for one in state["files"]] == [str(one) for one in paths[-2:]]
    assert follower.lost == follower.gaps == {}


async def test_what_is_gone_stays_in_the_state_until_it_is_delivered_and_is_counted_where_it_never_was(tmp_path):
    follower = GlobFollower(tmp_path / "*.log", timing=HURRY)
    with LogWriter(tmp_path / "a.log") as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines("one", "two"))
            writer.delete()
            await gone(reader, 0)
            undelivered = json.loads(json.dumps(reader.source.snapshot({})))
            delivered = json.loads(json.dumps(reader.source.snapshot(reader.positions)))

    with LogWriter(tmp_path / "a.log") as writer:  # another file has the name by the next start
        expected = writer.lines("three")
        for state, lost in ((delivered, 0), (undelivered, 8)):
            async with follower.following(state) as reader:
                await reader.expect(expected)
                await reader.silence()
            assert sum(follower.lost.values()) == lost, "rotated away; or truncated, where the inode came back"


async def test_a_log_whose_rotated_files_are_still_there_is_not_let_go_of(tmp_path):
    """Without it they would look like files that nobody has read."""
    follower = GlobFollower(tmp_path / "*.log*", timing=HURRY)
    with LogWriter(tmp_path / "a.log") as writer:
        async with follower.following() as reader:
            for number in range(12):
                await reader.expect(writer.lines(f"{number}"))
                old = list(reader.logs)[-1]
                writer.rotate(f".{number:02}")
                await reader.ends(old)
            writer.delete()
            await reader.silence(times=20)
            for number in range(11):
                (tmp_path / f"a.log.{number:02}").unlink()
            await reader.silence(times=20)
            (tmp_path / "a.log.11").unlink()
            await gone(reader, 0)

    assert follower.lost == {}


async def test_a_name_that_comes_back_is_a_new_file(tmp_path):
    follower = GlobFollower(tmp_path / "*.log", timing=HURRY)
    async with follower.following() as reader:
        for number in range(4):
            with LogWriter(tmp_path / "a.log") as writer:
                await reader.expect(writer.lines("the same"))
                writer.delete()
            if number % 2:
                await gone(reader, 0)

    assert len(reader.logs) == 4
