"""Bad input through the whole program: each line gets an outcome, nothing stops, nothing is lost, memory stays bounded."""

from __future__ import annotations

import asyncio
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import lines
from tests.support.fake_loki import FakeLoki
from tests.support.running import Sidecar, assert_balanced

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = {
    "invalid UTF-8": b'\xff\xfe\x80 {"a":"\xc3"}',
    "NUL bytes": b"a\x00b\x00",
    "lone surrogates": b'{"message":"\\ud800 \\udfff"}',
    "duplicate keys": b'{"level":"info","level":"warn","password":"a","password":"b"}',
    "NaN": b'{"duration_ms":NaN,"x":Infinity}',
    "deep JSON": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep array": b"[" * 10_000 + b"]" * 10_000,
    "huge integers": b'{"status":' + b"9" * 4000 + b',"n":-' + b"9" * 400 + b"}",
    "huge exponent": b'{"latency":1e308,"ts":-1e308,"method":"GET","status":200,"path":"/"}',
    "CRLF": b"windows\r",
    "year 0": b'{"level":"info","timestamp":"0000-01-01T00:00:00Z","service_name":"shop","trace_id":"' + TRACE + b'"}',
    "year 9999": b'{"level":"info","timestamp":"9999-12-31T23:59:59.999999999Z","service_name":"shop","trace_id":"'
    + TRACE
    + b'"}',
    "an empty object": b"{}",
    "an array": b"[1,2]",
    "ESC and BEL": b"\x1b]0;title\x07\x1b[2J",
    "a long word": b"x" * 200_000,
    "many keys": b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(5_000)) + b"}",
    "quotes": f"[GIN] {datetime.now(UTC):%Y/%m/%d - %H:%M:%S}".encode() + b' | 200 | 1ms | 1.1.1.1 | GET "/\\"\\',
    "a label attack": b'{"method":"GET\\n","path":"/\\"}\\n# HELP","status":200,"duration_ms":1}',
}


async def test_every_hostile_line_becomes_one_record_and_reaches_loki():
    async with FakeLoki() as loki:
        async with Sidecar(
            [f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=20ms", "sinks.stdout.enabled=true"]
        ) as sidecar:
            sidecar.write(b"\n".join(HOSTILE.values()) + b"\n")
            metrics = await sidecar.until("sidecar_sink_records_total", len(HOSTILE), sink="loki")
            status, health = await sidecar.get("/health")
            sidecar.end_input()

            assert await sidecar.finish() == 0

        assert not sidecar.events("sink_refused")
        assert loki.count() == len(HOSTILE)
    assert metrics.total("sidecar_lines_read_total") == len(HOSTILE)
    assert metrics.total("sidecar_sink_records_total", sink="loki", outcome="sent") == len(HOSTILE)
    assert metrics.total("sidecar_records_total", outcome="valid") == 2
    assert status == 200, health
    assert_balanced(metrics)
    records = dict(zip(HOSTILE, sidecar.records(), strict=True))
    assert records["year 0"]["timestamp"] == "0000-01-01T00:00:00Z"
    assert records["CRLF"]["message"] == "windows"
    assert "a" not in str(records["duplicate keys"]["password"]).lower().replace("[redacted]", "")
    assert records["ESC and BEL"]["message"].count("\x1b") <= 1


async def test_binary_garbage_is_accounted_for_to_the_byte():
    garbage = bytes(range(256)) * 400
    async with Sidecar() as sidecar:
        sidecar.write(garbage)
        sidecar.end_input()

        assert await sidecar.finish() == 0

    assert all(isinstance(record, dict) for record in sidecar.records())


@pytest.mark.slow
async def test_a_line_of_two_gigabytes_is_one_record_in_bounded_memory(tmp_path):
    path = tmp_path / "huge.log"
    size = 2 << 30
    with path.open("wb") as file:
        file.write(b"head of the line ")
        file.truncate(size)  # a hole reads as NUL bytes
        file.seek(size)
        file.write(b"\n" + lines.canonical(1)[0] + b"\n")
    async with Sidecar(["source.kind=file", f"source.path={path}"], stdin=None) as sidecar:
        async with asyncio.timeout(120):
            while (await sidecar.metrics()).total("sidecar_records_total") < 2:
                pass
        metrics = await sidecar.metrics()
        status = Path(f"/proc/{sidecar.process.pid}/status").read_text(encoding="ascii")  # noqa: ASYNC240  not a disk
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 0

    first, second = sidecar.records()
    assert first["message"].startswith("head of the line")
    assert first["truncated"] is True
    assert second["path"] == "/orders/0"
    assert metrics.total("sidecar_truncated_lines_total") == 1
    assert metrics.total("sidecar_lost_bytes_total", reason="line_too_long") == size - (1 << 20)
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 200 << 10
    assert_balanced(metrics)
