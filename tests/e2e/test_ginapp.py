"""The services of the end-to-end tests say what their driver believes they say, without any sidecar between."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path

import jsonschema
import orjson
import pytest

from tests.support import drive

pytestmark = pytest.mark.e2e

SCHEMA = jsonschema.Draft202012Validator(
    orjson.loads((Path(__file__).parent.parent.parent / "schemas" / "structured-log.schema.json").read_bytes())
)
ACCESS = re.compile(rb'^\[GIN\] [\d/]+ - [\d:]+ \| (\d{3}) \| *\S+ \| *\S+ \| (\S+) +"', re.MULTILINE)


async def log_of(ginapp: Path, directory: Path, requests: list[drive.Request], *arguments: str) -> tuple[bytes, int]:
    """Return what a service prints while it answers the requests, and its exit code."""
    told = directory / "address"
    os.mkfifo(told)
    process = await asyncio.create_subprocess_exec(
        ginapp,
        *arguments,
        "-addr-file",
        told,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"TZ": "UTC"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(process.stdout.read())
            driven = await drive.drive(await drive.listening(told), requests)
            # The service waits for what is in flight: a request whose client has gone is still logged.
            process.send_signal(signal.SIGTERM)
    finally:
        if process.returncode is None and not reading.done():
            process.kill()
        await process.wait()
    assert driven.answered == Counter(request.key for request in requests if request.logged)
    assert process.returncode is not None
    return reading.result(), process.returncode


async def test_the_driver_knows_what_the_service_answered(ginapp: Path, tmp_path: Path) -> None:
    requests = drive.mix(seed=1, count=200)

    log, exit_code = await log_of(ginapp, tmp_path, requests, "-logger", "canonical")

    lines = [orjson.loads(line) for line in log.splitlines()]
    answered = Counter(
        (line["method"], line.get("route", drive.UNMATCHED), line["status"]) for line in lines if "status" in line
    )
    assert exit_code == 0
    assert answered == Counter(request.key for request in requests if request.logged)
    assert lines[-1]["message"] == "server stopped"
    assert [line for line in lines if not SCHEMA.is_valid(line)] == []


async def test_gins_text_says_the_same(ginapp: Path, tmp_path: Path) -> None:
    requests = drive.mix(seed=2, count=200)

    log, exit_code = await log_of(ginapp, tmp_path, requests, "-logger", "gin")

    answered = Counter((method.decode(), int(status)) for status, method in ACCESS.findall(log))
    assert exit_code == 0
    assert answered == Counter((request.method, request.status) for request in requests if request.logged)


async def test_a_panic_after_the_shutdown_is_gos_exit_code(ginapp: Path, tmp_path: Path) -> None:
    log, exit_code = await log_of(ginapp, tmp_path, list(drive.KINDS), "-logger", "gin-release", "-panic-at-exit")

    assert exit_code == 2
    assert b"\npanic: flush: 3 orders not stored\n\tflush: connection refused\n\ngoroutine " in log


def test_a_mix_depends_on_its_seed_alone() -> None:
    assert drive.mix(5, 100) == drive.mix(5, 100)
    assert drive.mix(5, 100) != drive.mix(6, 100)
