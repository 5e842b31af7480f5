"""What the README tells a user to run works, and what it shows is what comes out.

`make demo` and `make test` are run by .ci/run itself, on a fresh environment; the image by tests/e2e/test_image.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from sidecar import config
from tests.support import golden, lines
from tests.support.fake_loki import FakeLoki
from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [
    re.sub(r"\s+#.*", "", row)
    for language, block in BLOCKS
    if language == "sh"
    for row in block.splitlines()
    if row.strip()
]


def _block(language, number):
    return [block for kind, block in BLOCKS if kind == language][number]


def test_every_command_is_known_to_this_test():
    verbs = sorted({row.split("sidecar ", 1)[1].split()[0] for row in COMMANDS})

    assert verbs == ["check", "explain", "inject", "replay", "run", "validate"]


def test_the_two_commands_are_what_the_gate_runs():
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first_screen = README[: README.index("## ")]

    for command in ("make demo", "make test"):
        assert command in first_screen
        assert command in gate


def test_the_example_lines_become_the_example_records():
    sent = [row.encode() for row in _block("", 2).splitlines()]
    shown = [orjson.loads(row) for row in _block("json", 0).splitlines()]

    result = golden.normalizer().normalize(golden.assemble(sent))

    assert [orjson.loads(record.line) | {"service_name": "orders"} for record in result.records] == shown
    assert [list(orjson.loads(record.line)) for record in result.records] == [list(each) for each in shown]
    assert [key for key in result.requests if key[2].startswith("/orders")] == [("GET", "", "/orders/42", 200)]


@pytest.fixture
def place(tmp_path):
    """A directory with everything that the README's commands name."""
    service = tmp_path / "your-gin-service"
    (tmp_path / "lines").write_bytes(b"\n".join(_today([*lines.gin(3), *lines.canonical(3)])) + b"\n")
    service.write_text('#!/bin/sh\ncat "$(dirname "$0")/lines"\n')
    service.chmod(service.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "app.log").write_bytes(b"\n".join(lines.canonical(5)) + b"\n")
    (tmp_path / "sidecar.yaml").write_text(_block("yaml", 0))
    pod = tmp_path / "pods" / "app"
    pod.mkdir(parents=True)
    (pod / "0.log").write_bytes(
        b"".join(b"2026-10-06T09:05:03Z stdout F " + line + b"\n" for line in lines.canonical(5))
    )
    (tmp_path / "deployment.yaml").write_bytes((ROOT / "examples" / "plain" / "shop.yaml").read_bytes())
    letters = tmp_path / "dead-letter"
    letters.mkdir()
    record = {"timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}Z", "level": "info", "service_name": "orders"}
    (letters / "loki.ndjson").write_bytes(orjson.dumps({"time": "x", "reason": "too_old", "record": record}) + b"\n")
    return tmp_path


def _today(sent):
    now = datetime.now(UTC)  # Loki refuses what is older than a week
    times = {b"2026-10-06T09": f"{now:%Y-%m-%dT%H}", b"2026/10/06 - 09:05:03": f"{now:%Y/%m/%d - %H:%M:%S}"}
    return [re.sub(b"|".join(times), lambda found: times[found[0]].encode(), line) for line in sent]


def _here(command, place, loki_url):
    """Put this machine's paths and ports where the README has a user's."""
    command = command.replace("/var/log/app.log", str(place / "app.log")).replace(
        "/var/lib/gin-sidecar", str(place / "state")
    )
    command = command.replace("/var/log/pods/shop_orders-0_6c1f", str(place / "pods"))
    command = command.replace("http://loki:3100", loki_url).replace("sidecar run", "sidecar run --set http.port=0")
    return command.replace("sidecar ", f"{shlex.quote(sys.executable)} -m sidecar ", 1)


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_works(command, place):
    async with FakeLoki() as loki:
        shell = _here(command, place, loki.url)
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "exec " + shell if "|" not in shell else shell, cwd=place,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        out = b""
        if "source.kind=" in command:  # a followed file has no end
            async with asyncio.timeout(PATIENCE):
                while out.count(b"\n") < 5:
                    out += await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            rest, said = await process.communicate()
        out += rest

        assert process.returncode == 0, said.decode()
        if "loki" in command and "replay" not in command:
            assert loki.count(service_name="orders") == 6
            return
    if "inject" in command:
        out = (place / "injected.yaml").read_bytes()
        assert b"name: gin-sidecar\n" in out
    assert out


def test_the_example_configuration_is_valid_yaml_of_ours(place):
    loaded = config.load(file=str(place / "sidecar.yaml"), environ={}, cwd=place)

    assert loaded.config.sinks.loki.labels == {"team": "shop"}
