"""How a sink is told in /health."""

from __future__ import annotations

import pytest

from sidecar.delivery import Refusal, Status, condition

NOW = 1_795_000_000.0


def status(**fields):
    known = {
        "sink": "loki",
        "last_success": 5.0,
        "last_success_at": NOW - 3,
        "oldest_unsent_seconds": 0.0,
        "pending_records": 0,
        "spool_bytes": 0,
        "last_refusal": None,
        "last_drop_at": None,
        "retrying": None,
    }
    return Status(**known | fields)


def test_all_is_told_while_all_is_well():
    check = condition.check(status(pending_records=7, oldest_unsent_seconds=1.25, spool_bytes=99), NOW)

    assert (check.status, check.output) == ("pass", "")
    assert check.details == {
        "lastSuccess": "2026-11-18T11:06:37.000Z",
        "oldestUnsentSeconds": 1.2,
        "pendingRecords": 7,
        "spoolBytes": 99,
        "lastRefusal": None,
    }


@pytest.mark.parametrize("reason", ["connection", "credentials", "server_error", "blocked"])
def test_a_destination_that_is_away_is_a_warning_and_never_a_failure(reason):
    check = condition.check(status(retrying=reason, pending_records=12, oldest_unsent_seconds=7200.0), NOW)

    assert check.status == "warn"
    assert check.output == f"not delivering ({reason}); 12 records wait"
    assert (check.observed_value, check.observed_unit) == (7200.0, "s")


def test_before_the_first_success_there_is_none():
    assert condition.check(status(last_success_at=None), NOW).details["lastSuccess"] is None


def test_a_refusal_is_a_warning_for_a_minute_and_its_reason_stays():
    refusal = Refusal("too_old", "has timestamp\ntoo old", NOW - 59)

    fresh, stale = (condition.check(status(last_refusal=refusal), now) for now in (NOW, NOW + 2))

    assert (fresh.status, stale.status) == ("warn", "pass")
    assert "too_old" in fresh.output
    assert stale.details["lastRefusal"] == {
        "reason": "too_old",
        "detail": "has timestamp too old",
        "time": "2026-11-18T11:05:41.000Z",
    }


def test_a_loss_is_a_warning_for_a_minute():
    fresh, stale = (condition.check(status(last_drop_at=NOW - 59), now) for now in (NOW, NOW + 2))

    assert (fresh.status, stale.status) == ("warn", "pass")
    assert fresh.output.startswith("dropped records")
