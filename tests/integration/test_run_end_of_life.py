"""The end of a pod, with real processes: a native sidecar drains, an ordinary container reads until the log is silent.

Rule 29, H03, H04.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.kubelet import Container
from tests.support.patience import PATIENCE
from tests.support.running import Sidecar, assert_balanced

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = 20


class Log:
    """Where an application writes, for one kind of source."""

    def __init__(self, kind: str, write: Callable[[str], None], *settings: str, environ: dict[str, str] | None = None):
        self.settings = [f"source.kind={kind}", *settings]
        self.write = write
        self.environ = environ or {}


@pytest.fixture(params=["file", "fifo", "cri", "kubernetes"])
async def log(request, tmp_path):
    if request.param == "cri":
        container = Container(tmp_path / "pod")
        container.start()
        yield Log("cri", container.line, f"source.path={tmp_path / 'pod'}", "source.container=app")
        container.exit()
    elif request.param == "kubernetes":
        async with FakeKubernetes(tmp_path) as fake:
            yield Log(
                "kubernetes",
                lambda text: fake.write(f"{text}\n".encode()),
                "source.container=app",
                environ=fake.environ,
            )
    else:
        path = tmp_path / "log"
        if request.param == "fifo":
            os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_APPEND)
        yield Log(request.param, lambda text: os.write(descriptor, f"{text}\n".encode()), f"source.path={path}")
        os.close(descriptor)


def said(sidecar):
    return [record["message"] for record in sidecar.records()]


def following(log, *settings):
    settings = [*log.settings, *settings]
    return Sidecar(settings, stdin=None, environ=log.environ, program=["tests.support.leisurely"])


async def test_h04_rule_29_an_ordinary_container_reads_what_is_written_after_its_sigterm(log):
    async with following(log, "source.wait_for_quiet=1h", "drain_seconds=2h") as sidecar:
        log.write("line 0")
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.terminate()
        for number in range(1, LINES):
            log.write(f"line {number}")
            metrics = await sidecar.until("sidecar_records_total", number + 1)
        assert (await sidecar.get("/readyz"))[0] == 503
        assert_balanced(metrics)
        log.write("last words")
        await sidecar.until("sidecar_records_total", LINES + 1)
        sidecar.process.terminate()

        assert await sidecar.finish() == 0
    assert said(sidecar) == [*(f"line {number}" for number in range(LINES)), "last words"]


async def test_h04_rule_29_an_ordinary_container_ends_when_its_log_is_silent(log):
    async with following(log, "source.wait_for_quiet=100ms", "drain_seconds=2h") as sidecar:
        log.write("line 0")
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.terminate()

        assert await sidecar.finish() == 0
    assert said(sidecar) == ["line 0"]


async def test_h03_rule_29_what_is_written_just_before_sigterm_is_delivered(log):
    async with following(log) as sidecar:
        log.write("line 0")
        await sidecar.until("sidecar_records_total", 1)
        for number in range(1, LINES):
            log.write(f"line {number}")
        sidecar.process.terminate()

        assert await sidecar.finish() == 0
    assert said(sidecar) == [f"line {number}" for number in range(LINES)]


async def test_rule_29_a_log_that_is_never_silent_long_enough_ends_in_the_last_second(log):
    deadline = PATIENCE + 1  # the last second is a minute here
    async with following(log, "source.wait_for_quiet=1h", f"drain_seconds={deadline:g}s") as sidecar:
        log.write("line 0")
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.terminate()

        assert await sidecar.finish() == 0
    assert said(sidecar) == ["line 0"]


async def test_a_second_sigterm_does_not_wait_for_silence(log):
    async with following(log, "source.wait_for_quiet=1h", "drain_seconds=1h") as sidecar:
        log.write("line 0")
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.terminate()
        while (await sidecar.get("/readyz"))[0] != 503:
            pass
        sidecar.process.terminate()

        assert await sidecar.finish() == 0
    assert said(sidecar) == ["line 0"]
