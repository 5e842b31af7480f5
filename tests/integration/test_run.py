"""`sidecar run` as a user starts it: what goes in comes out, is counted, and the exit code tells."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from datetime import UTC, datetime

import orjson
import pytest

from sidecar import formats
from tests.support import fake_loki, lines
from tests.support.fake_loki import FakeLoki
from tests.support.patience import PATIENCE
from tests.support.ports import Port
from tests.support.running import Sidecar, assert_balanced

EXIT_CONFIG = 2
EXIT_DEADLINE = 3


@pytest.fixture
def nobody():
    """Give a port at which nobody listens."""
    with Port() as port:
        yield port


async def test_valid_lines_come_out_byte_identical_and_are_counted():
    sent = lines.canonical(500)
    async with Sidecar() as sidecar:
        sidecar.write(b"\n".join(sent) + b"\n")
        metrics = await sidecar.until("sidecar_records_total", 500)
        sidecar.end_input()

        assert await sidecar.finish() == 0

    assert bytes(sidecar.stdout).split(b"\n")[:-1] == sent
    assert metrics.by("sidecar_records_total", "outcome") == {("valid",): 500}
    assert metrics.total("http_requests_total", method="GET", path="/orders/:id", status="200") == 500
    assert metrics.total("http_request_duration_ms_count") == 500
    assert_balanced(metrics)


async def test_mixed_lines_each_become_one_record():
    sent = [
        b"plain",
        b"",
        b'{"level":"info","ts":1790000000.5,"msg":"m"}',
        *lines.gin(20),
        b"panic: boom",
        b"",
        b"goroutine 1 [running]:",
        b"main.main()",
    ]
    async with Sidecar(["source.idle_flush=100ms"]) as sidecar:
        sidecar.write(b"\n".join(sent) + b"\n")
        metrics = await sidecar.until("sidecar_lines_read_total", len(sent))
        sidecar.end_input()

        assert await sidecar.finish() == 0

    records = sidecar.records()
    assert [record["message"] for record in records[:2]] == ["plain", "m"]
    assert records[-1]["level"] == "fatal"
    assert metrics.total("sidecar_lines_skipped_total", reason="blank") == 1
    assert metrics.total("sidecar_lines_joined_total") == 3
    assert metrics.by("http_requests_total", "path", "status") == {("/orders/:id", "200"): 18, ("unmatched", "404"): 2}
    assert_balanced(metrics)


async def test_the_last_line_needs_no_newline():
    async with Sidecar() as sidecar:
        sidecar.write(lines.canonical(1)[0])
        sidecar.end_input()

        assert await sidecar.finish() == 0

    assert bytes(sidecar.stdout) == lines.canonical(1)[0] + b"\n"


async def test_series_of_closed_label_sets_exist_before_there_is_anything_to_count():
    async with Sidecar() as sidecar:
        metrics = await sidecar.metrics()

    seen = {labels["format"]: value for labels, value in metrics.samples["sidecar_format_records_total"]}
    assert seen == dict.fromkeys(formats.NAMES, 0.0)


async def test_no_input_is_no_error():
    async with Sidecar() as sidecar:
        metrics = await sidecar.metrics()
        sidecar.end_input()

        assert await sidecar.finish() == 0

    assert sidecar.stdout == b""
    assert_balanced(metrics)


async def test_a_file_on_stdin_is_read_to_its_end(tmp_path):
    path = tmp_path / "app.log"
    sent = lines.canonical(3000)
    path.write_bytes(b"\n".join(sent) + b"\n")
    with path.open("rb") as file:
        async with Sidecar(stdin=file.fileno()) as sidecar:
            assert await sidecar.finish() == 0

    assert bytes(sidecar.stdout).split(b"\n")[:-1] == sent


async def test_r18_sigterm_ends_a_pipe_with_what_is_there_delivered():
    async with Sidecar(["source.idle_flush=50ms"]) as sidecar:
        sidecar.write(b"one\ntwo\n")
        await sidecar.until("sidecar_records_total", 2)
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == 0

    assert [record["message"] for record in sidecar.records()] == ["one", "two"]


async def test_a_command_is_followed_on_both_streams_and_its_exit_code_returned():
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    async with Sidecar(argv=[sys.executable, "-c", script], stdin=None) as sidecar:
        assert await sidecar.finish() == 7

    assert sorted(record["message"] for record in sidecar.records()) == ["err", "out"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["/nonexistent/x"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "exit 0"], 0),
    ],
    ids=["not found", "not executable", "killed", "fine"],
)
async def test_exit_codes_are_a_shells(argv, code):
    async with Sidecar(argv=argv, stdin=None) as sidecar:
        assert await sidecar.finish() == code


async def test_signals_are_passed_on_and_the_output_is_drained():
    script = """
import signal, sys
def bye(*_):
    print("bye", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
signal.pause()
"""
    async with Sidecar(argv=[sys.executable, "-c", script], stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 1)
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == 3

    assert [record["message"] for record in sidecar.records()] == ["up", "bye"]


async def test_at_end_serve_goes_on_serving_until_a_signal():
    async with Sidecar(["source.at_end=serve"]) as sidecar:
        sidecar.write(b"one\n")
        sidecar.end_input()
        metrics = await sidecar.until("sidecar_sink_records_total", 1, outcome="sent")
        assert_balanced(metrics)
        assert (await sidecar.get("/livez"))[0] == 200
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == 0


async def test_loki_gets_every_record_in_streams_by_validity():
    async with FakeLoki() as loki:
        settings = [f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=50ms", "environment=test"]
        async with Sidecar(settings, environ={"POD_NAME": "shop-1", "POD_NAMESPACE": "prod"}) as sidecar:
            sidecar.write(_recent(lines.canonical(1200)) + b"not json\n")
            metrics = await sidecar.until("sidecar_sink_records_total", 1201, sink="loki", outcome="sent")
            sidecar.end_input()

            assert await sidecar.finish() == 0

        common = {"namespace": "prod", "pod": "shop-1", "environment": "test"}
        assert sorted(loki.streams(), key=str) == sorted(
            [
                {"service_name": "orders", "schema_valid": "true", **common},
                {"service_name": "shop", "schema_valid": "false", **common},
            ],
            key=str,
        )
        assert loki.count(service_name="orders") == 1200
        (entry,) = loki.entries(service_name="shop")
        assert dict(entry.metadata) == {"detected_level": "info", "format": "text", "violation": "trace_id:required"}
    assert sidecar.stdout == b""
    assert_balanced(metrics)


def _recent(sent):
    """Give the lines today's time: Loki refuses what is older than a week."""
    today = f"{datetime.now(UTC):%Y-%m-%dT%H}".encode()
    return b"".join(line.replace(b"2026-10-06T09", today) + b"\n" for line in sent)


async def test_a_loki_that_is_well_again_when_the_drain_begins_gets_everything():
    """Whatever pause it asked for: nobody knows that it is over unless it is tried."""
    async with FakeLoki() as loki:
        loki.script(fake_loki.status(503, Retry_After="120"))
        async with Sidecar([f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=10ms"]) as sidecar:
            sidecar.write(b"one\ntwo\n")
            await sidecar.until("sidecar_sink_retries_total", 1)
            sidecar.end_input()

            assert await sidecar.finish() == 0

        assert loki.count() == 2


async def test_records_that_are_lost_are_a_failure_and_told_in_the_last_line():
    """Loki refuses them and there is no state directory for dead letters."""
    async with FakeLoki() as loki:
        settings = [f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=10ms"]
        async with Sidecar(settings) as sidecar:
            sidecar.write(b"\n".join(lines.canonical(20)) + b"\n")  # years old
            sidecar.end_input()

            assert await sidecar.finish() == 1

    assert sidecar.log[-1]["event"] == "records_lost"
    assert sidecar.log[-1]["records"] == 20


async def test_records_that_are_kept_as_dead_letters_are_not_lost(tmp_path):
    async with FakeLoki() as loki:
        settings = [f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=10ms", f"state.dir={tmp_path}"]
        async with Sidecar(settings) as sidecar:
            sidecar.write(b"\n".join(lines.canonical(20)) + b"\n")
            sidecar.end_input()

            assert await sidecar.finish() == 0

    assert not sidecar.events("records_lost")
    assert len((tmp_path / "dead-letter" / "loki.ndjson").read_bytes().splitlines()) == 20


@pytest.mark.parametrize(("script", "code"), [("", 1), ("; exit 7", 7)], ids=["of its own", "the command's"])
async def test_a_standard_output_that_nobody_reads_is_a_failure_of_its_own(script, code):
    readable, writable = os.pipe()
    os.close(readable)
    argv = ["sh", "-c", f"seq 1 5000{script}"]
    async with Sidecar(argv=argv, stdin=None, stdout_to=writable) as sidecar:
        os.close(writable)
        assert await sidecar.finish() == code

    assert sum(said["records"] for said in sidecar.events("sink_refused")) == 5000
    assert sidecar.log[-1]["event"] == "records_lost"
    assert sidecar.log[-1]["message"] == "stdout: 5000 records lost in all: 5000 (refused: closed)"


@pytest.mark.parametrize(("at_end", "status"), [("exit", 503), ("serve", 200)])
async def test_a_sidecar_that_drains_because_its_input_has_ended_is_not_ready_any_more(at_end, status):
    async with FakeLoki() as loki:
        loki.script(*[fake_loki.Fault("hang")] * 10)
        settings = [f"sinks.loki.url={loki.url}", "sinks.loki.batch.max_wait=10ms", f"source.at_end={at_end}"]
        async with Sidecar([*settings, "sinks.stdout.enabled=true", "drain_seconds=1h"]) as sidecar:
            sidecar.write(b"one\n")
            await sidecar.until("sidecar_sink_records_total", 1, sink="stdout", outcome="sent")
            assert (await sidecar.get("/readyz"))[0] == 200
            sidecar.write(b"two")  # without a newline it is a record when the input ends, and not before
            sidecar.end_input()
            await sidecar.until("sidecar_sink_records_total", 2, sink="stdout", outcome="sent")
            async with asyncio.timeout(PATIENCE):
                while (answer := await sidecar.get("/readyz?verbose"))[0] != status:
                    pass

    assert ("[-]shutdown failed: shutting down" in answer[1]) == (status == 503)


async def test_what_keeps_it_from_starting_is_told_as_everything_else_in_its_log(tmp_path):
    (tmp_path / "file").touch()
    async with Sidecar() as first:
        port = first.address.rpartition(":")[2]
        for settings, said in (
            ([f"http.port={port}"], f"cannot listen on 127.0.0.1:{port}: another process"),
            ([f"state.dir={tmp_path}/file/state"], "state.dir: cannot write to"),
        ):
            async with Sidecar(settings) as sidecar:
                assert await sidecar.finish() == 1
            (told,) = [row for row in sidecar.log if row["level"] == "error"]
            assert told["message"].startswith(said)
            assert {"timestamp", "service_name", "event"} <= told.keys()
            assert not sidecar.events("not JSON")


async def test_a_drain_deadline_that_passes_is_exit_code_3(nobody):
    settings = [f"sinks.loki.url={nobody.url}", "drain_seconds=200ms", "sinks.loki.batch.max_wait=10ms"]
    async with Sidecar(settings) as sidecar:
        sidecar.write(b"one\ntwo\n")
        metrics = await sidecar.until("sidecar_sink_pending_records", 2)
        assert_balanced(metrics)
        async with asyncio.timeout(PATIENCE):
            while True:  # asking is the synchronisation
                status, text = await sidecar.get("/health")
                (told,) = orjson.loads(text)["checks"]["sink-loki:delivery"]
                if told["status"] == "warn":
                    break
        _, page = await sidecar.get("/", Accept="text/html")
        sidecar.end_input()

        assert await sidecar.finish() == 3

    assert status == 200, "a dead Loki is a warning, never a failure"
    assert told["output"] == "not delivering (connection); 2 records wait"
    assert told["lastSuccess"] is None
    assert told["pendingRecords"] == 2
    assert told["oldestUnsentSeconds"] >= 0
    assert (told["spoolBytes"], told["lastRefusal"]) == (0, None)
    assert "never" in page
    (told,) = sidecar.events("drain_deadline")
    assert told["message"] == "drain_seconds, 200ms, passed before everything was delivered"
    (left,) = sidecar.events("not_drained")
    assert left["records"] == 2


async def test_a_command_that_does_not_end_is_killed_at_the_deadline_and_that_is_said():
    script = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
    async with Sidecar(["drain_seconds=500ms"], argv=["sh", "-c", script], stdin=None) as sidecar:
        await sidecar.until("sidecar_sink_records_total", 1, outcome="sent")
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == 3

    (told,) = sidecar.events("drain_deadline")
    assert told["level"] == "error"
    assert told["message"].startswith(
        "drain_seconds, 500ms, passed before everything was read; the command has not ended"
    )


@pytest.mark.parametrize("policy", ["drop", "spool"])
async def test_a_dead_loki_stops_neither_the_other_sink_nor_the_metrics(tmp_path, policy, nobody):
    """More than the queue or the spool holds: the rest is dropped and counted, and standard output gets every record."""
    settings = [
        f"sinks.loki.url={nobody.url}", f"sinks.loki.when_full={policy}", "sinks.loki.spool_max_bytes=512KiB",
        "sinks.loki.batch.max_wait=10ms", "sinks.stdout.enabled=true", "drain_seconds=200ms", f"state.dir={tmp_path}",
    ]  # fmt: skip
    async with Sidecar(settings) as sidecar:
        chance = random.Random(7)  # what compresses well might all find room in the spool
        written = (b"line %d of %s\n" % (number, chance.randbytes(250).hex().encode()) for number in range(4000))
        sidecar.write(b"".join(written))
        await sidecar.until("sidecar_sink_records_total", 4000, sink="stdout", outcome="sent")
        await sidecar.until("sidecar_sink_offered_records_total", 4000, sink="loki")
        await sidecar.until("sidecar_sink_retries_total", 1)
        metrics = await sidecar.until("sidecar_sink_records_total", 1, sink="loki", outcome="dropped")
        assert_balanced(metrics)
        status, text = await sidecar.get("/health")
        ready, _ = await sidecar.get("/readyz")
        sidecar.end_input()

        assert await sidecar.finish() == 3

    assert [record["message"].split()[1] for record in sidecar.records()] == [str(number) for number in range(4000)]
    assert (status, orjson.loads(text)["status"], ready) == (200, "warn", 200)


@pytest.mark.parametrize(
    ("on_invalid", "out", "withheld"),
    [("forward", 2, {}), ("drop", 1, {("dropped_invalid",): 1}), ("quarantine", 1, {("quarantined",): 1})],
)
async def test_records_that_stay_invalid_are_forwarded_quarantined_or_dropped(tmp_path, on_invalid, out, withheld):
    settings = [f"schema.on_invalid={on_invalid}", f"state.dir={tmp_path}"]
    async with Sidecar(settings) as sidecar:
        sidecar.write(lines.canonical(1)[0] + b"\nnot json\n")
        metrics = await sidecar.until("sidecar_records_total", 2)
        sidecar.end_input()

        assert await sidecar.finish() == 0

    assert len(sidecar.records()) == out
    assert metrics.by("sidecar_records_withheld_total", "reason") == withheld
    assert_balanced(metrics)
    quarantine = tmp_path / "dead-letter" / "quarantine.ndjson"
    if on_invalid == "quarantine":
        letter = orjson.loads(quarantine.read_bytes())
        assert letter["record"]["message"] == "not json"
        assert letter["reason"] == "trace_id:required"
    else:
        assert not quarantine.exists()


@pytest.mark.slow
async def test_health_answers_at_once_while_a_million_lines_are_read(tmp_path):
    """Issue A, point 10: the pipeline never blocks the port. `make bench` reports the milliseconds."""
    path = tmp_path / "big.log"
    block = b"\n".join(lines.canonical(10_000)) + b"\n"
    path.write_bytes(block * 100)
    async with Sidecar(["source.kind=file", f"source.path={path}"], stdin=None) as sidecar:
        answers = 0
        async with asyncio.timeout(300):
            while not answers or (await sidecar.metrics()).total("sidecar_lines_read_total") < 1_000_000:
                sidecar.stdout.clear()
                assert (await sidecar.get("/health"))[0] == 200
                answers += 1
        metrics = await sidecar.until("sidecar_sink_records_total", 1_000_000)
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.finish() == 0
    assert answers > 10
    assert_balanced(metrics)


async def test_an_unfinished_line_of_a_file_on_stdin_is_left_for_the_next_start(tmp_path):
    """Contract, section 10; without a state directory it is emitted, marked partial."""
    path = tmp_path / "app.log"
    path.write_bytes(b"one\nhalf")
    messages = []
    for more in (b" and half\nthree\n", b""):
        with path.open("rb") as file:
            async with Sidecar([f"state.dir={tmp_path / 'state'}"], stdin=file.fileno()) as sidecar:
                assert await sidecar.finish() == 0
        messages += [record["message"] for record in sidecar.records()]
        with path.open("ab") as file:
            file.write(more)

    assert messages == ["one", "half and half", "three"]


async def test_a_followed_file_may_be_rotated(tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    async with Sidecar(["source.kind=file", f"source.path={path}"], stdin=None) as sidecar:
        await sidecar.until("sidecar_records_total", 1)
        with path.open("ab") as file:
            file.write(b"two\n")
        path.rename(tmp_path / "app.log.1")
        with (tmp_path / "app.log.1").open("ab") as file:
            file.write(b"three\n")
        path.write_bytes(b"four\n")
        metrics = await sidecar.until("sidecar_records_total", 4)
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == 0

    assert [record["message"] for record in sidecar.records()] == ["one", "two", "three", "four"]
    assert metrics.total("sidecar_rotations_total") == 1
    assert metrics.total("sidecar_lost_bytes_total") == 0


async def test_the_lag_grows_while_a_sink_keeps_the_source_waiting(tmp_path):
    """Nothing is processed then, and every scrape says for how long."""
    path = tmp_path / "app.log"
    path.write_bytes((b"\n".join(lines.canonical(1000)) + b"\n") * 20)
    loki = ["sinks.loki.url=http://127.0.0.1:9", "drain_seconds=100ms"]
    async with Sidecar(["source.kind=file", f"source.path={path}", *loki], stdin=None) as sidecar:
        async with asyncio.timeout(PATIENCE):
            while not (before := await sidecar.metrics()).total("sidecar_lag_seconds"):
                await asyncio.sleep(0.02)
            while not (
                (after := await sidecar.metrics()).total("sidecar_lag_bytes") == before.total("sidecar_lag_bytes")
                and after.total("sidecar_lag_seconds") > before.total("sidecar_lag_seconds")
            ):
                before = after
                await asyncio.sleep(0.02)
        sidecar.process.send_signal(signal.SIGTERM)

        assert await sidecar.finish() == EXIT_DEADLINE

    assert after.total("sidecar_lag_bytes")


async def test_a_wrong_configuration_is_told_whole_and_exits_2():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "run", "--set", "http.prot=1", "--set", "source.kind=fiel",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, said = await process.communicate()

    assert process.returncode == EXIT_CONFIG
    assert out == b""
    assert b"port" in said
    assert b"file" in said
    assert b"Traceback" not in said


async def test_every_metric_of_the_contract_exists_at_the_first_scrape():
    async with Sidecar() as sidecar:
        metrics = await sidecar.metrics()
        sidecar.end_input()
        await sidecar.finish()

    closed = [
        "sidecar_lines_read_total", "sidecar_bytes_read_total", "sidecar_records_total", "sidecar_level_records_total",
        "sidecar_lines_joined_total", "sidecar_lines_skipped_total", "sidecar_records_withheld_total",
        "sidecar_request_observations_rejected_total", "sidecar_label_overflow_total", "sidecar_truncated_lines_total",
        "sidecar_file_truncations_total", "sidecar_rotations_total", "sidecar_lost_bytes_total", "sidecar_log_gaps_total",
        "sidecar_lag_bytes", "sidecar_lag_seconds", "sidecar_sink_offered_records_total", "sidecar_sink_records_total",
        "sidecar_sink_pending_records", "sidecar_sink_spool_bytes", "sidecar_sink_oldest_unsent_seconds",
        "sidecar_sink_retries_total", "sidecar_checkpoint_saves_total", "sidecar_checkpoint_invalid_total",
        "sidecar_build_info",
    ]  # fmt: skip
    for name in closed:
        assert metrics.samples[name], name
    families = [
        "http_request_duration_ms summary", "http_request_duration_seconds histogram", "http_requests_total counter",
        "sidecar_format_records_total counter", "sidecar_schema_violations_total counter", "sidecar_sink_pushes_total counter",
    ]  # fmt: skip
    for family in families:
        assert f"# TYPE {family}\n" in metrics.text, family
        assert f"# HELP {family.split()[0]} " in metrics.text, family


async def test_healthcheck_asks_the_running_sidecar():
    async with Sidecar() as sidecar:
        port = sidecar.address.rsplit(":", 1)[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "healthcheck", "--set", f"http.port={port}"
        )

        assert await process.wait() == 0

        sidecar.end_input()
        await sidecar.finish()


async def test_a_state_directory_that_is_gone_is_a_warning_until_it_is_back(tmp_path):
    state, away = tmp_path / "state", tmp_path / "away"
    async with Sidecar([f"state.dir={state}", "state.checkpoint_interval=100ms", "source.at_end=serve"]) as sidecar:
        await sidecar.until("sidecar_checkpoint_saves_total", 1)
        state.rename(away)
        sidecar.write(b"one\n")
        await sidecar.until("sidecar_checkpoint_failures_total", 1)
        status, text = await sidecar.get("/health")
        (told,) = orjson.loads(text)["checks"]["checkpoint:saves"]
        assert (status, told["status"]) == (200, "warn")
        assert "No such file or directory" in told["output"]

        away.rename(state)
        saves = (await sidecar.metrics()).total("sidecar_checkpoint_saves_total")
        sidecar.write(b"two\n")
        await sidecar.until("sidecar_checkpoint_saves_total", saves + 1)
        (told,) = orjson.loads((await sidecar.get("/health"))[1])["checks"]["checkpoint:saves"]
        assert told["status"] == "pass"
