"""The Loki sink against a strict fake: what it sends is taken, and what is answered is understood."""

from __future__ import annotations

from contextlib import asynccontextmanager

from sidecar.sinks.loki import BatchConfig, Config, Loki
from tests.contracts.sink_contract import SinkContract
from tests.support import records
from tests.support.fake_loki import FakeLoki


class LokiContract(SinkContract):
    encoding = "json"

    @asynccontextmanager
    async def started(self):
        async with FakeLoki() as loki:
            sink = Loki(
                Config(url=loki.url, encoding=self.encoding, batch=BatchConfig(max_bytes=64 << 10)),
                telemetry=records.quiet_telemetry(),
            )

            async def received():
                return [line.encode() for line in loki.lines()]

            try:
                yield sink, received
            finally:
                await sink.close()


class TestJsonContract(LokiContract):
    """JSON, compressed by gzip."""


class TestProtobufContract(LokiContract):
    """Protobuf in a snappy block, compressed by gzip."""

    encoding = "protobuf"
