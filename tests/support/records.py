"""Records for tests of what comes after normalization: sinks, delivery, spool, dead letters."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import orjson

from sidecar import acks, columnar
from sidecar.model import Batch, Outcome, Position, Record
from sidecar.telemetry import Log, Telemetry
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.acks import Tracker

SECOND = 10**9


def record(
    text: str = "hello",
    *,
    time_ns: int | None = None,
    outcome: Outcome = Outcome.VALID,
    service_name: str = "orders",
    level: str = "info",
    format: str = "canonical",  # noqa: A002  the field's name
    trace_id: str = "4bf92f3577b34da6a3ce929d0e0e4736",
    span_id: str = "00f067aa0ba902b7",
    violations: tuple[tuple[str, str], ...] = (),
    **fields: object,
) -> Record:
    """Return one record whose line says the same as its fields."""
    line = orjson.dumps({"level": level, "service_name": service_name, "trace_id": trace_id, "message": text, **fields})
    return Record(
        time.time_ns() if time_ns is None else time_ns,
        outcome,
        format,
        level,
        service_name,
        trace_id,
        span_id,
        line,
        violations,
    )


def records(count: int, *, start_ns: int | None = None, step_ns: int = 1000, **fields: object) -> list[Record]:
    """Return records `step_ns` apart, with the messages "0", "1", …"""
    start = time.time_ns() - count * step_ns if start_ns is None else start_ns
    return [record(str(number), time_ns=start + number * step_ns, **fields) for number in range(count)]  # type: ignore[arg-type]


def in_columns(made: Sequence[Record]) -> columnar.Records:
    """Return valid records of one format in columns, as the normalizer gives most of them."""
    names = ("time_ns", "level", "service_name", "trace_id", "span_id", "line")
    return columnar.Records(made[0].format, *([getattr(one, name) for one in made] for name in names))


def batches(made: Sequence[Record], tracker: Tracker, size: int = 10) -> list[Batch]:
    """Return records in batches, each acknowledged at the position that counts the records so far."""
    return [
        Batch(made[start : start + size], tracker.open(Position("log", min(start + size, len(made))), 1))
        for start in range(0, len(made), size)
    ]


def tracker() -> Tracker:
    return acks.Tracker()


def messages(lines: Sequence[str | bytes]) -> list[str]:
    """Return the message of each line."""
    return [orjson.loads(line)["message"] for line in lines]


def quiet_telemetry(*sinks: str) -> Telemetry:
    """Return a telemetry of its own that logs to memory, what repeats once."""
    return Telemetry(log=Log(io.StringIO(), Clock()), sinks=sinks or ("loki",))


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    """Return what a metric says now; 0 where it does not exist."""
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def ledger(telemetry: Telemetry, sink: str) -> dict[str, int]:
    """Return a sink's accounts and check that they add up."""
    account = {
        outcome: int(value(telemetry, "sidecar_sink_records_total", sink=sink, outcome=outcome))
        for outcome in ("sent", "refused", "dropped", "dead_lettered")
    }
    account["pending"] = int(value(telemetry, "sidecar_sink_pending_records", sink=sink))
    offered = int(value(telemetry, "sidecar_sink_offered_records_total", sink=sink))
    assert offered == sum(account.values()), f"offered {offered}, accounted for {account}"
    return account
