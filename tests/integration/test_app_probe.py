"""The application's own health, asked over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from sidecar.health import AppProbe
from tests.support import fake_application
from tests.support.clock import Clock
from tests.support.fake_application import FakeApplication, http
from tests.support.patience import PATIENCE
from tests.support.ports import Port


@asynccontextmanager
async def asked(answer, *, patience=PATIENCE, user="", **options):
    async with FakeApplication(answer) as application:
        probe = AppProbe(application.url("/health", user), patience, **options)
        try:
            await probe.ask()
            yield probe, application
        finally:
            await probe.close()


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_2xx_is_healthy_and_tells_how_long_it_took(status):
    async with asked(http(b"fine" if status != 204 else b"", status)) as (probe, application):
        check = probe.check()

        assert check.status == "pass"
        assert check.output == ""
        assert 0 < check.observed_value < PATIENCE * 1000
        assert check.observed_unit == "ms"
        assert check.time is not None
        assert application.asked[0].startswith("GET /health HTTP/1.1\r\n")
        assert "User-Agent: gin-sidecar/" in application.asked[0]


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (http(b"", 503), "answers 503"),
        (http(b"", 404), "answers 404"),
        (http(b"", 500), "answers 500"),
        (
            http(b"", 302, Location="http://127.0.0.1/other"),
            "answers 302: redirects are not followed, give the final address",
        ),
    ],
)
async def test_any_other_answer_is_unhealthy_at_once(answer, output):
    async with asked(answer) as (probe, _):
        assert (probe.check().status, probe.check().output) == ("fail", output)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (fake_application.hang, "no answer within 50ms"),
        (fake_application.hang_in_body, "no answer within 50ms"),
    ],
)
async def test_an_application_that_hangs_fails_after_one_timeout(answer, output):
    async with asked(answer, patience=0.05, initial_delay=0.0) as (probe, _):
        assert (probe.check().status, probe.check().output) == ("fail", output)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (fake_application.reset, "closed the connection before the answer was complete"),
        (b"\x00\x01 not HTTP \r\n\r\n", "answers something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "closed the connection before the answer was complete"),
        (http(b"not gzip", Content_Encoding="gzip"), "answers with damaged gzip"),
        (http(b"?", Content_Encoding="br"), "answers in a content encoding that was not asked for"),
    ],
)
async def test_what_is_no_answer_fails_with_a_reason(answer, output):
    async with asked(answer, initial_delay=0.0) as (probe, _):
        assert (probe.check().status, probe.check().output) == ("fail", output)


async def test_a_body_without_end_is_not_waited_for():
    async with asked(fake_application.endless) as (probe, _):
        assert probe.check().status == "pass"


async def test_while_it_starts_silence_is_unknown_and_after_the_initial_delay_a_failure():
    clock = Clock()
    with Port() as nobody:
        probe = AppProbe(nobody.url, PATIENCE, clock=clock)
        await probe.ask()

    assert (probe.check().status, probe.check().output) == ("warn", "has not answered yet (connection refused)")
    clock.now += 10
    assert (probe.check().status, probe.check().output) == ("fail", "connection refused")
    await probe.close()


async def test_a_bad_answer_fails_even_while_it_starts():
    clock = Clock()
    async with asked(http(b"", 503), clock=clock) as (probe, _):
        assert probe.check().status == "fail"


async def test_once_it_has_answered_silence_is_a_failure_at_once():
    clock = Clock()
    async with asked(http(), clock=clock) as (probe, application):
        assert probe.check().status == "pass"
        await application.stop()
        await probe.ask()

        assert (probe.check().status, probe.check().output) == ("fail", "connection refused")


async def test_it_recovers_with_the_application():
    async with asked(http(b"", 503)) as (probe, application):
        application.answer = http()
        await probe.ask()

        assert probe.check().status == "pass"


async def test_an_answer_that_nobody_renews_does_not_stand_for_ever():
    clock = Clock()
    async with asked(http(), patience=2, clock=clock) as (probe, _):
        clock.now += 14
        assert probe.check().status == "pass"
        clock.now += 1
        assert (probe.check().status, probe.check().output) == ("fail", "was last asked 15 s ago")


async def test_no_password_of_the_address_is_ever_told():
    async with asked(http(b"", 401), user="me:s3cr3t@") as (probe, application):
        assert "Authorization: Basic" in application.asked[0]
        assert "s3cr3t" not in repr(probe.check())


async def test_run_asks_again_and_again():
    async with FakeApplication() as application:
        probe = AppProbe(application.url(), PATIENCE, period=0.01)
        running = asyncio.create_task(probe.run())
        await application.was_asked(3)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

        assert probe.check().status == "pass"
