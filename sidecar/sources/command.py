"""Starts COMMAND and follows what it writes to stdout and stderr.

The problem: the sidecar is the parent of the application here, and the application must not notice. The promise: two
pipes as large as they may be, read in turn; signals passed on; the output drained to the end, that of children
left behind too, for a bounded time; the exit code as a shell would report it: 128+N after signal N, 127 not
found, 126 not executable.
Refused: to restart the command, to change its environment or its input, and to outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.sources import generation, pipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Chunk

NOT_FOUND = 127
NOT_EXECUTABLE = 126

# Children that outlive COMMAND hold its pipes open. They are heard until they are quiet, and not for ever.
_ORPHANS_QUIET_SECONDS = 0.5
_ORPHANS_SECONDS = 5.0
_KILL_SECONDS = 5.0


class NotStartedError(SourceError):
    """COMMAND could not be started; `exit_code` is what a shell would return."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class _Protocol(asyncio.SubprocessProtocol):
    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake

    def process_exited(self) -> None:
        self._wake.set()


class Command(pipe.Pipes):
    """The source `command`."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        self._argv = list(argv)
        self._transport: asyncio.SubprocessTransport | None = None
        self._closed = False
        self._own_group = True
        self._exited_at: float | None = None
        self._read_at = 0.0
        self._failed: int | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code as a shell would report it; None while COMMAND runs."""
        if self._failed is not None:
            return self._failed
        code = self._transport.get_returncode() if self._transport is not None else None
        return 128 - code if code is not None and code < 0 else code

    async def start(self) -> None:
        """Start COMMAND. Raises NotStartedError."""
        loop = asyncio.get_running_loop()
        # At a terminal the child stays in the foreground's group: it may read there, and gets Ctrl-C from there.
        # Elsewhere a group of its own makes sure that a signal we pass on is the only one.
        self._own_group = not os.isatty(0)
        ends = [os.pipe(), os.pipe()]
        for (readable, _), stream in zip(ends, ("stdout", "stderr"), strict=True):
            one = pipe.Pipe(readable, f"command:{stream}", stream)
            one.enlarge()
            self._pipes.append(one)
        try:
            self._transport, _ = await loop.subprocess_exec(
                lambda: _Protocol(self._wake),
                *self._argv,
                stdin=None,
                stdout=ends[0][1],
                stderr=ends[1][1],
                process_group=0 if self._own_group else None,
            )
        except OSError as error:
            raise self._not_started(error) from error
        finally:
            for _, writable in ends:
                os.close(writable)
        self.attached = True

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while self._pipes:
            now = loop.time()
            over_at = self._over_at(now)
            readable = [one for one in self._pipes if one.readable()]
            if readable:
                if not self._stopping:
                    await pipe.gather(readable, self._wake)
                chunk = self._take(readable[0], now)
                if chunk is not None:
                    return chunk
            elif over_at is not None and now >= over_at:
                return None
            elif now >= deadline:
                return self._pipes[0].silence()
            else:
                until = deadline if over_at is None else min(deadline, over_at)
                await pipe.wait(self._pipes, until, self._wake)
        return None

    def send_signal(self, number: int) -> None:
        """Pass a signal on to COMMAND and whatever it has started in its group; nothing if it has ended."""
        if self._transport is None or self.exit_code is not None:
            return
        # It may have become another user, or be gone and not reaped: there is nobody to tell, then.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._own_group:
                os.killpg(self._transport.get_pid(), number)
            elif number not in {signal.SIGINT, signal.SIGQUIT}:  # the terminal has sent it these already
                os.kill(self._transport.get_pid(), number)

    def describe(self) -> dict[str, object]:
        return {
            "source": "command",
            "command": self._argv[0],  # the arguments may hold a password
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "lossless": False,
            "why": "what was read from a pipe and is not delivered when the sidecar dies cannot be read again",
        }

    async def close(self) -> None:
        """Release everything. A command that is still running is killed: without us it has nobody to write to."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        if self._transport is not None:
            self._wake.clear()
            self._kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    while self.exit_code is None:
                        await self._wake.wait()
                        self._wake.clear()
            self._transport.close()
        for one in self._pipes:
            os.close(one.descriptor)
        self._pipes.clear()
        self.attached = False

    def _take(self, one: pipe.Pipe, now: float) -> Chunk | None:
        self._pipes.remove(one)
        self._pipes.append(one)  # the other one is asked first next time
        self._read_at = now
        try:
            return one.read()
        except OSError as error:
            raise SourceError(f"cannot read from {self._argv[0]}: {generation.problem_of(error)}") from error

    def _over_at(self, now: float) -> float | None:
        """Return when everything has been heard if nothing comes until then; None while COMMAND runs."""
        if self._stopping:
            return now
        if self.exit_code is None:
            return None
        if self._exited_at is None:
            self._exited_at = now
        if all(one.ended for one in self._pipes):
            return now
        if now >= self._exited_at + _ORPHANS_SECONDS:
            self.stop()
            return now
        return max(self._exited_at, self._read_at) + _ORPHANS_QUIET_SECONDS

    def _kill(self) -> None:
        assert self._transport is not None
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._own_group:
                    os.killpg(self._transport.get_pid(), signal.SIGKILL)
                else:
                    self._transport.kill()

    def _not_started(self, error: OSError) -> NotStartedError:
        name = self._argv[0]
        if isinstance(error, FileNotFoundError):
            self._failed = NOT_FOUND
            return NotStartedError(f"command not found: {name}", NOT_FOUND)
        self._failed = NOT_EXECUTABLE
        return NotStartedError(f"cannot execute {name}: {generation.problem_of(error)}", NOT_EXECUTABLE)
