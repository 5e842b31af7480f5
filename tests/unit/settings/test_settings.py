"""The declarations as one tree."""

import re
from dataclasses import dataclass, field

import pytest

from sidecar import config, settings
from sidecar.options import option

TREE = settings.tree(config.Config)


def test_the_variable_of_an_option_is_its_path_in_capitals():
    assert TREE.options["sinks.loki.url"].variable == "SIDECAR_SINKS_LOKI_URL"


def test_no_two_options_share_a_variable():
    names = [*TREE.options, *TREE.secret_files]

    assert len({settings.variable(name) for name in names}) == len(names)


def test_a_secret_has_a_second_name_that_no_option_has():
    assert set(TREE.secret_files) == {"sinks.loki.password_file", "sinks.loki.bearer_token_file"}
    assert TREE.secret_files.keys().isdisjoint(TREE.options)


def test_the_identity_of_the_pod_is_no_option():
    assert not any(name.startswith("pod") for name in TREE.options)


def test_every_default_is_a_value_that_can_be_configured():
    for one in TREE.options.values():
        if one.default is not None and not one.kind.secret:
            assert settings.parse(one, settings.show(one, one.default)) in (one.default, None)


@dataclass(frozen=True, kw_only=True)
class Inner:
    b: int = option(1, "…")


@dataclass(frozen=True, kw_only=True)
class Clash:
    a_b: int = option(1, "…")
    a: Inner = field(default_factory=Inner)


def test_options_that_would_share_a_variable_cannot_be_declared():
    with pytest.raises(AssertionError, match="share an environment variable"):
        settings.tree(Clash)


def parse(name, raw):
    return settings.parse(TREE.options[name], raw)


@pytest.mark.parametrize("text", ["true", "Yes", "1", "ON", " true "])
def test_truth_is_written_in_several_ways(text):
    assert parse("metrics.native_histograms", text) is True


@pytest.mark.parametrize("text", ["false", "no", "0", "Off"])
def test_so_is_falsehood(text):
    assert parse("metrics.native_histograms", text) is False


@pytest.mark.parametrize(
    ("name", "raw", "flaw"),
    [
        ("metrics.native_histograms", "maybe", "expected true or false"),
        ("http.port", "http", "expected a whole number"),
        ("http.port", "80.0", "expected a whole number"),
        ("http.port", "0080", "expected a whole number"),
        ("http.port", "1_000", "expected a whole number"),
        ("http.port", "70000", "must be at most 65535"),
        ("http.port", "-1", "must be at least 0"),
        ("http.port", ["80"], "expected a whole number"),
        ("http.port", {"a": "80"}, "expected a whole number"),
        ("health.timeout", "fast", 'expected a duration such as "5s", "500ms" or "10m"'),
        ("health.timeout", "5", 'expected a duration such as "5s", "500ms" or "10m"; write "5s" for seconds'),
        ("health.timeout", "1ms", "must be at least 50ms"),
        ("sinks.loki.batch.max_bytes", "1MB", 'expected a size such as "256KiB" or "1MiB"'),
        ("sinks.loki.batch.max_bytes", "1GiB", "must be at most 3MiB"),
        ("sinks.loki.encoding", "jsn", 'expected one of "json", "protobuf"; did you mean "json"?'),
        ("sinks.loki.encoding", "xml", 'expected one of "json", "protobuf"'),
        ("metrics.quantiles", "0.5", "expected a list of numbers such as [0.5, 0.99]"),
        ("metrics.quantiles", ["0.5", "nan"], "item 2: expected a number"),
        ("metrics.quantiles", ["1e999"], "item 1: expected a number"),
        ("sinks.loki.labels", ["a"], "expected a mapping such as {a: b}"),
        ("source.path", "a\0b", "expected text without control characters, found '\\x00' at character 2"),
        ("source.path", "\udcff", "expected text without control characters, found '\\udcff' at character 1"),
        (
            "sinks.loki.labels",
            {"a": "b\n"},
            "\"a\": expected text without control characters, found '\\n' at character 2",
        ),
    ],
)
def test_a_wrong_value_tells_what_was_expected(name, raw, flaw):
    with pytest.raises(ValueError, match=f"^{re.escape(flaw)}$"):
        parse(name, raw)


def test_credentials_in_a_url_are_masked():
    assert settings.mask_credentials("https://user:pass@host/a@b") == "https://********@host/a@b"
