"""Reads the sidecar's standard input: a pipe, a terminal, a socket, or a file redirected to it.

The problem: these are two sources under one name. A pipe has no position to come back to and its writer must not
wait; a file can be read again. The promise: a regular file is `resumable`, read from where the shell opened it and,
after a restart, from the saved position if it is the same file; all else is read as it comes, without loss between
the descriptor and us. The descriptor itself is never closed and its flags never changed: others share it.
Refused: to wait for a regular file to grow; its end is the end. `source.kind: file` follows.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import SourceError
from sidecar.model import Chunk, Position
from sidecar.sources import generation, pipe, polling, resume, succession, tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.sources.generation import Generation
    from sidecar.sources.wake import Wake
    from sidecar.telemetry import Telemetry

_LOG = "stdin"


def create(
    telemetry: Telemetry, *, saved: Mapping[str, Any] | None = None, descriptor: int | None = None
) -> polling.Polling | Stream:
    """Return the source that fits what standard input is. Raises SourceError where nothing can be read from it."""
    if descriptor is None:
        # With standard input closed, descriptor 0 is whatever was opened next, such as the event loop's own.
        if sys.__stdin__ is None:
            return Stream(None)
        descriptor = sys.__stdin__.fileno()
    try:
        status = os.fstat(descriptor)
    except OSError:
        return Stream(None)
    if stat.S_ISDIR(status.st_mode):
        raise SourceError("stdin is a directory: expected a pipe or a file")
    generation.refuse_own_output(status, "stdin")
    if not stat.S_ISREG(status.st_mode):
        return Stream(descriptor)
    return polling.Polling(partial(File, descriptor, saved=saved), telemetry, inotify=False)


class Stream:
    """Standard input that cannot be read twice."""

    resumable = False
    attached = True

    def __init__(self, descriptor: int | None) -> None:
        """Read from `descriptor`; None is a closed input, which has ended."""
        self._pipe = pipe.Pipe(descriptor, _LOG) if descriptor is not None else None
        self._wake = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        if self._pipe is not None:
            self._pipe.enlarge()

    async def read(self, wait: float) -> Chunk | None:
        if self._pipe is None:
            return None
        deadline = asyncio.get_running_loop().time() + wait
        while not self._pipe.ended:
            if self._pipe.readable():
                if not self._stopping:
                    await pipe.gather([self._pipe], self._wake)
                chunk = self._read(self._pipe)
                if chunk is not None:
                    return chunk
            elif self._stopping:
                return None
            elif asyncio.get_running_loop().time() >= deadline:
                return self._pipe.silence()
            else:
                await pipe.wait([self._pipe], deadline, self._wake)
        return None

    def stop(self) -> None:
        self._stopping = True
        if self._pipe is not None:
            self._pipe.freeze()
        self._wake.set()

    def unread(self) -> int:
        return self._pipe.pending() if self._pipe is not None else 0

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:  # noqa: ARG002  the protocol's
        return {}

    def describe(self) -> dict[str, object]:
        return {
            "source": "stdin",
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": False,
            "why": "what was read from a pipe and is not delivered when the sidecar dies cannot be read again",
        }

    async def close(self) -> None:
        """Leave the descriptor open: it was not ours to open."""
        self.stop()

    @staticmethod
    def _read(source: pipe.Pipe) -> Chunk | None:
        try:
            return source.read()
        except OSError as error:
            raise SourceError(f"cannot read stdin: {generation.problem_of(error)}") from error


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps of a file."""

    view: generation.View

    def state(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        generations = [self.view.state(delivered)]
        return {"kind": "stdin", "path": _LOG, "serial": 0, "modified_ns": 0, "generations": generations}


class File(tail.Tail):
    """Standard input that is a regular file."""

    timing = succession.Timing()
    attached = True
    look_at = 0.0  # at once, up to the end

    def __init__(
        self, descriptor: int, telemetry: Telemetry, _: Wake, *, saved: Mapping[str, Any] | None = None
    ) -> None:
        self._descriptor = os.dup(descriptor)
        self._telemetry = telemetry
        self._saved = saved
        self._generation: Generation | None = None

    def begin(self, now: float) -> None:  # noqa: ARG002  it is there
        try:
            start = os.lseek(self._descriptor, 0, os.SEEK_CUR)  # `(head -1; sidecar run) < log`: at the second line
        except OSError:
            start = 0
        self._generation = self._resumed() or generation.Generation(self._descriptor, _LOG, _LOG, start)

    def stir(self, now: float) -> None:
        """Nothing is watched."""

    def look(self, now: float) -> Chunk | None:  # noqa: ARG002  a file never keeps us waiting
        assert self._generation is not None
        start = self._generation.offset
        try:
            data = self._generation.read()
        except OSError as error:
            raise SourceError(f"cannot read stdin: {generation.problem_of(error)}") from error
        if self._generation.shrunk or data is None:
            self._telemetry.file_truncated(_LOG, self._generation.shrunk)
            self._generation.shrunk = 0
        if data:
            return Chunk(data, Position(_LOG, start))
        self.at_end = True
        return None  # an unfinished line is the pump's to keep: the file may be longer at the next start

    def keep(self, now: float) -> None:
        self.discovered_at = now

    def stop(self, now: float) -> None:  # noqa: ARG002  likewise
        assert self._generation is not None
        self._generation.limit = self._generation.offset + self._generation.look()

    def unread(self) -> int:
        return 0 if self._generation is None else self._generation.look()

    def saved(self) -> Saved:
        assert self._generation is not None
        return Saved(self._generation.view())

    def describe(self) -> dict[str, object]:
        status = os.fstat(self._descriptor)
        return {
            "source": "stdin",
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "mode": stat.filemode(status.st_mode),
            "owner": f"{status.st_uid}:{status.st_gid}",
            "lossless": True,
            "why": "it is a regular file, which can be read again",
        }

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _resumed(self) -> Generation | None:
        """Return what goes on where delivery stood, if this is the file that was read then."""
        try:
            state = resume.parse(self._saved or {}, "stdin", _LOG)
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved position of stdin: {error}")
            return None
        for entry in state.entries if state is not None else []:
            same_file = entry.identity.inode == os.fstat(self._descriptor).st_ino
            if same_file and entry.identity.same_content(self._descriptor):
                return entry.hold(self._descriptor, _LOG)
        return None
