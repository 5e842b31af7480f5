"""The bench measures what it says: lines of the promised kind, and a yardstick that does the same job."""

from __future__ import annotations

import gzip
import io
import math
import subprocess
import sys
from collections import Counter

import orjson
import pytest

from sidecar.model import Lines, Outcome
from sidecar.sinks import loki
from tests.bench import corpus, metrics, process, receiver, report, sink, stages, yardsticks
from tests.bench.report import BrokenError, Measurement
from tests.support import golden, loki_wire


def test_canonical_lines_are_valid_as_written_and_of_the_size_that_the_budget_names():
    lines = corpus.canonical(500)

    made = golden.normalizer().normalize(Lines([line.rstrip(b"\n") for line in lines]))

    assert made.outcomes == {Outcome.VALID: 500}
    assert sum(map(len, lines)) / 500 - 1 == pytest.approx(corpus.CANONICAL_BYTES, abs=3)
    assert {tuple(orjson.loads(line)) for line in lines} == {tuple(orjson.loads(lines[0]))}
    times = [record.time_ns for record in made.records]
    assert times == sorted(set(times))


def test_secrets_stand_where_they_are_hidden():
    lines = corpus.with_secrets(corpus.canonical(800))

    made = golden.normalizer().normalize(Lines([line.rstrip(b"\n") for line in lines]))

    assert sum(b"0123456789abcdef" in line for line in lines) == 2
    assert not any(b"0123456789abcdef" in record.line for record in made.records)
    assert made.outcomes == {Outcome.VALID: 800}


def test_the_mixed_corpus_has_every_format_of_the_recordings_and_no_captions():
    lines = corpus.mixed(2000)

    made = golden.normalizer().normalize(golden.assemble([line.rstrip(b"\n") for line in lines]))

    assert not any(line.startswith(b"####") for line in lines)
    assert {"canonical", "gin", "gin_recovery", "ginzap", "slog", "logrus", "gin_logger", "zap_console"} <= {
        *made.formats
    }
    assert made.outcomes[Outcome.VALID] >= 800
    assert len(made.records) == stages.records_of(lines)


def test_the_prototype_counts_the_same_requests():
    lines = corpus.canonical(2000)
    prototype = yardsticks.Prototype()

    done = prototype.run(corpus.chunks(lines, 100_000))

    made = golden.normalizer().normalize(Lines([line.rstrip(b"\n") for line in lines]))
    ours = Counter({(key[0], key[1], key[3]): len(group.durations) for key, group in made.requests.items()})
    assert done == 2000
    assert ours == {key: sum(counts.values()) for key, counts in prototype.sketches.items()}


def test_the_receiver_reads_the_times_of_protobuf():
    made = stages.normalized(corpus.canonical(50))
    writer = loki.Loki(loki.Config(url="http://loki", encoding="protobuf"), telemetry=stages.silent_telemetry())

    (push,) = writer.encode(made, writer.settle(made))

    request = loki_wire.unsnap(gzip.decompress(push.body))
    assert list(receiver.times(request)) == [record.time_ns for record in made]


def test_the_sink_alone_is_measured_in_both_encodings_beside_a_plain_client():
    with process.receiving() as destination:
        found = sink.measure(stages.normalized(corpus.canonical(60)), destination, 1, lambda text: None)

    assert {each.name.split(", ")[0] for each in found} == {"plain JSON client", "json", "protobuf"}
    assert {each.unit for each in found} == {"µs/entry", "entries/s", "MB/s of lines"}
    assert all(each.value > 0 and each.ratio > 0 and each.to == "plain JSON client" for each in found)


def test_the_metrics_of_requests_are_measured_in_every_format_beside_increments():
    found = metrics.measure(1, lambda text: None)

    assert [each.name for each in found if each.unit == "Counter.inc()"] == [
        f"observe, {count} of a label set" for count in (1, 5, 20, 1000)
    ]
    assert {each.name for each in found if each.budget == 10} == {
        f"scrape, {form}, at a time" for form in ("text", "OpenMetrics", "protobuf")
    }
    assert all(each.value > 0 for each in found)


def test_entries_that_do_not_arrive_have_no_number():
    class Forgetful(process.Receiver):
        def sums(self, *, ages=False):
            return {"entries": super().sums()["entries"] - 1}

    with process.receiving() as destination, pytest.raises(BrokenError, match="29 of 30 entries"):
        sink.measure(
            stages.normalized(corpus.canonical(10)), Forgetful(int(destination.url.rsplit(":", 1)[1])), 1, print
        )


def test_a_stage_that_loses_a_line_has_no_number():
    stage = stages.Stage("lossy", 3, lambda: lambda: 2, 3)

    with pytest.raises(BrokenError, match="lossy: 2 of 3"):
        stages.timed(stage)


def test_a_ratio_compares_what_ran_in_the_same_round():
    mine, theirs = stages.Took([2.0, 40.0, 3.0]), stages.Took([1.0, 20.0, 1.0])

    assert mine.ratio(theirs) == 2.0
    assert mine.best == 2.0


@pytest.mark.parametrize(("value", "verdict"), [(7.9, "within"), (8.1, "OVER")])
def test_the_table_says_whether_a_number_is_within_its_budget(value, verdict):
    out = io.StringIO()
    measured = Measurement(group="g", name="n", value=value, unit="µs/line", budget=8.0, aim=5.0)

    report.show([measured], report.machine(), out)

    assert out.getvalue().rstrip().endswith(f"≤ 8, aim 5     {verdict}")


def test_the_json_holds_every_number(tmp_path):
    path = tmp_path / "bench.json"
    measured = Measurement(group="g", name="n", value=1.5, unit="s", budget=1.0)

    report.write_json(str(path), [measured], report.machine(), quick=True)

    written = orjson.loads(path.read_bytes())
    assert written["quick"] is True
    assert written["measurements"] == [
        {
            "group": "g", "name": "n", "value": 1.5, "unit": "s", "budget": 1.0, "aim": None, "ratio": None, "to": "",
            "within": False,
        }
    ]  # fmt: skip


@pytest.mark.slow
def test_the_whole_bench_runs_and_measures_everything(tmp_path):
    path = tmp_path / "bench.json"

    subprocess.run([sys.executable, "-m", "tests.bench", "--quick", "--json", str(path)], timeout=600, check=True)

    found = orjson.loads(path.read_bytes())["measurements"]
    assert len({each["group"] for each in found}) == 11
    assert all(math.isfinite(each["value"]) for each in found)
