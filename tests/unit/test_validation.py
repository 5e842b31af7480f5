"""The structured-log schema, and what is said of a broken one."""

from __future__ import annotations

import orjson
import pytest

from sidecar import validation
from sidecar.errors import ConfigError

GOOD = {
    "level": "info",
    "timestamp": "2026-10-06T09:05:03Z",
    "service_name": "shop",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
SCHEMA = validation.load(validation.Config())


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"level": "INFO"}, ("level", "enum")),
        ({"timestamp": "2026-10-06 09:05:03"}, ("timestamp", "format")),
        ({"timestamp": "2026-10-06T09:05:03.1234567890Z"}, ("timestamp", "format")),
        ({"service_name": ""}, ("service_name", "minLength")),
        ({"trace_id": "0" * 32}, ("trace_id", "pattern")),
        ({"trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736"}, ("trace_id", "pattern")),
        ({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736\n"}, ("trace_id", "pattern")),
        ({"span_id": "short"}, ("span_id", "pattern")),
        ({"status": 99}, ("status", "minimum")),
        ({"status": 600}, ("status", "maximum")),
        ({"status": "200"}, ("status", "type")),
        ({"status": True}, ("status", "type")),
        ({"duration_ms": -0.1}, ("duration_ms", "minimum")),
        ({"response_bytes": -1}, ("response_bytes", "minimum")),
        ({"message": 5}, ("message", "type")),
        ({"stack": None}, ("stack", "type")),
    ],
)
def test_each_rule_of_the_contract_is_one_violation(change, violation):
    assert SCHEMA.violations(GOOD | change) == (violation,)
    assert not SCHEMA.valid(GOOD | change)


@pytest.mark.parametrize("missing", ["level", "timestamp", "service_name", "trace_id"])
def test_the_four_required_fields_are_required(missing):
    assert SCHEMA.violations({key: value for key, value in GOOD.items() if key != missing}) == ((missing, "required"),)


def test_anything_else_is_allowed():
    assert SCHEMA.valid(GOOD | {"x": {"y": [1]}, "status": 200.0, "duration_ms": 0})


def test_jsonschema_words_the_reasons():
    said = SCHEMA.explain(GOOD | {"level": "INFO"})

    assert said == [(("level", "enum"), "'INFO' is not one of ['trace', 'debug', 'info', 'warn', 'error', 'fatal']")]


def test_the_schema_is_draft_2020_12_with_a_versioned_id():
    document = orjson.loads(validation.document_path().read_bytes())

    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"].endswith("/v1.json")
    assert document["required"] == ["level", "timestamp", "service_name", "trace_id"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "line 1, column 2"),
        ("[]", "expected a JSON object"),
        ('{"type": "strin"}', "at type"),
        ('{"properties": {"a": {"minLength": "x"}}}', "properties/a/minLength"),
        ('{"properties": {"pattern": {"pattern": "("}}}', "properties/pattern/pattern"),
        ('{"patternProperties": {"[": {}}}', "patternProperties"),
    ],
)
def test_a_broken_schema_is_a_configuration_error_that_says_where(tmp_path, text, where):
    path = tmp_path / "schema.json"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        validation.load(validation.Config(path=str(path)))

    assert str(path) in str(caught.value)
    assert where in str(caught.value)


def test_a_missing_schema_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        validation.load(validation.Config(path=str(tmp_path / "none.json")))


def test_a_users_schema_is_used_as_given(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "required": ["severity"], "properties": {"severity": {"enum": ["HIGH"]}}}')

    schema = validation.load(validation.Config(path=str(path)))

    assert schema.violations({"severity": "LOW"}) == (("severity", "enum"),)
    assert schema.valid({"severity": "HIGH"})
    assert not schema.canonical


@pytest.mark.parametrize(
    "document",
    [
        '{"$ref": "#/$defs/none"}',
        '{"properties": {"a": {"$ref": "#nowhere"}}}',
        '{"properties": {"a": {"$ref": "https://schemas.example/x.json"}}}',
        '{"properties": {"a": {"$ref": "other.json#/x"}}}',
        '{"$id": "https://a.example/s.json", "anyOf": [{"not": {"$ref": "t.json"}}]}',
        '{"$ref": "#/parts/a", "parts": {"a": {"items": {"$ref": "#/parts/b"}}}}',
        '{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"$ref": "#/definitions/b"}}}',
        '{"$ref": "http://["}',
        '{"$dynamicRef": "#node"}',
    ],
)
def test_a_reference_that_leads_nowhere_is_said_when_the_schema_is_loaded(document, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(document)

    with pytest.raises(ConfigError) as raised:
        validation.load(validation.Config(path=str(path)))

    assert "leads nowhere" in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "document",
    [
        {"$defs": {"id": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/id"}}},
        {"$defs": {"id": {"$anchor": "x", "type": "integer"}}, "properties": {"a": {"$ref": "#x"}}},
        {
            "$id": "https://a.example/s.json",
            "$defs": {"id": {"$id": "id.json", "type": "integer"}},
            "properties": {"a": {"$ref": "id.json"}},
        },
        {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"id": {"type": "integer"}},
            "properties": {"a": {"$ref": "#/definitions/id"}},
        },
    ],
)
def test_references_inside_a_schema_are_followed(document, tmp_path):
    path = tmp_path / "schema.json"
    path.write_bytes(orjson.dumps(document))

    schema = validation.load(validation.Config(path=str(path)))

    assert schema.valid({"a": 5}) is ("json-schema.org/draft/2020-12/schema" not in path.read_text())
    assert not schema.valid({"a": "text"})


def test_a_value_too_deep_for_a_schema_that_refers_to_itself_is_a_violation(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}')
    schema = validation.load(validation.Config(path=str(path)))
    value = {"a": orjson.loads("[" * 900 + "]" * 900)}

    assert schema.violations(value) == (("", "depth"),)
    assert not schema.valid(value)
    assert [violation for violation, _ in schema.explain(value)] == [("", "depth")]
