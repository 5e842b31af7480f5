"""The certificate of the webhook: made, kept while it lasts, renewed without a failing call."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.injector import certificates, issue, x509
from tests.support import charts

NOW = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)
WANTED = issue.Wanted("platform", "gin-sidecar", "gin-sidecar-tls", "gin-sidecar", 90)
HOST = "gin-sidecar.platform.svc"


def _now():
    return datetime.now(UTC)


def _handshake(issued, trusted, host, tmp_path):
    """Let OpenSSL verify, as strictly as it can, over a connection in memory."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_text(issued.certificate)
    key.write_text(issued.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cadata=trusted)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname=host)
    theirs = server.wrap_bio(there, back, server_side=True)
    pending = [ours, theirs]
    for _ in range(10):
        for end in list(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not pending:
            return ours.getpeercert()
    raise AssertionError("no end of the handshake")


def test_openssl_takes_the_certificate_for_its_names_and_for_as_long_as_was_said(tmp_path):
    issued = x509.issue((HOST, f"{HOST}.cluster.local"), 90, _now())

    shown = _handshake(issued, issued.authority, HOST, tmp_path)

    assert shown["subjectAltName"] == (("DNS", HOST), ("DNS", f"{HOST}.cluster.local"))
    left = ssl.cert_time_to_seconds(shown["notAfter"]) - _now().timestamp()
    assert timedelta(days=89, hours=23) < timedelta(seconds=left) <= timedelta(days=90)


def test_another_name_and_another_authority_are_refused(tmp_path):
    issued, other = x509.issue((HOST,), 90, _now()), x509.issue((HOST,), 90, _now())

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(issued, issued.authority, "other.platform.svc", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(issued, other.authority, HOST, tmp_path)


def test_an_expired_certificate_is_refused(tmp_path):
    issued = x509.issue((HOST,), 1, _now() - timedelta(days=2))

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        _handshake(issued, issued.authority, HOST, tmp_path)


def test_a_signature_over_something_else_is_refused(tmp_path):
    """What OpenSSL checks is the signature: a leaf of another authority of the same name does not pass."""
    issued = x509.issue((HOST,), 90, _now())
    der = bytearray(ssl.PEM_cert_to_DER_cert(issued.certificate))
    der[der.index(HOST.encode())] ^= 1
    forged = x509.Issued(ssl.DER_cert_to_PEM_cert(bytes(der)), issued.key, issued.authority, issued.not_after)

    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(forged, issued.authority, "f" + HOST[1:], tmp_path)


def test_a_validity_beyond_2049_is_written_as_the_standard_wants(tmp_path):
    issued = x509.issue((HOST,), 365 * 40, _now())

    assert _handshake(issued, issued.authority, HOST, tmp_path)["notAfter"].split()[3] >= "2050"


def test_no_key_shows_in_what_is_printed():
    assert "PRIVATE" not in repr(x509.issue((HOST,), 1, NOW))


class Cluster:
    """An API server with one Secret and one webhook configuration, in memory."""

    def __init__(self, webhooks=2):
        self.secret = None
        self.webhooks = [{"name": f"w{place}", "clientConfig": {}} for place in range(webhooks)]
        self.calls = []
        self.failing = {}  # (method, word of the path) → status

    def call(self, method, path, body=None, kind="application/json"):
        what = "secret" if "secrets" in path else "webhook"
        self.calls.append((method, what))
        if status := self.failing.get((method, what)):
            return status, {"message": "refused"}
        match method, what:
            case "GET", "secret":
                return (200, self.secret) if self.secret else (404, {})
            case "POST", "secret":
                self.secret = body | {"metadata": body["metadata"] | {"resourceVersion": "1"}}
                return 201, body
            case "PUT", "secret":
                assert body["metadata"]["resourceVersion"] == self.secret["metadata"]["resourceVersion"]
                self.secret = body
                return 200, body
            case "GET", "webhook":
                return 200, {"webhooks": self.webhooks}
            case "PATCH", "webhook":
                assert kind == "application/json-patch+json"
                for operation in body:
                    _, _, place, *rest = operation["path"].split("/")
                    if operation["op"] == "add":
                        self.webhooks[int(place)]["clientConfig"][rest[-1]] = operation["value"]
                    else:
                        assert self.webhooks[int(place)]["name"] == operation["value"]
                return 200, {}
        raise AssertionError((method, path))

    def text(self, name):
        return base64.b64decode(self.secret["data"][name]).decode()

    def trusted(self):
        (bundle,) = {one["clientConfig"]["caBundle"] for one in self.webhooks}
        return base64.b64decode(bundle).decode()


def test_the_first_run_makes_a_secret_and_lets_the_api_server_trust_it():
    cluster = Cluster()

    assert issue.run(WANTED, cluster, NOW) is True

    assert cluster.secret["type"] == "kubernetes.io/tls"
    assert cluster.trusted() == cluster.text("ca.crt")
    assert cluster.text("tls.key").startswith("-----BEGIN EC PRIVATE KEY-----")


def test_a_certificate_that_lasts_is_kept_and_nothing_is_written():
    cluster = Cluster()
    issue.run(WANTED, cluster, NOW)
    before = json.dumps(cluster.secret)
    cluster.calls.clear()

    assert issue.run(WANTED, cluster, NOW + timedelta(days=59)) is False

    assert json.dumps(cluster.secret) == before
    assert cluster.calls == [("GET", "secret"), ("GET", "webhook")]


def test_a_webhook_configuration_that_was_made_anew_is_trusted_again():
    """`helm upgrade` may replace it; the Secret stays."""
    cluster = Cluster()
    issue.run(WANTED, cluster, NOW)
    cluster.webhooks = [{"name": "w0", "clientConfig": {"caBundle": "b2xk"}}]

    assert issue.run(WANTED, cluster, NOW) is False

    assert cluster.trusted() == cluster.text("ca.crt")


def test_a_renewal_trusts_the_new_authority_first_and_the_old_one_still(tmp_path):
    cluster = Cluster()
    start = _now() - timedelta(days=61)
    issue.run(WANTED, cluster, start)
    old = x509.Issued(cluster.text("tls.crt"), cluster.text("tls.key"), cluster.text("ca.crt"), start)
    cluster.calls.clear()

    assert issue.run(WANTED, cluster, _now()) is True

    new = x509.Issued(cluster.text("tls.crt"), cluster.text("tls.key"), "", start)
    assert cluster.calls.index(("PATCH", "webhook")) < cluster.calls.index(("PUT", "secret"))
    for shown in (old, new):
        assert _handshake(shown, cluster.trusted(), HOST, tmp_path)


def test_however_often_it_is_renewed_two_authorities_are_trusted():
    cluster = Cluster()
    for round_ in range(5):
        issue.run(WANTED, cluster, NOW + timedelta(days=61) * round_)

    assert cluster.trusted().count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"data": {}},
        {"metadata": {"resourceVersion": "1"}},
        {"metadata": {"resourceVersion": "1", "annotations": {issue.RENEW_AFTER: "soon", issue.HOST: HOST}}},
        {"metadata": {"resourceVersion": "1", "annotations": {issue.RENEW_AFTER: "2030-01-01", issue.HOST: HOST}}},
        {"data": {"tls.crt": "", "tls.key": "", "ca.crt": "%%%"}, "metadata": {"resourceVersion": "1"}},
    ],
    ids=["empty", "not-ours", "no-date", "no-zone", "no-base64"],
)
def test_a_secret_that_is_not_what_we_wrote_is_replaced(damage):
    cluster = Cluster()
    issue.run(WANTED, cluster, NOW)
    cluster.secret |= damage

    assert issue.run(WANTED, cluster, NOW) is True

    assert cluster.trusted() == cluster.text("ca.crt")


def test_another_service_name_gets_another_certificate():
    cluster = Cluster()
    issue.run(WANTED, cluster, NOW)

    assert issue.run(issue.Wanted("platform", "other", "gin-sidecar-tls", "gin-sidecar", 90), cluster, NOW) is True


@pytest.mark.parametrize(
    "failing", [("GET", "secret"), ("POST", "secret"), ("GET", "webhook"), ("PATCH", "webhook")], ids=" ".join
)
def test_what_the_api_server_refuses_is_said_and_tried_again(failing):
    cluster = Cluster()
    cluster.failing = {failing: 403}

    with pytest.raises(issue.ApiError, match="403 refused"):
        issue.run(WANTED, cluster, NOW)

    cluster.failing = {}
    issue.run(WANTED, cluster, NOW)
    assert cluster.trusted() == cluster.text("ca.crt")


def test_a_renewal_that_died_before_the_secret_was_written_leaves_the_old_certificate_trusted():
    cluster = Cluster()
    issue.run(WANTED, cluster, NOW)
    shown = cluster.text("ca.crt")
    cluster.failing = {("PUT", "secret"): 409}

    with pytest.raises(issue.ApiError, match="409"):
        issue.run(WANTED, cluster, NOW + timedelta(days=61))

    assert cluster.text("ca.crt") == shown
    assert shown in cluster.trusted()


@pytest.fixture
def server(tmp_path):
    """The API server on this machine: TLS, a token, one cluster behind it."""
    issued = x509.issue(("localhost",), 1, _now())
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    for name, text in {"ca.crt": issued.authority, "token": "let-me-in\n"}.items():
        (folder / name).write_text(text)
    for name, text in {"tls.crt": issued.certificate, "tls.key": issued.key}.items():
        (tmp_path / name).write_text(text)
    cluster = Cluster()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
            if self.headers["Authorization"] != "Bearer let-me-in":
                status, said = 401, {"message": "Unauthorized"}
            else:
                status, said = cluster.call(self.command, self.path, body, self.headers["Content-Type"])
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815  the library's names

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    listening = http.server.HTTPServer(("localhost", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield cluster, issue.Server("localhost", listening.server_address[1], folder)
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_the_api_server_is_asked_over_tls_with_the_token_of_the_pod(server):
    cluster, api = server

    assert issue.run(WANTED, api, NOW) is True
    assert issue.run(WANTED, api, NOW) is False

    assert cluster.trusted() == cluster.text("ca.crt")


def test_a_wrong_token_and_a_server_of_another_authority_are_errors_that_say_so(server):
    _, api = server
    (api.folder / "token").write_text("wrong")
    with pytest.raises(issue.ApiError, match="401 Unauthorized"):
        issue.run(WANTED, api, NOW)

    (api.folder / "ca.crt").write_text(x509.issue(("localhost",), 1, _now()).authority)
    with pytest.raises(issue.ApiError, match="certificate"):
        issue.run(WANTED, api, NOW)


def test_the_job_of_the_chart_calls_the_command_as_it_is():
    """The arguments that the chart writes are those that the command takes."""
    text = (charts.CHART / "templates" / "certificate-job.yaml").read_text()

    for name in ("namespace", "service", "secret", "webhook", "days"):
        assert f"- --{name}=" in text
    assert "sidecar.injector.issue" in text


def test_the_webhook_takes_what_was_issued_and_knows_when_it_ends(tmp_path):
    cluster = Cluster()
    now = _now().replace(microsecond=0)
    issue.run(WANTED, cluster, now)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text(cluster.text(name))
    taken = certificates.Certificates(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))

    taken.refresh()

    assert taken.ready
    assert taken.problem == ""
    assert taken.not_after == (now + timedelta(days=WANTED.days)).timestamp()
