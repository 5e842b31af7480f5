"""The admission webhook over real TLS: what it answers, and that replacing its certificate disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import ssl
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import aiohttp
import orjson
import pytest

from sidecar.injector import events, names, webhook, x509
from sidecar.injector.settings import Config
from sidecar.telemetry import Log
from tests.support import pods
from tests.support.clock import Clock
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

HOST = "gin-sidecar.platform.svc"
SECRET = "hunter2-of-the-application"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "shop-", "labels": {names.INJECT: "true", "app": "shop"}},
    "spec": {"containers": [{"name": "app", "image": "shop:v1", "env": [{"name": "PASSWORD", "value": SECRET}]}]},
}


class Running:
    """A webhook on loopback whose certificate's files are looked at when a test says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.written = io.StringIO()
        self.issued = self.issue()
        self.config = Config(
            listen="127.0.0.1:0",
            http="127.0.0.1:0",
            cert_file=str(directory / "tls.crt"),
            key_file=str(directory / "tls.key"),
        )
        self.server = webhook.Webhook(self.config, events.Events(Log(self.written, Clock())))

    def issue(self, *, days: int = 90, age: int = 0) -> x509.Issued:
        issued = x509.issue((HOST,), days, datetime.now(UTC) - timedelta(days=age))
        for name, text in (("tls.key", issued.key), ("tls.crt", issued.certificate)):
            (self.directory / f".{name}").write_text(text)
            (self.directory / f".{name}").replace(self.directory / name)
        return issued

    def trusting(self, *issued: x509.Issued) -> aiohttp.ClientSession:
        """Return a client that trusts these authorities and takes a new connection for every request."""
        context = ssl.create_default_context(cadata="".join(one.authority for one in issued))
        resolver = aiohttp.TCPConnector(ssl=context, resolver=_Loopback(), force_close=True)
        return aiohttp.ClientSession(connector=resolver)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.server.port}"

    @property
    def health(self) -> str:
        return f"http://127.0.0.1:{self.server.health_port}"

    def log(self, event: str) -> list[dict[str, object]]:
        return [line for line in map(orjson.loads, self.written.getvalue().splitlines()) if line["event"] == event]


class _Loopback(aiohttp.abc.AbstractResolver):
    async def resolve(self, host, port=0, family=0):
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}
        return [found]

    async def close(self):
        pass


@pytest.fixture
async def running(tmp_path):
    made = Running(tmp_path)
    await made.server.start()
    yield made
    await made.server.close()


@pytest.fixture
async def client(running):
    async with running.trusting(running.issued) as session:
        yield session


async def ask(client, running, body, *, path="/mutate/cri", content_type="application/json"):
    data = io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
    async with client.post(running.url + path, data=data, headers={"Content-Type": content_type}) as response:
        return response.status, await response.read()


async def answered(client, running, review, **how):
    status, body = await ask(client, running, review, **how)
    assert status == 200, body
    answer = orjson.loads(body)
    assert (answer["apiVersion"], answer["kind"]) == (review["apiVersion"], "AdmissionReview")
    assert answer["response"]["uid"] == review["request"]["uid"]
    assert answer["response"]["allowed"] is True
    return answer["response"]


@pytest.mark.parametrize("mode", ["cri", "api"])
async def test_the_path_tells_the_log_mode(running, client, mode):
    response = await answered(client, running, pods.review(POD), path=f"/mutate/{mode}")

    pod = pods.apply(POD, pods.operations(response))
    assert json.loads(pod["metadata"]["annotations"][names.STATUS])["mode"] == mode
    assert response["auditAnnotations"] == {"decision": "injected", "reason": "injected", "mode": mode}
    again = await answered(client, running, pods.review(pod), path=f"/mutate/{mode}")
    assert pods.operations(again) == []
    assert again["auditAnnotations"]["reason"] == "already_injected"


async def test_r06_a_dry_run_gets_the_same_answer(running, client):
    asked, dry = pods.review(POD), pods.review(POD, dryRun=True)

    assert await answered(client, running, asked) == await answered(client, running, dry)
    assert [line["dryRun"] for line in running.log("admission")] == [False, True]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "not_a_pod"),
        ({"kind": {"group": "", "version": "v2", "kind": "Pod"}}, "not_a_pod"),
        ({"kind": "Pod"}, "not_a_pod"),
        ({"subResource": "ephemeralcontainers"}, "not_a_pod"),
        ({"operation": "UPDATE"}, "not_created"),
        ({"operation": "DELETE", "object": None}, "not_created"),
        ({"object": None}, "malformed_pod"),
        ({"object": []}, "malformed_pod"),
        ({"object": {"spec": {"containers": "app"}}}, "malformed_pod"),
        ({"namespace": "kube-system"}, "system_namespace"),
    ],
)
async def test_r01_what_is_not_for_us_passes(running, client, request_, reason):
    response = await answered(client, running, pods.review(POD, **request_))

    assert response["auditAnnotations"] == {"decision": "skipped", "reason": reason}
    assert "patch" not in response


async def test_r05_a_wrong_annotation_passes_with_a_warning(running, client):
    pod = {**POD, "metadata": {**POD["metadata"], "annotations": {"gin-sidecar.io/log-mode": "x" * 500}}}

    response = await answered(client, running, pods.review(pod))

    [warning] = response["warnings"]
    assert "gin-sidecar.io/log-mode" in warning
    assert len(warning) <= 120
    assert "patch" not in response


async def test_r01_a_later_version_of_reviews_is_answered_in_its_own_words(running, client):
    review = {**pods.review(POD), "apiVersion": "admission.k8s.io/v1beta1"}

    await answered(client, running, review)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', "application/json", 400),
        (b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":1}}', "application/json", 400),
        (b'{"kind":"AdmissionReview","apiVersion":"apps/v1","request":{"uid":"a"}}', "application/json", 400),
        (b"{}", "application/yaml", 415),
        (b"{}", "text/plain", 415),
        (b"x" * (webhook.BODY_BYTES + 1), "application/json", 413),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_r08_what_is_no_review_is_refused(running, client, body, content_type, status):
    got, _ = await ask(client, running, body, content_type=content_type)

    assert got == status
    response = await answered(client, running, pods.review(POD))
    assert "patch" in response, "and the next one is answered"


async def test_requests_that_are_no_review_add_up_in_the_log_when_it_ends(running, client):
    for _ in range(3):
        await ask(client, running, b"[]")
    await running.server.close()

    told = running.log("request_refused")
    assert [line.get("repeated", 0) for line in told] == [0, 1]


async def test_other_paths_and_methods_are_refused(running, client):
    async with client.get(f"{running.url}/mutate/cri") as response:
        assert response.status == 405
    async with client.post(f"{running.url}/mutate", data=b"{}") as response:
        assert response.status == 404


async def test_r08_a_pod_of_ten_mebibytes_is_answered(running, client):
    review = pods.review({**POD, "metadata": {**POD["metadata"], "annotations": {"note": ""}}})
    room = webhook.BODY_BYTES - len(orjson.dumps(review))
    review["request"]["object"]["metadata"]["annotations"]["note"] = "x" * room
    assert len(orjson.dumps(review)) == webhook.BODY_BYTES

    response = await answered(client, running, review)

    assert len(response["patch"]) < 20_000, "what the pod had is not sent back"


async def test_r10_the_audit_line_says_who_and_what_and_nothing_of_the_pod(running, client):
    await answered(client, running, pods.review(POD))

    [line] = running.log("admission")
    assert line["generateName"] == "shop-"
    assert line["namespace"] == "shop"
    assert line["user"] == "system:serviceaccount:kube-system:replicaset-controller"
    assert line["decision"] == "injected"
    assert len(line["patch_sha256"]) == 64
    assert line["patch_bytes"] > 1000
    assert {
        "uid",
        "owner_kind",
        "owner_name",
        "operation",
        "dryRun",
        "reason",
        "mode",
        "image",
        "duration_ms",
    } <= line.keys()
    assert SECRET not in running.written.getvalue()


async def test_decisions_are_counted(running, client):
    await answered(client, running, pods.review(POD))
    await answered(client, running, pods.review(None))
    await ask(client, running, b"{")

    async with aiohttp.ClientSession() as plain, plain.get(f"{running.health}/metrics") as response:
        text = await response.text()
    assert 'sidecar_injector_decisions_total{reason="injected"} 1.0' in text
    assert 'sidecar_injector_decisions_total{reason="malformed_pod"} 1.0' in text
    assert 'sidecar_injector_decisions_total{reason="internal_error"} 0.0' in text
    assert 'sidecar_injector_refused_requests_total{reason="not_a_review"} 1.0' in text
    assert "sidecar_injector_certificate_usable 1.0" in text


async def test_r01_a_mistake_of_ours_lets_the_pod_through(running, client, monkeypatch):
    def broken(*_arguments):
        raise KeyError(SECRET)

    monkeypatch.setattr("sidecar.injector.review.decide", broken)

    response = await answered(client, running, pods.review(POD))

    assert response["auditAnnotations"]["reason"] == "internal_error"
    assert "patch" not in response
    [line] = running.log("internal_error")
    assert SECRET not in json.dumps(line)


async def readiness(running):
    async with aiohttp.ClientSession() as plain, plain.get(f"{running.health}/readyz") as response:
        return response.status, await response.text()


async def test_r09_a_replaced_certificate_is_shown_to_new_connections_and_no_request_fails(running):
    """Rule R9, under load: four clients that trust old and new ask all the time while the files are replaced."""
    old = running.issued
    new = x509.issue((HOST,), 30, datetime.now(UTC))
    done = asyncio.Event()
    answers: asyncio.Queue[None] = asyncio.Queue()

    async def load(session):
        while not done.is_set():
            await answered(session, running, pods.review(POD))
            answers.put_nowait(None)

    async def eight_more():
        while not answers.empty():
            answers.get_nowait()
        for _ in range(8):
            await answers.get()

    async with running.trusting(old, new) as session, asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(load(session))
        try:
            # One file after the other, with a look between: for a moment certificate and key do not fit.
            (running.directory / "tls.crt").write_text(new.certificate)
            await running.server.look()
            await eight_more()
            assert running.server.unready() == "", "one misfit look is a replacement in progress"
            (running.directory / "tls.key").write_text(new.key)
            await running.server.look()
            await eight_more()
        finally:
            done.set()

    async with running.trusting(new) as session:
        await answered(session, running, pods.review(POD))
    async with running.trusting(old) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(session, running, pods.review(POD))
    assert [line["level"] for line in running.log("certificate_unusable")] == ["error"]
    assert len(running.log("certificate_loaded")) == 2


async def test_r09_a_certificate_that_stays_unreadable_makes_the_replica_unready_and_it_goes_on_answering(
    running, client
):
    assert await readiness(running) == (200, "ok\n")
    (running.directory / "tls.key").unlink()

    await running.server.look()
    await running.server.look()

    status, text = await readiness(running)
    assert status == 503
    assert "tls.key" in text
    await answered(client, running, pods.review(POD))
    running.issue()
    await running.server.look()
    assert await readiness(running) == (200, "ok\n")


async def test_an_expired_certificate_makes_the_replica_unready(running):
    running.issue(days=1, age=2)

    await running.server.look()

    assert await readiness(running) == (503, "certificate: expired\n")


async def test_the_webhook_waits_for_its_first_certificate(tmp_path):
    running = Running(tmp_path)
    (tmp_path / "tls.crt").unlink()

    await running.server.start()
    try:
        assert running.server.port == 0
        status, text = await readiness(running)
        assert status == 503
        assert "no such file" in text
        issued = running.issue()
        await running.server.look()
        async with running.trusting(issued) as session:
            await answered(session, running, pods.review(POD))
    finally:
        await running.server.close()


async def test_r09_old_versions_of_tls_are_refused(running):
    context = ssl.create_default_context(cadata=running.issued.authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", running.server.port, ssl=context, server_hostname=HOST)


@pytest.mark.parametrize(("linger", "again"), [("100ms", False), ("1h", True)], ids=["once", "twice"])
async def test_the_command_serves_and_lingers_after_sigterm(tmp_path, linger, again):
    """`sidecar injector` as a process: after SIGTERM it is not ready any more and still answers; time or a second ends it."""
    made = Running(tmp_path)
    config = tmp_path / "injector.yaml"
    config.write_text(
        f"injector:\n  listen: 127.0.0.1:0\n  http: 127.0.0.1:0\n  linger: {linger}\n"
        f"  cert_file: {made.config.cert_file}\n  key_file: {made.config.key_file}\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "injector", "-c", config, stderr=asyncio.subprocess.PIPE
    )
    said = {}

    async def until(event):
        async with asyncio.timeout(PATIENCE):
            while event not in said:
                line = orjson.loads(await process.stderr.readline())
                said[line["event"]] = line

    try:
        await until("webhook_listening")
        made.server.port, made.server.health_port = said["webhook_listening"]["port"], said["listening"]["port"]
        assert await readiness(made) == (200, "ok\n")
        process.send_signal(signal.SIGTERM)
        await until("stopping")
        if again:
            assert await readiness(made) == (503, "stopping\n")
            async with made.trusting(made.issued) as session:
                await answered(session, made, pods.review(POD))
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
