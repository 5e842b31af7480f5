"""Whenever a process dies, the next one goes on from the last snapshot: no line is counted twice or missed, and every
record is delivered at least once. The model is one process that never dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar import acks, dispatch, normalize, pipeline, routes, validation
from sidecar.metrics import durations
from sidecar.model import Chunk, Position
from sidecar.telemetry import Log, Telemetry
from tests.support import lines
from tests.support.pumping import Nowhere

SCHEMA = validation.load(validation.Config())
LIMITS = pipeline.Limits(max_line_bytes=400, idle_flush=1000.0, keep_unfinished=True)

GIN = b'[GIN] 2026/10/06 - 09:05:%02d | 200 |    %d.5ms |  10.0.0.1 | GET      "/orders/%d"'
PANIC = [b"panic: boom", b"", b"goroutine 1 [running]:", b"main.main()", b"\t/app/main.go:7 +0x1d", b"exit status 2"]
RECOVERY = [
    b"\x1b[31m2026/10/06 09:05:03 [Recovery] 2026/10/06 - 09:05:03 panic recovered:",
    b"GET /panic HTTP/1.1",
    b"boom",
    b"/app/main.go:7 (0x1)",
    b"\x1b[0m",
]


@st.composite
def texts(draw):
    """Lines as services write them, with blocks, errors, blanks, and routes that decide about labels."""
    kinds = draw(st.lists(st.integers(0, 9), max_size=30))
    out = []
    for number, kind in enumerate(kinds):
        gin = GIN % (number % 60, number, number)
        if kind in {0, 1}:
            out.append(gin)
        elif kind == 2:
            out += [gin, b"Error #01: no stock", b"Error #02: gone"]
        elif kind == 3:
            out += PANIC
        elif kind == 4:
            out += RECOVERY
        elif kind == 5:
            out.append(lines.canonical(1)[0])
        elif kind == 6:
            out.append(
                b'{"level":"error","ts":1760000000.%03d,"msg":"e%d","status":500,"method":"GET","path":"/z","latency":0.5}'
                % (number // 3, number % 3)
            )
        elif kind == 7:
            out.append(
                b'{"level":"info","msg":"m","status":200,"method":"GET","path":"/n","latency":%d}' % (number * 7)
            )
        elif kind == 8:
            out += [b"", b"plain %d" % number, b"x" * 500]
        else:
            out.append(b'[GIN] 2026/10/06 - 09:05:03 | 404 |    1ms |  10.0.0.1 | GET      "/orders/%d"' % number)
    return out


@st.composite
def logs(draw):
    """The bytes of a few generations of one log; plain, or as a container runtime writes them."""
    wrapped = draw(st.booleans())
    generations = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(texts())
        if not wrapped:
            if not generations and draw(st.booleans()):  # how later paths are called is decided here
                rows.insert(0, b"[GIN-debug] GET    /orders/:order --> main.get (3 handlers)")
            data = b"".join(row + b"\n" for row in rows) + draw(st.sampled_from([b"", b"unfinish", b"[GIN] 2026"]))
            generations.append(data)
            continue
        streams = {name: draw(texts()) if name == b"stderr" else rows for name in (b"stdout", b"stderr")}
        physical = {
            name: [
                (piece, b"F" if last else b"P")
                for row in mine
                for piece, last in (
                    [(row, True)] if len(row) < 40 or draw(st.booleans()) else [(row[:30], False), (row[30:], True)]
                )
            ]
            for name, mine in streams.items()
        }
        data = b""
        while any(physical.values()):
            name = draw(st.sampled_from([name for name, left in physical.items() if left]))
            piece, tag = physical[name].pop(0)
            if not any(physical.values()) and draw(st.booleans()):
                tag = b"P"  # its end comes in the next generation, or never
            data += b"2026-10-06T09:05:03.5Z %s %s %s\n" % (name, tag, piece)
        generations.append(data)
    return generations


@dataclass
class World:
    """What outlives a process: the logs, what was saved last, and what sinks have."""

    generations: list[bytes]
    sizes: list[int]
    lingers: bool = False  # the first one is of another start, whose end is told last of all
    saved: bytes = b""
    delivered: list[bytes] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)


class Death(BaseException):
    """SIGKILL."""


class Generations:
    """A source of several logs, read one after the other from where delivery stood."""

    resumable = True

    def __init__(self, world, positions, most):
        self.most = most  # chunks, and then it is told to stop
        self.chunks = []
        turn = 0
        lingering = None
        before = ""  # the log that the next one goes on with
        for number, data in enumerate(world.generations):
            log = f"log{number}"
            offset = positions.get(log, 0)
            ended = number + 1 < len(world.generations)
            lingers = world.lingers and not number and ended
            writer = "0" if lingers else "1"
            end = Chunk(b"", Position(log, len(data)), end_of_log=True, final=lingers, writer=writer)
            if lingers:
                lingering = end
            elif ended and positions and offset == len(data):
                before = log if data else before  # nothing is told of it, and pieces go past one that was empty
                continue
            continues, before = "" if world.lingers and number == 1 else before, log
            while offset < len(data):
                size = world.sizes[turn % len(world.sizes)]
                turn += 1
                part = data[offset : offset + size]
                self.chunks.append(Chunk(part, Position(log, offset), writer=writer, continues=continues))
                offset += size
                continues = ""
            if ended and not lingers:
                end.continues = continues
                self.chunks.append(end)
        if lingering is not None:
            self.chunks.append(lingering)

    async def read(self, wait):
        await asyncio.sleep(0)
        self.most -= 1
        return self.chunks.pop(0) if self.chunks and self.most >= 0 else None

    def unread(self):
        return 0


class Sink:
    """Takes batches and acknowledges them late; the world ends at some of its calls."""

    def __init__(self, world, lag, life):
        self.world, self.lag, self.life = world, lag, life
        self.waiting = []

    async def put(self, batch):
        self.waiting.append(batch)
        await self.life()
        while len(self.waiting) > self.lag:
            self.deliver()
        await self.life()

    def deliver(self):
        batch = self.waiting.pop(0)
        self.world.delivered += [record.line for record in batch.records]
        batch.ack.done()


def live(world, deaths, lag, *, saves, most=1 << 20):
    """One process, which saves at some of its turns and dies at one of them, is told to stop, or reaches the end."""
    told = Telemetry(log=Log(Nowhere()), sinks=["memory"])
    requests = durations.Requests(durations.Config(), routes.Table([]), told)
    saved = orjson.loads(world.saved) if world.saved else None
    positions = saved["positions"] if saved else {}

    def normalizer():
        made = normalize.Normalizer(normalize.Config(), SCHEMA, service_name="shop", clock_ns=lambda: 1)
        if saved:
            made.restore(saved["normalizer"])
        return made

    counting = normalizer()
    tracker = acks.Tracker()
    turn = 0

    def save():
        marks = positions | {log: mark.offset for log, mark in tracker.watermarks.items()}
        world.saved = orjson.dumps(
            {
                "positions": marks,
                "observed": pump.snapshot(),
                "counters": told.snapshot(),
                "requests": requests.snapshot(),
                "normalizer": counting.save(),
                "routes": list(requests.templates()),
            }
        )

    async def life():
        nonlocal turn
        turn += 1
        if saves and turn % saves == 0:
            save()
        if deaths and turn == deaths:
            raise Death
        await asyncio.sleep(0)

    sink = Sink(world, lag, life)
    pump = pipeline.Pump(
        source=Generations(world, positions, most),
        normalizer=counting,
        dispatch=dispatch.Dispatch(observer=requests, outboxes=[sink], telemetry=told),
        tracker=tracker,
        telemetry=told,
        limits=LIMITS,
        again=normalizer,
    )
    if saved:
        told.restore(saved["counters"])
        for method, template in saved["routes"]:
            requests.learn(method, template)
        requests.restore(saved["requests"])
        pump.restore(saved["observed"])
    try:
        asyncio.run(pump.run())
    except Death:
        return False
    while sink.waiting:
        sink.deliver()
    save()
    return True


def counted(world):
    saved = orjson.loads(world.saved)
    series = saved["requests"]["series"]
    return {
        "counters": {name: sorted(rows) for name, rows in saved["counters"].items()},
        "statuses": {name: one["statuses"] for name, one in series.items()},
        "cells": {name: one["cells"] for name, one in series.items()},
    }


def _cri(*rows):
    return b"".join(b"2026-10-06T09:05:03.5Z %s\n" % row for row in rows)


GET = b'[GIN] 2026/10/06 - 09:05:01 | 200 |    1.5ms |  10.0.0.1 | GET      "/orders/1"'
# The pieces of one line in two generations.
BEGUN = [_cri(b"stdout P [GIN] 2026/10/06 - 09:05:10 | "), _cri(b"stdout F " + GET[30:])]
# The end of a line in the next generation, delivered when the process dies, before that generation's other lines.
FINISHED = [
    _cri(b"stdout P \x1b[0m"),
    _cri(
        *(b"stderr P [GIN] 2026/10/06 - 09:05:00 | ", b"stderr F " + GET, b"stderr F " + GET[30:]),
        *(b"stdout F exit status 2", b"stdout P [GIN] 2026/10/06 - 09:05:01 | ", b"stdout F " + GET[30:]),
    ),
]
# The same, while another stream's block holds up the older generation.
HELD_UP = [
    _cri(b"stderr F " + GET, b"stdout P \x1b[0m"),
    _cri(
        *(b"stdout F panic: boom", b"stderr F Error #01: no stock"), *(b"stderr F Error #02: gone", b"stdout F " + GET)
    ),
]
# A counted block that goes on in the next generation.
GOES_ON = [
    _cri(
        *(b"stderr F " + GET, b"stdout F " + GET),
        *(b"stdout F " + row for row in RECOVERY[:-1]),
        b"stdout P \x1b[0m",
    ),
    _cri(b"stdout F panic: boom", b"stdout F ", b"stdout F exit status 2"),
]
# A line of pieces around the place where another stream's block holds up the position.
AROUND = [
    _cri(b"stdout P " + GET[30:]),
    _cri(
        *(b"stderr F " + RECOVERY[0], b"stderr F " + GET, b"stdout P \x1b[31m2026/10/06 09:05:03 [Reco"),
        *(b"stdout F very] 2026/10/06 - 09:05:03 panic recovered:", b"stdout F /app/main.go:7 (0x1)"),
    ),
]
# A block that ends while another stream's, which began inside of it, is open; in one log, and in two.
OVERLAPPING = [
    _cri(
        *(b"stdout F " + GET, b"stderr F " + GET, b"stdout F Error #01: no stock", b"stdout F Error #02: gone"),
        *(b"stdout F {}", b"stdout F {}", b"stderr F Error #01: no stock", b"stderr F {}"),
    )
]
OVERLAPPING_LATER = [
    _cri(b"stdout F {}", b"stdout F " + GET, b"stdout F Error #01: no stock"),
    _cri(b"stderr F " + GET, b"stdout F Error #02: gone", b"stdout F {}", b"stdout F {}", b"stderr F Error #01: x"),
]
# A block that is handed over when the source ends, in front of pieces that go on in a generation which nobody has read.
LEFT = [
    _cri(b"stderr F " + GET, b"stdout P [GIN] 2026/10/06 - 09:05:10 | "),
    _cri(b"stdout F " + GET[30:], b"stderr F {}"),
]
# The pieces of one line on both sides of a generation that was rotated before anything was written to it.
PAST = [_cri(b"stdout P " + GET[:30]), b"", _cri(b"stdout F " + GET[30:])]


def with_examples(test):
    for generations in (BEGUN, FINISHED, HELD_UP, GOES_ON, AROUND, OVERLAPPING, OVERLAPPING_LATER, PAST):
        for death in range(1, 8):
            for size, turn in ((200, death), (50, 4 * death)):
                test = example(generations=generations, sizes=[size], lingers=False, deaths=[turn], lag=0, saves=1)(
                    test
                )
    return test


@with_examples
@settings(max_examples=60, deadline=None)
@given(
    generations=logs(),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    lingers=st.booleans(),
    deaths=st.lists(st.integers(1, 25), max_size=6),
    lag=st.integers(0, 6),
    saves=st.integers(1, 4),
)
def test_rule_35_no_line_is_counted_twice_or_missed(generations, sizes, lingers, deaths, lag, saves):
    """Rule 35 of the metrics: what an earlier process counted is read again, and not counted again."""
    truth = World(generations, [1 << 20], lingers)
    assert live(truth, 0, 0, saves=0)
    world = World(generations, sizes, lingers)

    for death in deaths:
        live(world, death, lag, saves=saves)
    assert live(world, 0, lag, saves=saves)

    assert counted(world) == counted(truth)
    meant, came = set(map(told_apart, truth.delivered)), set(map(told_apart, world.delivered))
    assert not meant - came, "every record is delivered at least once"
    assert not came - meant, "a record that is delivered again is the same one"


@pytest.mark.parametrize("chunks", range(1, 8))
def test_f04_pieces_at_the_end_of_a_generation_are_left_whatever_is_handed_over_when_the_process_stops(chunks):
    truth, world = World(LEFT, [1 << 20]), World(LEFT, [80])
    assert live(truth, 0, 0, saves=0)

    assert live(world, 0, 0, saves=0, most=chunks)
    assert live(world, 0, 0, saves=0)

    assert counted(world) == counted(truth)
    assert set(map(told_apart, world.delivered)) == set(map(told_apart, truth.delivered))


def told_apart(line):
    """Leave out what depends on what is known when a line is read: the unit of a bare number."""
    record = orjson.loads(line)
    return repr([record.get(name) for name in ("timestamp", "level", "message", "method", "path", "status", "partial")])
