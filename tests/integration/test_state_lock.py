"""A state directory has one owner: the second sidecar says so and ends, and the first one's death frees it."""

from __future__ import annotations

import errno
import fcntl
import signal

import pytest

from sidecar import lock
from sidecar.errors import StateError
from tests.support.running import Sidecar

EXIT_FAILURE = 1


async def test_a_second_sidecar_on_one_state_directory_ends_and_says_what_to_do(tmp_path):
    log, state = tmp_path / "app.log", tmp_path / "state"
    log.write_bytes(b"one\n")
    settings = ["source.kind=file", f"source.path={log}", f"state.dir={state}"]
    async with Sidecar(settings, stdin=None) as first:
        await first.until("sidecar_records_total", 1)

        async with Sidecar(settings, stdin=None) as second:
            code = await second.finish()
        said = " ".join(str(row["message"]) for row in second.log)

        assert code == EXIT_FAILURE
        assert f"another sidecar uses {state} (process {first.process.pid}," in said
        assert "set another state.dir" in said
        assert second.stdout == b"", "it has not delivered what the first one delivers"
        with log.open("ab") as file:
            file.write(b"two\n")
        await first.until("sidecar_records_total", 2)

        first.process.send_signal(signal.SIGKILL)
        await first.finish()

    async with Sidecar(settings, stdin=None) as third:
        with log.open("ab") as file:
            file.write(b"three\n")
        await third.until("sidecar_records_total", 3)
        third.process.send_signal(signal.SIGTERM)
        assert await third.finish() == 0


def test_it_is_free_again_once_released_and_may_be_released_twice(tmp_path):
    first, second = lock.Lock(tmp_path), lock.Lock(tmp_path)
    assert first.acquire()
    with pytest.raises(StateError, match="another sidecar uses"):
        second.acquire()

    first.release()
    first.release()

    assert second.acquire()
    second.release()


def test_a_directory_that_cannot_be_locked_or_opened_is_told_apart(tmp_path, monkeypatch):
    def refuse(number):
        def flock(*_):
            raise OSError(number, "as the kernel says")

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    assert not lock.Lock(tmp_path).acquire(), "a file system without locks is no reason not to start"
    refuse(errno.EIO)
    with pytest.raises(StateError, match="cannot lock"):
        lock.Lock(tmp_path).acquire()
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(StateError, match="cannot open"):
        lock.Lock(tmp_path).acquire()
