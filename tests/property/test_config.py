"""
Law 1: a value set by the environment, by `--set`, by an env file and by YAML is one value.
Law 2: precedence is total: the strongest place that speaks of an option decides, whatever the others say.
Law 3: what `describe` writes loads as the same configuration, and the JSON Schema accepts it.
Law 4: whatever the bytes, loading ends in a configuration or in problems, never in another exception.
"""

import json
from math import isfinite
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar import config, options
from sidecar import settings as declared
from sidecar.errors import ConfigError
from sidecar.options import Duration, Secret, Size

TREE = declared.tree(config.Config)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VALIDATOR = jsonschema.Draft202012Validator(config.json_schema())

# Control characters are refused; the other two categories are line breaks to YAML, which JSON's flow form does not escape.
CHARACTERS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff")
TEXT = st.text(CHARACTERS, max_size=12)
NAMES = st.from_regex(r"[a-zA-Z][a-z_0-9]{0,6}", fullmatch=True)
URLS = st.builds("{}://{}:{}/{}".format, st.sampled_from(["http", "https"]), NAMES, st.integers(1, 65535), NAMES)
FLOATS = st.floats(1e-6, 1e6).filter(isfinite)

# Options with a syntax of their own; every other one follows from its kind.
OWN = {
    "service_name": TEXT.filter(str.strip),
    "environment": NAMES,
    "source.path": TEXT.filter(bool),
    "state.dir": TEXT.filter(bool),
    "normalize.timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
    "normalize.redact.patterns": st.lists(st.sampled_from([r"\d{4,6}", "[0-9,]+", "a|b", "card: .+", "{", "# x"])),
    "http.host": TEXT.filter(str.strip),
    "metrics.quantiles": st.lists(st.floats(1e-9, 1, exclude_max=True), unique=True, max_size=5),
    "metrics.buckets": st.lists(FLOATS, unique=True, max_size=5).map(sorted),
    "metrics.routes": st.lists(st.sampled_from(["/", "GET /orders/:id", "/files/*path", "/a,b"]), max_size=4),
    "metrics.app_url": URLS,
    "health.app_url": URLS,
    "sinks.loki.url": URLS,
    "sinks.loki.username": TEXT.filter(lambda text: text and ":" not in text),
    "sinks.loki.tenant_id": st.from_regex(r"[A-Za-z0-9!\-_*'()]{1,150}", fullmatch=True),
    "sinks.loki.cert_file": TEXT.filter(bool),
    "sinks.loki.key_file": TEXT.filter(bool),
    "sinks.loki.labels": st.dictionaries(NAMES, TEXT.filter(str.strip), max_size=4),
    "injector.listen": st.sampled_from(["0.0.0.0:10250", "127.0.0.1:1", "[::]:443"]),
    "injector.http": st.sampled_from(["0.0.0.0:9180", "127.0.0.1:2"]),
    "injector.cert_file": TEXT.filter(bool),
    "injector.key_file": TEXT.filter(bool),
    "injector.image": st.sampled_from(["gin-sidecar:v1.2.0", "ghcr.io/a/b@sha256:" + "0" * 64]),
    "injector.kubernetes_version": st.sampled_from(["1.29", "1.33"]),
    "injector.excluded_namespaces": st.lists(st.sampled_from(["kube-system", "a", "b-c"]), unique=True),
    "injector.defaults.port": st.sampled_from([1024, 9180, 65535]),  # some belong to meshes
    "injector.defaults.log_path": st.sampled_from(["/var/log/shop/shop.log", "/logs/a"]),
    "injector.defaults.cpu_request": st.sampled_from(["25m", "1", "0.5"]),
    "injector.defaults.memory_request": st.sampled_from(["64Mi", "100M"]),
    "injector.defaults.memory_limit": st.sampled_from(["128Mi", "1Gi"]),
    "injector.defaults.ephemeral_request": st.sampled_from(["64Mi", "100M"]),
    "injector.defaults.ephemeral_limit": st.sampled_from(["512Mi", "1Gi"]),
    "injector.defaults.state_size": st.sampled_from(["256Mi", "1Gi"]),
    "injector.defaults.environment": NAMES,
    "injector.defaults.loki_url": URLS,
    "injector.defaults.loki_tenant_id": st.just("team-a"),
    "injector.defaults.loki_labels": st.dictionaries(NAMES, NAMES, max_size=3),
    "injector.defaults.loki_secret": st.just("loki-credentials"),
    "injector.defaults.app_health_url": st.just("http://127.0.0.1:8080/healthz"),
    "injector.defaults.app_metrics_url": st.just("http://127.0.0.1:8080/metrics"),
    "injector.defaults.settings": st.sampled_from([{"normalize.timezone": "Europe/Berlin"}, {}]),
}
# What must stand beside an option for the whole to make sense.
BESIDE = {
    "source.kind": {"source.path": "/x", "source.container": "app"},
    "schema.on_invalid": {"state.dir": "/x"},
    "sinks.loki.username": {"sinks.loki.password": "x"},
    "sinks.loki.password": {"sinks.loki.username": "x"},
    "sinks.loki.when_full": {"state.dir": "/x"},
    "sinks.loki.cert_file": {"sinks.loki.key_file": "/x"},
    "sinks.loki.key_file": {"sinks.loki.cert_file": "/x"},
    "injector.cert_file": {"injector.key_file": "/x"},
    "injector.key_file": {"injector.cert_file": "/x"},
    "injector.defaults.log_mode": {"injector.defaults.log_path": "/logs/a"},
    "injector.defaults.readiness_probe": {"injector.defaults.app_health_url": "http://127.0.0.1:8080/healthz"},
}


def _values(option):
    """Return a strategy for the values of an option."""
    low, high = option.minimum or 0, option.maximum
    if option.name in OWN:
        return OWN[option.name]
    if option.choices:
        return st.sampled_from(option.choices)
    hint = next(kind for kind, one in declared._KINDS.items() if one is option.kind)
    if hint is Duration:
        return st.integers(int(low * 1e6), int((high or 1e9) * 1e6)).map(lambda us: us / 1_000_000)
    if hint is Size:
        return st.integers(low, high or (1 << 45))
    if hint is int:
        return st.integers(low, high or 10**9)
    if hint == list[str]:
        return st.lists(TEXT, max_size=5)
    return {str: TEXT, Secret: TEXT.filter(str.strip).map(Secret), bool: st.booleans()}[
        bool if option.kind.expected == "true or false" else hint
    ]


def _raw(option, value):
    """Return the value as a person writes it: text, list of text, or mapping of text."""
    return value.get() if isinstance(value, Secret) else declared.show(option, value)


def _text(raw):
    """Return the one text of it that fits into a variable."""
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def _document(raws):
    root = {}
    for name, raw in raws.items():
        *sections, key = name.split(".")
        section = root
        for one in sections:
            section = section.setdefault(one, {})
        section[key] = raw
    return yaml.safe_dump(root)


def _dotenv(raws):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return "".join(f"{declared.variable(name)}={quoted(_text(raw))}\n" for name, raw in raws.items())


@st.composite
def assignments(draw):
    option = draw(st.sampled_from(list(TREE.options.values())))
    return option, draw(_values(option))


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Load what the places say, each a mapping from option names to raw values."""
    directory = tmp_path_factory.mktemp("config")

    def load(*, file=None, env_file=None, environment=None, sets=None):
        if file is not None:
            (directory / "sidecar.yaml").write_text(file if isinstance(file, str) else _document(file))
        if env_file is not None:
            (directory / "x.env").write_text(_dotenv(env_file))
        return config.load(
            file=None if file is None else "sidecar.yaml",
            env_files=[] if env_file is None else ["x.env"],
            environ={declared.variable(name): _text(raw) for name, raw in (environment or {}).items()},
            sets=[f"{name}={_text(raw)}" for name, raw in (sets or {}).items()],
            cwd=directory,
        )

    return load


def _value(loaded, name):
    return config._value(loaded.config, name)


@settings(max_examples=100, deadline=None)
@given(assignments())
def test_a_value_is_the_same_from_every_place(load, assignment):
    option, value = assignment
    said = {**BESIDE.get(option.name, {}), option.name: _raw(option, value)}

    loaded = [load(file=said), load(env_file=said), load(environment=said), load(sets=said)]

    assert [_value(one, option.name) for one in loaded] == [value] * 4
    assert [one.config == loaded[0].config for one in loaded] == [True] * 4


PLACES = ["file", "env_file", "environment", "sets"]  # weakest first


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(PLACES), st.integers(0, 65535)))
def test_the_strongest_place_decides(load, said):
    loaded = load(**{place: {"http.port": str(port)} for place, port in said.items()})

    strongest = max(said, key=PLACES.index, default=None)
    assert loaded.config.http.port == (said[strongest] if strongest else 9180)
    assert ("http.port" in loaded.origins) == bool(said)


@settings(max_examples=40, deadline=None)
@given(st.lists(assignments(), max_size=8))
def test_what_is_described_loads_as_the_same_configuration(load, chosen):
    said = {}
    for option, value in chosen:
        if not option.kind.secret and option.name != "sinks.loki.username":
            said |= {**BESIDE.get(option.name, {}), **said, option.name: _raw(option, value)}
    loaded = load(environment=said)

    text = config.describe(loaded)

    assert load(file=text).config == loaded.config
    VALIDATOR.validate(yaml.load(text, LOADER))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!|>'\"%@`,?#~ \t\n=<", max_size=40).map(str.encode))
@example(b"a: &a [*a]")
@example(b"<<: *x")
@example(b"? ")
@example(b"!!python/name:os.system")
def test_any_file_is_a_configuration_or_a_problem(tmp_path_factory, content):
    directory = tmp_path_factory.getbasetemp()
    (directory / "any.yaml").write_bytes(content)
    try:
        config.load(file="any.yaml", environ={}, cwd=directory)
    except ConfigError as error:
        said = [str(problem) for problem in error.problems]
        assert [line for line in said if not line.startswith("any.yaml: ")] == []


ODD = st.text(st.sampled_from("[]{}(),:\"'=\\ #&*!ax01.\0\n\u2028\udcff-/@"), max_size=12) | st.text(max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(TREE.variables)), ODD)
def test_any_text_is_a_value_or_problems_of_one_printable_line(variable, text):
    name = TREE.variables[variable]
    try:
        loaded = config.load(environ={variable: text}, sets=[f"{name}={text}"], cwd=Path("/nonexistent"))
    except ConfigError as error:
        said = [str(problem) for problem in error.problems]
        assert [line for line in said if not line.isprintable()] == []
    else:
        config.describe(loaded).encode()


@settings(max_examples=200)
@given(st.integers(0, 999_999 * 3_600_000_000))
def test_every_duration_is_read_back_as_it_is_shown(microseconds):
    seconds = microseconds / 1_000_000

    assert options.duration(options.show_duration(seconds)) == seconds


@settings(max_examples=200)
@given(st.integers(0, (1 << 40)) | st.integers(0, 1 << 20).map(lambda count: count << 30))
def test_every_size_is_read_back_as_it_is_shown(count):
    assert options.size(options.show_size(count)) == count
