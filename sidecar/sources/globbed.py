"""Follows every file that a glob names, each as `file` follows one.

The problem: a program that writes several logs, or names them anew at each start, has no one path. The promise: each
file has a follower of its own, with its rotations and its position; a file that appears is read from its start; a file
that is moved to another name that the glob names, or is the rotated file of another, is not read again. All are served
in turn, a chunk each. Refused: an order between files, which nobody wrote down; and the sidecar's own output, which is
left out aloud.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import file, generation, siblings, succession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.telemetry import Telemetry


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
    ) -> None:
        self.attached = False
        self._pattern = pattern
        self._telemetry = telemetry
        self._start_at = start_at
        self._saved = saved
        self._timing = timing if timing is not None else succession.Timing()
        self._files: dict[str, tuple[int, file.File]] = {}  # path → number and follower
        self._refused: set[str] = set()
        self._numbers = 0  # how many followers there were; the logs of each are named by its own
        self._served = 0
        self._looked_at = 0.0
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Follow what the glob names, and what it named in an earlier life."""
        state = self._state()
        for path, number, saved in state or ():
            await self._follow(path, number=number, saved=saved)
        await self._expand(first=state is None)
        self._start_at = "beginning"  # of what appears from now on

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            now = loop.time()
            if not self._stopping.is_set() and now - self._looked_at >= self._timing.idle_poll:
                await self._expand()
            files = [one for _, one in self._files.values()]
            for place in range(len(files)):
                index = (self._served + place) % len(files)
                chunk = await files[index].read(0.0)
                if chunk is not None and (chunk.data or chunk.end_of_log):
                    self._served = index + 1
                    return chunk
            if self._stopping.is_set():
                return None
            now = loop.time()
            if now >= deadline:
                return Chunk(b"", Position("", 0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, now + self._timing.poll)):
                    await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()
        for _, one in self._files.values():
            one.stop()

    def unread(self) -> int:
        return sum(one.unread() for _, one in self._files.values())

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        return {
            "kind": "file",
            "path": self._pattern,
            "serial": self._numbers,
            "files": [
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
        }

    async def close(self) -> None:
        for _, one in self._files.values():
            await one.close()

    async def _expand(self, *, first: bool = False) -> None:
        """Follow the files that the glob names and nobody follows."""
        self._looked_at = asyncio.get_running_loop().time()
        self.attached = True
        names = sorted(glob.glob(self._pattern, recursive=True))  # noqa: PTH207  a Path cannot begin anywhere
        for path in names:
            if path in self._files or path in self._refused or self._is_rotated(path, names) or self._is_held(path):
                continue
            await self._follow(path, start_at=self._start_at if first else "beginning")
        if any(not one.attached for _, one in self._files.values()):
            self.attached = False
        if not self._files:
            self._telemetry.source_waiting(self._pattern, "no file has such a name")

    def _is_rotated(self, path: str, names: list[str]) -> bool:
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
        one = file.File(path, self._telemetry, start_at=start_at, saved=saved, timing=self._timing, logs=f"{number}/")
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
