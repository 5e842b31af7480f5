"""The Loki sink against a strict fake: what it sends is taken, and what is answered is understood."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.errors import SinkRefused, SinkRetry
from sidecar.injector import x509
from sidecar.loki import client
from sidecar.options import Secret
from sidecar.sinks.loki import BatchConfig, Config, Loki
from tests.contracts.sink_contract import SinkContract
from tests.support import fake_loki, records
from tests.support.fake_loki import FakeLoki
from tests.support.patience import PATIENCE

CERTIFICATES = Path(__file__).parents[1] / "support" / "certificates"


class LokiContract(SinkContract):
    encoding = "json"

    @contextlib.asynccontextmanager
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


class TestTls:
    """Trust, identity, and files that change."""

    @pytest.fixture
    async def loki(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=CERTIFICATES / "authority.pem")
        context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        async with FakeLoki(tls=context) as started:
            yield started

    async def send(self, loki, **files):
        sink = Loki(
            Config(url=loki.url, **{name: str(path) for name, path in files.items()}),
            telemetry=records.quiet_telemetry(),
        )
        made = records.records(2)
        try:
            (push,) = sink.encode(made, sink.settle(made))
            return await sink.send(push)
        finally:
            await sink.close()

    async def test_both_sides_prove_who_they_are(self, loki):
        await self.send(
            loki,
            ca_file=CERTIFICATES / "authority.pem",
            cert_file=CERTIFICATES / "client.pem",
            key_file=CERTIFICATES / "client.key",
        )

        assert len(loki.lines()) == 2

    async def test_a_server_that_nobody_vouches_for_gets_nothing(self, loki):
        with pytest.raises(SinkRetry) as retry:
            await self.send(loki, cert_file=CERTIFICATES / "client.pem", key_file=CERTIFICATES / "client.key")

        assert retry.value.reason == "connection"
        assert loki.requests == []

    async def test_a_client_without_a_certificate_is_turned_away(self, loki):
        with pytest.raises(SinkRetry):
            await self.send(loki, ca_file=CERTIFICATES / "authority.pem")

        assert loki.requests == []

    async def test_files_are_read_again_when_they_change(self, loki, tmp_path):
        for name in ("client.pem", "client.key"):
            (tmp_path / name).write_bytes((CERTIFICATES / name).read_bytes())
        (tmp_path / "authority.pem").write_bytes((CERTIFICATES / "client.pem").read_bytes())
        certificates = client.Certificates(
            str(tmp_path / "authority.pem"), str(tmp_path / "client.pem"), str(tmp_path / "client.key")
        )
        first = certificates.get()
        assert certificates.get() is first

        (tmp_path / "authority.pem").write_bytes((CERTIFICATES / "authority.pem").read_bytes())
        second = certificates.get()
        (tmp_path / "authority.pem").unlink()

        assert second is not first
        assert certificates.get() is second  # a mount that is being replaced

    async def test_certificates_are_replaced_while_it_runs(self, loki, tmp_path):
        foreign = x509.issue(("client",), 30, datetime.now(UTC))
        ca, cert, key = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
        ca.write_bytes((CERTIFICATES / "authority.pem").read_bytes())
        cert.write_text(foreign.certificate)
        key.write_text(foreign.key)
        sink = Loki(
            Config(url=loki.url, ca_file=str(ca), cert_file=str(cert), key_file=str(key)),
            telemetry=records.quiet_telemetry(),
        )
        made = records.records(2)
        (push,) = sink.encode(made, sink.settle(made))

        with pytest.raises(SinkRetry):
            await sink.send(push)  # Loki does not know this client
        cert.write_bytes((CERTIFICATES / "client.pem").read_bytes())
        with pytest.raises(SinkRetry):
            await sink.send(push)  # half replaced: the new certificate does not go with the old key
        key.write_bytes((CERTIFICATES / "client.key").read_bytes())
        await sink.send(push)
        assert len(loki.lines()) == 2
        ca.write_text(foreign.authority)
        with pytest.raises(SinkRetry):
            await sink.send(push)  # a connection that trusted another authority is not used any more
        await sink.close()

        assert len(loki.requests) == 1

    async def test_a_missing_file_is_tried_again(self, loki, tmp_path):
        with pytest.raises(SinkRetry) as retry:
            await self.send(loki, ca_file=tmp_path / "none.pem")

        assert retry.value.reason == "credentials"


class TestTroubleOnTheWire:
    """What HTTP itself can do wrong."""

    @pytest.fixture
    async def loki(self):
        async with FakeLoki() as started:
            yield started

    @pytest.fixture
    async def sink(self, loki):
        made = Loki(Config(url=loki.url, timeout=PATIENCE), telemetry=records.quiet_telemetry())
        yield made
        await made.close()

    async def send(self, sink):
        made = records.records(2)
        (push,) = sink.encode(made, sink.settle(made))
        return await sink.send(push)

    @pytest.mark.parametrize(
        "fault",
        [
            fake_loki.Fault("reset"),
            fake_loki.Fault("reset_mid_body"),
            fake_loki.lost_answer(),
            fake_loki.Fault("wrong_length"),
        ],
        ids=["reset", "half an answer", "lost answer", "wrong length"],
    )
    async def test_an_answer_that_does_not_come_is_tried_again(self, loki, sink, fault):
        loki.script(fault)

        with pytest.raises(SinkRetry) as retry:
            await self.send(sink)
        assert retry.value.reason == "connection"
        await self.send(sink)

    @pytest.mark.parametrize(
        "fault",
        [fake_loki.Fault("hang"), fake_loki.Fault("slow", seconds=3600.0), fake_loki.Fault("drip")],
        ids=["hang", "slow", "slow loris"],
    )
    async def test_an_answer_that_does_not_come_in_time_is_tried_again(self, loki, fault):
        sink = Loki(Config(url=loki.url, timeout=0.3), telemetry=records.quiet_telemetry())
        loki.fault = lambda request: fault

        with pytest.raises(SinkRetry) as retry:
            await self.send(sink)
        assert retry.value.reason == "timeout"
        loki.fault = None
        async with asyncio.timeout(PATIENCE):
            while not loki.lines():
                with contextlib.suppress(SinkRetry):
                    await self.send(sink)
        await sink.close()

    async def test_nobody_there_is_tried_again(self, loki, sink):
        await loki.stop()

        with pytest.raises(SinkRetry) as retry:
            await self.send(sink)
        assert retry.value.reason == "connection"

    @pytest.mark.parametrize(
        "credentials",
        [
            {"bearer_token": Secret("s3cret-token")},
            {"username": "u", "password": Secret("s3cret-token")},
        ],
        ids=["bearer", "basic"],
    )
    @pytest.mark.parametrize("code", [400, 401, 500])
    async def test_credentials_that_an_answer_echoes_are_not_repeated(self, loki, credentials, code):
        sink = Loki(Config(url=loki.url, **credentials), telemetry=records.quiet_telemetry())
        loki.fault = lambda request: fake_loki.status(code, f"bad: {request.headers['Authorization']}!")

        made = records.records(1)
        (push,) = sink.encode(made, sink.settle(made))

        with pytest.raises((SinkRetry, SinkRefused)) as failed:
            await sink.send(push)
        await sink.close()

        sent = loki.requests[0].headers["Authorization"].split()[1]
        assert "bad: " in failed.value.detail
        assert sent not in failed.value.detail
        assert "s3cret" not in f"{failed.value.detail} {failed.value!r} {sink._client!r}"

    @pytest.mark.parametrize("token", ["s3cret\ns3cret\n", "s3cret\rx", "s3cret\0x", "s3crét"])
    async def test_a_token_that_is_no_header_is_told_by_option_and_file_and_not_sent(self, loki, tmp_path, token):
        path = tmp_path / "token"
        path.write_bytes(token.encode())
        sink = Loki(Config(url=loki.url, bearer_token=Secret(path=str(path))), telemetry=records.quiet_telemetry())

        with pytest.raises(SinkRetry) as retry:
            await self.send(sink)
        assert retry.value.reason == "credentials"
        assert f"sinks.loki.bearer_token: the file {path}" in retry.value.detail
        assert "s3cr" not in retry.value.detail
        assert loki.requests == []

        path.write_bytes(b"mended\n")
        await self.send(sink)
        await sink.close()
        assert loki.requests[0].headers["Authorization"] == "Bearer mended"

    async def test_credentials_of_the_address_are_sent_and_never_told(self, loki):
        port = loki.url.rsplit(":", 1)[1]
        sink = Loki(Config(url=f"http://u:s3cret@127.0.0.1:{port}"), telemetry=records.quiet_telemetry())
        await self.send(sink)
        assert loki.requests[0].headers["Authorization"] == client.basic("u", "s3cret")
        await loki.stop()

        with pytest.raises(SinkRetry) as retry:
            await self.send(sink)
        await sink.close()

        assert "s3cret" not in f"{retry.value.detail} {retry.value!r}"

    async def test_a_large_body_goes_too(self, loki):
        sink = Loki(Config(url=loki.url), telemetry=records.quiet_telemetry())
        chance = random.Random(5)
        made = [records.record(chance.randbytes(120_000).hex()) for _ in range(12)]
        sink._encoder.max_bytes = 3 << 20

        (push,) = sink.encode(made, sink.settle(made))
        await sink.send(push)
        await sink.close()

        assert len(push.body) > 1 << 20
        assert len(loki.lines()) == 12
