"""COMMAND as a source: its two streams, its signals, its end and its exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.errors import SourceError
from sidecar.sources import command
from tests.contracts.source_contract import SourceContract, Subject
from tests.support.patience import PATIENCE
from tests.support.reading import Reader


@asynccontextmanager
async def running(*argv):
    """Give a reader of a started command."""
    source = command.Command(argv)
    try:
        await source.start()
        yield Reader(source)
    finally:
        await source.close()


def shell(script):
    return running("/bin/sh", "-c", script)


def target_of(link):
    return Path(link).readlink()


def python(program):
    return running(sys.executable, "-uc", program)


class TestContract(SourceContract):
    """`cat` says what is written to a FIFO."""

    @pytest.fixture(autouse=True)
    def _fifo(self, tmp_path):
        self.fifo = tmp_path / "fifo"
        os.mkfifo(self.fifo)

    @asynccontextmanager
    async def opened(self, content=b""):
        source = command.Command(["/bin/cat", str(self.fifo)])
        await source.start()
        with self.fifo.open("r+b", buffering=0) as writer:

            def say(data):
                """Return when `cat` has passed it on: what is in the FIFO is not yet the source's."""
                expected = source.unread() + len(data)
                writer.write(data)
                give_up_at = time.monotonic() + PATIENCE
                while source.unread() < expected:
                    assert time.monotonic() < give_up_at
                    os.sched_yield()

            try:
                say(content)
                yield Subject(source, say, end=writer.close)
            finally:
                await source.close()


async def test_both_streams_are_read_and_told_apart():
    async with shell("echo to stdout; echo to stderr >&2") as reader:
        await reader.rest()

        assert reader.logs == {"command:stdout": b"to stdout\n", "command:stderr": b"to stderr\n"}
        assert {chunk.start.log: chunk.stream for chunk in reader.chunks} == {
            "command:stdout": "stdout",
            "command:stderr": "stderr",
        }
        assert sorted(reader.ended) == ["command:stderr", "command:stdout"]


async def test_much_of_both_streams_comes_in_turns():
    async with python("import os\nfor _ in range(64): os.write(1, b'o' * 16384); os.write(2, b'e' * 16384)") as reader:
        await reader.rest()

        assert reader.logs == {"command:stdout": b"o" * (1 << 20), "command:stderr": b"e" * (1 << 20)}
        assert reader.source.exit_code == 0


@pytest.mark.parametrize("code", [0, 1, 3, 77])
async def test_its_exit_code_is_kept(code):
    async with shell(f"exit {code}") as reader:
        assert reader.source.exit_code in (None, code)
        await reader.rest()
        assert reader.source.exit_code == code


async def test_death_by_signal_n_is_128_plus_n():
    async with shell("kill -KILL $$") as reader:
        await reader.rest()
        assert reader.source.exit_code == 128 + signal.SIGKILL


async def test_a_command_that_is_not_there_is_127():
    source = command.Command(["/no/such/program", "--password=hunter2"])

    with pytest.raises(command.NotStartedError, match=r"command not found: /no/such/program$") as caught:
        await source.start()

    assert caught.value.exit_code == source.exit_code == 127
    assert isinstance(caught.value, SourceError)
    assert not source.attached
    await source.close()


@pytest.mark.parametrize("kind", ["no permission", "a directory", "no program"])
async def test_a_command_that_cannot_be_executed_is_126(tmp_path, kind):
    path = tmp_path / "program"
    if kind == "a directory":
        path.mkdir()
    else:
        path.write_text("what is this?")
        path.chmod(0o755 if kind == "no program" else 0o644)
    source = command.Command([str(path)])

    with pytest.raises(command.NotStartedError, match="cannot execute") as caught:
        await source.start()

    assert caught.value.exit_code == source.exit_code == 126
    await source.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
async def test_signals_are_passed_on(name):
    program = f"""if True:
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{name}])
        print("ready")
        print("got", signal.Signals(signal.sigwait([signal.{name}])).name)
    """
    async with python(program) as reader:
        await reader.expect(b"ready\n")
        reader.source.send_signal(getattr(signal, name))
        assert await reader.rest() == f"got {name}\n".encode()
        assert reader.source.exit_code == 0


async def test_a_signal_reaches_what_a_shell_has_started():
    """`sh -c` does not pass signals on."""
    async with shell(f"{sys.executable} -uc 'print(1); import signal; signal.pause()'; echo never") as reader:
        await reader.expect(b"1\n")
        reader.source.send_signal(signal.SIGTERM)
        await reader.rest()

        assert b"never" not in reader.data
        assert reader.source.exit_code == 128 + signal.SIGTERM


async def test_a_signal_to_nobody_is_nothing():
    source = command.Command(["/bin/true"])
    source.send_signal(signal.SIGTERM)
    await source.start()
    await Reader(source).rest()
    source.send_signal(signal.SIGTERM)
    await source.close()

    assert source.exit_code == 0


async def test_the_command_has_the_signal_handling_of_a_fresh_process():
    """Python ignores SIGPIPE; a child that inherited that would not die when its reader does."""
    async with shell("grep SigIgn /proc/self/status") as reader:
        ignored = int((await reader.rest()).split()[1], 16)

        assert not ignored & (1 << (signal.SIGPIPE - 1))


async def test_it_inherits_environment_and_standard_input(monkeypatch):
    monkeypatch.setenv("COLOR", "blue")
    async with shell("echo $COLOR; readlink /proc/self/fd/0") as reader:
        assert await reader.rest() == f"blue\n{target_of('/proc/self/fd/0')}\n".encode()


async def test_it_holds_none_of_our_descriptors():
    async with shell("ls /proc/self/fd") as reader:
        assert (await reader.rest()).split() == [b"0", b"1", b"2", b"3"]  # the last one lists


async def test_a_command_that_closes_its_streams_is_waited_for():
    async with shell("exec >&- 2>&-; sleep 0.1; exit 5") as reader:
        assert await reader.rest() == b""
        assert reader.source.exit_code == 5


async def test_what_a_child_left_behind_writes_is_heard(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "_ORPHANS_QUIET_SECONDS", PATIENCE)
    monkeypatch.setattr(command, "_ORPHANS_SECONDS", PATIENCE)
    os.mkfifo(tmp_path / "word")
    async with shell(f"(exec 3<>{tmp_path}/word; echo soon; read word <&3; echo $word) & exit 4") as reader:
        await reader.until(lambda: reader.source.exit_code == 4)
        await reader.until(lambda: reader.data == b"soon\n")
        (tmp_path / "word").write_text("late\n")
        assert await reader.rest() == b"late\n"


async def test_a_child_left_behind_is_not_heard_for_longer_than_it_writes(monkeypatch):
    """It holds the pipes open for longer than anybody wants to wait."""
    monkeypatch.setattr(command, "_ORPHANS_QUIET_SECONDS", 0.05)
    async with shell("sleep 600 & echo $!; exit 4") as reader:
        orphan = int(await reader.rest())
        assert reader.source.exit_code == 4
        reader.source.send_signal(signal.SIGKILL)  # to nobody
        os.kill(orphan, signal.SIGKILL)

    assert reader.ended == [], "it may go on, where nobody listens"


async def test_closing_kills_a_command_that_runs():
    async with python("import os; print(os.getpid()); import signal; signal.pause()") as reader:
        await reader.until(lambda: reader.data.endswith(b"\n"))
        pid = int(reader.data)
        assert reader.source.exit_code is None

    assert reader.source.exit_code == 128 + signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_source_that_was_never_started_can_be_closed():
    source = command.Command(["/bin/true"])
    await source.close()

    assert await source.read(0.0) is None
    assert source.exit_code is None


async def test_arguments_are_not_told():
    assert "hunter2" not in str(command.Command(["app", "--password=hunter2"]).describe())
