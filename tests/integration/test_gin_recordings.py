"""What the libraries themselves print (golden/gin-current) becomes one count per request and one record per fact.

The recordings hold one request of each kind (tests/support/drive.py). They are made again with
`python -m tests.e2e.record` when ginapp's libraries change; this test then tells what the change means.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from sidecar import framing, multiline, normalize, routes, validation
from tests.support import drive

if TYPE_CHECKING:
    from sidecar.model import Lines, Record

RECORDINGS = Path(__file__).parent.parent / "golden" / "gin-current"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.txt"))

# Logged inside Recovery: a panic unwinds the logger, which then writes nothing.
LOSES_PANICS = {"gin-recovery-first"}
# zap's console prints the two lines of one error text as they are. The second, its fields and its stack are on their own.
TEXTS = {"ginzap-dev": 13}

every_recording = pytest.mark.parametrize("name", NAMES)


@dataclass
class Read:
    """What a recording became."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    measured: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)
    lines: int = 0
    joined: int = 0
    blank: int = 0


@cache
def read(name: str) -> Read:
    schema = validation.load(validation.Config())
    normalizer = normalize.Normalizer(normalize.Config(), schema, service_name="ginapp")
    table = routes.Table(drive.ROUTES)
    framer = framing.Framer(max_line_bytes=1 << 20)
    assembler = multiline.Assembler(idle=1.0)
    done = Read()

    def take(lines: Lines) -> None:
        done.lines += lines.physical
        done.joined += lines.joined
        done.blank += lines.blank
        result = normalizer.normalize(lines)
        for (method, route, path, status), group in result.requests.items():
            label, template, _ = table.label(method, route, path, status)
            done.requests[label, template, status] += len(group.durations) + group.unmeasured
            done.measured += len(group.durations)
        done.rejected += result.rejected
        done.records += result.records

    framed = framer.feed((RECORDINGS / f"{name}.txt").read_bytes(), 0)
    framed.streams = ""
    take(assembler.feed(framed, 0.0))
    take(assembler.flush())
    done.rejected += normalizer.finish().rejected
    done.requests = +done.requests
    return done


def asked(name: str) -> Counter[tuple[str, str, int]]:
    panics = {"/panic?item=7", "/panic-string", "/broken-pipe"} if name in LOSES_PANICS else set()
    return Counter(
        (routes.method_label(kind.method), kind.route, kind.status)
        for kind in drive.KINDS
        if kind.logged and kind.target not in panics
    )


@every_recording
def test_every_request_is_counted_once_under_its_route(name: str) -> None:
    assert read(name).requests == asked(name)


@every_recording
def test_every_duration_is_read_but_those_whose_unit_nothing_tells(name: str) -> None:
    done = read(name)

    assert done.measured + done.rejected.total() == done.requests.total()
    assert set(done.rejected) == ({"ambiguous_unit"} if name == "zap-millis" else set())


@every_recording
@pytest.mark.parametrize(
    ("value", "also"),
    [("assignment to entry in nil map", ""), ("item 9: unknown warehouse", "inventory check failed")],
)
def test_a_panic_is_one_error_with_its_stack(name: str, value: str, also: str) -> None:
    panics = [record for record in read(name).records if value.encode() in record.line]

    assert [record.level for record in panics] == ["error"]
    assert b"routes.go" in panics[0].line
    assert also.encode() in panics[0].line


@every_recording
def test_no_line_is_lost_and_nearly_none_unknown(name: str) -> None:
    done = read(name)

    assert done.lines == len(done.records) + done.joined + done.blank
    assert sum(record.format == "text" for record in done.records) == TEXTS.get(name, 0)


def test_the_recordings_hold_secrets() -> None:
    leaking = [name for name in NAMES if drive.SECRET.encode() in (RECORDINGS / f"{name}.txt").read_bytes()]

    assert len(leaking) > len(NAMES) / 2


@every_recording
def test_no_secret_is_left(name: str) -> None:
    assert not [record.line for record in read(name).records if drive.SECRET.encode() in record.line]


@pytest.mark.parametrize("name", ["canonical", "otel"])
def test_trace_ids_are_the_ones_the_client_sent(name: str) -> None:
    lines = [orjson.loads(record.line) for record in read(name).records]
    requests = [line for line in lines if "status" in line]

    assert {line["trace_id"] for line in requests} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert len({line["span_id"] for line in requests}) == len(requests)


def test_a_panic_of_the_process_is_fatal() -> None:
    last = read("gin-panic-at-exit").records[-1]

    assert last.level == "fatal"
    assert b"flush: 3 orders not stored" in last.line
    assert b"connection refused" in last.line
