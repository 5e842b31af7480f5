"""
Property: a followed file is read to the byte while it is rotated five times a second, in flat memory, and the loop turns.
Fault:    50 MiB/s for ten seconds by another process, or what the machine takes; a backlog that no cache holds.
Expect:   the exact bytes in their order, no loss counted, no more memory than a few chunks; a turn for everybody else
          after each chunk. Rates and stalls are reported (`-rP`), never judged: the machine is not ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from sidecar.sources import generation, succession
from tests.support.following import Follower

pytestmark = pytest.mark.slow

SECONDS = 10.0
ROTATE_SECONDS = 0.2
BLOCK_BYTES = 1 << 20
BLOCKS_A_SECOND = 50
KEPT = 24  # rotated files: 5 s of them

WRITER = """
import hashlib, os, sys, time
path, seconds, pause, rate, kept, told = sys.argv[1], *map(float, sys.argv[2:5]), *map(int, sys.argv[5:])
ends = []  # of the rotated files
log, digest, number, total, rotations = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), hashlib.sha256(), 0, 0, 0
begin = time.monotonic()
turn = begin + pause
rest = b"x" * 114 + b"\\n"
while (now := time.monotonic()) < begin + seconds:
    if total >= (now - begin) * rate * (1 << 20):
        time.sleep(0.002)
        continue
    block = b"".join(b"%012d " % at + rest for at in range(number, number + 8192))
    number += 8192
    digest.update(block)
    assert os.write(log, block) == len(block)
    total += len(block)
    if now >= turn:
        turn += pause
        os.rename(path, f"{path}.{rotations:06}")
        os.close(log)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        rotations += 1
        ends.append(total)
        if rotations > kept:
            while int.from_bytes(os.pread(told, 8, 0), "little") < ends[rotations - kept - 1]:
                time.sleep(0.002)  # what nobody has had the time to read is not deleted
            os.unlink(f"{path}.{rotations - kept - 1:06}")
print(total, rotations, time.monotonic() - begin, digest.hexdigest())
"""


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_soak_rule_01_rotated_five_times_a_second_at_fifty_mebibytes_a_second(tmp_path):
    path = tmp_path / "app.log"
    path.touch()
    follower = Follower(path, timing=succession.Timing())
    source = follower.source()
    await source.start()
    told = os.memfd_create("read")  # how many bytes, for the writer to see
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(SECONDS), str(ROTATE_SECONDS), str(BLOCKS_A_SECOND), str(KEPT),
        str(told), stdout=asyncio.subprocess.PIPE, pass_fds=[told],
    )  # fmt: skip
    said = asyncio.ensure_future(writer.stdout.read())
    received, count, most = hashlib.sha256(), 0, 0
    before = 0
    try:
        while not said.done() or count < int(said.result().split()[0]):
            chunk = await source.read(0.05)
            received.update(chunk.data)
            count += len(chunk.data)
            os.pwrite(told, count.to_bytes(8, "little"), 0)
            if count > 64 << 20:  # everything is warm
                before = before or resident()
                most = max(most, resident() - before)
            await asyncio.sleep(0)
    finally:
        if not said.done():
            writer.kill()
        await writer.wait()
        await source.close()
        os.close(told)

    total, rotations, seconds, digest = said.result().decode().split()
    print(f"{int(total) / float(seconds) / (1 << 20):.1f} MiB/s, {rotations} rotations in {float(seconds):.1f} s")
    print(f"memory grew by {most >> 20} MiB")
    assert count == int(total)
    assert received.hexdigest() == digest
    assert follower.rotations == int(rotations)
    assert follower.lost == follower.gaps == {}
    assert follower.truncations == 0
    assert most < 24 << 20


async def test_rule_35_everybody_gets_a_turn_after_each_chunk_of_a_backlog_that_is_on_disk_alone(tmp_path):
    path = tmp_path / "app.log"
    with path.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(BLOCK_BYTES))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    size = path.stat().st_size
    follower = Follower(path, timing=succession.Timing())
    source = follower.source()
    loop = asyncio.get_running_loop()
    turns = 0
    stalls = []
    last = time.monotonic()

    def turn():
        nonlocal turns, last
        now = time.monotonic()
        turns += 1
        stalls.append(now - last)
        last = now
        nonlocal handle
        handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    begin = time.monotonic()
    await source.start()
    chunks = count = 0
    while count < size:
        chunk = await source.read(1.0)
        count += len(chunk.data)
        chunks += bool(chunk.data)
        assert len(chunk.data) <= generation.CHUNK_BYTES
        await asyncio.sleep(0)
    seconds = time.monotonic() - begin
    handle.cancel()
    await source.close()

    print(f"{size / seconds / (1 << 20):.0f} MiB/s from disk; the longest stall {max(stalls) * 1000:.1f} ms")
    assert turns >= chunks
    assert follower.lost == {}
