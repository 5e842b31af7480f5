"""A batch says what its lines say one at a time: reading columns is a way to be fast, never another answer."""

from __future__ import annotations

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


@given(texts=batches())
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
