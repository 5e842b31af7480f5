"""Loading: what holds when several places speak, what is refused, and what is shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.options import Secret

NOWHERE = Path("/nonexistent")
LOKI = "sinks.loki"


def load(*sets, **environ):
    return config.load(sets=sets, environ=environ, cwd=NOWHERE)


def problems(*sets, **environ):
    with pytest.raises(ConfigError) as caught:
        load(*sets, **environ)
    return [str(problem) for problem in caught.value.problems]


def test_without_anything_the_defaults_hold():
    loaded = load()

    assert loaded.config.http.port == 9180
    assert loaded.config.drain_seconds == 10
    assert loaded.origins == {}


def test_set_wins_over_the_environment():
    loaded = load("http.port=1", SIDECAR_HTTP_PORT="2")

    assert loaded.config.http.port == 1
    assert loaded.origins == {"http.port": "--set"}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "unknown_service"),
        ({"CONTAINER_NAME": "app"}, "app"),
        ({"CONTAINER_NAME": "app", "OTEL_SERVICE_NAME": ""}, "app"),
        ({"CONTAINER_NAME": "app", "OTEL_SERVICE_NAME": "orders"}, "orders"),
        ({"CONTAINER_NAME": "app", "OTEL_SERVICE_NAME": "orders", "SIDECAR_SERVICE_NAME": "shop"}, "shop"),
        ({"CONTAINER_NAME": "app", "SIDECAR_SERVICE_NAME": ""}, "app"),
    ],
)
def test_the_name_of_the_service_has_a_chain_of_defaults(environ, name):
    assert load(**environ).config.service_name == name


def test_stdout_is_on_unless_there_is_another_sink():
    assert load().config.sinks.stdout.enabled is True
    assert load(f"{LOKI}.url=http://loki:3100").config.sinks.stdout.enabled is False
    assert load(f"{LOKI}.url=http://loki:3100", "sinks.stdout.enabled=yes").config.sinks.stdout.enabled is True
    assert load("sinks.stdout.enabled=no").config.sinks.stdout.enabled is False


def test_the_pod_is_known_from_the_downward_api():
    loaded = load(POD_NAME="p", POD_NAMESPACE="ns", POD_UID="u", NODE_NAME="n", CONTAINER_NAME="c")

    assert loaded.config.pod == config.Pod(name="p", namespace="ns", uid="u", node="n", container="c")


def test_every_problem_is_told_at_once():
    found = problems(
        "drain_seconds=5", "http.prt=1", SIDECAR_SINKS_LOKI_TIMEOUT="fast", SIDECAR_SOURCE_KIND="fifo", SIDECAR_X="1"
    )

    assert found == [
        "SIDECAR_X: unknown variable",
        'SIDECAR_SINKS_LOKI_TIMEOUT="fast": expected a duration such as "5s", "500ms" or "10m"',
        '--set http.prt: unknown option; did you mean "http.port"?',
        '--set drain_seconds="5": expected a duration such as "5s", "500ms" or "10m"; write "5s" for seconds',
        'source.path: required for source.kind "fifo": set it to the path of the named pipe',
    ]


def test_an_overridden_value_must_be_right_too():
    assert problems("http.port=1", SIDECAR_HTTP_PORT="x") == ['SIDECAR_HTTP_PORT="x": expected a whole number']


def test_a_wrong_value_causes_no_second_problem():
    assert len(problems("source.kind=file", "source.path=a\0b")) == 1


@pytest.mark.parametrize("key", ["OTEL_SERVICE_NAME", "POD_NAME"])
def test_names_that_are_not_text_are_problems(key):
    assert problems(**{key: "a\udcff"})[0].startswith(f"{key}: expected text without control characters")


NEEDS_OTHERS = [
    (["source.kind=file"], "source.path"),
    (["source.kind=cri", "source.container=app"], "source.path"),
    (["source.kind=cri", "source.path=/p"], "source.container"),
    (["source.kind=kubernetes"], "source.container"),
    (["source.kind=fifo"], "source.path"),
    (["source.kind=fifo", "source.path=/p", f"{LOKI}.when_full=block"], f"{LOKI}.when_full"),
    (["source.kind=command", f"{LOKI}.when_full=block"], f"{LOKI}.when_full"),
    ([f"{LOKI}.when_full=spool"], f"{LOKI}.when_full"),
    (["schema.on_invalid=quarantine"], "schema.on_invalid"),
    ([f"{LOKI}.username=u"], f"{LOKI}.password"),
    ([f"{LOKI}.password=p"], f"{LOKI}.username"),
    ([f"{LOKI}.username=a:b", f"{LOKI}.password=p"], f"{LOKI}.username"),
    ([f"{LOKI}.username=u", f"{LOKI}.password=p", f"{LOKI}.bearer_token=t"], f"{LOKI}.bearer_token"),
    ([f"{LOKI}.cert_file=/c"], f"{LOKI}.key_file"),
    ([f"{LOKI}.key_file=/k"], f"{LOKI}.cert_file"),
    ([f"{LOKI}.url=loki:3100"], f"{LOKI}.url"),
    ([f"{LOKI}.url=ftp://loki"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://:3100"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://loki:0"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://loki:99999"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://[::1"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://lo ki"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://loki/loki/api/v1/push"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://loki/?a=b"], f"{LOKI}.url"),
    ([f"{LOKI}.url=http://u:p@loki", f"{LOKI}.bearer_token=t"], f"{LOKI}.url"),
    (["health.app_url=/health"], "health.app_url"),
    (["metrics.app_url=localhost:8080/metrics"], "metrics.app_url"),
    ([f"{LOKI}.tenant_id=a|b"], f"{LOKI}.tenant_id"),
    ([f"{LOKI}.tenant_id=.."], f"{LOKI}.tenant_id"),
    ([f"{LOKI}.tenant_id={'a' * 151}"], f"{LOKI}.tenant_id"),
    ([f"{LOKI}.labels=9a=b"], f"{LOKI}.labels"),
    ([f"{LOKI}.labels=__name__=b"], f"{LOKI}.labels"),
    (["metrics.quantiles=0.5,1"], "metrics.quantiles"),
    (["metrics.quantiles=0,0.5"], "metrics.quantiles"),
    (["metrics.quantiles=0.5,0.50"], "metrics.quantiles"),
    (["metrics.buckets=0,1"], "metrics.buckets"),
    (["metrics.buckets=2,1"], "metrics.buckets"),
    (["metrics.buckets=1,1"], "metrics.buckets"),
    (["metrics.routes=orders"], "metrics.routes"),
    (["metrics.routes=get /orders"], "metrics.routes"),
    (["metrics.routes=/orders?a=b"], "metrics.routes"),
    (["metrics.routes=/orders/:"], "metrics.routes"),
    (["metrics.routes=/*all/more"], "metrics.routes"),
    (["normalize.timezone=Europe/Belin"], "normalize.timezone"),
    (["normalize.timezone=/etc/passwd"], "normalize.timezone"),
    (["normalize.redact.patterns=(a"], "normalize.redact.patterns"),
    (["normalize.redact.patterns=a*"], "normalize.redact.patterns"),
    (["environment=a/b"], "environment"),
    (["service_name= "], "service_name"),
]


@pytest.mark.parametrize(
    ("sets", "named"), NEEDS_OTHERS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_cannot_work_is_told_with_the_option_to_change(sets, named):
    (problem,) = problems(*sets)

    assert problem.removeprefix("--set ").startswith((f"{named}:", f"{named}="))


@pytest.mark.parametrize(
    "sets",
    [
        ["source.kind=fifo", "source.path=/p"],
        [f"{LOKI}.when_full=block"],
        [f"{LOKI}.when_full=spool", "state.dir=/s"],
        ["schema.on_invalid=quarantine", "state.dir=/s"],
        [f"{LOKI}.url=https://u:p@loki.example/prefix/"],
        [f"{LOKI}.url=http://[::1]:3100"],
        [f"{LOKI}.username=u", f"{LOKI}.password=p"],
        [f"{LOKI}.cert_file=/c", f"{LOKI}.key_file=/k"],
        [f"{LOKI}.tenant_id=team-a_1.x!*'()"],
        ["metrics.routes=/,GET /orders/:id,/a/b/,/files/*path"],
        ["metrics.quantiles=[]", "metrics.buckets=[]"],
        ["normalize.redact.patterns=[0-9]{4,6},x+"],
        ["drain_seconds=0s"],
        ["normalize.timezone=Europe/Berlin"],
    ],
    ids=" ".join,
)
def test_what_can_work_is_taken(sets):
    load(*sets)


def test_a_misspelled_zone_has_a_near_miss():
    (problem,) = problems("normalize.timezone=Europe/Belin")

    assert 'did you mean "Europe/Berlin"?' in problem


def test_a_secret_never_shows():
    loaded = load(f"{LOKI}.username=u", f"{LOKI}.password=hunter2", "health.app_url=http://me:hunter2@app")
    (problem,) = problems(f"{LOKI}.username=u", f"{LOKI}.password=hunter2\0")

    assert "hunter2" not in f"{loaded} {loaded!r} {config.describe(loaded)} {problem}"
    assert 'password: "********"  # --set\n' in config.describe(loaded)
    assert loaded.config.sinks.loki.password == Secret("hunter2")


def test_credentials_of_a_wrong_url_do_not_show():
    (problem,) = problems(f"{LOKI}.url=ftp://me:hunter2@loki")

    assert "hunter2" not in problem


def test_what_is_not_a_default_is_shown_with_its_origin():
    text = config.describe(load("http.port=1", OTEL_SERVICE_NAME="orders", SIDECAR_SINKS_LOKI_LABELS="team=shop"))

    assert text.startswith("service_name: orders  # OTEL_SERVICE_NAME\n")
    assert "  port: 1  # --set\n" in text
    assert "    labels: {team: shop}  # SIDECAR_SINKS_LOKI_LABELS\n" in text
    assert "    timeout: 10s\n" in text


def test_loading_without_a_file_and_without_mistakes_imports_nothing_for_them():
    """0.8 MiB of YAML and more for the rest would be paid once per pod."""
    script = (
        "import sys, pathlib\n"
        "from sidecar import config\n"
        "config.load(environ={'SIDECAR_METRICS_ROUTES': '/a,/b'}, cwd=pathlib.Path('/nonexistent'))\n"
        "print(*sorted({'yaml', 'jsonschema', 'difflib'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
