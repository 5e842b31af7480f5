"""Follows a growing file by its path, through rotation, truncation, deletion and downtimes.

The problem: the path is a name that other people's programs move from file to file. The promise: every byte written
to any file that had the name is read once, as long as it can be had: old descriptors are held and drained
(`succession`), copies are found (`known`), a downtime is made up for (`resume`), and what cannot be had is counted.
Polling is the truth, and inotify only makes it look sooner; nobody reading (a full queue) does not stop the discovery
of new files, because the disk is the buffer only as long as we hold it. Compressed generations are read in catch-up
only: at a first start and after a downtime, once. Refused: to follow the sidecar's own output.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.sources import generation, gzipped, known, resume, siblings, succession, tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model import Position
    from sidecar.sources.generation import Generation
    from sidecar.sources.wake import Wake
    from sidecar.telemetry import Telemetry

_TICK_NS = 30_000_000  # two changes within one tick of the clock of files, 10 ms at most, look like one
_HELD_AT_START = 8  # rotated files whose late bytes are followed when everything before is left out


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps of one log."""

    path: str
    serial: int
    modified_ns: int
    generations: tuple[generation.View, ...]

    def done(self, delivered: Mapping[str, Position]) -> bool:
        """Whether nothing of it will be met again."""
        return all(one.done(delivered) for one in self.generations)

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        return {
            "kind": "file",
            "path": self.path,
            "serial": self.serial,
            "modified_ns": self.modified_ns,
            "generations": [one.state(delivered) for one in self.generations if not one.done(delivered)],
        }


class File(tail.LogTail):
    """The source `file`."""

    def __init__(
        self,
        path: str,
        telemetry: Telemetry,
        wake: Wake,
        *,
        start_at: str = "beginning",
        saved: Mapping[str, Any] | None = None,
        timing: succession.Timing | None = None,
        logs: str = "",
    ) -> None:
        """Take `logs`: what the names of its logs begin with, where several files are followed."""
        super().__init__(telemetry, wake, timing if timing is not None else succession.Timing())
        self._succession.prefix = logs
        self._path = path
        self._file = Path(path)
        self._directory = str(self._file.parent)
        self._start_at_end = start_at == "end"
        self._saved = saved
        self._known = known.Known(path, self._succession, telemetry)
        self._missing = False  # the path names nothing
        self._asked_at = 0.0  # what lies beside it then; a file may have had the name for a moment
        self._began = False  # what appears from now on is read from its start
        self._beside_ns = 0  # the last change beside a file that nothing was read of
        self._seen_ns = 0  # rotated files that were written to before are read, or left out
        self._left_out: tuple[int, int, int] | None = None  # device, inode, size of what was there at a first start

    def begin(self, now: float) -> None:
        state = self._state()
        if state is None:
            self._first(now)
        else:
            self._began = True
            self._seen_ns = state.modified_ns
            if resume.restore(state, self._path, self._succession, self._known, self._telemetry, now):
                self._restart(now)
        self._discover(now)
        self._began = True

    @property
    def finished(self) -> bool:
        """Whether the path names nothing, and nothing can come of any file that had the name."""
        return self._missing and self._succession.finished

    def holds(self, status: os.stat_result) -> bool:
        """Whether this is a file that is followed here, under whatever name."""
        return self._succession.held(status) is not None

    def saved(self) -> Saved:
        views = tuple(one.view() for one in self._succession.written())
        # What was not read says nothing of the files beside it.
        read = (one.identity.modified_ns for one in views if one.identity.end)
        modified_ns = max(self._seen_ns, self._known.modified_ns, *read)
        return Saved(self._path, self._succession.serial, modified_ns, views)

    def describe(self) -> dict[str, object]:
        described: dict[str, object] = {
            "source": "file",
            "path": self._path,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": True,
            "why": "the file keeps what is not delivered yet; a log that is truncated instead of renamed can lose "
            "what is written between copy and truncation",
            **self._ground(self._directory),
        }
        with contextlib.suppress(OSError):
            status = self._file.stat()
            described["mode"] = stat.filemode(status.st_mode)
            described["owner"] = f"{status.st_uid}:{status.st_gid}"
        return described

    def _discover(self, now: float) -> None:
        """Look at the path; hold what has its name now."""
        self._watched = self._wake.watch(self._directory)
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self.attached = True  # waiting for a path that does not exist yet
            if not self._missing or now - self._asked_at >= self.timing.discovery:
                self._missing = True
                self._asked_at = now
                self._add(self._unseen(now), now)  # the name moved on twice, and the last file has none yet
            if self._succession.newest is None:
                self._telemetry.source_waiting(self._path, "it does not exist", "missing")
            return
        except OSError as error:
            self._unreadable(error)
            return
        self._missing = False
        held = self._succession.held(status)
        if held is None:
            self._open(now)
            return
        if held is not self._succession.newest:
            self._succession.revive(held, now)
        elif not held.offset:
            self._look_beside(held, now)
        self.attached = True

    def _open(self, now: float) -> None:
        try:
            descriptor = generation.open_log(self._path)
        except OSError as error:
            self._unreadable(error)
            return
        self.attached = True
        if self._file.is_symlink():
            self._wake.watch(str(self._file.resolve().parent))  # where it is written to
        status = os.fstat(descriptor)
        if self._succession.held(status) is not None:  # the name moved between the two looks
            os.close(descriptor)
            return
        newest = self._succession.newest
        if newest is not None and newest.is_replaced_by(descriptor):
            newest.move(descriptor, self._path)
            return
        place = (status.st_dev, status.st_ino)
        offset = 0
        if self._left_out is not None and self._left_out[:2] == place and self._left_out[2] <= status.st_size:
            offset = self._left_out[2]
        self._left_out = None
        new = generation.Generation(descriptor, self._path, self._succession.name(place), offset)
        self._add(self._unseen(now, new), now)

    def _unseen(self, now: float, opened: Generation | None = None) -> list[Generation]:
        """Return what was rotated away before anybody saw it, and `opened`; at a first start nothing else."""
        if not self._began:
            return [opened] if opened is not None else []
        self._succession.verify(now)
        if opened is not None and self._succession.held(os.fstat(opened.descriptor)) is not None:
            opened.close()  # it was renamed meanwhile, and found beside the log
            opened = None
        return self._known.unseen(opened=opened)

    def _before(self, newest: Generation, now: float) -> None:
        """Find what was copied aside and cut off before a byte of it was read: nothing else tells of it."""
        self._succession.verify(now)  # where it shows all the same, it is a truncation like any other
        if self._succession.newest is not newest or not self._is_named(newest):
            return  # beside a file that lost its name lie younger ones too, which are found as such
        found = self._known.unseen(newest)
        if not self._is_named(newest):  # any more: some of them may be younger
            for one in found:
                one.close()
            return
        if found:
            newest.size = 0  # what it had is in them; it may have been cut off while they were looked for
        for one in found:
            self._telemetry.file_truncated(self._path, 0)
            self._succession.add(one, now, newest)

    def _look_beside(self, newest: Generation, now: float) -> None:
        """Do so without waiting for a byte where something has happened: none may follow."""
        try:
            changed_ns = max(os.stat(self._directory).st_mtime_ns, os.fstat(newest.descriptor).st_mtime_ns)  # noqa: PTH116
        except OSError:
            return
        if changed_ns != self._beside_ns:
            age_ns = time.time_ns() - changed_ns
            self._beside_ns = 0 if 0 <= age_ns < _TICK_NS else changed_ns
            self._before(newest, now)

    def _is_named(self, one: Generation) -> bool:
        return one.place == siblings.place(self._path)

    def _add(self, new: list[Generation], now: float) -> None:
        for one in new:
            if self._began and self._succession.newest is not None:
                self._telemetry.file_rotated(self._path)
            self._succession.add(one, now)

    def _unreadable(self, error: OSError) -> None:
        self.attached = False
        self._telemetry.source_waiting(self._path, error)

    def _state(self) -> resume.State | None:
        if self._saved is None:
            return None
        try:
            return resume.parse(self._saved, "file", self._path)
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved position of {self._path}: {error}")
            return None

    def _first(self, now: float) -> None:
        """Begin with what exists: the rotated files too, or nothing of it."""
        rotated = siblings.rotated(self._path, compressed=True)
        if self._start_at_end:
            self._seen_ns = max((one.status.st_mtime_ns for one in rotated), default=0)
            rotated = [one for one in rotated if not one.compressed]
            with contextlib.suppress(OSError):
                status = self._file.stat()
                self._left_out = (status.st_dev, status.st_ino, status.st_size)
            for sibling in rotated[:-_HELD_AT_START]:
                self._known.learn(sibling)
            rotated = rotated[-_HELD_AT_START:]
        for sibling in rotated:
            try:
                descriptor = generation.open_log(sibling.path)
            except OSError as error:
                self._telemetry.source_waiting(sibling.path, error)
                continue
            offset = os.fstat(descriptor).st_size if self._start_at_end else 0
            make = gzipped.Gzipped if sibling.compressed else generation.Generation
            one = make(descriptor, sibling.path, self._succession.name(sibling.place), offset)
            if self._start_at_end:
                one.told = offset
                one.settled = True
            self._succession.add(one, now)

    def _restart(self, now: float) -> None:
        """Begin the log anew that was truncated while nobody looked, after what only its copies have."""
        try:
            descriptor = generation.open_log(self._path)
        except OSError as error:
            self._unreadable(error)
            return
        status = os.fstat(descriptor)
        new = generation.Generation(
            descriptor, self._path, self._succession.name((status.st_dev, status.st_ino)), hollow=True
        )
        for one in self._known.unseen(opened=new):
            self._succession.add(one, now)

    def _rescue(self, truncated: Generation) -> list[Generation]:
        return self._known.rescue(truncated)
