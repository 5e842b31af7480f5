"""What /health says of the sidecar's own losses: bytes that are gone, and a checkpoint that cannot be written.

Promise: both are `warn` and never `fail`: a restart mends neither, and would lose what only memory holds. What is told
goes away by itself, a minute after the last loss, and with the first save that succeeds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar import health

if TYPE_CHECKING:
    from sidecar.telemetry.recent import Recent


def losses(recent: Recent) -> health.Check:
    """Return what it means that bytes were lost in the last minute."""
    lost = recent.losses()
    if not lost:
        return health.Check("pass", "", 0, "bytes")
    told = ", ".join(f"{count} ({reason})" for reason, count in lost.items())
    return health.Check("warn", f"bytes were lost in the last minute: {told}", sum(lost.values()), "bytes")


def checkpoint(recent: Recent) -> health.Check:
    """Return what it means that the checkpoint is, or is not, being written."""
    unsaved = recent.unsaved
    if unsaved is None:
        return health.Check("pass")
    since = datetime.fromtimestamp(unsaved.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return health.Check(
        "warn",
        f"not saved since {since}: {unsaved.problem}; a restart goes back to there, and takes back what /metrics shows",
        details={"failingSince": since},
    )
