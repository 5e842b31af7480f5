"""What a pod's sidecar is told is a configuration it takes: no injected container may end for what we wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import config
from sidecar.injector import grammar, names, patch
from sidecar.injector.settings import Config, Defaults
from tests.support import pods

INJECTED = [case for case in pods.cases() if case.said["reason"] == "injected"]


def loaded(container, **more):
    """Load the configuration as the container would. Raises ConfigError."""
    return config.load(environ=pods.environment(container) | more, cwd=Path("/nowhere")).config


def injected(annotations, *, spec=None, **defaults):
    pod = {
        "metadata": {"name": "shop", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "x"}], **(spec or {})},
    }
    section = Config(defaults=Defaults(loki_url="http://loki:3100", **defaults))
    decision = patch.plan(pod, section, namespace="n", auto="cri", selected=True)
    return pods.sidecar_of(pods.apply(pod, decision.patch)) if decision.injected else None


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_the_sidecar_takes_the_variables_of_every_golden_pod(case):
    container = pods.sidecar_of(pods.apply(case.pod, case.plan().patch))

    told = loaded(container)

    assert told.state.dir == "/state"
    assert told.http.port == container["ports"][0]["containerPort"]
    assert told.drain_seconds < case.pod["spec"].get("terminationGracePeriodSeconds", 30) + 2
    assert told.source.kind in {"cri", "kubernetes", "file", "fifo"}


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("service-name", grammar.SERVICE_NAME),
        ("loki-labels", grammar.LOKI_LABELS),
        ("app-health-url", grammar.URL),
        ("app-metrics-url", grammar.URL),
        ("log-path", grammar.LOG_PATH),
    ],
)
@settings(max_examples=60)
@given(data=st.data())
def test_what_an_annotation_may_say_the_sidecar_takes(key, pattern, data):
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    mode = {"gin-sidecar.io/log-mode": "file"} if key == "log-path" else {}

    container = injected({f"{names.DOMAIN}/{key}": text, **mode})

    if container is not None:
        loaded(container)


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_h03_an_ordinary_container_waits_for_quiet_and_a_native_one_never(case):
    """Only the ordinary one gets SIGTERM together with the application, which still writes."""
    injected_pod = pods.apply(case.pod, case.plan().patch)

    container = pods.sidecar_of(injected_pod)

    ordinary = container in injected_pod["spec"]["containers"]
    assert loaded(container).source.wait_for_quiet == (2 if ordinary else 0)
    assert ("SIDECAR_SOURCE_WAIT_FOR_QUIET" in pods.environment(container)) is ordinary


@pytest.mark.parametrize(
    ("native", "grace", "drain"),
    [("true", None, 10), ("true", 8, 6), ("false", None, 28), ("false", 8, 6), ("false", 0, 1), ("false", 3600, 28)],
)
def test_h03_an_ordinary_container_has_the_grace_in_which_the_application_ends(native, grace, drain):
    spec = {} if grace is None else {"terminationGracePeriodSeconds": grace}

    told = loaded(injected({"gin-sidecar.io/native": native}, spec=spec))

    assert told.drain_seconds == drain


def test_what_the_kubelet_would_expand_is_escaped():
    """The kubelet reads `$$` as `$` wherever it stands, so every one is doubled."""
    container = injected({"gin-sidecar.io/service-name": "$(PATH) $$(X) $1"})

    assert pods.environment(container)["SIDECAR_SERVICE_NAME"] == "$$(PATH) $$$$(X) $$1"


def test_a_secret_is_referred_to_and_never_written():
    container = injected({}, loki_secret="loki")

    by_reference = [one for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})]
    assert [one["valueFrom"]["secretKeyRef"]["key"] for one in by_reference] == ["username", "password", "bearer_token"]
    assert all(one["valueFrom"]["secretKeyRef"]["optional"] for one in by_reference)


def test_r15_the_spool_and_the_dead_letters_take_at_most_half_of_their_volume():
    """Rule R15: a volume beyond its bound evicts the pod at once."""
    container = injected({}, state_size="256Mi")

    spool = loaded(container).sinks.loki.spool_max_bytes
    assert 2 * spool * 100 <= 60 * (256 << 20)


def test_r15_an_unlimited_application_stays_unlimited_beside_our_limit():
    """The kubelet adds up the limits of ephemeral storage that there are, and evicts by the sum."""
    container = injected({})

    assert container["resources"]["limits"]["ephemeral-storage"] == "1Ti"
