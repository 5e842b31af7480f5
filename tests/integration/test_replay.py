"""`sidecar replay` sends again what was refused, and tells every line's fate."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

import orjson

from tests.support.fake_loki import FakeLoki, status


def _letter(number, **record):
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.{number:06d}Z"
    whole = {"timestamp": now, "level": "info", "service_name": "shop", "message": f"m{number}"} | record
    return orjson.dumps({"time": now, "reason": "too_old", "record": whole}) + b"\n"


async def replay(*files, **settings):
    words = [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "replay", *map(str, files), *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")},
    )  # fmt: skip
    out, said = await process.communicate()
    return process.returncode, out, said.decode()


async def test_dead_letters_and_plain_records_are_delivered(tmp_path):
    path = tmp_path / "loki.ndjson"
    plain = orjson.dumps(orjson.loads(_letter(2))["record"]) + b"\n"
    path.write_bytes(_letter(1) + plain + b"\n")
    async with FakeLoki() as loki:
        code, _, said = await replay(path, sinks__loki__url=loki.url)

        assert loki.count(service_name="shop") == 2

    assert code == 0
    assert said == "2 delivered\n"


async def test_each_line_that_is_not_delivered_is_told_with_its_place_and_reason(tmp_path):
    path = tmp_path / "loki.ndjson"
    path.write_bytes(_letter(1) + b"not json\n" + _letter(2, timestamp="2001-01-01T00:00:00Z"))
    async with FakeLoki() as loki:
        code, _, said = await replay(path, sinks__loki__url=loki.url)

    assert code == 1
    assert f"{path}:2: not a record" in said
    assert f"{path}:3: refused: too_old" in said
    assert "1 delivered\n" in said


async def test_a_destination_that_takes_nothing_ends_it(tmp_path):
    path = tmp_path / "loki.ndjson"
    path.write_bytes(b"".join(map(_letter, range(1, 2501))))
    async with FakeLoki() as loki:
        loki.script(*[status(503)] * 100)
        code, _, said = await replay(path, sinks__loki__url=loki.url, drain_seconds="300ms")

    assert code == 1
    assert f"{path}:1: nothing was taken" in said
    assert "0 delivered\n2500 not delivered\n" in said, "those that were not even tried have a fate too"


async def test_what_its_log_held_back_is_told_in_the_end(tmp_path):
    path = tmp_path / "loki.ndjson"
    path.write_bytes(b"".join(_letter(number, service_name=f"s{number}") for number in range(3)))
    async with FakeLoki() as loki:
        loki.script(*[status(400, "entry for stream is broken")] * 9)
        code, _, said = await replay(path, sinks__loki__url=loki.url, sinks__loki__batch__max_bytes="1KiB")

    told = [orjson.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert code == 1
    assert sum(line["records"] for line in told if line["event"] == "sink_refused") == 3
