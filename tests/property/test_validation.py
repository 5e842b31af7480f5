"""The compiled verdict equals jsonschema's, on random schemas and random values: jsonschema is the oracle."""

from __future__ import annotations

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from sidecar import times, validation

KEYS = st.sampled_from(["level", "timestamp", "a", "b", "c.d", ""])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 600),
    st.floats(-2, 2),
    st.sampled_from([0.0, 1.0, 200.0, -0.0]),
    st.sampled_from(["", "info", "INFO", "abc", "0" * 32, "a" * 32, "2026-10-06T09:05:03Z", "2026-10-06", "x\n"]),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])


def _schemas(children):
    keywords = {
        "type": st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=3, unique=True)),
        "enum": st.lists(
            st.one_of(st.none(), st.integers(-1, 2), st.sampled_from(["info", "abc", 1.0])), min_size=1, max_size=3
        ),
        "const": st.one_of(st.none(), st.integers(-1, 2), st.sampled_from(["info", "abc"])),
        "pattern": st.sampled_from(["^[a-z]+$", "^(?!0{32})[0-9a-f]{32}(?!\\n)$", "n", "^$"]),
        "format": st.sampled_from(["date-time", "email"]),
        "minLength": st.integers(0, 4),
        "maxLength": st.integers(0, 4),
        "minimum": st.integers(-2, 300),
        "maximum": st.integers(-2, 300),
        "exclusiveMinimum": st.integers(-2, 3),
        "exclusiveMaximum": st.integers(-2, 3),
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
        "minProperties": st.integers(0, 3),
        "maxProperties": st.integers(0, 3),
        "required": st.lists(KEYS, max_size=3, unique=True),
        "properties": st.dictionaries(KEYS, children, max_size=3),
        "additionalProperties": st.one_of(st.booleans(), children),
        "items": children,
        "allOf": st.lists(children, min_size=1, max_size=2),
        "title": st.just("t"),
    }
    return st.fixed_dictionaries({}, optional=keywords)


SCHEMAS = st.recursive(st.fixed_dictionaries({}, optional={"type": TYPES}), _schemas, max_leaves=6)


def _oracle(document, value):
    checker = jsonschema.FormatChecker(formats=())
    checker.checks("date-time")(lambda text: not isinstance(text, str) or times.rfc3339(text) is not None)
    found = []
    for error in jsonschema.Draft202012Validator(document, format_checker=checker).iter_errors(value):
        path = [str(part) for part in error.absolute_path]
        if error.validator == "required":
            path.append(next(name for name in error.validator_value if error.message.startswith(f"{name!r} is")))
        found.append((".".join(part for part in path if part), error.validator))
    return sorted(found)


def _named(violations):
    return sorted((field, rule) for field, rule in violations)


@given(document=SCHEMAS, value=VALUES)
def test_violations_and_verdict_equal_jsonschema(document, value):
    schema = validation.Schema(document)

    expected = _oracle(document, value)

    assert not schema.unsupported
    assert _named(schema.violations(value)) == expected
    assert schema.valid(value) is (not expected)


@given(document=SCHEMAS, value=st.dictionaries(KEYS, VALUES, max_size=4))
def test_the_verdict_for_a_shape_equals_the_general_one(document, value):
    schema = validation.Schema(document)

    verdict = schema.verdict_for(tuple(value))

    assert (verdict is not None and verdict(value)) is schema.valid(value)


RECORD = {
    "level": st.sampled_from(["info", "warn", "INFO", 5, None]),
    "timestamp": st.sampled_from(
        ["2026-10-06T09:05:03Z", "2026-10-06T09:05:03.123456Z", "2026-10-06T09:05:04.123456Z", "2026-10-06", 1]
    ),
    "service_name": st.sampled_from(["shop", "", 1]),
    "trace_id": st.sampled_from(
        [
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "0" * 32,
            "4BF92F3577B34DA6A3CE929D0E0E4736",
            "short",
            "4bf92f3577b34da6a3ce929d0e0e473\u00e9",
            1,
        ]
    ),
    "status": st.sampled_from([200, 99, 600, 200.0, 200.5, "200", True]),
    "duration_ms": st.sampled_from([0, 1.5, -1, "1", None, True]),
    "span_id": st.sampled_from(["00f067aa0ba902b7", "x", "00f067aa0ba902b\n"]),
    "extra": st.sampled_from([1, "x", {"a": 1}]),
}


@given(data=st.data(), keys=st.lists(st.sampled_from(sorted(RECORD)), unique=True), count=st.integers(1, 6))
def test_a_judge_of_columns_never_passes_what_is_invalid(data, keys, count):
    schema = validation.load(validation.Config())
    objects = [data.draw(st.fixed_dictionaries({key: RECORD[key] for key in keys})) for _ in range(count)]
    judge = schema.columns_for(tuple(keys))

    columns = judge(objects) if judge else None

    if columns is not None:
        assert all(not _oracle(schema.document, each) for each in objects)
        assert columns[""] == [times.rfc3339(each["timestamp"]).ns for each in objects]
        for key in keys:
            assert list(columns[key]) == [each[key] for each in objects]


@given(count=st.integers(1, 5))
def test_a_judge_of_columns_passes_what_is_valid(count):
    schema = validation.load(validation.Config())
    one = {
        "level": "info",
        "timestamp": "2026-10-06T09:05:03Z",
        "service_name": "s",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "status": 200,
        "duration_ms": 1.5,
        "more": [1],
    }

    assert schema.columns_for(tuple(one))([one] * count) is not None


UNSUPPORTED = st.sampled_from(
    [
        {"anyOf": [{"type": "string"}]},
        {"not": {"type": "null"}},
        {"enum": [True]},
        {"patternProperties": {"a": {"type": "string"}}},
        {"multipleOf": 2},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"properties": {"a": False}},
    ]
)


@given(document=UNSUPPORTED, value=VALUES)
def test_a_schema_with_other_keywords_is_judged_by_jsonschema_itself(document, value):
    schema = validation.Schema(document)
    reference = jsonschema.validators.validator_for(document, default=jsonschema.Draft202012Validator)

    assert schema.unsupported
    assert schema.valid(value) is reference(document).is_valid(value)
