"""The commands beside `run`, as a user calls them: what they print and the exit code they leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import orjson
import pytest

from tests.support import lines
from tests.support.patience import PATIENCE

ANSI = re.compile(rb"\x1b\[")


def sidecar(*words, given=b"", **environ):
    """Run a command to its end."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIDECAR_", "OTEL_", "CONTAINER_"))}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        input=given,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=kept | environ,
    )


def test_validate_passes_lines_that_are_valid_or_become_so():
    given = (
        lines.canonical(3)[0]
        + b'\n{"ts":1790000000,"level":"INFO","service":"s","traceId":"4bf92f3577b34da6a3ce929d0e0e4736"}\n'
    )

    assert sidecar("validate", given=given).returncode == 0
    assert sidecar("validate", "--strict", given=given).returncode == 1


def test_validate_says_how_often_what_is_violated_and_where():
    given = b"\n".join([*lines.canonical(2), b"text", b"", b'{"level":"INFO"}', b'{"level":"LOUD"}']) + b"\n"

    done = sidecar("validate", "--format", "json", given=given)

    said = orjson.loads(done.stdout)
    assert done.returncode == 1
    assert said["lines"] == 6
    assert said["outcomes"] == {"valid": 2, "normalized": 0, "invalid": 3}
    found = {(each["field"], each["rule"]): (each["count"], each["lines"]) for each in said["violations"]}
    assert found["", "object"] == (1, ["3"])
    assert found["level", "enum"] == (2, ["5", "6"])
    assert found["trace_id", "required"] == (2, ["5", "6"])


def test_validate_names_the_file_when_there_are_several(tmp_path):
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_bytes(b"\nnot json\n")

    done = sidecar("validate", "--format", "json", str(tmp_path / "a.log"), str(tmp_path / "b.log"))

    (found,) = orjson.loads(done.stdout)["violations"]
    assert found["lines"] == [f"{tmp_path}/a.log:2", f"{tmp_path}/b.log:2"]


def test_validate_counts_a_stack_of_many_lines_as_one_record():
    given = b"panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:1 +0x1\n"

    said = orjson.loads(sidecar("validate", "--format", "json", given=given).stdout)

    assert (said["lines"], said["records"], said["joined"]) == (5, 1, 4)


def test_validate_uses_another_schema(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"type":"object","required":["tenant"]}')

    assert sidecar("validate", "--strict", "--schema", str(path), given=b'{"tenant":1}\n').returncode == 0
    assert sidecar("validate", "--schema", str(path), given=b'{"x":1}\n').returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["validate", "/nonexistent.log"], b"/nonexistent.log: No such file"),
        (["validate", "--schema", "/nonexistent.json"], b"cannot be read"),
        (["validate", "--format", "xml"], b"invalid choice"),
        (["explain", "/nonexistent.log"], b"/nonexistent.log: No such file"),
        (["check", "--set", "http.port=fast"], b"http.port"),
        (["check", "--set", "schema.path=/nonexistent.json"], b'schema.path="/nonexistent.json": cannot be read'),
        (["run", "--"], b"expected COMMAND"),
        (["nonsense"], b"invalid choice"),
        ([], b"required"),
    ],
)
def test_wrong_usage_is_told_in_one_line_and_exits_2(words, told):
    done = sidecar(*words)

    assert done.returncode == 2
    assert told in done.stderr
    assert b"Traceback" not in done.stderr


def test_explain_shows_format_record_outcome_reasons_and_metrics():
    done = sidecar(
        "explain",
        "--set",
        "service_name=shop",
        given=lines.gin(1)[0] + b"\n" + lines.canonical(1)[0] + b'\n{"level":"INFO"}\n',
    )

    said = done.stdout.decode()
    assert done.returncode == 0
    assert "format  gin" in said
    assert "not a JSON object" in said
    assert "remains:    trace_id: required: 'trace_id' is a required property" in said
    assert 'http_requests_total{method="GET",path="/orders/:id",status="200"} +1' in said
    assert "outcome valid" in said
    assert "as written: level: enum: 'INFO' is not one of" in said
    assert '"service_name":"shop"' in said
    assert not ANSI.search(done.stdout), "no colour in a pipe"


def test_explain_says_what_weights_and_lifetimes_of_connections_come_to():
    line = (
        b'{"level":"info","timestamp":"2026-11-25T00:00:00Z","service_name":"shop","trace_id":"%032x",'
        b'"method":"GET","route":"/ws","status":%d,"duration_ms":%d,"sample_weight":%s}\n'
    )

    shown = sidecar(
        *("explain", "--set", "metrics.max_duration=60s"),
        given=line % (1, 200, 25, b"100")
        + line % (2, 101, 25, b"1")
        + line % (3, 200, 61000, b"10")
        + line % (4, 200, 1, b"0"),
    ).stdout.decode()

    labels = 'method="GET",path="/ws"'
    first, second, third, fourth = shown.split("\n\n")[:4]
    assert f'http_requests_total{{{labels},status="200"}} +100' in first
    assert f"http_request_duration_ms{{{labels}}} observe 25 × 100" in first
    assert f'http_requests_total{{{labels},status="101"}} +1' in second
    assert f'http_requests_total{{{labels},status="200"}} +10' in third
    for lasting in (second, third):
        assert "duration not observed: connection lifetime" in lasting
        assert "observe 25" not in lasting
    assert f'http_requests_total{{{labels},status="200"}} +1\n' in fourth
    assert "duration not observed: bad weight" in fourth


def test_explain_shows_control_characters_by_name():
    assert b"\\x1b[2J" in sidecar("explain", given=b"\x1b[2Jclear\n").stdout


def test_explain_cuts_nothing_that_goes_into_a_file():
    message = "m" * 5000
    stack = "".join(f"goroutine line {number}\n" for number in range(3))
    given = orjson.dumps({"message": message, "stack": stack * 20}) + b"\n"

    out = sidecar("explain", given=given).stdout

    assert out.count(message.encode()) == 2, "as written and in the record"
    assert "…".encode() not in out


def test_explain_survives_a_reader_that_has_gone():
    shell = f"yes 'hello' | head -20000 | {sys.executable} -m sidecar explain | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=PATIENCE, check=False)

    assert done.stdout.startswith("───".encode())
    assert b"Traceback" not in done.stderr


def test_check_prints_the_whole_configuration_with_secrets_masked():
    done = sidecar(
        "check",
        "--set",
        "sinks.loki.url=http://loki:3100",
        SIDECAR_SINKS_LOKI_USERNAME="u",
        SIDECAR_SINKS_LOKI_PASSWORD="hunter2",
    )

    assert done.returncode == 0
    assert b"hunter2" not in done.stdout
    assert b"http://loki:3100" in done.stdout
    assert b"max_series" in done.stdout


def test_healthcheck_fails_when_nobody_answers():
    done = sidecar("healthcheck", "--set", "http.port=1")

    assert done.returncode == 1
    assert b"does not answer" in done.stderr


def test_demo_does_the_whole_job_and_ends_by_itself():
    done = sidecar("demo", "--seconds", "1", "--port", "0")

    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "http_request_duration_ms" in said
    assert 'path="/orders/:id"' in said
    assert re.search(r"\d+ entries in \d+ pushes", said)
    assert re.search("said (pass|warn)", said), "a machine that is slow is worth a warning"
    assert not ANSI.search(done.stdout)
    assert done.stderr == b""


def test_what_a_demo_shows_in_the_end_is_the_end():
    """However short it is, and however long ago it was scraped."""
    said = sidecar("demo", "--seconds", "0.05", "--port", "0").stdout.decode()

    counted = sum(float(value) for value in re.findall(r"sidecar_records_total{.*} (.+)", said))
    assert counted == int(re.search(r"(\d+) entries in", said)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_early_has_done_its_job(number):
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--seconds", "60", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    with demo:
        said = ""
        while "for Kubernetes" not in said:
            said += demo.stdout.readline()
        demo.send_signal(number)
        said += demo.stdout.read()

    assert demo.returncode == 0
    assert "entries in" in said


def test_version_and_help():
    assert sidecar("--version").stdout.startswith(b"gin-sidecar ")
    assert b"validate" in sidecar("--help").stdout
