"""A named pipe as a source: made, followed, replaced; its writers are never blocked, killed or spun for."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import signal
import stat
import subprocess
import sys
import termios
from contextlib import asynccontextmanager

import pytest

from sidecar import telemetry
from sidecar.errors import SourceError
from sidecar.sources import fifo
from tests.contracts.source_contract import SourceContract, Subject
from tests.support.effort import Effort
from tests.support.reading import Reader


def followed(path, said=None):
    log = telemetry.Log(said if said is not None else io.StringIO())
    return fifo.Fifo(str(path), telemetry.Telemetry(log=log), look_seconds=0.005)


def write(path, data):
    """Write as `echo >>` does: open, write, close."""
    with path.open("wb", buffering=0) as file:
        file.write(data)


def writer(path):
    """Open as an application should."""
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@asynccontextmanager
async def reading(path, said=None):
    source = followed(path, said)
    try:
        await source.start()
        yield Reader(source)
    finally:
        await source.close()


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _path(self, path):
        self.path = path

    @asynccontextmanager
    async def opened(self, content=b""):
        os.mkfifo(self.path)
        writing = writer(self.path)
        source = followed(self.path)
        try:
            if content:
                os.write(writing, content)
            await source.start()
            yield Subject(source, lambda data: os.write(writing, data))
        finally:
            await source.close()
            os.close(writing)


@pytest.mark.parametrize(("directory", "expected"), [(0o755, 0o600), (0o2770, 0o660), (0o1777, 0o666)])
async def test_it_is_made_where_it_does_not_exist_for_those_who_may_write_there(tmp_path, directory, expected):
    place = tmp_path / "logs"
    place.mkdir()
    place.chmod(directory)
    before = os.umask(0o077)
    try:
        async with reading(place / "log") as reader:
            assert reader.source.attached
    finally:
        os.umask(before)
    status = (place / "log").stat()

    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == expected


async def test_a_directory_that_does_not_exist_yet_is_waited_for(tmp_path):
    path = tmp_path / "later" / "log"
    async with reading(path) as reader:
        await reader.silence()
        assert reader.source.attached
        path.parent.mkdir()
        await reader.until(path.exists)
        write(path, b"line\n")
        await reader.expect(b"line\n")


async def test_another_kind_of_file_that_takes_the_name_is_not_attached_and_not_read(path):
    said = io.StringIO()
    async with reading(path, said) as reader:
        path.unlink()
        path.write_bytes(b"no pipe\n")
        await reader.until(lambda: not reader.source.attached)
        assert "it is a regular file" in said.getvalue()
        path.unlink()
        await reader.until(lambda: reader.source.attached)
        write(path, b"line\n")
        await reader.expect(b"line\n")


async def test_a_regular_file_is_refused_and_told_who_follows_it(path):
    path.touch()
    with pytest.raises(SourceError, match=r"is a regular file \(source\.kind file follows those\): expected a named"):
        await followed(path).start()
    with pytest.raises(SourceError, match="is a directory"):
        await followed(path.parent).start()


async def test_h10_a_writer_that_goes_is_no_end_and_the_next_one_is_read(path):
    async with reading(path) as reader:
        for number in range(3):
            write(path, b"writer %d\n" % number)
            await reader.expect(b"writer %d\n" % number)
            await reader.silence()
        assert reader.ended == []


async def test_h10_waiting_without_a_writer_costs_no_time(path):
    """A reader that is woken by the hang-up of the last writer would take a whole core."""
    async with reading(path) as reader:
        write(path, b"line\n")
        await reader.expect(b"line\n")
        reader.source._look_seconds = 60.0
        now = asyncio.get_running_loop().time
        reader.source._look_at = now() + 60.0
        with Effort() as effort:
            until = now() + 0.5
            while now() < until:
                await reader.once(0.5)

        assert effort.instructions < 20_000


async def test_a_writer_finds_a_reader_and_room_without_waiting(path):
    async with reading(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # ENXIO without a reader
        room = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
        assert os.write(descriptor, b"x" * room) == room
        with pytest.raises(BlockingIOError):
            os.write(descriptor, b"x")
        os.close(descriptor)


async def test_one_that_is_replaced_is_read_to_the_end_of_its_last_writer(path):
    async with reading(path) as reader:
        first = os.open(path, os.O_WRONLY)
        os.write(first, b"one\n")
        await reader.expect(b"one\n")
        path.unlink()
        await reader.until(path.exists)
        os.write(first, b"late\n")  # no EPIPE: it is still held
        await reader.expect(b"late\n")
        second = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(second, b"two\n")
        await reader.expect(b"two\n")
        os.close(first)
        await reader.ends(str(path))
        os.write(second, b"three\n")
        await reader.expect(b"three\n")
        os.close(second)


def test_h12_what_is_in_the_pipe_outlives_the_sidecar_and_the_application_both(path):
    """SIGKILL with 64 KiB in the pipe: an application that holds it O_RDWR is alive, the bytes are there."""
    program = f"""if True:
        import asyncio, io
        from sidecar import telemetry
        from sidecar.sources import fifo
        async def main():
            source = fifo.Fifo({str(path)!r}, telemetry.Telemetry(log=telemetry.Log(io.StringIO())))
            await source.start()
            print("started", flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        application = writer(path)
        written = b"0123456789abcde\n" * 4096
        assert os.write(application, written) == len(written)
        process.send_signal(signal.SIGKILL)
        process.wait()
    os.write(application, b"and more\n")

    async def again():
        async with reading(path) as reader:
            await reader.expect(written + b"and more\n")

    asyncio.run(again())
    assert fcntl.ioctl(application, termios.FIONREAD, b"\0" * 4) == b"\0" * 4
    os.close(application)
