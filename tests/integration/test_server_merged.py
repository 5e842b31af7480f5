"""
Property: /metrics/merged shows our metrics within the scraper's time, and never a line that costs the scrape.
Fault:    the application is down, hangs, is slow, sends 10 MiB and more, OpenMetrics, garbage, a redirect, a reset.
Expect:   200 with our families whole; the failure counted by reason; /metrics unaffected.
"""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar import merge
from tests.support import fake_application, records
from tests.support.fake_application import FakeApplication, http
from tests.support.patience import PATIENCE
from tests.support.ports import Port
from tests.support.served import served

APP = b"# HELP orders_total Orders.\n# TYPE orders_total counter\norders_total 5\n"
PLAIN = {"Content_Type": "text/plain; version=0.0.4"}
SHORT = {"X_Prometheus_Scrape_Timeout_Seconds": "0.1"}


@pytest.fixture(autouse=True)
def _all_the_time_there_is(monkeypatch):
    monkeypatch.setattr(merge, "MAX_SECONDS", 3600.0)  # where the scraper does not say less


async def merged(answer, **headers):
    """Ask once; return the page, what was counted as failed, and what the application was asked."""
    async with FakeApplication(answer) as application, served(app_url=application.url("/metrics")) as each:
        status, text, response = await each.get("/metrics/merged", **headers)
        failures = {
            sample.labels["reason"]: sample.value
            for metric in each.telemetry.registry.collect()
            for sample in metric.samples
            if sample.name == "sidecar_merge_failures_total" and sample.value
        }
        assert status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = [family.name for family in text_string_to_metric_families(text)]
        assert "http_request_duration_ms" in families
        assert "sidecar_build_info" in families
        assert len(families) == len(set(families))
        assert "# EOF" not in text
        return text, failures, application.asked


async def test_the_applications_metrics_stand_behind_ours():
    text, failures, asked = await merged(http(APP, **PLAIN))

    assert text.endswith(APP.decode())
    assert failures == {}
    assert "Accept: text/plain;version=0.0.4" in asked[0]
    assert "Accept-Encoding: identity" in asked[0]


async def test_an_answer_without_a_content_type_is_taken_for_text():
    text, failures, _ = await merged(http(APP))

    assert text.endswith(APP.decode())
    assert failures == {}


async def test_gzip_is_read():
    text, failures, _ = await merged(http(gzip.compress(APP), Content_Encoding="gzip", **PLAIN))

    assert text.endswith(APP.decode())
    assert failures == {}


async def test_rule_36_openmetrics_is_turned_into_text():
    page = b'# TYPE orders counter\norders_total 5 # {trace_id="x"} 1\n# EOF\n'
    text, failures, _ = await merged(http(page, Content_Type="application/openmetrics-text; version=1.0.0"))

    assert text.endswith("# TYPE orders_total counter\norders_total 5\n")
    assert failures == {}


async def test_rule_36_a_family_of_ours_is_not_told_twice():
    page = b"# TYPE http_requests_total counter\nhttp_requests_total 7\n" + APP
    text, failures, _ = await merged(http(page, **PLAIN))

    assert "http_requests_total 7" not in text
    assert text.endswith(APP.decode())
    assert failures == {"collision": 1}


async def test_families_that_are_left_out_are_named_in_the_log_once_in_a_while():
    page = (
        b'# TYPE http_request_duration_seconds histogram\nhttp_request_duration_seconds_bucket{le="1"} 7\n'
        b"http_request_duration_seconds_sum 7\nhttp_requests_total 7\n" + APP
    )
    async with FakeApplication(http(page, **PLAIN)) as application, served(app_url=application.url("/metrics")) as each:
        for _ in range(3):
            await each.get("/metrics/merged")

        assert each.count("sidecar_merge_failures_total", reason="collision") == 3
        (logged,) = map(json.loads, each.log.getvalue().splitlines())
    assert (logged["level"], logged["event"], logged["reason"]) == ("warn", "merge_failed", "collision")
    assert logged["message"].endswith(": http_request_duration_seconds, http_requests_total")


async def test_rule_36_garbage_among_metrics_costs_only_itself():
    text, failures, _ = await merged(http(b"\xff\xfe\x00garbage{{{\n" + APP + b"<html>\n", **PLAIN))

    assert text.endswith(APP.decode())
    assert failures == {"malformed": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"", 500), "status"),
        (http(b"", 404), "status"),
        (http(b"", 204), "status"),
        (http(b"", 307, Location="http://127.0.0.1/"), "redirect"),
        (http(b"<html>", Content_Type="text/html"), "format"),
        (http(b"\x0a\x05", Content_Type="application/vnd.google.protobuf; encoding=delimited"), "format"),
        (http(APP, Content_Encoding="br", **PLAIN), "encoding"),
        (http(b"no gzip", Content_Encoding="gzip", **PLAIN), "encoding"),
        (http(gzip.compress(APP)[:-9], Content_Encoding="gzip", **PLAIN), "encoding"),
        (fake_application.reset, "connection"),
        (b"garbage\r\n\r\n", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\norders 1\n", "connection"),
        (fake_application.endless, "too_large"),
        (http(gzip.compress(b"a 1\n" * (4 << 20), 1), Content_Encoding="gzip", **PLAIN), "too_large"),
    ],
    ids=[
        "500", "404", "204", "redirect", "html", "protobuf", "brotli", "no gzip", "half gzip", "reset", "no http",
        "half body", "endless", "bomb",
    ],
)  # fmt: skip
async def test_rule_36_an_application_that_fails_leaves_ours_and_is_counted(answer, reason):
    text, failures, _ = await merged(answer)

    assert failures == {reason: 1}
    assert f'sidecar_merge_failures_total{{reason="{reason}"}} 1.0\n' in text
    assert "orders" not in text


@pytest.mark.parametrize("answer", [fake_application.hang, fake_application.hang_in_body])
async def test_rule_36_an_application_that_hangs_leaves_ours_within_the_scrapers_time(answer):
    async with asyncio.timeout(PATIENCE):
        _, failures, _ = await merged(answer, **SHORT)

    assert failures == {"timeout": 1}


async def test_a_page_too_long_to_be_checked_in_the_scrapers_time_is_left_out():
    telemetry = records.quiet_telemetry()

    async def ours():
        await asyncio.sleep(0.2)  # all the time there was
        return b"ours 1\n"

    async with FakeApplication(http(b"orders 1\n" * 300_000)) as application:
        merger = merge.Merger(application.url(), telemetry)
        page = await merger.page(ours, seconds=0.2)
        await merger.close()

    assert page == b"ours 1\n"
    assert records.value(telemetry, "sidecar_merge_failures_total", reason="timeout") == 1


async def test_rule_36_an_application_that_is_down_leaves_ours():
    with Port() as nobody:
        async with served(app_url=nobody.url) as each:
            status, text, _ = await each.get("/metrics/merged")

        assert status == 200
        assert 'sidecar_merge_failures_total{reason="connection"} 1.0\n' in text
        logged = json.loads(each.log.getvalue())
        assert (logged["level"], logged["event"]) == ("warn", "merge_failed")
        assert "connection refused" in logged["message"]


async def test_rule_36_a_page_as_large_as_the_bound_is_merged_and_one_byte_more_is_not(monkeypatch):
    monkeypatch.setattr(merge, "MAX_BYTES", 300_000)  # several slices; the real bound is met by what is endless
    line = b'orders{id="0123456789"} 1\n'
    page = line * (merge.MAX_BYTES // len(line))
    page += b"#" * (merge.MAX_BYTES - len(page))

    async with FakeApplication(http(page)) as application, served(app_url=application.url()) as each:
        _, text, _ = await each.get("/metrics/merged")
        assert text.count("orders{") == merge.MAX_BYTES // len(line)

        application.answer = http(page + b"\n")
        _, text, _ = await each.get("/metrics/merged")
        assert "orders" not in text
        assert each.count("sidecar_merge_failures_total", reason="too_large") == 1


async def test_rule_36_the_pure_page_never_asks_the_application():
    async with FakeApplication(fake_application.hang) as application, served(app_url=application.url()) as each:
        status, _, _ = await each.get("/metrics")

        assert status == 200
        assert application.asked == []


async def test_rule_37_health_answers_while_the_application_hangs():
    async with FakeApplication(fake_application.hang) as application, served(app_url=application.url()) as each:
        scrape = asyncio.create_task(each.get("/metrics/merged"))
        await application.was_asked(1)

        assert (await each.get("/health"))[0] == 200
        assert not scrape.done()
        await application.stop()
        await scrape


async def test_only_one_page_of_the_application_is_held_at_a_time():
    async with FakeApplication(fake_application.hang) as application, served(app_url=application.url()) as each:
        first = asyncio.create_task(each.get("/metrics/merged"))
        await application.was_asked(1)

        status, text, _ = await each.get("/metrics/merged", **SHORT)

        assert status == 200
        assert 'sidecar_merge_failures_total{reason="timeout"} 1.0\n' in text
        assert len(application.asked) == 1
        await application.stop()
        await first


async def test_a_password_in_the_address_reaches_the_application_and_no_page_or_log():
    async with (
        FakeApplication(http(b"", 401)) as application,
        served(app_url=application.url("/metrics", user="me:s3cr3t@")) as each,
    ):
        _, text, _ = await each.get("/metrics/merged")

        assert "Authorization: Basic" in application.asked[0]
        assert "s3cr3t" not in text + each.log.getvalue()
