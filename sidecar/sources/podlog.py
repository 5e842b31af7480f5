"""The directory of one container's log, as kubelet and runtime leave it: which files are there, in which order.

The names: `<N>.log` is written to at the N-th start, `<N>.log.<time>` was rotated (containerd, or `.1` by conmon),
`<N>.log.<time>.gz` likewise and compressed, `.tmp` is on the way to either. With docker `<N>.log` is a link to a file
elsewhere, whose rotated files lie beside it. The promise: what belongs to the log is found with the start it belongs
to, `X` and never also `X.gz`, and put in order by what the first line says of the time; names are written in local
time and go back at the end of summer. Refused: to open anything by a name that is none of these.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar import times
from sidecar.sources import gzipped, siblings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME = re.compile(r"(\d{1,9})\.log(\.\d[\w.:+\-]*)?")
_UNFINISHED = ".tmp"
_LINE_BYTES = 32 * 1024  # docker cuts content at 16 KiB and writes the time behind it
_DOCKER_TIME = re.compile(rb'"time":"([0-9T:.Z+\-]{20,35})"')
_NEVER = 1 << 63  # behind every time


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a container's log. `status` is None where a link leads nowhere."""

    path: str
    status: os.stat_result | None
    instance: int
    active: bool  # has the name that the runtime writes to
    linked: bool = False  # lies elsewhere

    @property
    def compressed(self) -> bool:
        return self.path.endswith(gzipped.SUFFIX)

    @property
    def unfinished(self) -> bool:
        return self.path.endswith(_UNFINISHED)

    @property
    def seen_as(self) -> tuple[int, int, int, int]:
        """What changes when the file does."""
        assert self.status is not None
        return self.status.st_dev, self.status.st_ino, self.status.st_size, self.status.st_mtime_ns


def listed(directory: Path) -> list[Found]:
    """Return the files of the log, in no order that means anything. Raises OSError where the directory cannot be read.

    Unfinished ones are among them: a known file may have such a name for a moment.
    """
    found: list[Found] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            instance, active = int(match[1]), match[2] is None
            one = _found(entry.path, instance, active=active, linked=entry.is_symlink())
            if one is None:
                continue
            found.append(one)
            if active and one.linked and one.status is not None:
                found += _beside(entry.path, instance)
    return _without_twins(found)


def first_stamp(head: bytes) -> int:
    """Return the time of a log's first line, in nanoseconds; behind every time where it has none yet."""
    line = head.split(b"\n", 1)[0]
    if line.startswith(b"{"):
        match = _DOCKER_TIME.search(line)
        written = match[1] if match else b""
    else:
        written = line[:40].split(b" ", 1)[0]
    stamp = times.rfc3339(written.decode("latin-1"))
    return _NEVER if stamp is None else stamp.ns


def stamp_of(descriptor: int, *, compressed: bool) -> int:
    """Return the time of a file's first line. Raises OSError."""
    if compressed:
        return first_stamp(gzipped.head(descriptor, _LINE_BYTES))
    return first_stamp(os.pread(descriptor, _LINE_BYTES, 0))


def runtime_format(head: bytes) -> str:
    """Name the runtime's way to write a line, for people."""
    if first_stamp(head) == _NEVER:
        return "unknown"
    return "docker json-file" if head.startswith(b"{") else "CRI"


def _found(path: str, instance: int, *, active: bool, linked: bool) -> Found | None:
    try:
        status = os.stat(path)  # noqa: PTH116  ten times a second for every file
    except FileNotFoundError:
        # gone since it was listed, or a link that leads nowhere (here, or until the runtime has made its new file)
        return Found(path, None, instance, active, linked) if linked else None
    except OSError:
        return Found(path, None, instance, active, linked)
    return Found(path, status, instance, active, linked) if stat.S_ISREG(status.st_mode) else None


def _beside(link: str, instance: int) -> list[Found]:
    """Return the rotated files beside what a link leads to."""
    target = os.path.realpath(link)
    return [Found(one.path, one.status, instance, active=False) for one in siblings.rotated(target, compressed=True)]


def _without_twins(found: Iterable[Found]) -> list[Found]:
    """Leave out `X.gz` where `X` still is, and a file that has two names."""
    by_path = {one.path: one for one in found}
    return [
        one for one in by_path.values() if not (one.compressed and one.path.removesuffix(gzipped.SUFFIX) in by_path)
    ]
