"""Liveness, readiness and the report, on a clock of their own."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from sidecar.health import AppProbe, Check, Health
from tests.support.clock import Clock

PASS = Check("pass")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    made = Health(
        clock,
        version="1.2.3",
        release_id="abc",
        service_id="checkout",
        notes=["a note"],
        now=lambda: datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC),
    )
    made.starting = False
    made.attached = lambda: PASS
    return made


def checks(report):
    return orjson.loads(report.json())["checks"]


# alive


def test_rule_38_it_is_alive_while_the_loop_has_turned_within_ten_seconds(health, clock):
    health.heartbeat()

    clock.now += 10
    assert health.live()
    clock.now += 0.1
    assert not health.live()
    health.heartbeat()
    assert health.live()


def test_rule_38_nothing_but_the_loop_bears_on_being_alive(health):
    health.attached = lambda: Check("fail", "gone")
    health.add("pump:task", lambda: Check("fail", "dead"))
    health.add("loki:delivery", lambda: Check("fail", "down"), downstream=True)
    health.stopping = True

    assert health.live()


# ready


def test_it_is_ready_when_started_and_attached(health):
    assert health.ready
    assert [gate.name for gate in health.gates()] == ["started", "shutdown", "source"]


@pytest.mark.parametrize(
    ("spoil", "gate"),
    [
        (lambda health: setattr(health, "starting", True), ("started", "still starting")),
        (lambda health: setattr(health, "stopping", True), ("shutdown", "shutting down")),
        (
            lambda health: setattr(health, "attached", lambda: Check("fail", "no permission")),
            ("source", "no permission"),
        ),
        (lambda health: setattr(health, "attached", lambda: Check("warn", "not yet")), ("source", "not yet")),
        (lambda health: setattr(health, "attached", lambda: Check("warn")), ("source", "warn")),
        (
            lambda health: health.add("application:health", lambda: Check("warn", "unknown"), gates_readiness=True),
            ("application:health", "unknown"),
        ),
    ],
    ids=["starting", "stopping", "unreadable", "not attached", "no reason", "application"],
)
def test_it_is_not_ready_and_says_why(health, spoil, gate):
    spoil(health)

    assert not health.ready
    assert [each for each in health.gates() if each.reason] == [gate]


def test_a_new_one_is_not_ready():
    assert not Health().ready
    assert {gate.name for gate in Health().gates() if gate.reason} == {"started", "source"}


def test_a_part_that_does_not_gate_readiness_leaves_it_alone(health):
    health.add("loki:delivery", lambda: Check("fail", "down"), downstream=True)

    assert health.ready


# the report


def test_all_well_is_pass_and_says_ok(health):
    report = health.report()

    assert report.status == "pass"
    assert report.text() == "OK"
    assert "output" not in orjson.loads(report.json())


def test_rule_37_the_report_is_as_the_draft_has_it(health):
    health.add("loki:delivery", lambda: Check("pass", "", 0.4, "s", "datastore"))

    body = orjson.loads(health.report().json())

    assert {key: body[key] for key in ("status", "version", "releaseId", "serviceId", "notes")} == {
        "status": "pass",
        "version": "1.2.3",
        "releaseId": "abc",
        "serviceId": "checkout",
        "notes": ["a note"],
    }
    assert body["checks"]["loki:delivery"] == [
        {
            "componentType": "datastore",
            "status": "pass",
            "observedValue": 0.4,
            "observedUnit": "s",
            "time": "2026-03-01T12:00:00.250Z",
        }
    ]
    assert set(body["checks"]) == {"sidecar:state", "event-loop:lag", "source:attached", "loki:delivery"}


def test_a_check_may_tell_more_but_never_otherwise(health):
    health.add("sink:x", lambda: Check("pass", details={"pendingRecords": 3, "status": "hidden"}))

    (told,) = orjson.loads(health.report().json())["checks"]["sink:x"]

    assert told["pendingRecords"] == 3
    assert told["status"] == "pass"


def test_what_is_not_known_is_not_in_the_report():
    body = orjson.loads(Health().report().json())

    assert set(body) == {"status", "output", "checks"}


def test_a_check_keeps_the_time_it_was_observed(health):
    health.add("application:health", lambda: Check("pass", time=datetime(2026, 1, 2, tzinfo=UTC)))

    assert checks(health.report())["application:health"][0]["time"] == "2026-01-02T00:00:00.000Z"


def test_rule_38_a_dead_part_is_fail_and_the_reason_names_it(health):
    health.add("pump:task", lambda: Check("fail", "reading has stopped"))
    health.add("queue:depth", lambda: Check("warn", "filling"))

    report = health.report()

    assert report.status == "fail"
    assert report.text() == "pump:task: reading has stopped"
    assert orjson.loads(report.json())["output"] == "pump:task: reading has stopped"


def test_rule_38_a_downstream_that_fails_is_at_most_a_warning(health):
    health.add("loki:delivery", lambda: Check("fail", "answers 503"), downstream=True)

    report = health.report()

    assert report.status == "warn"
    assert checks(report)["loki:delivery"][0]["status"] == "warn"
    assert report.text() == "loki:delivery: answers 503"


def test_shutting_down_is_fail_and_starting_a_warning(health):
    health.starting = True
    assert health.report().status == "warn"
    health.stopping = True
    assert health.report().status == "fail"
    assert health.report().text() == "sidecar:state: shutting down"


def test_rule_38_a_stalled_loop_is_fail(health, clock):
    health.heartbeat()
    clock.now += 12

    assert health.report().status == "fail"
    assert health.report().text() == "event-loop:lag: the event loop has not turned for 12 s"


def test_a_loop_that_was_late_is_a_warning_for_a_minute(health, clock):
    health.heartbeat()
    clock.now += 3.5
    health.heartbeat()

    assert health.report().text() == "event-loop:lag: the event loop turned 3.0 s late"
    for _ in range(121):
        clock.now += 0.5
        health.heartbeat()
    assert health.report().status == "pass"


def test_a_loop_that_is_late_right_now_is_a_warning(health, clock):
    health.heartbeat()
    clock.now += 2

    assert health.report().status == "warn"


def test_the_reason_is_one_line_and_not_endless(health):
    health.add("pump:task", lambda: Check("fail", "first\nsecond\t" + "x" * 10_000))

    text = health.report().text()

    assert text.startswith("pump:task: first second xxx")
    assert "\n" not in text
    assert len(text) <= 500


def test_all_reasons_of_the_worst_are_told(health):
    health.add("a:x", lambda: Check("fail", "one"))
    health.add("b:x", lambda: Check("fail"))

    assert health.report().text() == "a:x: one; b:x: fail"


def test_two_checks_cannot_share_a_name(health):
    health.add("a:x", lambda: PASS)

    with pytest.raises(ValueError, match="a:x"):
        health.add("a:x", lambda: PASS)


# the application, before anybody has asked it


def test_an_application_that_was_not_asked_yet_is_unknown_then_failing(clock):
    probe = AppProbe("http://127.0.0.1:1/health", 2, clock=clock)

    assert probe.check() == Check("warn", "has not been asked yet")
    clock.now += 10
    assert probe.check().status == "fail"


@pytest.mark.parametrize("url", ["", "localhost:8080/health", "ftp://a/b", "http://", "/health", "http://a:99999/"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(ValueError, match="expected an address"):
        AppProbe(url, 2)
