"""The HTTP port, asked over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

import aiohttp
import pytest

from sidecar import server
from sidecar.errors import SidecarError
from sidecar.health import Check
from sidecar.model import RequestGroup
from tests.support import fake_application
from tests.support.fake_application import FakeApplication, http
from tests.support.patience import PATIENCE
from tests.support.ports import Port
from tests.support.served import served

TEXT = "text/plain; version=0.0.4; charset=utf-8"
PATHS = ["/", "/metrics", "/metrics/merged", "/health", "/livez", "/readyz"]


def observe(each, sets=1, duration=12.5):
    each.requests.observe({("GET", f"/r{n}", f"/r{n}", 200): RequestGroup([duration], [""]) for n in range(sets)})


# metrics


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;q=0.9", TEXT),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
        ("\xff;;;=,;q=x", TEXT),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(accept, content_type):
    async with served() as each:
        observe(each)

        async with each.client.get("/metrics", headers={"Accept": accept}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == content_type
            assert b"http_request_duration_ms" in await response.read()


async def test_rule_01_one_line_of_12_5_ms_shows_as_such():
    async with served() as each:
        observe(each)

        _, text, _ = await each.get("/metrics")

        assert 'http_request_duration_ms{method="GET",path="/r0",quantile="0.99"} 12.5\n' in text
        assert 'http_request_duration_ms_count{method="GET",path="/r0"} 1\n' in text


@pytest.mark.parametrize("path", ["/metrics", "/metrics/merged"])
async def test_gzip_only_for_who_takes_it(path):
    async with served() as each, aiohttp.ClientSession(auto_decompress=False) as raw:
        for accepted, encoding in [
            ("gzip", "gzip"),
            ("gzip;q=0.1, br", "gzip"),
            ("*", "gzip"),
            ("gzip;q=0", None),
            ("identity", None),
            ("deflate", None),
        ]:
            url = f"http://127.0.0.1:{each.server.port}{path}"
            async with raw.get(url, headers={"Accept-Encoding": accepted}) as response:
                body = await response.read()

            assert response.headers.get("Content-Encoding") == encoding
            text = gzip.decompress(body) if encoding else body
            assert text.startswith(b"# HELP http_request_duration_ms ")
            assert b"sidecar_build_info{" in text


async def test_head_answers_as_get_does_without_the_body():
    async with served() as each:
        for path in PATHS:
            async with each.client.head(path) as response:
                assert response.status == 200
                assert int(response.headers["Content-Length"]) > 0
                assert await response.read() == b""


@pytest.mark.parametrize("path", ["/metrics", "/metrics/merged"])
async def test_single_names_can_be_asked_for(path):
    async with served() as each:
        observe(each)

        _, text, _ = await each.get(f"{path}?name[]=http_request_duration_ms_count&name[]=sidecar_lag_bytes")

        samples = [line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        assert sorted(samples) == ["http_request_duration_ms_count", "sidecar_lag_bytes"]


async def test_without_an_application_the_merged_page_is_ours():
    async with served() as each:
        status, text, response = await each.get("/metrics/merged", Accept="application/openmetrics-text")

        assert status == 200
        assert response.headers["Content-Type"] == TEXT
        assert "sidecar_lines_read_total 0.0\n" in text


# health


async def test_health_tells_each_part_with_time_and_reason():
    async with served() as each:
        each.health.add("loki:delivery", lambda: Check("fail", "answers 503", 12.0, "s"), downstream=True)

        status, text, response = await each.get("/health")
        body = json.loads(text)

        assert status == 200
        assert response.headers["Content-Type"] == "application/health+json"
        assert response.headers["Cache-Control"] == "no-store"
        assert body["status"] == "warn"
        assert body["output"] == "loki:delivery: answers 503"
        assert all(isinstance(check, list) and check[0]["time"] for check in body["checks"].values())


async def test_rule_37_health_that_fails_is_503():
    async with served() as each:
        each.health.add("pump:task", lambda: Check("fail", "reading\nhas stopped"))

        assert (await each.get("/health"))[0] == 503
        assert (await each.get("/health", Accept="text/plain"))[:2] == (503, "pump:task: reading has stopped\n")


async def test_health_is_text_for_who_prefers_it():
    async with served() as each:
        for accept, is_text in [
            ("text/plain", True),
            ("TEXT/Plain ; q=0.5, */*;q=0.1", True),
            ("text/plain, application/json;q=0.5", True),
            ("application/json", False),
            ("application/health+json, text/plain;q=0.9", False),
            ("text/plain;q=0", False),
            ("text/plain;q=x", False),
            ("*/*", False),
            ("text/html,application/xhtml+xml,*/*;q=0.8", False),
            ("", False),
            (",;,=", False),
        ]:
            status, text, _ = await each.get("/health", Accept=accept)

            assert status == 200
            assert (text == "OK\n") is is_text, accept


async def test_livez_asks_only_the_loop():
    async with served() as each:
        each.health.add("pump:task", lambda: Check("fail", "dead"))
        each.health.stopping = True

        assert (await each.get("/livez"))[:2] == (200, "ok\n")
        assert (await each.get("/livez?verbose"))[1] == "[+]event-loop ok\nlivez check passed\n"


async def test_livez_is_503_when_the_loop_does_not_turn():
    now = [0.0]
    async with served(clock=lambda: now[0]) as each:
        now[0] += 11

        status, text, _ = await each.get("/livez")

        assert (status, text) == (503, "[-]event-loop failed: has not turned for a while\nlivez check failed\n")


async def test_readyz_lists_what_holds_it_back():
    async with served() as each:
        each.health.add("application:health", lambda: Check("fail", "answers 503"), gates_readiness=True)

        status, text, _ = await each.get("/readyz?verbose")

        assert status == 503
        assert text == (
            "[+]started ok\n[+]shutdown ok\n[+]source ok\n[-]application:health failed: answers 503\nreadyz check failed\n"
        )


async def test_rule_38_readyz_is_short_when_all_is_well_and_503_from_shutdown_on():
    async with served() as each:
        assert (await each.get("/readyz"))[:2] == (200, "ok\n")
        each.health.stopping = True

        assert (await each.get("/readyz"))[0] == 503
        assert "[-]shutdown failed: shutting down\n" in (await each.get("/readyz"))[1]


async def test_rule_37_health_answers_while_long_scrapes_run():
    async with served() as each:
        observe(each, sets=400)
        names = ["http_request_duration_ms", "http_request_duration_seconds", "http_requests_total"]
        scrapes = [asyncio.create_task(each.get(f"/metrics?name[]={name}")) for name in (*names, "")]
        await asyncio.sleep(0)
        await each.get("/health")

        assert not all(scrape.done() for scrape in scrapes)
        await asyncio.gather(*scrapes)


# the page


async def test_the_page_is_for_people_and_runs_nothing():
    async with served() as each:
        status, text, response = await each.get("/", Accept="text/html")

        assert status == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "checkout" in text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "script" not in response.headers["Content-Security-Policy"]
        assert 'http-equiv="refresh"' in text


async def test_the_page_can_be_paused():
    async with served() as each:
        assert 'http-equiv="refresh"' not in (await each.get("/?pause"))[1]


# everything else


async def test_what_is_not_there_is_404_and_says_what_is():
    async with served() as each:
        for path in ["/nothing", "/metrics/", "/metric", "/healthz", "/%2e%2e/etc/passwd", "/favicon.ico"]:
            status, text, _ = await each.get(path)

            assert status == 404, path
            assert "/metrics" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_any_other_method_is_405_and_names_those_there_are(method):
    async with served() as each:
        for path in PATHS:
            async with each.client.request(method, path) as response:
                assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD"), path


async def test_no_answer_says_what_we_are_built_on_or_may_be_kept():
    async with served() as each:
        for path in [*PATHS, "/nothing"]:
            _, _, response = await each.get(path)

            assert response.headers["Server"] == "gin-sidecar"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"


SENSELESS = [
    b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%ff%fe?name[]=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /metrics?name[]=%zz&name[]=%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://other/metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a:b:c:99999999\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Prometheus-Scrape-Timeout-Seconds: 1e999\r\n\r\n",
    b"GET /metrics/merged HTTP/1.1\r\nHost: a\r\nX-Prometheus-Scrape-Timeout-Seconds: \xff\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\nAccept: \xff\xfe\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: " + b"a/b;q=1," * 900 + b"\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: x\r\n" % n for n in range(5000)) + b"\r\n",
    b"CONNECT other:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 100 + b"\r\n\r\n",
    b"GET /health HTTP/9.9\r\n\r\n",
    b"GET /health\r\n\r\n",
]


async def test_a_request_that_makes_no_sense_gets_no_5xx_and_costs_nobody_else():
    async with served() as each:
        for senseless in SENSELESS:
            reader, writer = await asyncio.open_connection("127.0.0.1", each.server.port)
            writer.write(senseless)
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                answer = await reader.read(1 << 20)
            writer.close()

            assert not answer or 200 <= int(answer.split(b" ")[1]) < 500, (senseless[:100], answer)
            assert b"Traceback" not in answer
            assert (await each.get("/livez"))[0] == 200
        assert each.log.getvalue() == ""


async def test_a_mistake_of_ours_is_500_without_its_story_and_logged_with_it():
    async with served() as each:
        each.health.add("broken:probe", lambda: 1 // 0)

        status, text, _ = await each.get("/health")

        assert status == 500
        assert "ZeroDivisionError" not in text
        logged = json.loads(each.log.getvalue())
        assert (logged["level"], logged["event"]) == ("error", "http_failed")
        assert "ZeroDivisionError" in logged["message"]
        assert "test_server.py" in logged["stack"]
        assert (await each.get("/livez"))[0] == 200


# life


async def test_port_0_is_a_free_one_that_can_be_asked_for():
    async with served() as one, served() as other:
        assert one.server.port != 0
        assert one.server.port != other.server.port


async def test_a_port_that_is_taken_is_said_with_what_to_do():
    async with served() as each:
        with pytest.raises(SidecarError) as raised:
            async with served(port=each.server.port):
                pass

        message = str(raised.value)
        assert message.startswith(f"cannot listen on 127.0.0.1:{each.server.port}: another process")
        assert "SIDECAR_HTTP_PORT" in message


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_said_with_what_to_do(host):
    with pytest.raises(server.ServerError, match=f"^cannot listen on {host}:0: .*SIDECAR_HTTP_HOST"):
        async with served(host=host):
            pass


async def test_stop_closes_the_port_and_may_be_said_twice():
    with Port() as port:
        async with served(port=port.number) as each:
            await each.server.stop()
            await each.server.stop()

            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port.number)) != 0


async def test_stop_lets_a_request_in_progress_finish_and_sends_idle_connections_home(monkeypatch):
    monkeypatch.setattr(server, "STOP_SECONDS", PATIENCE)
    go_on = asyncio.Event()

    async def late(writer):
        await go_on.wait()
        writer.write(http(b"theirs 1\n"))

    async with FakeApplication(late) as application, served(app_url=application.url()) as each:
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", each.server.port)
        asked = asyncio.create_task(each.get("/metrics/merged"))
        await application.was_asked(1)

        stopping = asyncio.create_task(each.server.stop())
        assert await idle.read() == b""
        go_on.set()
        status, text, _ = await asked
        await stopping

        assert status == 200
        assert text.endswith("theirs 1\n")
        idle_writer.close()


async def test_stop_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(server, "STOP_SECONDS", 0.05)
    async with FakeApplication(fake_application.hang) as application, served(app_url=application.url()) as each:
        asked = asyncio.create_task(each.get("/metrics/merged"))
        await application.was_asked(1)

        async with asyncio.timeout(PATIENCE):
            await each.server.stop()

        with pytest.raises(aiohttp.ClientError):
            await asked
