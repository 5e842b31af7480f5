"""
Property: the follower of a container keeps up with a writer that fills a file in a fifth of a second, in flat memory.
Fault:    sixty rotations with compression and deletion, as fast as the reader's own loop lets them come.
Expect:   the exact bytes in their order, no loss counted, and no more memory than a few chunks.
"""

from __future__ import annotations

import hashlib
import resource

import pytest

from tests.support.following import HURRY_POD, PodFollower
from tests.support.kubelet import Container

_ROTATIONS = 60
_BLOCKS = 16  # of 256 KiB in each file
_KEPT = 3  # rotated files
_LAG = 18 << 20  # how far the reader stays behind: some files are deleted before it comes to them


@pytest.mark.slow
async def test_sixty_rotations_in_a_hurry_lose_nothing_and_keep_nothing(tmp_path):
    container = Container(tmp_path)
    container.start()
    follower = PodFollower(tmp_path, timing=HURRY_POD)
    source = follower.source()
    await source.start()
    written, received, count = hashlib.sha256(), hashlib.sha256(), 0
    total = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def read(until: int) -> None:
        nonlocal count
        while count < until:
            chunk = await source.read(0.001)
            received.update(chunk.data)
            count += len(chunk.data)

    for number in range(_ROTATIONS):
        for block in range(_BLOCKS):
            row = b"2026-07-02T12:00:%02d.%09dZ stdout F " % (number % 60, number * 1000 + block) + b"x" * 970 + b"\n"
            data = row * 256
            written.update(container.raw(data))
            total += len(data)
            await read(total - _LAG)
        container.rotate()
        kept = sorted(container.directory.glob("*.log.*"))
        for path in kept[:-_KEPT]:
            path.unlink()
    await read(total)
    await source.close()
    container.exit()

    assert count == total
    assert received.digest() == written.digest()
    assert follower.lost == follower.gaps == {}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 << 10, "KiB"
