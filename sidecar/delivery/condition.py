"""How a sink is, for /health: whether it delivers, and what somebody who is paged asks next.

Promise: a sink that is in trouble, whatever the trouble, is `warn` and never `fail`: its records are kept or counted,
and restarting the pod helps nobody. Each answer carries the last success, the age of the oldest unsent record, what is
pending, the size of the spool and why something was refused last, also while all is well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar import health

if TYPE_CHECKING:
    from sidecar.delivery import Status

RECENT_SECONDS = 60.0  # so long a refusal or a loss is worth a warning


def check(status: Status, now: float) -> health.Check:
    """Return what a sink's state means at a moment, in epoch seconds."""
    objection = _objection(status, now)
    refusal = status.last_refusal
    details = {
        "lastSuccess": _show(status.last_success_at),
        "oldestUnsentSeconds": round(status.oldest_unsent_seconds, 1),
        "pendingRecords": status.pending_records,
        "spoolBytes": status.spool_bytes,
        "lastRefusal": refusal
        and {"reason": refusal.reason, "detail": health.one_line(refusal.detail), "time": _show(refusal.at)},
    }
    if status.retrying:
        return health.Check("warn", objection, round(status.oldest_unsent_seconds, 1), "s", details=details)
    return health.Check("warn" if objection else "pass", objection, status.pending_records, "records", details=details)


def _objection(status: Status, now: float) -> str:
    if status.retrying:
        return f"not delivering ({status.retrying}); {status.pending_records} records wait"
    if status.last_drop_at is not None and now - status.last_drop_at < RECENT_SECONDS:
        return "dropped records: what waits has reached its bound"
    refusal = status.last_refusal
    if refusal is not None and now - refusal.at < RECENT_SECONDS:
        return f"refused records: {refusal.reason}: {refusal.detail}"
    return ""


def _show(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
