"""Settings that would make pods or sidecars fail are refused when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

import sidecar
from sidecar import config
from sidecar.errors import ConfigError
from sidecar.injector import names, samples, settings
from tools.chartvalues import VALUES


def problems(*sets):
    with pytest.raises(ConfigError) as caught:
        config.load(sets=sets, environ={}, cwd=Path("/nowhere"))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("listen=10250", "0.0.0.0:9180"),
        ("http=::1:80", "brackets"),
        ("http=host:70000", "expected an address"),
        ("image=a b", "expected an image"),
        ("kubernetes_version=newest", "expected a version"),
        ("defaults.log_mode=stdout", "auto"),
        ("defaults.log_path=shop.log", "absolute path"),
        ("defaults.log_path=/var/../x", "absolute path"),
        ("defaults.log_path=/etc/shop.log", "would hide"),
        ("defaults.cpu_request=lots", "an amount of CPU"),
        ("defaults.cpu_request=64Mi", "an amount of CPU"),
        ("defaults.cpu_request=0", "an amount of CPU"),
        ("defaults.cpu_request=0.0001", "an amount of CPU"),
        ("defaults.memory_request=1m", 'such as "64Mi", at least 16Mi'),
        ("defaults.memory_limit=64m", 'such as "128Mi", at least 64Mi'),
        ("defaults.memory_limit=64M", "at least 64Mi"),
        ("defaults.memory_limit=1Mi", "at least 64Mi"),
        ("defaults.memory_request=256Mi", "at least injector.defaults.memory_request"),
        ("defaults.state_size=1k", "at least 1Mi"),
        ("defaults.loki_url=http://user:secret@loki", "without credentials"),
        ("defaults.loki_labels=a-b=c", '"a-b" is no label name'),
        ("defaults.loki_labels=pod=x", "set by the sidecar itself"),
        ("defaults.loki_labels={a: b c}", 'the value of "a"'),
        ("defaults.loki_secret=Not_A_Name", "name of a Secret"),
        ("defaults.port=15020", "belongs to Istio"),
        ("defaults.port=3500", "belongs to Dapr"),
        ("defaults.readiness_probe=true", "required with"),
        ("defaults.settings=normalize.timzone=UTC", 'did you mean "normalize.timezone"'),
        ("defaults.settings=source.idle_flush=soon", "expected a duration"),
        ("defaults.settings=state.dir=/x", "decided by the injector"),
        ("defaults.settings=drain_seconds=5s", "decided by the injector"),
        ("defaults.settings=source.wait_for_quiet=5s", "decided by the injector"),
        ("defaults.settings=sinks.loki.password=x", "loki_secret"),
        ("defaults.settings=http.host=127.0.0.1", "from outside the pod"),
        ("defaults.settings=schema.path=/nope.json", "no volume"),
        ("defaults.settings=sinks.loki.ca_file=/ca.pem", "SIDECAR_SINKS_LOKI_CA_FILE"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(setting, says):
    [problem] = problems(f"injector.{setting}")

    assert says in problem
    assert "injector." in problem


@pytest.mark.parametrize(
    ("passed", "says"),
    [
        ("normalize.timezone: Europe/Berln", 'did you mean "Europe/Berlin"'),
        ("metrics.quantiles: '[2]'", "between 0 and 1"),
        ("metrics.buckets: '[3,2]'", "must ascend"),
        ("normalize.redact.patterns: '[\"(\"]'", "not a regular expression"),
        ("sinks.loki.when_full: block", "fifo"),
    ],
    ids=lambda text: text.partition(":")[0],
)
def test_what_a_sidecar_would_refuse_at_its_start_is_refused_before_there_is_one(tmp_path, passed, says):
    """A native sidecar that ends holds back its application for ever: its own loader is asked, in every log mode."""
    file = tmp_path / "injector.yaml"
    file.write_text(f"injector:\n  defaults:\n    settings:\n      {passed}\n")

    with pytest.raises(ConfigError) as caught:
        config.load(file=str(file), environ={}, cwd=tmp_path)

    [problem] = map(str, caught.value.problems)
    assert problem.startswith(f"{file}: injector.defaults.settings=")
    assert passed.partition(":")[0] in problem
    assert says in problem


@pytest.mark.parametrize(
    ("default", "says"),
    [("environment=a/b", "file name"), ("loki_tenant_id=a b", "one tenant"), ("loki_url=http://:1", "expected a URL")],
)
def test_a_default_that_a_sidecar_would_refuse_is_named_as_what_was_set(default, says):
    [problem] = problems("injector.defaults.loki_url=http://loki", f"injector.defaults.{default}")

    assert problem.startswith(f"--set injector.defaults.{default.partition('=')[0]}")
    assert says in problem


def test_a_dollar_reaches_the_sidecar_as_it_was_set():
    """The kubelet makes one `$` of two."""
    pattern = "[$][$]|$$(HOME)$$x"

    [told, *_] = samples.environments(settings.Config(defaults=settings.Defaults(environment=pattern)))

    assert told["SIDECAR_ENVIRONMENT"] == pattern


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9180", ("0.0.0.0", 9180)),
        (":9180", ("", 9180)),
        ("[::]:10250", ("::", 10250)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_host_and_port(text, address):
    assert settings.address(text) == address


@pytest.mark.parametrize(
    ("version", "native"), [("", True), ("1.28", False), ("v1.28.9-gke.1", False), ("1.29", True), ("1.36", True)]
)
def test_r12_sidecars_are_native_where_the_cluster_knows_them(version, native):
    assert settings.native_by_version(settings.Config(kubernetes_version=version)) is native


def test_without_an_image_it_is_this_version_s():
    assert settings.image(settings.Config()) == f"{names.IMAGE}:v{sidecar.__version__}"
    assert next(value.default for value in VALUES if value.path == "image.repository") == names.IMAGE


@pytest.mark.parametrize(
    ("name", "amount"),
    [(name, text) for name in ("memory_limit",) for text in ("67108864", "68M", "1G", "0.5Gi", "65536Ki", "1.5Gi")]
    + [("cpu_request", text) for text in ("25m", "0.5", "2", "0.05", "1.250", "0.001")],
)
def test_amounts_are_what_kubernetes_takes(name, amount):
    """Rule R15: requests and limits are always there, and such that the sidecar lives within them."""
    told = config.load(sets=[f"injector.defaults.{name}={amount}"], environ={}, cwd=Path("/nowhere"))

    assert getattr(told.config.injector.defaults, name) == amount
