"""Records on standard output, one JSON object per line, for a node agent to collect.

A reader that stops reading must stop the pump and never the event loop, so nothing here may block in write(2).
O_NONBLOCK would do, but the flag belongs to the open file description, which is shared with whoever else holds this
pipe: setting it breaks their writes, and it would outlive us. Instead a pipe is written only when poll(2) finds it
writable, at most PIPE_BUF bytes at a time, which Linux then takes at once; a socket with MSG_DONTWAIT; a file or
/dev/null, where a write does not wait for anybody, as it is. Slices end at a newline where they can, so that lines of
at most PIPE_BUF bytes are written whole and never mixed with another writer's.
Once the reader has gone nobody will ever read: what follows is refused as `closed`, counted and logged, not retried.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar import columnar
from sidecar.errors import SinkRefused, SinkRetry
from sidecar.model import Push, Receipt
from sidecar.options import option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model import Record

_PUSH_BYTES = 256 << 10
_TURN_BYTES = 64 << 10  # as much as a pipe holds; then the event loop has its turn
_PIPE_BUF = select.PIPE_BUF


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `sinks.stdout`."""

    enabled: bool | None = option(None, "Write records to stdout. Default: true when no other sink is configured.")


class Stdout:
    """Writes NDJSON to a descriptor."""

    name = "stdout"

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._socket: socket.socket | None = None
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
            self._write: Callable[[memoryview], int] = self._write_socket
        elif stat.S_ISFIFO(mode) or os.isatty(descriptor):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
            self._write = self._write_pipe
        else:
            self._write = self._write_file
        self._current: Push | None = None
        self._written = 0  # bytes of the current push that are out: a push that is tried again goes on from here

    def settle(self, records: Sequence[Record]) -> list[int]:
        return list(columnar.times_ns(records))

    def snapshot(self, settled: int) -> Mapping[str, Any]:
        del settled
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Nothing is known."""

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        del times  # the line says it
        pushes = []
        start = size = 0
        for end, line in enumerate(columnar.lines(records)):
            length = len(line) + 1
            if size and size + length > _PUSH_BYTES:
                pushes.append(_push(records[start:end]))
                start, size = end, 0
            size += length
        if size:
            pushes.append(_push(records[start:]))
        return pushes

    def divide(self, push: Push) -> list[Push]:
        del push
        return []  # a part of it may be out already

    async def send(self, push: Push) -> Receipt:
        if push is not self._current:
            self._current, self._written = push, 0
        view = memoryview(push.body)
        turn = _TURN_BYTES
        while self._written < len(push.body):
            try:
                count = self._write(view[self._written :])
            except BlockingIOError:
                await self._writable()
                continue
            except (BrokenPipeError, ConnectionResetError) as error:
                raise SinkRefused("closed", "nobody reads standard output any more") from error
            except OSError as error:
                raise SinkRetry("unknown", f"cannot write to standard output: {error.strerror}") from error
            self._written += count
            turn -= count
            if turn <= 0:
                turn = _TURN_BYTES
                await asyncio.sleep(0)
        self._current = None
        return Receipt("ok")

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()  # our duplicate, never the descriptor itself

    def _write_pipe(self, data: memoryview) -> int:
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._descriptor, data[: _slice(data)])

    def _write_socket(self, data: memoryview) -> int:
        assert self._socket is not None
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _write_file(self, data: memoryview) -> int:
        return os.write(self._descriptor, data[:_TURN_BYTES])

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)


def _push(records: Sequence[Record]) -> Push:
    return Push(b"\n".join([*columnar.lines(records), b""]), records)


def _slice(data: memoryview) -> int:
    """Return how much to write at once: whole lines where PIPE_BUF holds any."""
    head = bytes(data[:_PIPE_BUF])
    return head.rfind(b"\n") + 1 or len(head)
