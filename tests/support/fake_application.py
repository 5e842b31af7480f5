"""An application that answers HTTP the way it is told to: well, badly, half, or never.

It speaks bytes, so that it can send what no HTTP library would. Every connection it holds is dropped when it closes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.support.patience import PATIENCE
from tests.support.ports import Port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def http(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """Return a whole answer; header names are written with `_` for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def hang(_writer: asyncio.StreamWriter) -> None:
    """Answer never."""
    await asyncio.Event().wait()


async def hang_in_body(writer: asyncio.StreamWriter) -> None:
    """Begin to answer, never end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf ")
    await writer.drain()
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter) -> None:
    """Send a body for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"endless 1\n" * 5000)
        await writer.drain()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection the rude way."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class FakeApplication:
    """Serves on loopback while entered. `answer` may be changed at any time."""

    def __init__(self, answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = b"") -> None:
        self.answer = answer or http()
        self.asked: list[str] = []  # the heads of all requests
        self._changed = asyncio.Condition()
        self._connections: dict[asyncio.Task, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._port = Port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port.number)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._port.release()

    async def stop(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        self._server.close()
        for task, writer in self._connections.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str = "/", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self._port.number}{path}"

    async def was_asked(self, times: int) -> None:
        """Wait until it was asked so often."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: len(self.asked) >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[asyncio.current_task()] = writer
        with suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            async with self._changed:
                self.asked.append(head.decode())
                self._changed.notify_all()
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(writer)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
