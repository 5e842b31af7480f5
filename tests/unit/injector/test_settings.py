"""Settings that would make pods or sidecars fail are refused when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.injector import settings


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
        ("defaults.cpu_request=lots", "expected an amount"),
        ("defaults.memory_limit=1Mi", "at least injector.defaults.memory_request"),
        ("defaults.state_size=1k", "at least 1Mi"),
        ("defaults.loki_url=http://user:secret@loki", "without credentials"),
        ("defaults.loki_labels=a-b=c", "letters, digits"),
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
    ],
)
def test_a_setting_that_cannot_work_is_refused(setting, says):
    [problem] = problems(f"injector.{setting}")

    assert says in problem
    assert "injector." in problem


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
    assert settings.image(settings.Config()).startswith("gin-sidecar:v")
