"""One sidecar for one state directory, for as long as it lives.

The problem: two that share a directory overwrite each other's positions and spool, and neither notices until a restart
repeats or skips lines. The promise: the second one says so and ends; the first one's death, `kill -9` included,
frees the directory, because the kernel holds the lock and not a file that somebody must remove.
Refused: to wait for the other one, and to ask whether the process in the file still lives: its number may be of
another container. The file `lock` stays when nobody has it; it says who had it last, for people.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from sidecar.errors import StateError

_NAME = "lock"
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Lock:
    """The right to a directory."""

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / _NAME
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take it; say whether the file system knows locks at all. Raises StateError where another has it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(f"state.dir: cannot open {self._path}: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StateError(
                f"state.dir: another sidecar uses {self._path.parent} (process {owner}, as it counts itself); "
                "expected a directory of its own for each: set another state.dir, or end the other sidecar first"
            ) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno in _UNSUPPORTED:
                return False
            raise StateError(f"state.dir: cannot lock {self._path}: {error.strerror or error}") from error
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return True

    def release(self) -> None:
        """Give it back. Idempotent; the end of the process does it too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
