"""Follows one container of a pod through the files that the runtime writes, over rotations, restarts and downtimes.

The problem: every start of a container has a file of its own, the kubelet renames, compresses and deletes what is full,
and the rest of a dead container's log goes within a minute. The promise: every file of the container is opened as soon
as it appears and held until it is read and quiet, so nothing is lost that was still on disk when it was seen; starts
are read in their order, and the generations of one start in the order of their first lines; what was compressed before
it was read (a downtime) is read from the `.gz`, once. A line that the runtime began in one generation and finished in
the next stays one: the end of a generation is told before the next begins, and bytes that come later still are a log
of their own. Polling is the truth; inotify only makes it look sooner.
Refused: the sidecar's own container, and to guess.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.sources import generation, gzipped, podlog, podresume, succession, tail
from sidecar.sources.podresume import Past

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model import Position
    from sidecar.sources.generation import Generation
    from sidecar.sources.podlog import Found
    from sidecar.sources.wake import Wake
    from sidecar.telemetry import Telemetry


TIMING = succession.Timing(discovery=0.5, end_when_settled=True)

_LIST_SECONDS = 1.0  # between two listings of a directory that has not changed
_TICK_NS = 30_000_000  # two changes within one tick of the clock of files, 10 ms at most, look like one
_HELD_AT_START = 8  # rotated files whose late bytes are followed when everything before is left out
_DONE = 32  # files that are read and gone, and may come back compressed: more than any kubelet keeps


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps of a container's log."""

    path: str
    serial: int
    generations: tuple[generation.View, ...]
    done: tuple[Past, ...]

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        done = [*self.done, *(Past.of(one) for one in self.generations if one.done(delivered))]
        return {
            "kind": "cri",
            "path": self.path,
            "serial": self.serial,
            "modified_ns": 0,
            "generations": [
                {**one.state(delivered), "instance": one.instance}
                for one in self.generations
                if not one.done(delivered)
            ],
            "done": [one.state() for one in done[-_DONE:]],
        }


class Cri(tail.LogTail):
    """The source `cri`."""

    def __init__(
        self,
        path: str,
        container: str,
        telemetry: Telemetry,
        wake: Wake,
        *,
        start_at: str = "beginning",
        saved: Mapping[str, Any] | None = None,
        timing: succession.Timing = TIMING,
    ) -> None:
        super().__init__(telemetry, wake, timing)
        self._directory = Path(path) / container
        self._container = container
        self._start_at_end = start_at == "end"
        self._saved = saved
        self._began = False  # the directory was seen, or seen to be missing: what appears now is read from its start
        self._left_out: dict[tuple[int, int], int] = {}  # place → size of what could not be opened at a first start
        self._calm_ns = 0  # the directory's last change, once a listing has seen all of it
        self._listed_all = False  # so it has, as of the last look
        self._listed_at = 0.0
        self._passed: set[tuple[int, int, int, int]] = set()  # files that are known and unchanged
        self._done: deque[Past] = deque(maxlen=_DONE)

    def begin(self, now: float) -> None:
        state = self._state()
        if state is not None:
            self._succession.serial = state.serial
            self._resume(state, now)
            self._done.extend(state.done)
            self._began = True
        self._discover(now)

    def saved(self) -> Saved:
        views = tuple(one.view(recognized=True) for one in self._succession.written())
        return Saved(str(self._directory), self._succession.serial, views, tuple(self._done))

    def settle(self, delivered: Mapping[str, Position]) -> None:
        for one in list(self._succession.past):
            view = one.view(recognized=True)
            if view.done(delivered):
                self._succession.past.remove(one)
                self._done.append(Past.of(view))

    def describe(self) -> dict[str, object]:
        described: dict[str, object] = {
            "source": "cri",
            "path": str(self._directory),
            "container": self._container,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": True,
            "why": "the node keeps what is not delivered yet; only a downtime, or a sink that blocks, longer than the "
            "kubelet keeps rotated files (containerLogMaxFiles) loses what is deleted meanwhile, and that is counted",
            **self._ground(str(self._directory)),
        }
        newest = self._succession.newest
        with contextlib.suppress(OSError):
            if newest is None or newest.descriptor < 0:
                status = self._directory.stat()
            else:
                status = os.fstat(newest.descriptor)
                described["format"] = podlog.runtime_format(os.pread(newest.descriptor, generation.CHUNK_BYTES, 0))
            described["mode"] = stat.filemode(status.st_mode)
            described["owner"] = f"{status.st_uid}:{status.st_gid}"
        return described

    def _discover(self, now: float) -> None:
        """Hold every file of the container that is not known."""
        self._watched = self._wake.watch(str(self._directory))
        if not self._watched:
            self._wake.watch(str(self._directory.parent))  # where it will appear
        try:
            changed_ns = os.stat(self._directory).st_mtime_ns  # noqa: PTH116  ten times a second
            if changed_ns == self._calm_ns and now - self._listed_at < _LIST_SECONDS:
                return
            self._calm_ns = 0
            self._listed_all = False
            self._listed_at = now
            listed_ns = time.time_ns()
            found = podlog.listed(self._directory)
            settled = changed_ns + _TICK_NS < listed_ns and changed_ns == os.stat(self._directory).st_mtime_ns  # noqa: PTH116
        except FileNotFoundError:
            self.attached = True  # the kubelet makes it when it first starts the container
            self._began = True
            self._telemetry.source_waiting(str(self._directory), "it does not exist", "missing")
            return
        except OSError as error:
            self._unreadable(str(self._directory), error)
            return
        self.attached = True
        if not self._began and self._start_at_end:
            self._leave_out(found, now)
        strange = [one for one in found if self._is_strange(one)]
        if strange:
            self._succession.verify(now)  # the copy of a file that was truncated since the last look is none
        fresh = [new for new in map(self._unknown, strange) if new is not None]
        if fresh:
            self._insert(fresh, found, now)
        self._revive(found, now)
        self._began = True
        self._listed_all = self.attached and settled
        linked = any(one.linked for one in found)  # what happens behind a link does not show in the directory
        if self._listed_all and not linked:
            self._calm_ns = changed_ns

    def _knows_all(self) -> bool:
        return self._listed_all

    def _is_strange(self, one: Found) -> bool:
        """Whether a file may have to be read that is not held."""
        if one.status is None:
            if self._succession.newest is None:
                self.attached = False
                self._telemetry.source_waiting(
                    one.path, "it is a link to a file that is not there or not mounted", "missing"
                )
            return False
        return not one.unfinished and self._succession.held(one.status) is None and one.seen_as not in self._passed

    def _unknown(self, one: Found) -> Generation | None:
        """Return the file as a generation to be read, None where it is known or cannot be opened yet."""
        try:
            descriptor = generation.open_log(one.path)
        except FileNotFoundError:
            return None  # renamed since it was listed: the next look finds it
        except OSError as error:
            self._unreadable(one.path, error)
            return None
        if one.linked:
            self._wake.watch(str(Path(one.path).resolve().parent))
        status = os.fstat(descriptor)
        if self._succession.held(status) is not None:  # the name moved between the two looks
            os.close(descriptor)
            return None
        offset = self._read_before(one, descriptor)
        if offset is None:
            os.close(descriptor)
            self._passed.add(one.seen_as)
            return None
        if one.compressed:
            self._passed.add(one.seen_as)  # it is read once, and closed at its end
        left_out = self._left_out.pop((status.st_dev, status.st_ino), 0)
        if not offset and left_out <= status.st_size:
            offset = left_out
        return self._generation(descriptor, one, offset)

    def _read_before(self, one: Found, descriptor: int) -> int | None:
        """Return how much of the file was read before it was closed, None where that is all."""
        past = [*self._pasts(), *self._done]
        if one.compressed:
            head = gzipped.head(descriptor, generation.PROOF_BYTES)
            size = gzipped.content_bytes(descriptor)
            known = any(
                each.compressed_to(one.instance, head, size) or each.given_up(os.fstat(descriptor)) for each in past
            )
            return None if known else 0
        assert one.status is not None
        place = (one.status.st_dev, one.status.st_ino)
        for each in reversed(past):
            if each.identity.end and each.identity.place == place and each.identity.same_content(descriptor):
                return None if each.identity.end >= os.fstat(descriptor).st_size else each.identity.end
        if not one.active and (
            any(each.copied_to(one.instance, descriptor) for each in past) or self._is_begun_by(one, descriptor)
        ):
            return None  # a copy beside its original, or as much of one as there is
        newest = self._succession.newest
        if one.active and newest is not None and newest.instance == one.instance and newest.descriptor >= 0:
            size = os.fstat(newest.descriptor).st_size
            if newest.is_replaced_by(descriptor):
                return size  # an editor's work; the old file is held, for the runtime writes on in it
        return 0

    def _is_begun_by(self, one: Found, descriptor: int) -> bool:
        """Whether a file that is held says all that this one says, and perhaps more."""
        size = os.fstat(descriptor).st_size
        return any(
            generation.same_beginning(each.descriptor, descriptor, size)
            for each in self._succession.generations
            if each.instance == one.instance and each.descriptor >= 0 and not each.archived
        )

    def _pasts(self) -> list[Past]:
        """Return who all generations of this life are, closed ones first."""
        return [
            Past(each.recognized, each.instance, each.whole())
            for each in [*self._succession.past, *self._succession.generations]
        ]

    def _generation(self, descriptor: int, one: Found, offset: int) -> Generation:
        status = os.fstat(descriptor)
        log = self._succession.name((status.st_dev, status.st_ino))
        make = gzipped.Gzipped if one.compressed else generation.Generation
        new = make(descriptor, one.path, log, offset)
        new.instance = one.instance
        return new

    def _insert(self, fresh: list[Generation], found: list[Found], now: float) -> None:
        """Put new generations where they belong: by start, the active file last, by the time of the first line."""
        active = {(one.status.st_dev, one.status.st_ino) for one in found if one.active and one.status is not None}

        def rank(one: Generation) -> tuple[int, bool, int]:
            try:
                stamp = podlog.stamp_of(one.descriptor, compressed=isinstance(one, gzipped.Gzipped))
            except OSError:
                stamp = one.modified_ns
            return one.instance, one.place in active, stamp

        held = [(rank(one), one) for one in self._succession.generations if one.descriptor >= 0]
        for new in sorted(fresh, key=rank):
            own = rank(new)
            # Behind the last that is older: whatever stands there of late and strange ones stays where it is.
            behind = max((index for index, (other, _) in enumerate(held) if other <= own), default=-1)
            before = held[behind + 1][1] if behind + 1 < len(held) else None
            if self._began and any(other.instance == new.instance for _, other in held):
                self._telemetry.file_rotated(str(self._directory / f"{new.instance}.log"))
            held.insert(behind + 1, (own, new))
            self._succession.add(new, now, before)

    def _revive(self, found: list[Found], now: float) -> None:
        """Make a file that got its name back the newest: so the kubelet does where the runtime did not reopen."""
        newest = self._succession.newest
        for one in found:
            if newest is None or not one.active or one.status is None or one.instance != newest.instance:
                continue
            held = self._succession.held(one.status)
            if held is not None and held is not newest:
                self._succession.revive(held, now)

    def _leave_out(self, found: list[Found], now: float) -> None:
        """Begin behind everything that exists. What was rotated of late is held: its writer may not be done."""
        there = [one for one in found if one.status is not None and not one.unfinished]
        held: list[Generation] = []
        for one in there:
            assert one.status is not None
            try:
                descriptor = generation.open_log(one.path)
            except OSError:
                self._left_out[one.status.st_dev, one.status.st_ino] = one.status.st_size
                continue
            if one.compressed:
                self._passed.add(one.seen_as)
                self._done.append(Past.unread(descriptor, one.instance))
                os.close(descriptor)
                continue
            new = self._generation(descriptor, one, os.fstat(descriptor).st_size)
            if not one.active:
                new.told = new.offset
                new.settled = True
            held.append(new)
        held.sort(key=lambda one: (one.instance, not one.ended, podlog.stamp_of(one.descriptor, compressed=False)))
        for old in held[: -_HELD_AT_START - 1]:
            self._done.append(Past(old.identity, old.instance, old.offset))
            old.close()
        for young in held[-_HELD_AT_START - 1 :]:
            self._succession.add(young, now)

    def _resume(self, state: podresume.State, now: float) -> None:
        def look() -> list[Found]:
            try:
                return podlog.listed(self._directory)
            except OSError:
                return []

        restored, found = podresume.restore(state, look, self._telemetry)
        for one in restored:
            self._succession.add(one, now)
        held = {one.path for one in self._succession.generations}
        self._passed.update(one.seen_as for one in found if one.compressed and one.path in held)

    def _state(self) -> podresume.State | None:
        if self._saved is None:
            return None
        try:
            return podresume.parse(self._saved, str(self._directory))
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved position of {self._directory}: {error}")
            return None

    def _rescue(self, truncated: Generation) -> list[Generation]:
        """Go on in a copy. No runtime makes one, but people do."""
        with contextlib.suppress(OSError):
            for one in podlog.listed(self._directory):
                if one.status is None or one.compressed or one.unfinished or self._succession.held(one.status):
                    continue
                if not truncated.identity.end or one.status.st_size < truncated.identity.end:
                    continue
                descriptor = generation.open_log(one.path)
                if truncated.identity.same_content(descriptor):
                    truncated.adopt(descriptor, one.path)
                    break
                os.close(descriptor)
        return []

    def _unreadable(self, path: str, error: OSError) -> None:
        self.attached = False
        self._telemetry.source_waiting(path, error)
