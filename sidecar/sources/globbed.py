"""Follows every file that a glob names, each as `file` follows one.

The problem: a program that writes several logs, or names them anew at each start, has no one path. The promise: each
file has a follower of its own, with its rotations and its position; a file that appears is read from its start; a file
that is moved to another name that the glob names, or is the rotated file of another, is not read again. All are served
in turn, a chunk each. Who follows a file that is deleted and read to its end is let go, so that a program which names
its log anew every minute costs what its files on disk cost.
Refused: an order between files, which nobody wrote down; and the sidecar's own output, which is left out aloud.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import file, filesystem, generation, polling, siblings, succession, wake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.telemetry import Telemetry

_REMEMBERED = 64  # files that are gone and whose last lines may not be delivered yet


class Globbed:
    """The source `file` where its path is a glob."""

    resumable = True

    def __init__(
        self,
        pattern: str,
        telemetry: Telemetry,
        *,
        start_at: str = "beginning",
        saved: Mapping[str, Any] | None = None,
        timing: succession.Timing | None = None,
        inotify: bool = True,
    ) -> None:
        self.attached = False
        self._pattern = pattern
        self._telemetry = telemetry
        self._start_at = start_at
        self._saved = saved
        self._timing = timing if timing is not None else succession.Timing()
        self._files: dict[str, tuple[int, file.File]] = {}  # path → number and follower
        self._gone: deque[tuple[str, int, file.File]] = deque(maxlen=_REMEMBERED)
        self._refused: set[str] = set()
        self._rotated: set[str] = set()  # names that rotation gave
        self._numbers = 0  # how many followers there were; the logs of each are named by its own
        self._served = 0
        self._looked_at = 0.0
        self._read_at = 0.0  # when there was something
        self._stirred = False  # since the last look
        self._alarm = asyncio.Event()  # ends the waiting
        self._wake = wake.Wake(telemetry, self._stir, enabled=inotify, rest=self._timing.poll / 2)
        self._stopping = False

    async def start(self) -> None:
        """Follow what the glob names, and what it named in an earlier life."""
        self._wake.start()
        state = self._state()
        for path, number, saved in state or ():
            earlier = self._files.pop(path, None)  # whose file was gone before another had its name
            if earlier is not None:
                await earlier[1].close()
            await self._follow(path, number=number, saved=saved)
        await self._expand(first=state is None)
        self._start_at = "beginning"  # of what appears from now on

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            now = loop.time()
            if not self._stopping and (self._stirred or now - self._looked_at >= self._timing.idle_poll):
                self._stirred = False
                await self._expand()
            files = [one for _, one in self._files.values()]
            for place in range(len(files)):
                index = (self._served + place) % len(files)
                chunk = await files[index].read(0.0)
                if chunk is not None and (chunk.data or chunk.end_of_log):
                    self._served = index + 1
                    self._read_at = now
                    return chunk
            if self._stopping:
                return None
            now = loop.time()
            if now >= deadline:
                return Chunk(b"", Position("", 0))
            pause = polling.DISK_SECONDS if any(one.waits for one in files) else self._timing.poll
            await self._wait(min(deadline, now + pause))

    def stop(self) -> None:
        self._stopping = True
        self._alarm.set()
        for _, one in self._files.values():
            one.stop()

    def unread(self) -> int:
        return sum(one.unread() for _, one in self._files.values())

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        gone = [(path, number, one.snapshot(delivered)) for path, number, one in self._gone]
        waiting = {number for _, number, state in gone if state["generations"]}
        self._gone = deque((one for one in self._gone if one[1] in waiting), maxlen=_REMEMBERED)
        return {
            "kind": "file",
            "path": self._pattern,
            "serial": self._numbers,
            "files": [
                {"file": path, "number": number, "state": state}
                for path, number, state in gone
                if number in waiting  # before the others: one of them may have the same name
            ]
            + [
                {"file": path, "number": number, "state": one.snapshot(delivered)}
                for path, (number, one) in self._files.items()
            ],
        }

    def describe(self) -> dict[str, object]:
        return {
            "source": "file",
            "path": self._pattern,
            "files": sorted(self._files),
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": True,
            "why": "each file keeps what is not delivered yet; a log that is truncated instead of renamed can lose "
            "what is written between copy and truncation",
            "file_system": filesystem.kind(self._root()),
            "inotify": self._wake.watching,
        }

    async def close(self) -> None:
        self._wake.close()
        for _, one in self._files.values():
            await one.close()

    async def _wait(self, until: float) -> None:
        """Wait, unless something stirs first or the source is told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._alarm.wait()
        self._alarm.clear()

    def _stir(self) -> None:
        """Look sooner; but files that were just read get time to grow."""
        self._stirred = True
        if asyncio.get_running_loop().time() - self._read_at >= self._timing.poll:
            self._alarm.set()

    def _root(self) -> str:
        """Return the directory that the glob begins in."""
        fixed = Path(self._pattern)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return str(fixed)

    async def _expand(self, *, first: bool = False) -> None:
        """Follow the files that the glob names and nobody follows; let go of whom nothing is left of."""
        self._looked_at = asyncio.get_running_loop().time()
        self.attached = True
        self._wake.watch(self._root())
        names = sorted(glob.glob(self._pattern, recursive=True))  # noqa: PTH207  a Path cannot begin anywhere
        there = set(names)
        self._refused &= there
        self._rotated &= there
        await self._let_go(there)
        for path in names:
            if path in self._files or path in self._refused or path in self._rotated:
                continue
            if self._is_rotated(path, there):
                self._rotated.add(path)
            elif not self._is_held(path):
                await self._follow(path, start_at=self._start_at if first else "beginning")
        if any(not one.attached for _, one in self._files.values()):
            self.attached = False
        if not self._files:
            self._telemetry.source_waiting(self._pattern, "no file has such a name", "missing")

    async def _let_go(self, names: set[str]) -> None:
        """Close whose file is gone and read, unless rotation left others of it, which would then look new."""
        for path, (number, one) in list(self._files.items()):
            if path in names or not one.finished or self._has_rotated(path, names):
                continue
            del self._files[path]
            await one.close()
            self._gone.append((path, number, one))

    def _has_rotated(self, path: str, names: set[str]) -> bool:
        return any(siblings.is_rotated(other, path) for other in names)

    def _is_rotated(self, path: str, names: set[str]) -> bool:
        """Whether it is what rotation left of another one, whose follower reads it."""
        return any(other != path and siblings.is_rotated(path, other) for other in {*names, *self._files})

    def _is_held(self, path: str) -> bool:
        """Whether it is a file that somebody follows under an earlier name, or nothing to follow."""
        try:
            status = Path(path).stat()
        except OSError:
            return True
        return any(one.holds(status) for _, one in self._files.values())

    async def _follow(
        self, path: str, *, start_at: str = "beginning", number: int = 0, saved: Mapping[str, Any] | None = None
    ) -> None:
        if not number:
            self._numbers = number = self._numbers + 1
        one = file.File(
            path,
            self._telemetry,
            start_at=start_at,
            saved=saved,
            timing=self._timing,
            logs=f"{number}/",
            shared=self._wake,
        )
        try:
            await one.start()
        except SourceError as error:
            await one.close()
            self._refused.add(path)
            self._telemetry.source_waiting(path, str(error))
            return
        self._files[path] = (number, one)

    def _state(self) -> list[tuple[str, int, Mapping[str, Any]]] | None:
        saved = self._saved
        if saved is None or saved.get("kind") != "file" or saved.get("path") != self._pattern:
            return None
        try:
            files = saved.get("files")
            if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
                raise ValueError("files: expected a list of objects")  # noqa: TRY301  told below, with the others
            self._numbers = generation.number(saved, "serial")
            return [(str(one.get("file")), generation.number(one, "number"), one.get("state") or {}) for one in files]
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved positions of {self._pattern}: {error}")
            return None
