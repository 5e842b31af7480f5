"""`python -m tests.bench [--quick] [--json FILE]`: measure everything and show it beside its budget."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench import corpus, metrics, process, report, sink, stages, whole
from tests.bench.report import BrokenError, Measurement

_FULL = whole.Sizes(
    starts=3,
    idle_seconds=4,
    lines=12_000,
    rounds=5,
    mixed_lines=4_000,
    mixed_rounds=2,
    steady_seconds=10,
    short_seconds=4,
    probes=1000,
)
_QUICK = whole.Sizes(
    starts=2,
    idle_seconds=2,
    lines=6_000,
    rounds=2,
    mixed_lines=2_000,
    mixed_rounds=1,
    steady_seconds=3,
    short_seconds=2,
    probes=300,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the time, less steady numbers")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as an exception: nothing is left running
    where = report.machine()
    progress = report.Progress(sys.stderr)
    try:
        found = _measure(progress, quick=options.quick)
    except BrokenError as error:
        progress.clear()
        print(f"bench: {error}", file=sys.stderr)
        return 1
    progress.clear()
    report.show(found, where)
    if options.json:
        report.write_json(options.json, found, where, quick=options.quick)
    return 0


def _measure(progress: report.Progress, *, quick: bool) -> list[Measurement]:
    found = [*_stages(progress, quick=quick), *metrics.measure(2 if quick else 5, progress.say)]
    with (
        process.receiving() as loki,
        process.prototyping() as prototype,
        tempfile.TemporaryDirectory(prefix="gin-sidecar-bench-") as folder,
    ):
        program = whole.Whole(loki, prototype, Path(folder), _QUICK if quick else _FULL, progress.say)
        count, rounds = (4_000, 3) if quick else (14_000, 6)
        found += sink.measure(stages.normalized(corpus.canonical(count)), loki, rounds, progress.say)
        return [
            *found,
            *program.canonical(),
            *program.mixed(),
            *program.steady(),
            *program.container(),
            *program.probing(),
            *program.starting(),
        ]


def _stages(progress: report.Progress, *, quick: bool) -> list[Measurement]:
    count, rounds = (3_000, 4) if quick else (4_000, 10)
    access, anything = corpus.canonical(count), corpus.mixed(count // 2)
    yard = stages.yardsticks_of(access)
    found = []
    for group, beside, measured, turns in (
        ("stages, canonical access lines", yard, [*stages.of(access), stages.hiding(access)], rounds),
        ("stages, mixed corpus", yard[:1], stages.of(anything), rounds // 2),
    ):
        took = stages.measure([*beside, *measured], turns, progress.say)
        parsing = took[yard[0].name]
        found += [
            Measurement(
                group=group, name=name, value=each.best, unit="µs/line", ratio=each.ratio(parsing), to=yard[0].name
            )
            for name, each in took.items()
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
