"""A batch says what its lines say one at a time: reading columns is a way to be fast, never another answer."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sidecar import normalize, validation
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


@given(texts=st.one_of(batches(), services()))
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
