"""A file on a disk that is slow: what is not in memory is fetched while the loop turns (rule 35), and no end is taken for
the end of the file."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os

import pytest

from sidecar import telemetry
from sidecar.sources import stdin
from tests.support.following import Follower, GlobFollower
from tests.support.log_writer import LogWriter
from tests.support.reading import Reader

CONTENT = b"".join(b"line %07d\n" % number for number in range(100_000))


class Disk:
    """What the kernel answers to a read that will not wait: `script` says, and then the truth."""

    def __init__(self, script):
        self.script = list(script)
        self.waited = 0  # reads that would have stopped the loop
        self._preadv, self._pread = os.preadv, os.pread

    def preadv(self, descriptor, buffers, offset, flags):
        assert flags == os.RWF_NOWAIT
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, int):  # so many bytes are in memory
            part = self._pread(descriptor, min(answer, len(buffers[0])), offset)
            buffers[0][: len(part)] = part
            return len(part)
        if answer is not None:
            raise OSError(answer[0], os.strerror(answer[0]))
        return self._preadv(descriptor, buffers, offset)

    def pread(self, descriptor, count, offset):
        self.waited += count > 64 << 10  # proofs and heads are small
        return self._pread(descriptor, count, offset)


NOT_YET = (errno.EAGAIN,)
UNKNOWN = (errno.EOPNOTSUPP,)
SLOW = {
    "all in memory": ([], 0),
    "nothing at first": ([NOT_YET] * 3, 0),
    "in pieces": ([10, NOT_YET, 4096, 1, NOT_YET, 300, 70_000, NOT_YET, NOT_YET, 256], 0),
    "a file system that knows only how to wait": ([UNKNOWN], 5),
    "a fetch that is in vain": ([NOT_YET] * 50, 1),
}


@pytest.fixture
def disk(monkeypatch, request):
    made = Disk(request.param)
    monkeypatch.setattr(os, "preadv", made.preadv)
    monkeypatch.setattr(os, "pread", made.pread)
    return made


@pytest.mark.parametrize(("disk", "waits"), SLOW.values(), ids=SLOW, indirect=["disk"])
@pytest.mark.parametrize("over", [Follower, GlobFollower], ids=["path", "glob"])
async def test_rule_35_what_is_read_is_the_same_and_nobody_waits_for_what_is_being_fetched(tmp_path, disk, waits, over):
    path = tmp_path / "app.log"
    path.write_bytes(CONTENT)
    follower = over(path if over is Follower else tmp_path / "*.log")
    async with follower.following() as reader:
        await reader.expect(CONTENT)
        with LogWriter(path) as writer:
            await reader.expect(writer.lines("and more"))
            writer.rotate()
            await reader.expect(writer.lines("in the new file"))
        assert disk.waited == waits

    assert follower.lost == follower.gaps == {}
    assert follower.truncations == 0


@pytest.mark.parametrize(("disk", "waits"), SLOW.values(), ids=SLOW, indirect=["disk"])
async def test_rule_35_a_redirected_input_that_is_not_in_memory_yet_has_not_ended(tmp_path, disk, waits):
    path = tmp_path / "input"
    path.write_bytes(CONTENT)
    with path.open("rb") as redirected:
        source = stdin.create(telemetry.Telemetry(log=telemetry.Log(io.StringIO())), descriptor=redirected.fileno())
        await source.start()
        assert await Reader(source).rest() == CONTENT
        await source.close()

    assert disk.waited >= waits


@pytest.mark.parametrize("disk", [[NOT_YET] * 3, [100, NOT_YET, 40, 0]], indirect=True)
async def test_rule_35_a_truncation_is_noticed_all_the_same(tmp_path, disk):
    path = tmp_path / "app.log"
    follower = Follower(path)
    with LogWriter(path) as writer:
        async with follower.following() as reader:
            await reader.expect(writer.lines(*(f"old {number}" for number in range(100))))
            writer.truncate()
            await reader.expect(writer.lines("new"))

    assert follower.truncations == 1
    assert follower.lost == {}


@pytest.mark.parametrize("disk", [[NOT_YET] * 1000], indirect=True)
async def test_rule_35_who_is_told_to_stop_waits_for_the_disk(tmp_path, disk):
    path = tmp_path / "app.log"
    path.write_bytes(CONTENT)
    async with Follower(path).following() as reader:
        assert (await reader.once(0.0)).data == b""
        assert not disk.waited
        reader.source.stop()
        assert await reader.rest() == CONTENT


@pytest.mark.parametrize("disk", [[(errno.EIO,)] * 3], indirect=True)
async def test_rule_19_a_disk_that_fails_is_counted_and_tried_again(tmp_path, disk):
    path = tmp_path / "app.log"
    path.write_bytes(CONTENT)
    follower = Follower(path)
    async with follower.following() as reader:
        await reader.expect(CONTENT)

    assert follower.counted("sidecar_source_failures_total", reason="io") == 3
    assert follower.events == ["source_waiting"]
    assert follower.lost == follower.gaps == {}


async def test_rule_35_a_disk_that_never_answers_stops_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "preadv", Disk([NOT_YET] * 1_000_000).preadv)
    path = tmp_path / "app.log"
    path.write_bytes(CONTENT)
    async with Follower(path).following() as reader:
        waiting = asyncio.ensure_future(reader.source.read(3600.0))
        for _ in range(100):  # each is somebody else's turn
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_rule_35_an_archive_is_inflated_in_turns_to_be_known_again(tmp_path):
    """24 MiB, read in an earlier life and compressed while down: to prove that takes some 50 ms."""
    path = tmp_path / "app.log"
    follower = Follower(path)
    with LogWriter(path) as writer:
        written = b"".join(b"line %0250d\n" % number for number in range(96_000))
        path.write_bytes(written)
        async with follower.following() as reader:
            while reader.source.unread():
                await reader.once()
            saved = follower.saved(reader)
        rotated = writer.rotate("-20260703")
        compressed = rotated.with_name(rotated.name + ".gz")
        compressed.write_bytes(gzip.compress(rotated.read_bytes(), 1))
        rotated.unlink()
        expected = writer.lines("new")
    source = follower.source(saved)
    starting = asyncio.ensure_future(source.start())
    turns = 0
    while not starting.done():
        turns += 1
        await asyncio.sleep(0)
    await Reader(source).expect(expected)
    await source.close()

    assert turns > len(written) // (4 << 20)
    assert follower.lost == follower.gaps == {}
