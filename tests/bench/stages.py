"""Each stage by itself, in this process, on what the stage before it gave.

A stage is set up anew for each run, warmed with the first lines where it learns shapes, and timed over all lines in the
portions that the pump makes. Stages and yardsticks take many short turns; the least CPU time counts, and for ratios the
median of what turns that followed each other took.
"""

from __future__ import annotations

import asyncio
import gc
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from sidecar import acks, delivery, dispatch, framing, multiline, normalize, pipeline, routes, validation
from sidecar.metrics import durations
from sidecar.model import Batch, Chunk, Lines, Position, Push, Receipt
from sidecar.sinks import loki
from sidecar.telemetry import Log, Telemetry
from tests.bench import corpus, yardsticks
from tests.bench.report import BrokenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sidecar.model import Record

_PORTION = 768  # lines that the pump takes at a time
_WARMING = 4  # portions that teach a normalizer the shapes of lines: it has met them all long ago, as a rule
_MAX_LINE_BYTES = 1 << 20
_QUEUE_BYTES = 1 << 20

Run = Callable[[], int]  # does the work once over all lines and says how many lines or records there were


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing to measure: `prepare` is not timed, what it returns is."""

    name: str
    lines: int
    prepare: Callable[[], Run]
    expected: int  # what a run has to return


@dataclass(slots=True)
class Took:
    """The CPU µs per line of each round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.rounds)

    def ratio(self, other: Took) -> float:
        """Return how many times the other it takes: the median over rounds, in which both ran one after the other."""
        return median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def measure(stages: Sequence[Stage], rounds: int, say: Callable[[str], None]) -> dict[str, Took]:
    """Let stages take turns. Raises BrokenError where one loses lines."""
    took = {stage.name: Took() for stage in stages}
    for number in range(rounds):
        for stage in stages:
            say(f"{stage.name}, {number + 1} of {rounds}")
            took[stage.name].rounds.append(timed(stage))
    return took


def timed(stage: Stage) -> float:
    """Run a stage once and return its CPU µs per line."""
    run = stage.prepare()
    gc.collect()
    gc.freeze()  # what the bench itself holds is no work for the collector while the stage runs
    try:
        start = time.process_time()
        done = run()
        seconds = time.process_time() - start
    finally:
        gc.unfreeze()
    if done != stage.expected:
        raise BrokenError(f"{stage.name}: {done} of {stage.expected}")
    return seconds / stage.lines * 1e6


def yardsticks_of(lines: list[bytes]) -> list[Stage]:
    """Return what stages are compared with, over canonical lines."""
    texts = [line.removesuffix(b"\n") for line in lines]
    count = len(lines)
    return [
        Stage("orjson.loads", count, lambda: lambda: yardsticks.parse_each(texts), count),
        Stage("Counter.inc()", count, lambda: lambda: yardsticks.count_each(texts), count),
        prototype(lines),
    ]


def prototype(lines: list[bytes]) -> Stage:
    pieces = corpus.chunks(lines)
    return Stage("prototype", len(lines), lambda: lambda: yardsticks.Prototype().run(pieces), len(lines))


def of(lines: list[bytes]) -> list[Stage]:
    """Return the stages that these lines go through."""
    made = _Material(lines)
    count = len(lines)
    return [
        Stage("framing", count, made.framing, count),
        Stage("multiline", count, made.assembling, count),
        Stage("normalize", count, made.normalizing, made.records),
        Stage("observe", count, made.observing, made.records),
        Stage("loki encode + gzip", count, made.encoding, made.records),
        Stage("delivery", count, made.delivering, made.records),
        Stage("pump, framing to observe", count, made.pumping, made.records),
    ]


def hiding(lines: list[bytes]) -> Stage:
    """Return the stage that a few secrets among canonical lines could slow down for all."""
    made = _Material(corpus.with_secrets(lines))
    return Stage("normalize, 1 secret in 400 lines", len(lines), made.normalizing, made.records)


def normalized(lines: list[bytes]) -> list[Record]:
    """Return the records that these lines become."""
    return [record for records in _Material(lines).batches for record in records]


def records_of(lines: list[bytes]) -> int:
    """Return how many records these lines become: what belongs together is one, blank lines are none."""
    return sum(len(each.texts) for each in _assemble(_frame(corpus.chunks(lines))))


class _Material:
    """What each stage gets."""

    def __init__(self, lines: list[bytes]) -> None:
        self._chunks = corpus.chunks(lines)
        self._framed = [part for each in _frame(self._chunks) for part in _portions(each)]
        self._logical = _assemble([_copy(each) for each in self._framed])
        normalizer = _normalizer()
        made = [normalizer.normalize(_copy(each)) for each in self._logical]
        self._groups = [each.requests for each in made]
        self.batches = [each.records for each in made]
        self.records = sum(map(len, self.batches))

    def framing(self) -> Run:
        return lambda: sum(len(each.texts) for each in _frame(self._chunks))

    def assembling(self) -> Run:
        copies = [_copy(each) for each in self._framed]
        return lambda: sum(each.physical for each in _assemble(copies))

    def normalizing(self) -> Run:
        copies = [_copy(each) for each in self._logical]
        normalizer = self._warm_normalizer()
        return lambda: sum(len(normalizer.normalize(each).records) for each in copies)

    def observing(self) -> Run:
        requests = _requests(silent_telemetry())
        requests.observe(self._groups[0])

        def run() -> int:
            for groups in self._groups:
                requests.observe(groups)
            return self.records

        return run

    def encoding(self) -> Run:
        sink = loki.Loki(loki.Config(url="http://loki:3100"), telemetry=silent_telemetry())
        return lambda: sum(
            len(push.records) for batch in self.batches for push in sink.encode(batch, sink.settle(batch))
        )

    def delivering(self) -> Run:
        """Deliver everything to nobody, as app does for a sink that may make the source wait."""
        telemetry = silent_telemetry()
        outbox = delivery.Delivery(_NoSink(), policy="block", max_bytes=_QUEUE_BYTES, telemetry=telemetry, max_wait=1.0)

        def run() -> int:
            asyncio.run(_deliver(self.batches, outbox))
            done = {"sink": "loki", "outcome": "sent"}
            return int(telemetry.registry.get_sample_value("sidecar_sink_records_total", done) or 0)

        return run

    def pumping(self) -> Run:
        """Run the real pump over everything between the source and the sinks."""
        telemetry = silent_telemetry()
        outbox = _Counter()
        pump = pipeline.Pump(
            source=_Chunks(self._chunks),
            normalizer=self._warm_normalizer(),
            dispatch=dispatch.Dispatch(observer=_requests(telemetry), outboxes=[outbox], telemetry=telemetry),
            tracker=acks.Tracker(),
            telemetry=telemetry,
            limits=pipeline.Limits(max_line_bytes=_MAX_LINE_BYTES, idle_flush=1.0, keep_unfinished=False),
        )

        def run() -> int:
            asyncio.run(pump.run())
            return outbox.records

        return run

    def _warm_normalizer(self) -> normalize.Normalizer:
        normalizer = _normalizer()
        for each in self._logical[:_WARMING]:
            normalizer.normalize(_copy(each))
        return normalizer


def _frame(chunks: Iterable[bytes]) -> list[Lines]:
    framer = framing.Framer(max_line_bytes=_MAX_LINE_BYTES)
    framed = []
    offset = 0
    for chunk in chunks:
        lines = framer.feed(chunk, offset)
        lines.starts = framer.starts()
        offset += len(chunk)
        framed.append(lines)
    return framed


def _portions(lines: Lines) -> list[Lines]:
    starts = lines.starts or []
    return [
        Lines(lines.texts[begin : begin + _PORTION], starts=starts[begin : begin + _PORTION])
        for begin in range(0, len(lines.texts), _PORTION)
    ]


def _copy(lines: Lines) -> Lines:
    return replace(lines, texts=list(lines.texts), marks=dict(lines.marks), kinds=dict(lines.kinds))


def _assemble(framed: Iterable[Lines]) -> list[Lines]:
    assembler = multiline.Assembler(idle=1.0)
    logical = [assembler.feed(lines, 0.0) for lines in framed]
    rest = assembler.flush()
    return [*logical, rest] if rest.physical else logical


def silent_telemetry() -> Telemetry:
    return Telemetry(log=Log(io.StringIO()), sinks=("loki",))


def _normalizer() -> normalize.Normalizer:
    return normalize.Normalizer(normalize.Config(), validation.load(validation.Config()), service_name=corpus.SERVICE)


def _requests(telemetry: Telemetry) -> durations.Requests:
    return durations.Requests(durations.Config(), routes.Table([]), telemetry)


class _NoSink:
    """Takes everything at once: what is left is the work of delivery itself."""

    name = "loki"

    def settle(self, records: Sequence[Record]) -> list[int]:
        return [record.time_ns for record in records]

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        return [Push(b"", records)]

    def divide(self, push: Push) -> list[Push]:
        return []

    async def send(self, push: Push) -> Receipt:
        return Receipt("204")

    async def close(self) -> None: ...


async def _deliver(batches: list[list[Record]], outbox: delivery.Delivery) -> None:
    tracker = acks.Tracker()
    running = asyncio.create_task(outbox.run())
    end = 0
    for records in batches:
        end += len(records)
        await outbox.put(Batch(records, tracker.open(Position("log", end), 1)))
    outbox.close()
    await running


class _Chunks:
    """A source whose bytes are there already."""

    resumable = True
    attached = True

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._offset = 0

    async def start(self) -> None: ...

    async def read(self, wait: float) -> Chunk | None:
        data = next(self._chunks, None)
        if data is None:
            return None
        start, self._offset = self._offset, self._offset + len(data)
        return Chunk(data, Position("log", start))

    def stop(self) -> None: ...

    def unread(self) -> int:
        return 0

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        return {}

    def describe(self) -> dict[str, object]:
        return {}

    async def close(self) -> None: ...


class _Counter:
    """An outbox that counts and acknowledges."""

    def __init__(self) -> None:
        self.records = 0

    async def put(self, batch: Batch) -> None:
        self.records += len(batch.records)
        batch.ack.done()
