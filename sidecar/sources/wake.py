"""What ends the waiting of a source that polls: the kernel says that something stirs in a directory it looks at.

The problem: a look every 200 ms finds a line 100 ms late on average, and more looks cost every pod of a node.
The promise: polling stays the truth. A word from the kernel (inotify) only brings the next look forward, and where
words come, who rests may look less often. Where there are none, because the limits of the node are reached, the queue
ran over, or the kernel knows no inotify, nothing changes but the time a line takes. A kernel that was silent while
something grew (another machine wrote to a remote file system) is not relied on again. What fails is counted, told
once, and tried again; it never ends anything.
Refused: to believe what the kernel says has happened, and to watch files: a file is known by more than its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
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
        try:
            import ctypes  # noqa: PLC0415  0.3 MiB that only a source of files pays
        except ImportError as error:
            raise OSError(errno.ENOSYS, "this Python has no ctypes") from error

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
    """The watches of one source. Belongs to the thread that looks."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        enabled: bool = True,
        kernel: Callable[[], Kernel] = Linux,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.descriptor = -1  # is readable when something stirs
        self._telemetry = telemetry
        self._enabled = enabled
        self._make_kernel = kernel
        self._clock = clock
        self._kernel: Kernel | None = None
        self._watches: dict[str, int] = {}  # directory → its number
        self._again_at = float("-inf")  # not before: a limit is not gone at the next look
        self._owing = False  # a word: something had grown without one, which may be on its way
        self._silent = False  # it never came

    @property
    def watching(self) -> bool:
        """Whether the kernel tells of anything."""
        return bool(self._watches)

    @property
    def reliable(self) -> bool:
        """Whether nothing has grown so far of which the kernel did not tell."""
        return self.watching and not self._silent

    def watch(self, directory: str) -> bool:
        """Hear of this directory too; say whether that is so. To be asked at every look: a directory comes and goes."""
        if directory in self._watches:
            return True
        if not self._enabled or self._clock() < self._again_at:
            return False
        if self.descriptor < 0 and not self._open():
            return False
        assert self._kernel is not None
        try:
            number = self._kernel.add_watch(self.descriptor, directory, _MASK)
        except (FileNotFoundError, NotADirectoryError):
            return False  # it is waited for, with the path itself
        except OSError as error:
            self._failed(error, f"{directory} is not watched")
            return False
        self._watches[directory] = number
        return True

    def heard(self) -> bool:
        """Empty the queue; say whether there was anything in it."""
        heard = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS if self.descriptor >= 0 else 0):
                self._take(os.read(self.descriptor, _READ_BYTES))
                heard = True
        if heard:
            self._owing = False
        return heard

    def account(self, *, surprised: bool) -> None:
        """Note after each look whether it found that something had grown of which the kernel had not told.

        A word follows its write so closely that it is there at the next look; if it is not, none will come.
        """
        if self._owing and not self._silent:
            self._silent = True
            self._telemetry.inotify_failed("silent", "it does not tell of everything that is written")
        self._owing = surprised

    def close(self) -> None:
        """Release everything. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._watches = {}
        self._enabled = False

    def _open(self) -> bool:
        try:
            self._kernel = self._kernel or self._make_kernel()
            self.descriptor = self._kernel.init()
        except OSError as error:
            self._failed(error, "nothing is watched")
            return False
        return True

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
                self._kernel.remove_watch(self.descriptor, number)

    def _failed(self, error: OSError, consequence: str) -> None:
        self._again_at = self._clock() + _RETRY_SECONDS
        reason = _REASONS.get(error.errno or 0, "other")
        self._telemetry.inotify_failed(reason, f"{error.strerror or error}: {consequence}")
