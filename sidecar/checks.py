"""Which parts /health tells of, and what the state of each means.

Promise: what a restart cannot help is `warn` and never `fail`: bytes that were lost, a checkpoint that cannot be
written, a sink in trouble. What is told goes away by itself, a minute after the last loss, and with the first save, or
push, that succeeds.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import sidecar
from sidecar import health
from sidecar.delivery import condition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.delivery import Delivery
    from sidecar.sources import Source
    from sidecar.telemetry import Recent


def create(
    *,
    service_name: str,
    source: Source,
    pumping: Callable[[], bool],
    deliveries: Sequence[Delivery],
    recent: Recent,
    saves: bool,
    app: health.AppProbe | None,
) -> health.Health:
    """Return the health of a sidecar of these parts. `pumping`: reading goes on or has ended as it should."""
    made = health.Health(version=sidecar.__version__, service_id=service_name)
    made.attached = partial(attached, source)
    made.add("pump:alive", partial(alive, pumping))
    made.add("bytes:lost", partial(losses, recent))
    if saves:
        made.add("checkpoint:saves", partial(checkpoint, recent))
    for each in deliveries:
        made.add(f"sink-{each.name}:delivery", partial(delivering, each), downstream=True)
    if app is not None:
        made.add("application:health", app.check, gates_readiness=True)
    return made


def attached(source: Source) -> health.Check:
    return health.Check("pass") if source.attached else health.Check("warn", "the source cannot be read")


def alive(pumping: Callable[[], bool]) -> health.Check:
    return health.Check("pass") if pumping() else health.Check("fail", "reading has stopped")


def delivering(one: Delivery) -> health.Check:
    return condition.check(one.status(), time.time())


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
