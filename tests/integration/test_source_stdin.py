"""Standard input as a source: a pipe, a redirected file, a terminal, a socket, nothing at all."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import socket
import subprocess
import sys
import termios
from contextlib import asynccontextmanager

import pytest

from sidecar import sources, telemetry
from sidecar.errors import SourceError
from sidecar.sources import stdin
from tests.contracts.source_contract import SourceContract, Subject
from tests.support.reading import Reader


def quiet():
    return telemetry.Telemetry(log=telemetry.Log(io.StringIO()))


class Descriptors:
    """Closes once what a test opened."""

    def __init__(self, *descriptors):
        self.open = set(descriptors)

    def close(self, *descriptors):
        for one in descriptors or list(self.open):
            if one in self.open:
                self.open.remove(one)
                os.close(one)


@asynccontextmanager
async def piped(content=b"", pair=os.pipe):
    """Give a started source on the reading end, and the writing end."""
    readable, writable = pair()
    descriptors = Descriptors(readable, writable)
    source = stdin.create(quiet(), descriptor=readable)
    try:
        if content:
            os.write(writable, content)
        await source.start()
        yield Subject(source, lambda data: os.write(writable, data), end=lambda: descriptors.close(writable))
    finally:
        await source.close()
        os.fstat(readable)  # it is still open: it was not the source's to close
        descriptors.close()


class TestPipe(SourceContract):
    def opened(self, content=b""):
        return piped(content)


class TestSocket(SourceContract):
    def opened(self, content=b""):
        return piped(content, lambda: tuple(one.detach() for one in socket.socketpair()))


class TestFile(SourceContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self.path = tmp_path / "input"

    @asynccontextmanager
    async def opened(self, content=b""):
        self.path.write_bytes(content)
        opened = []

        def source(saved=None):
            descriptor = os.open(self.path, os.O_RDONLY)
            opened.append(descriptor)
            return stdin.create(quiet(), saved=saved, descriptor=descriptor)

        def write(data):
            with self.path.open("ab") as file:
                file.write(data)

        made = source()
        try:
            await made.start()
            yield Subject(made, write, end=lambda: None, again=source, grows=False)
        finally:
            await made.close()
            for descriptor in opened:
                os.close(descriptor)


async def test_a_pipe_is_not_resumable_and_a_file_is(tmp_path):
    """`when_full: auto` decides by this."""
    (tmp_path / "input").touch()
    async with piped() as subject:
        assert not subject.source.resumable
        assert subject.source.describe()["lossless"] is False
    with (tmp_path / "input").open() as file:
        source = stdin.create(quiet(), descriptor=file.fileno())
        assert source.resumable
        assert source.describe()["lossless"] is True
        await source.close()


async def test_single_lines_that_come_in_a_rush_come_in_one_read():
    async with piped() as subject:
        reader = Reader(subject.source)
        waiting = asyncio.create_task(reader.once(3600.0))
        await asyncio.sleep(0)
        for number in range(100):
            subject.write(b"line %d\n" % number)
        await waiting

        assert len(reader.chunks) == 1
        assert reader.data.count(b"\n") == 100


async def test_a_pipe_is_made_larger_so_that_its_writer_waits_less():
    readable, writable = os.pipe()
    source = stdin.create(quiet(), descriptor=readable)
    await source.start()

    assert fcntl.fcntl(readable, fcntl.F_GETPIPE_SZ) >= 65536

    await source.close()
    os.close(readable)
    os.close(writable)


async def test_a_pipe_stays_as_blocking_as_it_was():
    """O_NONBLOCK would be seen by every program that shares the descriptor."""
    readable, writable = os.pipe()
    source = stdin.create(quiet(), descriptor=readable)
    await source.start()
    await source.read(0.0)

    assert os.get_blocking(readable)

    await source.close()
    os.close(readable)
    os.close(writable)


async def test_a_pipe_that_somebody_made_non_blocking_is_read_all_the_same():
    async with piped() as subject:
        os.set_blocking(subject.source._pipe.descriptor, False)
        subject.write(b"line\n")
        await Reader(subject.source).expect(b"line\n")


async def test_a_terminal_is_read_line_by_line_and_ends_with_control_d():
    controller, terminal = os.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    source = stdin.create(quiet(), descriptor=terminal)
    await source.start()
    reader = Reader(source)
    try:
        os.write(controller, b"typed\n")
        await reader.expect(b"typed\n")
        os.write(controller, b"\x04")
        assert await reader.rest() == b""
        assert reader.ended == ["stdin"]
    finally:
        await source.close()
        os.close(controller)
        os.close(terminal)


async def test_dev_null_has_ended():
    null = os.open(os.devnull, os.O_RDONLY)
    source = stdin.create(quiet(), descriptor=null)
    await source.start()

    assert await Reader(source).rest() == b""

    await source.close()
    os.close(null)


async def test_a_closed_descriptor_has_ended():
    readable, writable = os.pipe()
    os.close(readable)
    os.close(writable)
    source = stdin.create(quiet(), descriptor=readable)
    await source.start()

    assert await source.read(3600.0) is None
    source.stop()
    await source.close()


def test_a_program_started_without_standard_input_reads_nothing_else_instead():
    """Descriptor 0 belongs to whatever was opened next: here, maybe, to the event loop."""
    program = """if True:
        import asyncio, io
        from sidecar import sources, telemetry
        async def main():
            source = sources.create(sources.Config(), telemetry.Telemetry(log=telemetry.Log(io.StringIO())))
            await source.start()
            print(await source.read(3600.0), source.resumable, source.unread())
            await source.close()
        asyncio.run(main())
    """
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec {sys.executable} -c "$0" <&-', program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "None False 0\n"


def test_a_directory_is_refused(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SourceError, match="stdin is a directory"):
            stdin.create(quiet(), descriptor=descriptor)
    finally:
        os.close(descriptor)


def test_the_sidecars_own_output_is_refused(tmp_path, capfd):
    path = tmp_path / "log"
    with capfd.disabled(), path.open("ab") as log:
        kept = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            with path.open("rb") as own, pytest.raises(SourceError, match="stdin is the sidecar's own stdout"):
                stdin.create(quiet(), descriptor=own.fileno())
        finally:
            os.dup2(kept, 1)
            os.close(kept)


async def test_a_file_is_read_from_where_the_shell_left_it(tmp_path):
    """`(head -1; sidecar run) < log`"""
    (tmp_path / "log").write_bytes(b"first\nsecond\n")
    with (tmp_path / "log").open("rb", buffering=0) as log:
        log.seek(6)
        source = stdin.create(quiet(), descriptor=log.fileno())
        await source.start()
        reader = Reader(source)

        assert await reader.rest() == b"second\n"
        assert reader.chunks[0].start.offset == 6
        await source.close()


async def test_a_file_that_is_not_in_memory_is_read_to_its_end(tmp_path):
    """What the page cache has not got comes from the disk, however long that takes."""
    path = tmp_path / "log"
    content = b"".join(b"line %07d\n" % number for number in range(100_000))
    with path.open("wb") as log:
        log.write(content)
        log.flush()
        os.fsync(log.fileno())
        os.posix_fadvise(log.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with path.open("rb") as log:
        source = stdin.create(quiet(), descriptor=log.fileno())
        await source.start()
        assert await Reader(source).rest() == content
        await source.close()


async def test_a_file_that_shrinks_under_the_reader_ends_and_is_counted(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (256 * 1024) + b"rest")
    counted = quiet()
    with path.open("rb") as log:
        source = stdin.create(counted, descriptor=log.fileno())
        await source.start()
        reader = Reader(source)
        await reader.once()
        os.truncate(path, 10)

        assert await reader.rest() == b""
        await source.close()

    assert counted.registry.get_sample_value("sidecar_lost_bytes_total", {"reason": "truncated_file"}) == 4


def test_the_table_makes_standard_input(monkeypatch):
    readable, writable = os.pipe()
    with os.fdopen(readable) as own:
        monkeypatch.setattr(sys, "__stdin__", own)
        source = sources.create(sources.Config(kind="stdin"), quiet())
        assert isinstance(source, stdin.Stream)
    os.close(writable)
