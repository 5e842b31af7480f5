"""The files that rotation leaves beside a log: which they are, and in which order they were written.

The problem: nobody says how a log is rotated. `app.log.1`, `app.log-20260704`, `app.log.20260704-120000.gz` and
lumberjack's `app-2026-07-04T12-00-00.000.log` are all in use, and a name beside the log may be anything else.
The promise: what is returned are regular files whose names are the log's with a number or a date, oldest first.
Refused: half-made files (`.tmp`), compressions that we cannot read, compressed files to whoever does not ask for them,
and to say by name alone that a file is a known one.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

_GZIP = ".gz"
_UNFINISHED = (".zst", ".bz2", ".xz", ".lz4", ".zip", ".tmp", ".swp", ".part")
_COUNTED = re.compile(r"\.(\d{1,4})(?:\.gz)?$")


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file found beside a log."""

    path: str
    status: os.stat_result

    @property
    def place(self) -> tuple[int, int]:
        return self.status.st_dev, self.status.st_ino

    @property
    def compressed(self) -> bool:
        return self.path.endswith(_GZIP)


def rotated(path: str, *, compressed: bool = False) -> list[Sibling]:
    """Return the rotated files beside `path`, oldest first. A directory that cannot be listed has none.

    Compressed ones are among them where that is asked for and where the file itself is not there any more.
    """
    log = Path(path)
    pattern = _names(log)
    names = [one for one in _listed(log.parent) if pattern.fullmatch(one.name) and not one.name.endswith(_UNFINISHED)]
    there = {one.name for one in names}
    names = [
        one
        for one in names
        if not one.name.endswith(_GZIP) or (compressed and one.name.removesuffix(_GZIP) not in there)
    ]
    return sorted(_regular(names), key=_age)


def place(path: str) -> tuple[int, int] | None:
    """Return device and inode of what has the name; None where nothing has."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_rotated(path: str, log: str) -> bool:
    """Whether `path` has a name that rotation gives to `log`."""
    one, other = Path(path), Path(log)
    return one.parent == other.parent and _names(other).fullmatch(one.name) is not None


def with_inode(directories: Iterable[Path], inode: int) -> list[Sibling]:
    """Return the regular files that have this inode number, under whatever name."""
    # Not by the directory's own inode numbers: overlay file systems list others than `stat` tells.
    listed = [one for directory in dict.fromkeys(directories) for one in _listed(directory)]
    return [sibling for sibling in _regular(listed) if sibling.status.st_ino == inode]


def _names(log: Path) -> re.Pattern[str]:
    after = rf"{re.escape(log.name)}[.\-_](?:\d[\w.:+\-]*|old)"
    before = rf"{re.escape(log.stem)}-\d{{4}}-[\w.:+\-]*{re.escape(log.suffix)}"  # lumberjack
    return re.compile(f"{after}|{before}")


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _regular(paths: Iterable[Path]) -> list[Sibling]:
    found = []
    for path in paths:
        try:
            status = path.lstat()  # a link beside the log would name a file twice
        except OSError:
            continue  # renamed since it was listed
        if stat.S_ISREG(status.st_mode):
            found.append(Sibling(str(path), status))
    return found


def _age(sibling: Sibling) -> tuple[int, int, str]:
    """Order by the last write, which no rotation changes; names decide between files of one clock tick.

    Where names count, the higher number is the older file; where they tell a date, the lower one is.
    """
    counted = _COUNTED.search(sibling.path)
    return sibling.status.st_mtime_ns, -int(counted[1]) if counted else 0, sibling.path
