"""What is generated from the options is up to date and fits what it describes."""

import json

import jsonschema
import pytest
import yaml

from sidecar import config, settings
from tools import generate

SCHEMA = config.json_schema()


def test_the_schema_of_the_configuration_is_up_to_date():
    """Run `python -m tools.generate` when this fails."""
    assert (generate.ROOT / generate.SCHEMA).read_text(encoding="utf-8") == generate.schema()


def test_the_table_in_the_readme_is_up_to_date():
    """Run `python -m tools.generate` when this fails."""
    readme = generate.ROOT / generate.README
    if not readme.exists():
        pytest.skip("no README here")

    assert readme.read_text(encoding="utf-8") == generate.readme(readme.read_text(encoding="utf-8"))


def test_the_table_goes_between_the_markers_and_nowhere_else():
    text = "a\n<!-- config:begin -->\nold\n<!-- config:end -->\nb\n"

    once = generate.readme(text)

    assert once.startswith("a\n<!-- config:begin -->\n\n| Option")
    assert once.endswith("|\n\n<!-- config:end -->\nb\n")
    assert generate.readme(once) == once
    assert generate.readme("no markers") == "no markers"


def test_the_table_has_one_row_per_option():
    rows = config.markdown_table().splitlines()[2:]

    assert [row.split("`")[1] for row in rows] == list(settings.tree(config.Config).options)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    json.dumps(SCHEMA, allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http:",
        "http: {port: }",
        "service_name: orders\nsinks: {loki: {url: http://loki, labels: {a: b}, password_file: /run/secret}}",
        "metrics: {quantiles: [0.5], window: 90s}\nsource: {max_line_bytes: 1048576}",
    ],
)
def test_the_schema_takes_what_the_loader_takes(text):
    jsonschema.validate(yaml.safe_load(text), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "prot: 1",
        "sinks: {loki: {bach: 1}}",
        "http: {port: 70000}",
        "http: {port: text}",
        "drain_seconds: 5",
        "drain_seconds: fast",
        "source: {max_line_bytes: 1MB, kind: stdin}",
        "source: {kind: files}",
        "metrics: {quantiles: 0.5}",
        "sinks: {loki: {labels: {a: [b]}}}",
        "- a",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), SCHEMA)
