"""A batch says what its lines say one at a time: reading columns is a way to be fast, never another answer."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar import normalize, validation
from sidecar.formats import fields
from sidecar.model import Lines
from tests.support import lines

SCHEMA = validation.load(validation.Config())


def _normalizer():
    return normalize.Normalizer(normalize.Config(), SCHEMA, service_name="orders", clock_ns=lambda: 0)


def _sums(results):
    """Return records and requests of several results as if they were one."""
    requests = {}
    for result in results:
        for key, group in result.requests.items():
            sums = requests.setdefault(key, ([], [], 0))
            requests[key] = (sums[0] + group.durations, sums[1] + group.trace_ids, sums[2] + group.unmeasured)
    outcomes = sum((result.outcomes for result in results), Counter())
    violations = sum((result.violations for result in results), Counter())
    return [record for result in results for record in result.records], requests, outcomes, violations


@st.composite
def batches(draw):
    """Canonical lines of one shape, some of them broken, some with a secret, some with their keys in another order."""
    count = draw(st.integers(1, 80))
    texts = lines.canonical(count)
    for index in draw(st.lists(st.integers(0, count - 1), max_size=6)):
        spoil = draw(st.sampled_from(["no trace", "secret", "order", "float status", "no object", "another key"]))
        text = texts[index]
        if spoil == "no trace":
            at = text.index(b'"trace_id":"') + 12
            texts[index] = text[:at] + text[at + 32 :]
        elif spoil == "secret":
            texts[index] = text.replace(b'"message":"', b'"message":"password=hunter2 ', 1)
        elif spoil == "order":
            head, _, rest = text[1:-1].partition(b",")
            texts[index] = b"{" + rest + b"," + head + b"}"
        elif spoil == "float status":
            texts[index] = text.replace(b'"status":', b'"status":0.', 1)
        elif spoil == "no object":
            texts[index] = b"[GIN] " + text
        else:
            texts[index] = text.replace(b'"message"', b'"massage"', 1)
    return texts


PLACES = st.sampled_from(["/orders/7", "/orders/8?sort=up", "http://shop/x?a=b", "/login?token=s3cret", ""])
TIMES = st.one_of(
    st.floats(1.6e9, 1.9e9).map(lambda at: round(at, 6)),
    st.integers(1_600_000_000_000_000_000, 1_900_000_000_000_000_000),
    st.sampled_from(["2026-10-06T09:05:03Z", "2026-10-06T09:05:03.5+02:00", "2026-10-06T23:59:60Z", "soon", None]),
)
TOOK = st.one_of(st.floats(0, 5), st.integers(0, 10**9), st.sampled_from(["1.5ms", "2s", "soon", -1, True, None]))
IDS = st.sampled_from(
    ["", "0af7651916cd43dd8448eb211c80319c", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
)
STATUS = st.sampled_from([200, 204, 404, 500, "200", 200.0, 99, True])


def _zap(path, at, took, trace_id, status):
    return {"level": "info", "ts": at, "msg": path, "status": status, "method": "GET", "path": path, "query": "",
            "ip": "10.0.0.1:80", "user-agent": "curl/8", "latency": took, "trace_id": trace_id}  # fmt: skip


def _slog(path, at, took, trace_id, status):
    request = {"method": "GET", "host": "shop", "path": path, "ip": "10.0.0.1", "route": "/orders/:id"}
    return {"time": at, "level": "WARN", "msg": "Incoming request", "request": request,
            "response": {"latency": took, "status": status, "length": 12}, "id": trace_id}  # fmt: skip


def _own(path, at, took, trace_id, status):
    return {"time": at, "error": "gone", "took": {"ms": took}, "url": path, "verb": "PUT", "code": status,
            "password": path, "traceparent": trace_id, "big": 10**25}  # fmt: skip


def _gin(path, at, took, trace_id, status):
    del at, trace_id
    return f'[GIN] 2026/10/06 - 09:05:03 | {status} | {took} |  10.0.0.1 | GET      "{path}"'


@st.composite
def services(draw):
    """What a service with another logger writes, with now and then an odd value."""
    texts = []
    write = draw(st.sampled_from([_zap, _slog, _own, _gin]))
    usual = [draw(values) for values in (PLACES, TIMES, TOOK, IDS, STATUS)]
    for _ in range(draw(st.integers(1, 40))):
        row = [
            draw(values) if draw(st.integers(0, 30)) == 0 else value
            for values, value in zip((PLACES, TIMES, TOOK, IDS, STATUS), usual, strict=True)
        ]
        line = write(*row)
        texts.append(line.encode() if isinstance(line, str) else json.dumps(line).encode())
    return texts


TEXT = st.one_of(
    st.sampled_from(
        [
            "", "\n", "x", "\x1b[31mCookie: a=b; c=d\x1b[0m", "\x1b[0m", "upstream sent Cookie: a=b; c=d", 'Authorization: Digest a="b", c="d"',
            "password=x", "/a?b=1", "/a", "https://other.example:8443/v1/x?y=1#z", "http://h?x=1", "postgres://u:p@h/db", "amqp://q", "?", "a?b?c",
            "INFO", "ERROR", "Level(-4)", "17", "1.1.1.1, 2.2.2.2", "1.1.1.1:80", "[::1]", "[::1]:80", "bad", "0af7651916cd43dd8448eb211c80319c",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=463ac35c9f6413ad;Sampled=1", "105445aa7843bc8bf206b12000100000/1234;o=1",
            "2026-10-06T09:05:03.5+02:00", "9999-12-31T23:59:59-01:00", "2026-10-06 09:05:03 PM", "20261006090503", "1790000000.123456789",
            "GET", "200", "404", "1.5ms", "3h", "30h", "soon", "NaN", "-5", "ambiguous", "ms", "s", "unknown_service:x",
        ]
    ),
    st.text(max_size=5),
)  # fmt: skip
SCALARS = st.one_of(
    TEXT,
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 5, 17, 99, 200, 500, 1500000, 10**8, 10**14, 1790000000, 20261006090503, 1790000000000]),
    st.sampled_from([0.5, 1e8, 200.0, -1.0, 1790000000.25]),
    st.lists(st.sampled_from(["", "a", "b\n"]), max_size=2),
)
NAMES = st.sampled_from(
    sorted(
        {name for names in fields.ALIASES.values() for name in names}
        | {"Trace-Id", "Status", "user-agent", "Severity", "SeverityNumber", "query", "duration_unit", "x", "message_original", "token", "sampled",
           "status_original", "dataLength", "statusCode", "clientIP", "caller", "handler", "stack.trace"}
    )
)  # fmt: skip
CONTAINERS = st.sampled_from(["http", "request", "response", "httpRequest", "fields", "data", "error", "service", "x"])


@st.composite
def objects(draw):
    """An object of the names and values that loggers use, in any combination."""
    value = draw(st.dictionaries(NAMES, SCALARS, max_size=9))
    for name in draw(st.lists(CONTAINERS, max_size=2)):
        value[name] = draw(st.dictionaries(NAMES, SCALARS, max_size=4))
    return dict(draw(st.permutations(list(value.items()))))


@st.composite
def shapes(draw):
    """Many objects with the same keys, now and then with another value."""
    usual = draw(objects())
    texts = []
    for _ in range(draw(st.integers(17, 24))):
        value = dict(usual)
        if value and draw(st.integers(0, 9)) == 0:
            value[draw(st.sampled_from(list(value)))] = draw(SCALARS)
        texts.append(json.dumps(value).encode())
    return texts


@given(texts=st.one_of(batches(), services(), shapes()))
@example(texts=[b'{"service_name":"shop","duration_unit":null,"duration_unit_inferred":null}'] * 17)
def test_a_batch_says_what_its_lines_say_one_at_a_time(texts):
    together, one_by_one = _normalizer(), _normalizer()

    batch = _sums([together.normalize(Lines(list(texts)))])
    singles = _sums([one_by_one.normalize(Lines([text])) for text in texts])

    assert batch[0] == singles[0]
    assert batch[2:] == singles[2:]
    assert batch[1].keys() == singles[1].keys()
    for key, (durations, trace_ids, unmeasured) in batch[1].items():
        assert Counter(zip(durations, trace_ids, strict=True)) == Counter(zip(*singles[1][key][:2], strict=True))
        assert unmeasured == singles[1][key][2]


TEXTS = st.one_of(
    objects().map(json.dumps),
    st.tuples(
        st.sampled_from(
            ["", "[GIN] 2026/10/06 - 09:05:03 | 500 | 1ms | 1.1.1.1 | GET ", "2026/10/06 09:05:03 ", "2026/10/06 09:05:03 ERROR ",
             "time=2026-10-06T09:05:03Z level=INFO msg=", "2026-10-06T09:05:03.123Z\tinfo\t", "2026-10-06T09:05:03Z INF ", "panic: "]
        ),
        TEXT,
        st.sampled_from(["", " k=v", ' password="a\\"b"', ' level=5 x="y z"', '\t{"token": 5, "status": 200}']),
    ).map("".join),
)  # fmt: skip


@given(text=TEXTS)
def test_normalizing_a_record_again_changes_nothing(text):
    first = _normalizer().normalize(Lines([text.encode("utf-8", "replace")])).records[0]
    again = _normalizer().normalize(Lines([first.line])).records[0]

    assert again.line == first.line
    assert (again.time_ns, again.level, again.trace_id, again.span_id) == (
        first.time_ns, first.level, first.trace_id, first.span_id,
    )  # fmt: skip


@given(value=objects())
def test_a_records_canonical_fields_come_in_their_order(value):
    record = json.loads(_normalizer().normalize(Lines([json.dumps(value).encode()])).records[0].line)

    places = [list(record).index(name) for name in fields.ORDER if name in record]
    assert places == list(range(len(places)))
