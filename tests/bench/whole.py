"""The whole program, from a file to a receiver that stands for Loki, each in a process of its own.

Lines are written once it is ready, so that starting is not part of the work, and CPU time is taken when the last record
has arrived. The prototype, a process as well, reads the same lines from a file and pushes them before and after.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from tests.bench import corpus, process, stages
from tests.bench.report import BrokenError, Measurement
from tests.bench.stages import Took

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.process import Receiver

PROTOTYPE = 4.8  # µs a line, where and when the budgets were set
BATCH_WAIT_MS = 1000.0  # the default of sinks.loki.batch.max_wait
# Whoever catches up pushes when there is enough: this only shortens the wait for the last records of a round.
_CATCHING_UP = "sinks.loki.batch.max_wait=100ms"
_BESIDE = 2000  # canonical lines for the prototype beside other lines
_SHORT_WAIT_MS = 50.0
_RATE = 1000  # lines a second
_TICK = 0.005
_LAST_WORDS = 1000  # lines written right before SIGTERM
_PROBED = 1200  # lines of 400 label sets; more would wait for Loki
_PAGE_LINES = 9600  # 24 for each of 400 label sets
_ACCEPTED = {
    "text": "text/plain; version=0.0.4",
    "OpenMetrics": "application/openmetrics-text; version=1.0.0",
    "protobuf": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done."""

    starts: int
    idle_seconds: float
    lines: int  # per round
    rounds: int
    mixed_lines: int
    mixed_rounds: int
    steady_seconds: float
    short_seconds: float
    probes: int


class Whole:
    """Everything that is measured on the running program."""

    def __init__(
        self,
        loki: Receiver,
        prototype: Callable[[Path], float],
        folder: Path,
        sizes: Sizes,
        say: Callable[[str], None],
    ) -> None:
        self._loki = loki
        self._prototype = prototype
        self._access = folder / "access.log"  # what the prototype reads
        self._folder = folder
        self._sizes = sizes
        self._say = say
        self._logs = 0

    def _start(self, *settings: str) -> tuple[process.Sidecar, Path]:
        self._logs += 1
        log = self._folder / f"{self._logs}.log"
        log.touch()
        self._loki.reset()
        return process.Sidecar(log, self._loki, *settings), log

    def starting(self) -> list[Measurement]:
        bare, ready, cpu = [], [], []
        for number in range(self._sizes.starts):
            self._say(f"start to ready, {number + 1} of {self._sizes.starts}")
            bare.append(process.bare_start())
            starting, _ = self._start()
            with starting as sidecar:
                ready.append(sidecar.ready_seconds)
                cpu.append(sidecar.cpu_now())
                sidecar.stop()
        of = partial(Measurement, group="start")
        return [
            of(
                name="start to ready",
                value=min(ready),
                unit="s",
                budget=1.0,
                ratio=min(ready) / min(bare),
                to="importing the libraries",
            ),
            of(name="CPU until ready", value=min(cpu), unit="s"),
        ]

    def canonical(self) -> list[Measurement]:
        """Measure idling, then canonical lines, without and with a state directory."""
        sizes = self._sizes
        of = partial(Measurement, group="whole program, canonical access lines")
        starting, log = self._start(_CATCHING_UP)
        with starting as sidecar:
            found = [self._idle(sidecar, log)]
            work, beside = self._rounds(sidecar, log, "canonical", sizes.lines, sizes.rounds, corpus.canonical)
            resident, highest = sidecar.memory()
            sidecar.stop()
        starting, log = self._start(_CATCHING_UP, f"state.dir={self._folder / 'state'}")
        with starting as sidecar:
            kept, kept_beside = self._rounds(sidecar, log, "with state.dir", sizes.lines, 2, corpus.canonical)
            sidecar.stop()
        for name, took, ratio in (
            ("file → Loki", work.best, work.ratio(beside)),
            ("file → Loki, with state.dir", kept.best, kept.ratio(kept_beside)),
        ):
            per_line = partial(of, unit="µs/line", budget=8.0, aim=5.0)
            found.append(per_line(name=name, value=took, ratio=ratio, to="prototype"))
            found.append(per_line(name=f"… where the prototype takes {PROTOTYPE:g} µs", value=ratio * PROTOTYPE))
        slower = beside.best / PROTOTYPE
        found.append(
            of(
                name="straight-line prototype",
                value=beside.best,
                unit="µs/line",
                ratio=slower,
                to="where the budgets were set",
            )
        )
        found.append(of(name="resident after a backlog", value=resident, unit="MiB"))
        found.append(of(name="resident, highest (VmHWM)", value=highest, unit="MiB"))
        return found

    def mixed(self) -> list[Measurement]:
        sizes = self._sizes
        of = partial(Measurement, group="whole program, mixed corpus")
        starting, log = self._start(_CATCHING_UP)
        with starting as sidecar:
            took, beside = self._rounds(sidecar, log, "mixed", sizes.mixed_lines, sizes.mixed_rounds, corpus.mixed)
            highest = sidecar.memory()[1]
            sidecar.stop()
        ratio = took.ratio(beside)
        return [
            of(name="file → Loki", value=took.best, unit="µs/line", ratio=ratio, to="prototype, canonical lines"),
            of(name="resident, highest (VmHWM)", value=highest, unit="MiB"),
        ]

    def steady(self) -> list[Measurement]:
        """Measure memory, CPU and latency at 1 000 lines a second."""
        of = partial(Measurement, group="at 1 000 lines/s, Loki sink")
        alone = process.libraries_alone()
        starting, log = self._start()
        with starting as sidecar:
            resident, cpu = self._write_steadily(sidecar, log, self._sizes.steady_seconds, "steady")
            highest = sidecar.memory()[1]
            ages = self._loki.sums(ages=True)
            sidecar.stop()
        starting, log = self._start(f"sinks.loki.batch.max_wait={_SHORT_WAIT_MS:g}ms")
        with starting as sidecar:
            self._write_steadily(sidecar, log, self._sizes.short_seconds, "latency")
            short = self._loki.sums(ages=True)
            sidecar.stop()
        return [
            of(
                name="resident, steady (VmRSS)",
                value=resident,
                unit="MiB",
                budget=48,
                aim=40,
                ratio=resident / alone,
                to="the libraries alone",
            ),
            of(name="resident, highest (VmHWM)", value=highest, unit="MiB", budget=48, aim=40),
            of(name="CPU", value=100 * cpu, unit="% of a core"),
            of(
                name="written to pushed, p99",
                value=ages["p99"],
                unit="ms",
                budget=250 + BATCH_WAIT_MS,
                ratio=ages["p99"] / ages["p50"],
                to="p50",
            ),
            of(
                name=f"p99 beyond a batch wait of {_SHORT_WAIT_MS:g} ms",
                value=short["p99"] - _SHORT_WAIT_MS,
                unit="ms",
                budget=250,
                ratio=short["p99"] / short["p50"],
                to="p50",
            ),
        ]

    def container(self) -> list[Measurement]:
        """Measure the same of a container's log: idling, latency, and how long the end takes with words just written."""
        folder = self._folder / "pod" / "app"
        folder.mkdir(parents=True)
        log = folder / "0.log"
        log.touch()
        self._loki.reset()
        of = partial(Measurement, group="a container's log (cri), Loki sink")
        settings = ["source.kind=cri", f"source.path={folder.parent}", "source.container=app"]
        with process.Sidecar(
            log, self._loki, *settings, f"sinks.loki.batch.max_wait={_SHORT_WAIT_MS:g}ms", f"state.dir={folder / 's'}"
        ) as sidecar:
            idle = self._idle(sidecar, log)
            self._write_steadily(sidecar, log, self._sizes.short_seconds, "cri", corpus.in_cri)
            ages = self._loki.sums(ages=True)
            last = [corpus.in_cri(line, time.time_ns()) for line in corpus.canonical(_LAST_WORDS, seed=99)]
            with log.open("ab") as file:
                file.write(b"".join(last))
            seconds = sidecar.stop()
            entries = self._loki.sums()["entries"]
            written = int(self._sizes.short_seconds * _RATE) + _LAST_WORDS
            if entries != written:
                raise BrokenError(f"{entries} of {written} records arrived before the end")
        return [
            of(name="CPU, idle", value=idle.value, unit=idle.unit, budget=idle.budget, ratio=idle.ratio, to=idle.to),
            of(
                name=f"p99 beyond a batch wait of {_SHORT_WAIT_MS:g} ms",
                value=ages["p99"] - _SHORT_WAIT_MS,
                unit="ms",
                budget=250,
                ratio=ages["p99"] / ages["p50"],
                to="p50",
            ),
            of(
                name=f"SIGTERM to exit, {_LAST_WORDS} lines just written",
                value=seconds,
                unit="s",
                budget=2.0,
                ratio=seconds / process.bare_start(),
                to="importing the libraries",
            ),
        ]

    def probing(self) -> list[Measurement]:
        """Measure /health while Loki cannot be reached and scrapes of 400 label sets follow each other."""
        of = partial(Measurement, group="/health, Loki away, 400 label sets", unit="ms")
        starting, log = self._start("sinks.loki.url=http://127.0.0.1:9", "metrics.max_paths=400")
        found = []
        with starting as sidecar:
            log.write_bytes(b"".join(corpus.with_routes(corpus.canonical(_PROBED), 400)))
            sidecar.wait_until_read(_PROBED)
            quiet = sidecar.health_seconds(self._sizes.probes)
            for name, accept in _ACCEPTED.items():
                self._say(f"/health beside scrapes as {name}")
                with sidecar.scraped(accept) as lines:
                    beside = sidecar.health_seconds(self._sizes.probes)
                if lines < _PAGE_LINES:
                    raise BrokenError(f"a page has {lines} lines, expected {_PAGE_LINES} or more")
                for share in (0.5, 0.99):
                    took = 1000 * beside[int(share * len(beside))]
                    found.append(
                        of(
                            name=f"p{100 * share:.0f} beside scrapes as {name}",
                            value=took,
                            budget=5.0 if share > 0.9 else None,
                            ratio=took / 1000 / quiet[int(share * len(quiet))],
                            to="without scrapes",
                        )
                    )
        return found

    def _idle(self, sidecar: process.Sidecar, log: Path) -> Measurement:
        seconds = self._sizes.idle_seconds
        self._say(f"idle, {seconds:g} s")
        poller = process.Poller(log)
        try:
            time.sleep(1.0)  # what starting left to do is done by then, on both sides
            begin, own, least = time.perf_counter(), sidecar.cpu_now(), poller.cpu_now()
            time.sleep(seconds)
            own, least = sidecar.cpu_now() - own, poller.cpu_now() - least
            share = 100 * own / (time.perf_counter() - begin)
        finally:
            poller.stop()
        return Measurement(
            group="idle",
            name="CPU",
            value=share,
            unit="% of a core",
            budget=0.5,
            ratio=own / least,
            to="a loop that only polls",
        )

    def _rounds(
        self,
        sidecar: process.Sidecar,
        log: Path,
        what: str,
        count: int,
        rounds: int,
        make: Callable[..., list[bytes]],
    ) -> tuple[Took, Took]:
        """Append lines and wait for their records, several times, after a short time to warm up.

        Returns what the program took, and the prototype on canonical lines beside it.
        """
        program, beside = Took(), Took()
        written = records = 0
        for number in range(rounds + 1):
            self._say(f"whole program, {what}, {number} of {rounds}")
            lines = make(count if number else count // 10, seed=number)
            access = lines if make is corpus.canonical else corpus.canonical(_BESIDE, seed=number)
            self._access.write_bytes(b"".join(access))
            least = self._prototype(self._access)
            before = sidecar.cpu_now()
            with log.open("ab") as file:
                file.write(b"".join(lines))
            written += len(lines)
            records += stages.records_of(lines)
            seconds = sidecar.wait_for(self._loki, records) - before
            least = min(least, self._prototype(self._access))
            if number:
                program.rounds.append(seconds / len(lines) * 1e6)
                beside.rounds.append(least / len(access) * 1e6)
        sidecar.reconcile(self._loki, written)
        return program, beside

    def _write_steadily(
        self,
        sidecar: process.Sidecar,
        log: Path,
        seconds: float,
        what: str,
        wrap: Callable[[bytes, int], bytes] = lambda line, _: line,
    ) -> tuple[float, float]:
        """Write at the rate, a few lines at a time; return resident MiB of the second half, and the share of a core."""
        line = corpus.canonical_line(1)
        total = int(seconds * _RATE)
        resident = []
        cpu = sidecar.cpu_now()
        begin = time.perf_counter()
        with log.open("ab", buffering=0) as file:
            written = 0
            while written < total:
                due = min(total, int((time.perf_counter() - begin) * _RATE))
                if due > written:
                    now = time.time_ns()
                    # a microsecond apart, as they would be
                    times = range(now, now + 1000 * (due - written), 1000)
                    file.write(b"".join(wrap(line(moment), moment) for moment in times))
                    if written // (_RATE // 2) != due // (_RATE // 2):
                        self._say(f"{what} at {_RATE} lines/s, {written / _RATE:.0f} of {seconds:g} s")
                        resident.append(sidecar.memory()[0])
                    written = due
                time.sleep(_TICK)
        share = (sidecar.cpu_now() - cpu) / (time.perf_counter() - begin)
        sidecar.wait_for(self._loki, total)
        sidecar.reconcile(self._loki, total)
        return median(resident[len(resident) // 2 :]), share
