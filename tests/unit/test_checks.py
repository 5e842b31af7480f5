"""What /health says of losses and of a checkpoint that cannot be written."""

from __future__ import annotations

import io

import pytest

from sidecar import checks
from sidecar.telemetry import Log, Recent, Telemetry
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock(1_795_000_000.0)


@pytest.fixture
def told(clock):
    made = Telemetry(log=Log(io.StringIO()))
    made.recent = Recent(clock)
    return made


def test_without_losses_all_is_well(told):
    assert checks.losses(told.recent).status == "pass"
    assert checks.checkpoint(told.recent).status == "pass"


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lambda told: told.lines_truncated(2, 70), "line_too_long"),
        (lambda told: told.file_truncated("/var/log/x", 70), "truncated_file"),
        (lambda told: told.bytes_lost("quarantine_full", 70, "full"), "quarantine_full"),
    ],
)
def test_bytes_of_any_reason_are_a_warning_for_a_minute(told, clock, lose, reason):
    lose(told)
    clock.now += 59
    lose(told)
    clock.now += 59

    check = checks.losses(told.recent)
    assert (check.status, check.observed_value) == ("warn", 140)
    assert check.output == f"bytes were lost in the last minute: 140 ({reason})"

    clock.now += 1
    assert checks.losses(told.recent).status == "pass"
    lose(told)
    assert checks.losses(told.recent).observed_value == 70


def test_a_file_that_became_shorter_without_loss_is_none(told):
    told.file_truncated("/var/log/x", 0)

    assert checks.losses(told.recent).status == "pass"


def test_a_checkpoint_that_cannot_be_written_is_told_with_reason_and_since_when(told, clock):
    told.checkpoint_failed("No space left on device")
    clock.now += 3600
    told.checkpoint_failed("Read-only file system")

    check = checks.checkpoint(told.recent)
    assert check.status == "warn"
    assert check.output.startswith("not saved since 2026-11-18T11:06:40Z: Read-only file system")
    assert check.details == {"failingSince": "2026-11-18T11:06:40Z"}

    told.checkpoint_saved()
    assert checks.checkpoint(told.recent).status == "pass"
