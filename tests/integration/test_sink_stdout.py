"""The stdout sink writes to what it is given, waits for a slow reader, and says so when the reader has gone."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
from contextlib import asynccontextmanager

import pytest

from sidecar.errors import SinkRefused
from sidecar.sinks.stdout import Stdout
from tests.contracts.sink_contract import SinkContract
from tests.support import records


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


async def read_all(descriptor: int, size: int) -> bytes:
    """Read from a pipe until so many bytes are there, while others run."""
    os.set_blocking(descriptor, False)
    data = b""
    while len(data) < size:
        try:
            data += os.read(descriptor, 10_000)
        except BlockingIOError:
            await asyncio.sleep(0)
    return data


async def until_full(writer: int) -> None:
    """Let others run until a pipe takes no more."""
    while select.select([], [writer], [], 0)[1]:
        await asyncio.sleep(0)


async def send_all(sink: Stdout, made: list) -> None:
    for push in sink.encode(made, sink.settle(made)):
        await sink.send(push)


class TestContract(SinkContract):
    @asynccontextmanager
    async def started(self):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        sink = Stdout(writer)

        async def received():
            return drain(reader).splitlines()

        try:
            yield sink, received
        finally:
            await sink.close()
            os.close(reader)
            os.close(writer)


async def test_a_full_pipe_makes_the_sink_wait_and_not_the_event_loop():
    reader, writer = os.pipe()
    sink = Stdout(writer)
    made = records.records(3000)
    expected = b"".join(record.line + b"\n" for record in made)

    sending = asyncio.create_task(send_all(sink, made))
    await until_full(writer)  # turns only if the loop is not blocked

    assert not sending.done()
    assert await read_all(reader, len(expected)) == expected
    await sending
    os.close(reader)
    os.close(writer)


async def test_the_shared_description_stays_blocking():
    reader, writer = os.pipe()
    sink = Stdout(writer)

    await send_all(sink, records.records(3))
    await sink.close()

    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


async def test_lines_up_to_pipe_buf_are_never_cut_in_two():
    """Another writer may write between our slices: what lies between two of them must be a line boundary."""
    reader, writer = os.pipe()
    sink = Stdout(writer)
    made = [records.record("x" * 700, time_ns=n) for n in range(1, 400)]

    sending = asyncio.create_task(send_all(sink, made))
    await until_full(writer)
    first = drain(reader)

    assert first.endswith(b"\n")
    await asyncio.gather(sending, read_all(reader, sum(len(r.line) + 1 for r in made) - len(first)))
    os.close(reader)
    os.close(writer)


async def test_a_socket_gets_every_byte_past_a_slow_reader():
    ours, theirs = socket.socketpair()
    sink = Stdout(ours.fileno())
    made = records.records(5000)
    expected = b"".join(record.line + b"\n" for record in made)

    _, received = await asyncio.gather(send_all(sink, made), read_all(theirs.fileno(), len(expected)))

    assert received == expected
    await sink.close()
    ours.close()
    theirs.close()


async def test_a_file_gets_every_byte(tmp_path):
    path = tmp_path / "out"
    made = records.records(2000)

    with path.open("wb") as file:
        sink = Stdout(file.fileno())
        await send_all(sink, made)
        await sink.close()

    assert path.read_bytes() == b"".join(record.line + b"\n" for record in made)


async def test_a_reader_that_has_gone_is_a_refusal():
    reader, writer = os.pipe()
    os.close(reader)
    sink = Stdout(writer)

    with pytest.raises(SinkRefused) as refused:
        await send_all(sink, records.records(1))

    assert refused.value.reason == "closed"
    os.close(writer)


async def test_a_reader_that_goes_while_the_sink_waits_ends_the_wait():
    reader, writer = os.pipe()
    sink = Stdout(writer)
    sending = asyncio.create_task(send_all(sink, records.records(3000)))
    await until_full(writer)

    os.close(reader)

    with pytest.raises(SinkRefused):
        await sending
    os.close(writer)


async def test_a_push_that_was_interrupted_goes_on_where_it_stopped():
    reader, writer = os.pipe()
    sink = Stdout(writer)
    made = records.records(2000)
    (push,) = sink.encode(made, sink.settle(made))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await sink.send(push)
    _, received = await asyncio.gather(sink.send(push), read_all(reader, len(push.body)))

    assert received == push.body
    os.close(reader)
    os.close(writer)
