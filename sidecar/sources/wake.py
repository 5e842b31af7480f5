"""What ends the waiting of a source that polls: the kernel says that something stirs in a directory it looks at.

The problem: a look every 200 ms finds a line 100 ms late on average, and more looks cost every pod of a node.
The promise: polling stays the truth. A word from the kernel (inotify) only brings the next look forward; where there
is none, because the limits of the node are reached, the queue ran over, the directory is on a remote file system or
the kernel knows no inotify, nothing changes but the time a line takes. What fails is counted, told once, and tried
again; it never ends anything. A directory that stirs all the time brings a look forward every `rest` seconds at most,
so that a busy log costs what it cost before.
Refused: to believe what the kernel says has happened, and to watch files: a file is known by more than its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.telemetry import Telemetry

_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW, _IGNORED, _ONLYDIR = 0x400, 0x800, 0x4000, 0x8000, 0x1000000
_MASK = (
    _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
)  # not what reading does, or every look would bring the next one forward

_EVENT = struct.Struct("iIII")  # watch, what happened, cookie, bytes of the name that follows
_READ_BYTES = 64 * 1024
_READS = 16  # of a queue that is refilled while it is read
_RETRY_SECONDS = 30.0  # after a limit; who holds what we could not have gives it back some day

_REASONS = {
    errno.ENOSPC: "watch_limit",
    errno.EMFILE: "instance_limit",
    errno.ENFILE: "instance_limit",
    errno.EACCES: "denied",
    errno.ENOSYS: "unavailable",
    errno.EPERM: "unavailable",
    errno.EINVAL: "unavailable",
}


class Kernel(Protocol):
    """The system calls. Each raises OSError."""

    def init(self) -> int:
        """Return the descriptor of a new queue."""

    def add_watch(self, descriptor: int, directory: str, mask: int) -> int:
        """Return the number of a watch: that of a directory which is watched already is the one it has."""

    def remove_watch(self, descriptor: int, watch: int) -> None:
        """End a watch."""


class Linux:
    """The calls of libc, for which Python has no names."""

    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415  0.3 MiB that only a source of files pays

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def init(self) -> int:
        return self._checked("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)

    def add_watch(self, descriptor: int, directory: str, mask: int) -> int:
        return self._checked("inotify_add_watch", descriptor, os.fsencode(directory), mask)

    def remove_watch(self, descriptor: int, watch: int) -> None:
        self._checked("inotify_rm_watch", descriptor, watch)

    def _checked(self, name: str, *arguments: int | bytes) -> int:
        try:
            call = getattr(self._libc, name)
        except AttributeError as error:
            raise OSError(errno.ENOSYS, f"the C library has no {name}") from error
        result = int(call(*arguments))
        if result < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


class Wake:
    """The watches of one source, and whom to tell when something stirs."""

    def __init__(
        self,
        telemetry: Telemetry,
        stirred: Callable[[], None],
        *,
        enabled: bool = True,
        rest: float = 0.05,
        kernel: Callable[[], Kernel] = Linux,
    ) -> None:
        """Take `rest`: the least seconds between two words."""
        self._telemetry = telemetry
        self._stirred = stirred
        self._enabled = enabled
        self._rest = rest
        self._make_kernel = kernel
        self._kernel: Kernel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._watches: dict[str, int] = {}  # directory → its number
        self._again_at = 0.0  # not before: a limit is not gone at the next look
        self._timer: asyncio.TimerHandle | None = None

    @property
    def watching(self) -> bool:
        """Whether the kernel tells of anything."""
        return bool(self._watches)

    def start(self) -> None:
        """Begin to listen, in the running loop."""
        if self._enabled and self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._open()

    def watch(self, directory: str) -> bool:
        """Hear of this directory too; say whether that is so. To be asked at every look: a directory comes and goes."""
        if directory in self._watches:
            return True
        if self._loop is None or self._loop.time() < self._again_at:
            return False
        if self._descriptor < 0 and not self._open():
            return False
        assert self._kernel is not None
        try:
            number = self._kernel.add_watch(self._descriptor, directory, _MASK)
        except (FileNotFoundError, NotADirectoryError):
            return False  # it is waited for, with the path itself
        except OSError as error:
            self._failed(error, f"{directory} is not watched")
            return False
        self._watches[directory] = number
        return True

    def close(self) -> None:
        """Release everything. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._descriptor >= 0:
            assert self._loop is not None
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._watches = {}
        self._loop = None

    def _open(self) -> bool:
        try:
            self._kernel = self._kernel or self._make_kernel()
            self._descriptor = self._kernel.init()
        except OSError as error:
            self._failed(error, "nothing is watched")
            return False
        self._listen()
        return True

    def _listen(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._loop.add_reader(self._descriptor, self._hear)

    def _hear(self) -> None:
        """Empty the queue, tell of it, and be deaf for a while: what comes meanwhile waits in the queue."""
        assert self._loop is not None
        self._loop.remove_reader(self._descriptor)
        self._timer = self._loop.call_later(self._rest, self._listen)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS):
                self._take(os.read(self._descriptor, _READ_BYTES))
        self._stirred()

    def _take(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            number, mask, _cookie, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size + length
            if mask & _OVERFLOW:
                self._telemetry.inotify_failed("overflow", "more happened than its queue holds")
            elif mask & (_IGNORED | _MOVE_SELF):
                self._forget(number, ended=bool(mask & _IGNORED))

    def _forget(self, number: int, *, ended: bool) -> None:
        """Give up the watch of a directory that is gone, or has another name: what has its name now is another."""
        self._watches = {directory: one for directory, one in self._watches.items() if one != number}
        if not ended:
            assert self._kernel is not None
            with contextlib.suppress(OSError):  # it went meanwhile
                self._kernel.remove_watch(self._descriptor, number)

    def _failed(self, error: OSError, consequence: str) -> None:
        assert self._loop is not None
        self._again_at = self._loop.time() + _RETRY_SECONDS
        reason = _REASONS.get(error.errno or 0, "other")
        self._telemetry.inotify_failed(reason, f"{error.strerror or error}: {consequence}")
