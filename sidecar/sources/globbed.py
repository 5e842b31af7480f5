"""Follows every file that a glob names, each as `file` follows one.

The problem: a program that writes several logs, or names them anew at each start, has no one path. The promise: each
file has a follower of its own, with its rotations and its position; a file that appears is read from its start; a file
that is moved to another name that the glob names, or is the rotated file of another, is not read again. All are served
in turn, a chunk each. Who follows a file that is deleted and read to its end is let go, so that a program which names
its log anew every minute costs what its files on disk cost.
Refused: an order between files, which nobody wrote down; and the sidecar's own output, which is left out aloud.
"""

from __future__ import annotations

import glob
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.errors import SourceError
from sidecar.sources import file, filesystem, generation, siblings, succession, tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model import Chunk, Position
    from sidecar.sources.wake import Wake
    from sidecar.telemetry import Telemetry

_REMEMBERED = 64  # files that are gone and whose last lines may not be delivered yet


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps of all files. Each of them: its path, its number, what is kept of it."""

    path: str
    serial: int
    gone: tuple[tuple[str, int, file.Saved], ...]
    files: tuple[tuple[str, int, file.Saved], ...]

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        gone = [one for one in self.gone if not one[2].done(delivered)]
        return {
            "kind": "file",
            "path": self.path,
            "serial": self.serial,
            "files": [
                {"file": path, "number": number, "state": saved.state(delivered)}
                for path, number, saved in [*gone, *self.files]  # gone ones first: another may have the same name
            ],
        }


class Globbed(tail.Tail):
    """The source `file` where its path is a glob."""

    def __init__(
        self,
        pattern: str,
        telemetry: Telemetry,
        wake: Wake,
        *,
        start_at: str = "beginning",
        saved: Mapping[str, Any] | None = None,
        timing: succession.Timing | None = None,
    ) -> None:
        self.timing = timing if timing is not None else succession.Timing()
        self._pattern = pattern
        self._telemetry = telemetry
        self._wake = wake
        self._start_at = start_at
        self._saved = saved
        self._files: dict[str, tuple[int, file.File]] = {}  # path → number and follower
        self._gone: deque[tuple[str, int, file.Saved]] = deque(maxlen=_REMEMBERED)
        self._refused: set[str] = set()
        self._rotated: set[str] = set()  # names that rotation gave
        self._numbers = 0  # how many followers there were; the logs of each are named by its own
        self._served = 0
        self._stirred = False  # since the last look
        self._watched = False  # where the glob begins
        self._stopping = False

    @property
    def look_at(self) -> float:
        return min([self._expand_at, *(one.look_at for _, one in self._files.values())])

    @property
    def _expand_at(self) -> float:
        if self._stirred:
            return 0.0
        rely = self._wake.reliable and self._watched
        return self.discovered_at + (self.timing.watched if rely else self.timing.idle_poll)

    def begin(self, now: float) -> None:
        """Follow what the glob names, and what it named in an earlier life."""
        state = self._state()
        for path, number, saved in state or ():
            earlier = self._files.pop(path, None)  # whose file was gone before another had its name
            if earlier is not None:
                earlier[1].close()
            self._follow(path, now, number=number, saved=saved)
        self._expand(now, first=state is None)
        self._start_at = "beginning"  # of what appears from now on

    def stir(self, now: float) -> None:
        self._stirred = True
        for _, one in self._files.values():
            one.stir(now)

    def look(self, now: float) -> Chunk | None:
        if not self._stopping and now >= self._expand_at:
            self._expand(now)
        files = [one for _, one in self._files.values()]
        self.surprised = False
        for place in range(len(files)):
            index = (self._served + place) % len(files)
            if now < files[index].look_at and not self._stopping:
                continue
            chunk = files[index].look(now)
            self.surprised = self.surprised or files[index].surprised
            if chunk is not None:
                self._served = index + 1
                return chunk
        return None

    def keep(self, now: float) -> None:
        self._expand(now)
        for _, one in self._files.values():
            one.keep(now)

    def stop(self, now: float) -> None:
        self._stopping = True
        for _, one in self._files.values():
            one.stop(now)

    def unread(self) -> int:
        return sum(one.unread() for _, one in self._files.values())

    def saved(self) -> Saved:
        files = tuple((path, number, one.saved()) for path, (number, one) in self._files.items())
        return Saved(self._pattern, self._numbers, tuple(self._gone), files)

    def settle(self, delivered: Mapping[str, Position]) -> None:
        self._gone = deque((one for one in self._gone if not one[2].done(delivered)), maxlen=_REMEMBERED)

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

    def close(self) -> None:
        for _, one in self._files.values():
            one.close()

    def _root(self) -> str:
        """Return the directory that the glob begins in."""
        fixed = Path(self._pattern)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return str(fixed)

    def _expand(self, now: float, *, first: bool = False) -> None:
        """Follow the files that the glob names and nobody follows; let go of whom nothing is left of."""
        self.discovered_at = now
        self._stirred = False
        self.attached = True
        self._watched = self._wake.watch(self._root())
        names = sorted(glob.glob(self._pattern, recursive=True))  # noqa: PTH207  a Path cannot begin anywhere
        there = set(names)
        self._refused &= there
        self._rotated &= there
        self._let_go(there)
        for path in names:
            if path in self._files or path in self._refused or path in self._rotated:
                continue
            if self._is_rotated(path, there):
                self._rotated.add(path)
            elif not self._is_held(path):
                self._follow(path, now, start_at=self._start_at if first else "beginning")
        if any(not one.attached for _, one in self._files.values()):
            self.attached = False
        if not self._files:
            self._telemetry.source_waiting(self._pattern, "no file has such a name", "missing")

    def _let_go(self, names: set[str]) -> None:
        """Close whose file is gone and read, unless rotation left others of it, which would then look new."""
        for path, (number, one) in list(self._files.items()):
            if path in names or not one.finished or self._has_rotated(path, names):
                continue
            del self._files[path]
            one.close()
            self._gone.append((path, number, one.saved()))

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

    def _follow(
        self,
        path: str,
        now: float,
        *,
        start_at: str = "beginning",
        number: int = 0,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        if not number:
            self._numbers = number = self._numbers + 1
        one = file.File(
            path,
            self._telemetry,
            self._wake,
            start_at=start_at,
            saved=saved,
            timing=self.timing,
            logs=f"{number}/",
        )
        try:
            one.begin(now)
        except SourceError as error:
            one.close()
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
