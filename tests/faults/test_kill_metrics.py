"""
Property: request metrics and line counters count each line once, and never less than a scrape has shown.
Fault:    SIGKILL at up to 200 random moments of a sidecar that follows a file, or a container's log, while lines are
          written, torn, cut into pieces and rotated, and the container is restarted.
Expect:   the counters of the last life are those of a reader who was never disturbed; every record was delivered, and
          nothing else was.

FAULT_KILLS and FAULT_SECONDS set how often and for how long at most.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime

import orjson
import pytest

from tests.support.fake_loki import FakeLoki
from tests.support.killing import Lives
from tests.support.kubelet import Container
from tests.support.patience import PATIENCE

KILLS = int(os.environ.get("FAULT_KILLS", "200"))  # 60 s on two idle cores; where others use them, fewer
SECONDS = float(os.environ.get("FAULT_SECONDS", "75"))
CRI_SECONDS = float(os.environ.get("FAULT_SECONDS", "30"))
NAME = re.compile(r"\bn\d{5}\b|boom \d{5}|the last")
PANIC = b"panic: boom %05d\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:7 +0x1d\nexit status 2\n"


class Writer:
    """Writes what services write, in pieces that end anywhere, and knows what it comes to."""

    def __init__(self, path, chance):
        self.path, self.chance = path, chance
        self.ready = b""
        self.number = 0
        self.lines = self.joined = self.blank = self.bytes = 0
        self.formats, self.requests, self.names = Counter(), Counter(), set()
        self.rotations = 0

    def entry(self):
        number, chance = self.number, self.chance
        self.number += 1
        now = datetime.now(UTC)
        kind = chance.randrange(8)
        if kind < 3:
            status = chance.choice([200, 200, 500])
            trace = f"{number + 1:032x}"
            record = {
                "level": "info",
                "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}Z",
                "service_name": "shop",
                "trace_id": trace,
            }
            record |= {
                "message": f"n{number:05d}",
                "method": "GET",
                "route": f"/c{number % 5}",
                "status": status,
                "duration_ms": 3,
            }
            weight = chance.choice([1, 1, 10, 100])
            if weight > 1:
                record["sample_weight"] = weight
            text = orjson.dumps(record) + b"\n"
            self.count("canonical", f"n{number:05d}", f"/c{number % 5}", status, weight=weight)
        elif kind < 5:
            path = f"/g{number % 7}/n{number:05d}"
            text = f'[GIN] {now:%Y/%m/%d - %H:%M:%S} | 200 |    2.5ms |  10.0.0.1 | POST     "{path}"\n'.encode()
            self.count("gin", f"n{number:05d}", f"/g{number % 7}/:name", 200, "POST")
            if chance.random() < 0.5:
                text += b"Error #01: no stock\nError #02: gone\n"
                self.joined += 2
                self.lines += 2
        elif kind == 5:
            text = PANIC % number
            self.lines += 5
            self.joined += 5
            self.count("go_panic", f"boom {number:05d}")
        elif kind == 6:
            text = b"\n \n"
            self.lines += 2
            self.blank += 2
            return text
        else:
            text = b'{"level":"info","ts":%.3f,"msg":"n%05d","took":1}\n' % (now.timestamp(), number)
            self.count("zap", f"n{number:05d}")
        return text

    def count(self, form, name, route=None, status=200, method="GET", weight=1):
        self.lines += 1
        self.formats[form] += 1
        self.names.add(name)
        if route:
            self.requests[method, route, str(status)] += weight

    def write(self):
        """Write a few entries, perhaps without the end of the last one."""
        while len(self.ready) < 2000 and self.chance.random() < 0.9:
            self.ready += self.framed(self.entry())
        size = self.chance.randrange(len(self.ready) + 1)
        self.put(size)
        if self.chance.random() < 0.05:
            self.rotate()

    def put(self, size):
        self.append(self.ready[:size])
        self.bytes += size
        self.ready = self.ready[size:]

    def rotate(self):
        """Rename the file at the end of a line, as a rotation does."""
        self.put(self.ready.find(b"\n") + 1)
        self.rotations += 1
        self.renew()

    def framed(self, text):
        """Return lines as they are written to the log."""
        return text

    def append(self, data):
        with self.path.open("ab") as file:
            file.write(data)

    def renew(self):
        self.path.rename(self.path.with_name(f"app.log.{1000 - self.rotations}"))
        self.path.touch()

    def finish(self):
        """Write everything, and a line that closes any block."""
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}Z"  # Loki refuses what is older than a week
        record = {"level": "info", "timestamp": now, "service_name": "shop", "trace_id": "f" * 32}
        self.count("canonical", "the last")
        self.ready += self.framed(orjson.dumps(record | {"message": "the last"}) + b"\n")
        self.put(len(self.ready))


class CriWriter(Writer):
    """Likewise into a container's log, through its runtime: each line in one piece or more."""

    def __init__(self, pod, chance):
        super().__init__(None, chance)
        self.container = Container(pod)
        self.container.start()

    def framed(self, text):
        written = b""
        for line in text.splitlines():
            rest = line
            while self.chance.random() < 0.3:
                cut = self.chance.randrange(len(rest) + 1)
                written += self.row(b"P", rest[:cut])
                rest = rest[cut:]
                self.lines += 1  # a piece is a line of the file, joined to the next one
                self.joined += 1
            written += self.row(b"F", rest)
        return written

    def row(self, tag, text):
        seconds, ns = divmod(time.time_ns(), 10**9)
        now = datetime.fromtimestamp(seconds, UTC)
        return b"%s.%09dZ stdout %s %s\n" % (f"{now:%Y-%m-%dT%H:%M:%S}".encode(), ns, tag, text)

    def append(self, data):
        self.container.raw(data)

    def renew(self):
        self.container.rotate()

    def restart(self):
        """The application ends, all its lines written, and starts again."""
        self.put(len(self.ready))
        self.container.start()


@pytest.mark.slow
async def test_g08_rule_24_each_line_counts_once_whenever_the_process_is_killed(tmp_path):
    chance = random.Random(20261125)
    log = tmp_path / "app.log"
    writer = Writer(log, chance)
    await kill_and_compare(tmp_path, writer, ["source.kind=file", f"source.path={log}"], SECONDS)


@pytest.mark.slow
async def test_g08_rule_24_each_line_counts_once_whenever_the_process_is_killed_cri(tmp_path):
    """Pieces of a line may lie on both sides of a kill and of a rotation."""
    pod = tmp_path / "pod"
    writer = CriWriter(pod, random.Random(20261126))
    settings = ["source.kind=cri", f"source.path={pod}", "source.container=app"]
    for delivered in await kill_and_compare(tmp_path, writer, settings, CRI_SECONDS, restart_at=KILLS // 5):
        for name, texts in named(line for line in delivered if line.endswith("}")).items():
            assert len(texts) == 1, f"{name} became another record when it was delivered again"
    writer.container.exit()
    assert writer.container.restart == 1
    assert writer.rotations


async def kill_and_compare(tmp_path, writer, source, seconds, *, restart_at=-1):
    """Kill one life after another, then compare the last one's counters and all deliveries with the writer's."""
    chance = writer.chance
    writer.write()
    async with FakeLoki() as loki:
        settings = [
            *source, "source.idle_flush=600s", "http.host=127.0.0.1", "http.port=0",
            f"state.dir={tmp_path / 'state'}", "state.checkpoint_interval=100ms", "sinks.stdout.enabled=true",
            f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=300ms",
        ]  # fmt: skip
        async with Lives(tmp_path, settings) as lives:
            began = time.monotonic()
            for killed in range(KILLS):
                if killed >= KILLS // 4 and time.monotonic() - began > seconds:
                    break
                await lives.begin()
                if chance.random() < 0.9:
                    await lives.listening()
                    for turn in range(chance.randrange(4)):
                        writer.write()
                        if killed >= restart_at >= 0 and not turn:
                            writer.restart()
                            restart_at = -1
                        await asyncio.sleep(chance.random() * 0.06)
                        if chance.random() < 0.6:
                            await lives.scrape()
                else:
                    await asyncio.sleep(chance.random() * 0.1)
                await lives.end(signal.SIGKILL)
                writer.write()

            writer.finish()
            await lives.begin()
            await lives.listening()
            async with asyncio.timeout(PATIENCE):
                while (metrics := await lives.scrape()).total("sidecar_lines_read_total") < writer.lines:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            metrics = await lives.scrape()
            assert await lives.end(signal.SIGTERM) == 0

        assert metrics.total("sidecar_lines_read_total") == writer.lines
        assert metrics.total("sidecar_bytes_read_total") == writer.bytes
        assert metrics.total("sidecar_lines_joined_total") == writer.joined
        assert metrics.total("sidecar_lines_skipped_total") == writer.blank
        assert metrics.by("sidecar_format_records_total", "format") == {
            (form,): count for form, count in writer.formats.items()
        }
        requests = metrics.by("http_requests_total", "method", "path", "status")
        assert sum(requests.values()) == sum(writer.requests.values())
        assert {key: count for key, count in requests.items() if key[1].startswith("/c")} == {
            key: count for key, count in writer.requests.items() if key[1].startswith("/c")
        }
        assert metrics.total("http_request_duration_ms_count") == sum(writer.requests.values())
        assert metrics.total("http_request_duration_seconds_count") == sum(writer.requests.values())
        assert metrics.total("sidecar_lost_bytes_total") == 0
        written = (tmp_path / "records").read_text().splitlines()
        pushed = loki.lines()
    assert named(line for line in written if line.endswith("}")).keys() == writer.names, "stdout"
    assert named(pushed).keys() == writer.names, "Loki"
    return [written, pushed]


def named(records):
    """Return the texts of records by their names; each has exactly one, and what a kill cut off has no end."""
    found = defaultdict(set)
    for record in records:
        (name,) = set(NAME.findall(record))
        found[name].add(record)
    return found


async def test_g04_an_unfinished_line_is_left_for_the_next_start(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(b"one\ntwo is unfin")
    settings = [
        "source.kind=file", f"source.path={log}", "http.host=127.0.0.1", "http.port=0", f"state.dir={tmp_path / 'state'}",
    ]  # fmt: skip
    async with Lives(tmp_path, settings) as lives:
        for lines, more in ((1, b"ished\nthree"), (2, b"\n"), (3, b"")):
            await lives.begin()
            await lives.listening()
            async with asyncio.timeout(PATIENCE):
                while (metrics := await lives.scrape()).total("sidecar_lines_read_total") < lines:
                    await asyncio.sleep(0.02)
            assert await lives.end(signal.SIGTERM) == 0
            with log.open("ab") as file:
                file.write(more)

    messages = [orjson.loads(line)["message"] for line in (tmp_path / "records").read_bytes().splitlines()]
    assert messages == ["one", "two is unfinished", "three"]
    assert metrics.total("sidecar_lines_read_total") == 3
    assert metrics.total("sidecar_bytes_read_total") == len(log.read_bytes())
