"""Every line becomes one record with one outcome, and says what it adds to the metrics."""

from __future__ import annotations

import orjson
import pytest

from sidecar import jsontext, normalize, redact, validation
from sidecar.model import Lines, Mark, Outcome, RequestGroup
from tests.support import golden

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = {"timestamp": "2026-10-06T09:05:03.5Z", "level": "info", "service_name": "orders", "trace_id": TRACE}
ACCESS = GOOD | {
    "message": "ok",
    "method": "GET",
    "route": "/orders/:id",
    "path": "/orders/1",
    "status": 200,
    "duration_ms": 12.5,
}


def one(line, using=None, **lines):
    """Normalize one line and return its record with what it became."""
    result = (using or golden.normalizer()).normalize(
        Lines([line if isinstance(line, bytes) else orjson.dumps(line)], **lines)
    )
    (record,) = result.records
    return record, jsontext.parse(record.line), result


def test_a_valid_line_keeps_its_bytes():
    line = (
        b'{ "level":"info" , "timestamp":"2026-10-06T11:05:03+02:00","service_name":"s","trace_id":"'
        + TRACE.encode()
        + b'","x":1.10}'
    )

    record, _, result = one(line)

    assert record.outcome is Outcome.VALID
    assert record.line is not None
    assert record.line == line
    assert record.time_ns == 1791277503_000_000_000
    assert result.violations == {}


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_batch_of_valid_access_lines_is_counted_line_by_line(count):
    lines = [orjson.dumps(ACCESS | {"duration_ms": float(number)}) for number in range(count)]

    result = golden.normalizer().normalize(Lines(lines))

    assert [record.line for record in result.records] == lines
    assert result.outcomes == {Outcome.VALID: count}
    group = result.requests["GET", "/orders/:id", "", 200]
    assert group == RequestGroup([float(number) for number in range(count)], [TRACE] * count)


def test_valid_and_invalid_lines_of_one_shape_part():
    lines = [orjson.dumps(ACCESS), orjson.dumps(ACCESS | {"level": "INFO"}), orjson.dumps(ACCESS | {"trace_id": "x"})]

    result = golden.normalizer().normalize(Lines(lines))

    assert [record.outcome for record in result.records] == ["valid", "normalized", "invalid"]
    assert result.requests["GET", "/orders/:id", "", 200].durations == [12.5] * 3
    assert result.violations == {("level", "enum"): 1, ("trace_id", "pattern"): 1}
    assert result.records[2].violations == (("trace_id", "pattern"),)


def test_records_keep_the_order_of_mixed_lines():
    lines = [b"text one", orjson.dumps(ACCESS), b'{"a":1}', b"text two", orjson.dumps(GOOD), b'{"b":2}']

    records = golden.normalizer().normalize(Lines(lines)).records

    assert [record.format for record in records] == ["text", "canonical", "json", "text", "canonical", "json"]
    assert [orjson.loads(record.line).get("message") for record in records] == [
        "text one",
        "ok",
        None,
        "text two",
        None,
        None,
    ]


def test_no_line_can_shift_its_neighbours():
    lines = [b'{"a":[{}', b'{"z":1}]}', b'{"x":1},{"y":2}', b'{"x":1},0,{"y":2}', b'{"k":1}']

    records = golden.normalizer().normalize(Lines(lines)).records

    assert [record.format for record in records] == ["text", "text", "text", "text", "json"]
    assert orjson.loads(records[4].line)["k"] == 1


def test_canonical_fields_come_first_in_their_order():
    _, record, _ = one(
        {
            "z": 1,
            "error": "e",
            "msg": "m",
            "status": 200,
            "lvl": "warn",
            "ts": 1790000000,
            "requestId": 7,
            "traceId": TRACE,
        }
    )

    assert list(record) == [
        "timestamp",
        "level",
        "service_name",
        "trace_id",
        "message",
        "status",
        "request_id",
        "error",
        "z",
    ]


def test_the_lines_own_service_name_wins():
    assert one({"service": "own"})[1]["service_name"] == "own"
    nested = one({"service": {"name": "own", "version": "1"}})[1]
    assert (nested["service_name"], nested["service"]) == ("own", {"version": "1"})
    assert one({"a": 1})[1]["service_name"] == "shop"


def test_a_line_without_time_gets_the_runtimes_else_the_moment_it_was_read():
    assert one(b"text", stamps=[1_790_000_000_000_000_001])[1]["timestamp"] == "2026-09-21T14:13:20.000000001Z"
    assert one(b"text")[1]["timestamp"] == "2026-10-06T09:05:03.123456789Z"


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (302, "info"), (404, "warn"), (500, "error"), (503, "error")]
)
def test_a_gin_access_lines_level_follows_its_status(status, level):
    line = f'[GIN] 2026/10/06 - 09:05:03 | {status} | 1ms | 10.0.0.1 | GET      "/p"'.encode()

    assert one(line)[0].level == level


def test_an_access_line_of_a_structured_logger_is_raised_and_never_lowered():
    line = {
        "level": "info",
        "ts": 1790000000.5,
        "msg": "m",
        "method": "GET",
        "path": "/",
        "status": 500,
        "latency": 0.5,
        "ip": "1.1.1.1",
    }

    assert one(line)[0].level == "error"
    assert one(line | {"level": "fatal", "status": 404})[0].level == "fatal"


def test_a_conflicting_name_keeps_both_values():
    _, record, _ = one({"ts": 1790000000, "timestamp": "garbage", "level": "??", "severity": "WARN"})

    assert record["timestamp"] == "2026-09-21T14:13:20Z"
    assert record["timestamp_original"] == "garbage"
    assert record["level"] == "warn"
    assert record["level_original"] == "??"


def test_what_cannot_be_known_is_not_invented():
    record, said, _ = one(b"plain text")

    assert said == {
        "timestamp": "2026-10-06T09:05:03.123456789Z",
        "level": "info",
        "service_name": "shop",
        "message": "plain text",
    }
    assert record.outcome is Outcome.INVALID
    assert record.violations == (("trace_id", "required"),)


def test_text_counts_as_one_violation():
    assert one(b"plain")[2].violations == {("", "object"): 1}


def test_marks_are_said():
    assert one(b"half a li", marks={0: Mark.PARTIAL})[1]["partial"] is True
    assert one(b"x" * 50, marks={0: Mark.TRUNCATED})[1]["truncated"] is True


def test_a_whole_object_without_newline_at_the_end_is_not_partial():
    record, _, _ = one(ACCESS, marks={0: Mark.PARTIAL})

    assert record.outcome is Outcome.VALID


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"{}}",
        b"\x00\x01\xff",
        b"[" * 20_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"\xff":1}',
        b'{"a":"\\ud800"}',
        b'{"level":[1],"timestamp":{},"trace_id":5,"service_name":[],"status":{},"method":1,"latency":[],"path":{}}',
        b'{"timestamp":"0000-01-01T00:00:00Z"}',
        b'{"timestamp":"9999-12-31T23:59:59Z"}',
        b'{"time":1e300}',
        b'{"time":-1e300,"latency":1e308,"method":"GET","status":200,"path":"/"}',
        b'{"level":"info","level":"warn"}',
        b'{"a":1}\r',
        '{"message":"\u2028"}'.encode(),
    ],
)
def test_bad_input_becomes_one_record(line):
    record, said, _ = one(line)

    assert record.outcome in (Outcome.NORMALIZED, Outcome.INVALID)
    assert isinstance(said, dict)
    assert b"\n" not in record.line


def test_a_secret_in_a_valid_line_is_hidden_and_the_line_stays_valid():
    record, said, _ = one(ACCESS | {"password": "p", "note": "token=abc"})

    assert record.outcome is Outcome.VALID
    assert said["password"] == "[REDACTED]"
    assert said["note"] == "token=[REDACTED]"
    assert said["duration_ms"] == 12.5


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Basic", "BASIC"])
@pytest.mark.parametrize("space", [" ", "  ", "\t", "\n", "\u00a0"])
def test_a_credential_behind_its_scheme_is_hidden_in_a_valid_line(scheme, space):
    record, said, _ = one(ACCESS | {"message": f"sent {scheme}{space}abcdefgh12345"})

    assert record.outcome is Outcome.VALID
    assert said["message"] == f"sent {scheme} [REDACTED]"


def test_secrets_in_text_and_queries_are_hidden():
    _, said, _ = one(b'[GIN] 2026/10/06 - 09:05:03 | 200 | 1ms | 10.0.0.1 | GET      "/p?token=abc&x=1"')

    assert said["query"] == "token=[REDACTED]&x=1"
    assert "abc" not in orjson.dumps(said).decode()


@pytest.mark.parametrize("depth", [253, 254, 255, 256, 1000])
@pytest.mark.parametrize("level", [b"info", b"X"])
def test_a_line_of_any_depth_becomes_a_record_and_its_secrets_are_hidden(depth, level):
    """orjson reads 1024 levels and writes 254: such a line must not end the process."""
    head = orjson.dumps(GOOD)[:-1].replace(b'"info"', b'"' + level + b'"')
    deep = b"[" * depth + b'{"password":"hunter2"}' + b"]" * depth

    for text in (head + b',"a":' + deep + b"}", head + b',"a":' + deep + b',"n":123456789012345678901234}'):
        record, said, _ = one(text)

        assert record.outcome is (Outcome.VALID if level == b"info" else Outcome.NORMALIZED)
        assert said["a"]
        assert b"hunter2" not in record.line


@pytest.mark.parametrize("secret", ["5", "null", '"a\\"b c"', '["x"]', '{"a":1}'])
def test_a_text_is_read_before_its_secrets_are_hidden(secret):
    line = f'2026-10-06T09:05:03.123Z\tinfo\t/p\t{{"status": 500, "token": {secret}, "trace_id": "{TRACE}"}}'

    record, said, _ = one(line.encode())

    assert record.outcome is Outcome.NORMALIZED
    assert said["status"] == 500
    assert said["token"] == ("[REDACTED]" if secret != "null" else None)


def test_a_quoted_secret_in_a_logfmt_line_is_hidden_whole():
    line = rf'time=2026-10-06T09:05:03Z level=INFO msg="a \"b\"" password="a\"b c" trace_id={TRACE} x=1'

    record, said, _ = one(line.encode())

    assert record.outcome is Outcome.NORMALIZED
    assert (said["message"], said["password"], said["x"]) == ('a "b"', "[REDACTED]", "1")


def test_numbers_that_a_pattern_matches_are_hidden_and_others_keep_their_digits():
    using = golden.normalizer(redact=redact.Config(patterns=[r"\b4\d{15}\b"]))

    for line in (ACCESS, {"level": "info"}):
        text = orjson.dumps(line | {"card": 4111111111111111})[:-1] + b',"big":12345678901234567890123}'
        record, said, _ = one(text, using)

        assert said["card"] == "[REDACTED]"
        assert b'"big":12345678901234567890123' in record.line


def test_naive_times_are_in_the_configured_zone():
    using = golden.normalizer(timezone="Europe/Berlin")

    assert one(b"2026/07/01 12:00:00 hello", using)[1]["timestamp"] == "2026-07-01T10:00:00Z"


def test_the_configured_unit_is_for_numbers_whose_format_does_not_tell():
    line = {"method": "GET", "status": 200, "path": "/", "duration": 5, "level": "info"}

    assert one(line)[1]["duration_ms"] == 0.000005
    assert one(line)[1]["duration_unit_inferred"] is True
    assert one(line, golden.normalizer(duration_unit="ms"))[1]["duration_ms"] == 5
    assert one(line | {"duration": 5.0}, golden.normalizer(duration_unit="us"))[1]["duration_ms"] == 0.005
    assert one({**line, "latency_ms": 7}, golden.normalizer(duration_unit="s"))[1]["duration_ms"] == 7


def zap_access(latency, status=200):
    return {
        "level": "info",
        "ts": 1790000000.5,
        "msg": "/p",
        "status": status,
        "method": "GET",
        "path": "/p",
        "query": "",
        "ip": "1.1.1.1",
        "user-agent": "c",
        "latency": latency,
    }


def test_requests_count_at_once_and_their_durations_when_the_unit_is_known():
    using = golden.normalizer()
    held = [one(zap_access(number), using) for number in (2, 0, 30)]

    _, said, result = one(zap_access(2_000_000), using)

    assert all(each[1]["duration_unit"] == "ambiguous" and "duration_ms" not in each[1] for each in held)
    assert all(each[2].requests["GET", "", "/p", 200].unmeasured == 1 for each in held)
    assert said["duration_ms"] == 2
    assert result.requests["GET", "", "/p", 200] == RequestGroup([2, 0.000002, 0, 0.00003], [""] * 4, -3)


def test_durations_whose_unit_stays_open_are_counted_as_rejected_at_the_end():
    using = golden.normalizer()
    for number in (2, 0, 30):
        one(zap_access(number), using)

    assert using.finish().rejected == {"ambiguous_unit": 3}
    assert using.finish().rejected == {}


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ({"method": "GET", "path": "/x", "status": 200, "duration_ms": 3}, True),
        ({"method": "GET", "status": 200, "duration_ms": 3}, False),
        ({"method": "GET", "url": "https://api/x", "status": 200, "duration_ms": 3}, False),
        ({"method": "GET", "path": "/x", "status": 200}, False),
        ({"method": "GET", "path": "/x", "duration_ms": 3}, False),
        ({"method": "not a method", "path": "/x", "status": 200, "duration_ms": 3}, False),
        ({"method": "GET", "path": "/x", "status": 99, "duration_ms": 3}, False),
        ({"method": "GET", "route": "/x", "status": "200", "latency": "3ms"}, True),
        ({"job": "sync", "duration_ms": 3}, False),
    ],
)
def test_only_a_servers_access_line_is_a_request(line, counts):
    assert bool(one(line)[2].requests) is counts


def test_a_users_schema_judges_what_lines_become(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"type":"object","required":["level","tenant"]}')
    using = normalize.Normalizer(
        normalize.Config(), validation.load(validation.Config(path=str(path))), service_name="s"
    )

    assert one({"level": "X", "tenant": 1}, using)[0].outcome is Outcome.VALID
    assert one({"severity": "INFO", "tenant": 1}, using)[0].outcome is Outcome.NORMALIZED
    assert one({"severity": "INFO"}, using)[0].violations == (("tenant", "required"),)


# how many requests a line stands for

ZAP = {"level": "info", "ts": 1700000000.5, "msg": "/p", "status": 200, "method": "GET", "path": "/p", "ip": "::1"}


@pytest.mark.parametrize("base", [ACCESS, ZAP | {"latency": 0.0125}], ids=["valid", "zap"])
@pytest.mark.parametrize("name", ["sample_weight", "sampleWeight", "sampled"])
@pytest.mark.parametrize(
    ("weight", "count"), [(1, 1), (100, 100), ("100", 100), (2.0, 2), (None, 1), (1_000_000, 1_000_000)]
)
@pytest.mark.parametrize("lines", [1, 50])
def test_a_line_with_a_weight_stands_for_that_many_requests(base, name, weight, count, lines):
    result = golden.normalizer().normalize(Lines([orjson.dumps(base | {name: weight})] * lines))

    (group,) = result.requests.values()
    trace_id = base.get("trace_id", "")
    if count == 1:
        assert group == RequestGroup([12.5] * lines, [trace_id] * lines)
    else:
        assert group == RequestGroup(weighted=[(12.5, trace_id, count)] * lines)
    assert result.rejected == {}


@pytest.mark.parametrize("weight", [0, -1, 1.5, True, False, "many", "1.5", [], {}, 1_000_001, 1e300])
def test_a_weight_that_is_no_number_of_requests_is_rejected_and_counted(weight):
    result = golden.normalizer().normalize(Lines([orjson.dumps(ACCESS | {"sample_weight": weight})]))

    assert result.requests["GET", "/orders/:id", "", 200] == RequestGroup(unmeasured=1)
    assert result.rejected == {"bad_weight": 1}


@pytest.mark.parametrize("sampled", [True, False])
def test_that_a_line_was_sampled_says_nothing_of_its_weight(sampled):
    result = golden.normalizer().normalize(Lines([orjson.dumps(ACCESS | {"sampled": sampled})]))

    assert result.requests["GET", "/orders/:id", "", 200] == RequestGroup([12.5], [TRACE])


def test_a_weight_is_taken_before_what_says_only_that_the_line_was_sampled():
    line = ACCESS | {"sampled": 3, "sample_weight": 10}

    assert one(line)[2].requests["GET", "/orders/:id", "", 200].weighted == [(12.5, TRACE, 10)]


def test_a_line_with_a_weight_keeps_its_bytes_and_its_outcome():
    line = ACCESS | {"sample_weight": 10}

    record, _, result = one(line)

    assert record.outcome is Outcome.VALID
    assert record.line == orjson.dumps(line)
    assert result.outcomes == {Outcome.VALID: 1}


@pytest.mark.parametrize("count", [1, 50, 511])
def test_lines_of_a_live_batch_say_when_they_were_logged(count):
    result = golden.normalizer().normalize(Lines([orjson.dumps(ACCESS)] * count))

    assert result.requests["GET", "/orders/:id", "", 200].times_ns == [1791277503_500_000_000] * count


def test_lines_of_a_backlog_do_not():
    result = golden.normalizer().normalize(Lines([orjson.dumps(ACCESS)] * 512))

    assert result.requests["GET", "/orders/:id", "", 200].times_ns == []


GINZAP = {"level": "info", "time": "2026-11-25T00:00:00Z", "msg": "/p", "status": 200, "method": "GET", "path": "/p"}
HELD = GINZAP | {"query": "", "ip": "::1", "user-agent": "curl", "latency": 2}


def test_a_weight_is_held_with_a_duration_whose_unit_is_open():
    using = golden.normalizer()
    held = using.normalize(Lines([orjson.dumps(HELD | {"sample_weight": 10})]))
    after = golden.normalizer()
    after.restore(orjson.loads(orjson.dumps(using.save())))

    told = after.normalize(Lines([orjson.dumps(HELD | {"latency": 12_345_678_901})]))

    assert held.requests["GET", "", "/p", 200] == RequestGroup(unmeasured=10)
    assert told.requests["GET", "", "/p", 200] == RequestGroup([12345.678901], [""], -10, [(0.000002, "", 10)])


def test_a_weighted_duration_whose_unit_nothing_tells_is_rejected_as_many_times():
    using = golden.normalizer()
    using.normalize(Lines([orjson.dumps(HELD | {"sample_weight": 10})]))

    assert using.finish().rejected == {"ambiguous_unit": 10}


def test_held_durations_that_an_older_version_saved_weigh_one():
    using = golden.normalizer()
    using.normalize(Lines([orjson.dumps(HELD)]))
    saved = orjson.loads(orjson.dumps(using.save()))
    for *_, waiting in saved["held"]:
        for row in waiting:
            assert row.pop() == 1

    after = golden.normalizer()
    after.restore(saved)

    assert after.finish().rejected == {"ambiguous_unit": 1}


# which of several spellings is the field

OTHER_TRACE = "11111111111111111111111111111111"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("variant", "exact", "field"),
    [
        ({"Trace-Id": OTHER_TRACE}, {"trace_id": TRACE}, "trace_id"),
        ({"Status": 500}, {"status": 200}, "status"),
        ({"Method": "PUT"}, {"method": "GET"}, "method"),
        ({"user-agent": "A"}, {"user_agent": "b"}, "user_agent"),
        ({"Request-Method": "PUT"}, {"request.method": "GET"}, "method"),
        ({"http": {"Method": "PUT", "method": "GET"}}, {}, "method"),
    ],
)
def test_the_exact_spelling_of_a_field_wins_wherever_it_stands(first, variant, exact, field):
    line = {"ts": 1790000000} | (variant | exact if first else exact | variant)
    wanted = next(iter(exact.values()), "GET")

    _, said, _ = one(line)

    assert said[field] == wanted
    assert f"{field}_original" not in said
    for key, value in variant.items():
        assert said[key] == value or key == "http"


def test_a_variant_is_taken_where_the_exact_spelling_cannot_be_read():
    _, said, _ = one({"Trace-Id": TRACE, "trace_id": "none"})

    assert said["trace_id"] == TRACE
    assert said["trace_id_original"] == "none"


@pytest.mark.parametrize("took", ["abc", "", None, "-", {"a": 1}, [], True])
@pytest.mark.parametrize("name", ["duration_ms", "latency"])
def test_a_request_whose_duration_cannot_be_read_counts_and_the_duration_is_rejected(took, name):
    line = {key: value for key, value in ACCESS.items() if key != "duration_ms"} | {name: took}

    _, said, result = one(line)

    assert result.requests == {("GET", "/orders/:id", "", 200): RequestGroup(unmeasured=1)}
    assert result.rejected == {"not_a_number": 1}
    assert said.get(name, said.get(f"{name}_original")) == took


# what a mapped field holds beyond what was mapped

SERVER = {"method": "POST", "status": 200, "client_ip": "10.0.0.1", "duration_ms": 3}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            SERVER | {"url": "https://payments.internal:8443/v1/charge?x=1#f"},
            {"path": "/v1/charge", "query": "x=1", "url": "https://payments.internal:8443/v1/charge?x=1#f"},
        ),
        (SERVER | {"path": "http://h?x=1"}, {"path": "/", "query": "x=1", "path_original": "http://h?x=1"}),
        (SERVER | {"uri": "amqp://q"}, {"uri": "amqp://q", "path": None}),
        (SERVER | {"url": "postgres://h/db"}, {"url": "postgres://h/db", "path": None}),
        (SERVER | {"path": "/a?u=http://x/y"}, {"path": "/a", "query": "u=http://x/y", "path_original": None}),
        (SERVER | {"path": "/a?b=1", "query": ""}, {"path": "/a", "query": "b=1", "path_original": None}),
        (SERVER | {"path": "/a?b=1", "query": "b=1"}, {"path": "/a", "query": "b=1", "path_original": None}),
        (SERVER | {"url": "/a?b=1", "query": "c=2"}, {"path": "/a", "query": "c=2", "url": "/a?b=1"}),
        ({"x_forwarded_for": "1.1.1.1, 2.2.2.2"}, {"client_ip": "1.1.1.1", "x_forwarded_for": "1.1.1.1, 2.2.2.2"}),
        ({"client_ip": "1.1.1.1:80"}, {"client_ip": "1.1.1.1", "client_ip_original": "1.1.1.1:80"}),
        ({"remote_addr": "[::1]"}, {"client_ip": "::1", "remote_addr": None}),
        ({"traceid": TRACE.upper()}, {"trace_id": TRACE, "traceid": None}),
        (
            {"X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=463ac35c9f6413ad;Sampled=1"},
            {
                "trace_id": "5759e988bd862e3fe1be46a994272793",
                "X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=463ac35c9f6413ad;Sampled=1",
            },
        ),
        (
            {"X-Cloud-Trace-Context": f"{TRACE}/1234;o=1"},
            {"trace_id": TRACE, "X-Cloud-Trace-Context": f"{TRACE}/1234;o=1"},
        ),
        ({"response_bytes": -1}, {"response_bytes": None, "response_bytes_original": -1}),
        ({"body_size": -1}, {"response_bytes": None, "body_size": -1}),
        ({"message": "", "error": "\n", "ua": "x"}, {"message": "", "error": "\n", "user_agent": "x"}),
        ({"status_original": 1, "status": "x", "code": 200}, {"status": 200, "status_original_original": "x"}),
    ],
)
@pytest.mark.parametrize("count", [1, 40])
def test_nothing_of_a_mapped_value_is_lost(line, said, count):
    result = golden.normalizer().normalize(Lines([orjson.dumps(line)] * count))

    for record in result.records:
        got = orjson.loads(record.line)
        assert {key: got.get(key) for key in said} == said


def test_an_address_that_a_client_called_is_not_the_path_of_a_request():
    """As `path` it would make the record a server's access line when it is read again."""
    line = {"level": "info", "method": "GET", "url": "https://api.example/x", "status": 500, "duration_ms": 3}

    record, said, result = one(line)

    assert (said["url"], said["level"]) == ("https://api.example/x", "info")
    assert "path" not in said
    assert not result.requests
    assert one(record.line)[0].line == record.line


def test_fields_of_ours_keep_their_place_whether_they_can_be_read_or_not():
    line = {"x": 1, "duration_ms": 10**9, "status": 200, "route": "", "message": "", "level": "info", "method": "GET"}

    _, said, _ = one(line)

    assert list(said) == [
        "timestamp", "level", "service_name", "message", "method", "route", "status", "duration_ms", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "carrier",
    [
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01-{TRACE}-00f067aa0ba902b7-01more",
    ],
)
def test_a_void_traceparent_is_void_as_a_whole(carrier):
    _, said, _ = one({"traceparent": carrier})

    assert said["traceparent"] == carrier
    assert not said.keys() & {"trace_id", "span_id"}


def test_a_later_traceparent_may_go_on():
    _, said, _ = one({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-more"})

    assert (said["trace_id"], said["span_id"]) == (TRACE, "00f067aa0ba902b7")


@pytest.mark.parametrize("key", ["severity", "Severity", "SeverityNumber", "severity_number"])
@pytest.mark.parametrize(
    ("number", "level"),
    [(1, "trace"), (5, "debug"), (9, "info"), (10, "info"), (13, "warn"), (17, "error"), (24, "fatal"), (30, "info")],
)
def test_a_severity_may_be_opentelemetrys_number(key, number, level):
    assert one({key: number})[1]["level"] == level


@pytest.mark.parametrize(
    "line",
    [
        {"level": "info", "httpRequest": {"method": "GET", "path": "/x", "status": 200, "latency": 1500000}},
        zap_access(1e8),
        {"time": "x", "level": "info", "message": "m", "ip": "x", "method": "GET", "status": 200, "latency": 10**8},
    ],
)
def test_a_duration_that_is_rejected_says_its_unit_so_that_it_is_never_read_in_another(line):
    record, said, result = one(line)

    assert result.rejected == {"too_long": 1}
    assert said["duration_unit"] in ("ms", "s")
    assert one(record.line)[0].line == record.line
    assert one(record.line)[2].rejected == {"too_long": 1}


def test_a_duration_beside_its_unit_is_read_in_it():
    assert one(SERVER | {"duration_ms": None, "duration": 5, "duration_unit": "s"})[1]["duration_ms"] == 5000


# JSON that orjson refuses


@pytest.mark.parametrize("pretty", [b"", b" "])
def test_half_of_a_surrogate_pair_costs_a_character_and_not_the_line(pretty):
    head = orjson.dumps(ACCESS | {"level": "INFO"})[:-1]
    text = (
        pretty
        + head
        + rb',"a\udfff":"x\ud800y","emoji":"\ud83d\ude00","list":["\udc00"],"big":12345678901234567890123}'
    )

    record, said, result = one(text)

    assert record.outcome is Outcome.NORMALIZED
    assert record.trace_id == TRACE
    assert said["a\ufffd"] == "x\ufffdy"
    assert (said["emoji"], said["list"]) == ("\U0001f600", ["\ufffd"])
    assert b'"big":12345678901234567890123' in record.line
    assert len(result.requests) == 1


def test_a_valid_line_with_half_of_a_surrogate_pair_keeps_its_bytes():
    text = orjson.dumps(ACCESS)[:-1] + rb',"x":"\ud800"}'

    record, _, result = one(text)

    assert (record.outcome, record.line) == (Outcome.VALID, text)
    assert len(result.requests) == 1


def test_a_number_beyond_a_double_is_kept_as_text():
    record, said, result = one(
        orjson.dumps(ACCESS | {"duration_ms": 0})[:-2] + b'1e400,"x":-1E999,"y":1.5e3,"n":' + b"9" * 4500 + b"}"
    )

    assert record.outcome is Outcome.INVALID
    assert said["n"] == "9" * 4500
    assert (said["duration_ms"], said["x"], said["y"]) == ("1e400", "-1E999", 1500.0)
    assert result.rejected == {"not_finite": 1}
    assert result.requests["GET", "/orders/:id", "", 200].unmeasured == 1


@pytest.mark.parametrize(
    "text",
    [b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1,}', b'{"a":"\\ud800"', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":"\xff"}'],
)  # fmt: skip
def test_what_is_no_json_stays_text(text):
    record, _, result = one(text)

    assert record.format == "text"
    assert result.violations == {("", "object"): 1}


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it():
    mark, valid = b"\xef\xbb\xbf", orjson.dumps(ACCESS)
    gin = b'[GIN] 2026/10/06 - 09:05:03 | 200 | 1ms | 10.0.0.1 | GET      "/p"'

    result = golden.normalizer().normalize(Lines([mark + valid, valid]))

    assert [(record.outcome, record.line) for record in result.records] == [(Outcome.VALID, valid)] * 2
    assert one(mark + gin)[0].format == "gin"


def test_the_context_of_zaps_console_is_read_as_exactly_as_a_json_line():
    line = b'2026-10-06T09:05:03.123Z\tinfo\tm\t{"n": 12345678901234567890123, "half": "\\ud800", "x": 1e400}'

    record, said, _ = one(line)

    assert b'"n":12345678901234567890123' in record.line
    assert (said["half"], said["x"]) == ("\ufffd", "1e400")
