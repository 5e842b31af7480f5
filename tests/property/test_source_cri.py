"""C13: however writes, rotations, truncations, deletions, restarts, reads and downtimes follow each other, what is read is
what the model says: every line once, in order, but for what was truncated or deleted before anybody could read it.

The model is a list of lines and the number of those that were read when a file was emptied or removed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.support.following import HURRY_POD, PATIENT_POD, PodFollower
from tests.support.kubelet import Container

ACTS = (
    *("line", "line", "read", "rotate", "rename", "reopen", "back", "truncate", "delete", "restart", "compress"),
    *("late", "down", "up", "crash", "save"),
)


class World:
    """A container, a source that may be down, and what must and may have been read."""

    def __init__(self, pod: Path, follower: PodFollower) -> None:
        self.container = Container(pod)
        self.container.start()
        self.follower = follower
        self.must: list[bytes] = []  # lines nobody destroyed before they were read
        self.received = b""
        self.saved = None
        self.delivered = b""
        self.renamed: Path | None = None
        self.late = -1
        self.spoiled = False  # a crash would have to read again what is gone
        self.reader = None

    async def act(self, what: str) -> None:
        container = self.container
        match what:
            case "line":
                self.write(container.line(f"line {len(self.must)}"))
            case "late" if self.late >= 0:
                self.write(container.write_to(self.late, f"late {len(self.must)}"))
            case "read" if self.reader is not None:
                await self.read()
            case "rotate" if self.renamed is None:
                self.close_late()  # it compresses too
                container.rotate()
            case "rename" if self.renamed is None:
                self.renamed = container.rename()
            case "reopen" if self.renamed is not None:
                self.close_late()
                self.late = os.dup(container._descriptor)
                container.reopen()
                self.renamed = None
            case "back" if self.renamed is not None:
                self.renamed.rename(container.path)
                self.renamed = None
            case "truncate" if self.renamed is None and self.reader is not None:
                await self.read()
                os.truncate(container.path, 0)
                self.spoiled = True
            case "delete" if self.renamed is None and self.reader is not None:
                await self.read()
                container.path.unlink()
                container.reopen()
                self.spoiled = True
            case "restart" if self.renamed is None:
                container.start()
            case "compress" if self.renamed is None:
                # what is appended to a file that is compressed meanwhile is lost to a reader that is down
                self.close_late()
                container.compress()
            case "save" if self.reader is not None:
                self.save()
            case "down" if self.reader is not None:
                self.save()
                await self.leave()
            case "crash" if self.reader is not None and not self.spoiled:
                await self.leave()
            case "up" if self.reader is None:
                await self.start()

    def write(self, line: bytes) -> None:
        self.must.append(line)

    def close_late(self) -> None:
        if self.late >= 0:
            os.close(self.late)
            self.late = -1

    async def read(self) -> None:
        """Read until everything is there; the reader fails the test where it takes too long."""
        want = sum(map(len, self.must))
        await self.reader.until(lambda: len(self.received) + len(self.reader.data) >= want)

    async def start(self) -> None:
        self.context = self.follower.following(self.saved)
        self.reader = await self.context.__aenter__()

    def save(self) -> None:
        self.saved = self.follower.saved(self.reader)
        self.delivered = self.received + self.reader.data
        self.spoiled = False

    async def leave(self) -> None:
        self.reader = None
        self.received = self.delivered
        await self.context.__aexit__(None, None, None)

    def verdict(self) -> None:
        """Every line once; in order, where no late line was written through an old descriptor."""
        lines = self.received.splitlines(keepends=True)
        assert Counter(lines) == Counter(self.must)
        ordered = [line for line in lines if b"late" not in line]
        assert ordered == [line for line in self.must if b"late" not in line]


async def live(directory: Path, acts: list[str], timing) -> None:
    follower = PodFollower(directory, timing=timing)
    world = World(directory, follower)
    try:
        await world.start()
        for what in acts:
            await world.act(what)
        await world.act("up")
        await world.read()
        await world.reader.silence()
        world.save()
        await world.leave()
        world.verdict()
        assert follower.lost == {}
    finally:
        world.close_late()
        world.container.exit()


def check(acts: list[str], hurry: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(live(Path(name), acts, HURRY_POD if hurry else PATIENT_POD))


# To make a failure smaller takes ten seconds an attempt, where it shows by waiting: a run looks as if it hung.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)

interleavings = given(acts=st.lists(st.sampled_from(ACTS), max_size=30), hurry=st.booleans())


# A file that was empty when it was deleted, and whose inode a later one gets, does not lend it its place in the order.
@example(acts=["delete", "line", "read", "save", "crash", "line", "rotate", "rename", "line"], hurry=True)
@settings(max_examples=25, deadline=None)
@interleavings
def test_c13_every_line_is_read_once_whatever_happens_to_its_file(acts: list[str], hurry: bool) -> None:
    check(acts, hurry)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("C13_EXAMPLES", "700")), deadline=None, phases=UNSHRUNK)
@interleavings
def test_c13_many_interleavings(acts: list[str], hurry: bool) -> None:
    """The gate has time for 700; `C13_EXAMPLES=5000` takes four minutes."""
    check(acts, hurry)
