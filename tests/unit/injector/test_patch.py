"""Rule R5: who gets a sidecar, as one table; and what the patch looks like."""

from __future__ import annotations

import itertools

import pytest

from sidecar.injector import names, patch, workloads
from sidecar.injector.settings import Config, Defaults

REFUSED = {
    "host_network": {"hostNetwork": True},
    "windows": {"os": {"name": "windows"}},
    "port_taken": {"initContainers": [{"name": "other", "ports": [{"containerPort": 9180}]}]},
    "already_injected": {"initContainers": [{"name": names.CONTAINER}]},
}


def plan(label, *, selected=False, namespace="shop", spec=None, annotations=None, config=None):
    metadata = {
        "name": "shop",
        "labels": {} if label is None else {names.INJECT: label},
        "annotations": annotations or {},
    }
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "x"}], **(spec or {})}}
    return patch.plan(pod, config or Config(), namespace=namespace, auto="cri", selected=selected)


@pytest.mark.parametrize(
    ("label", "selected", "special"),
    list(
        itertools.product([None, "true", "false", "yes", ""], [False, True], [None, "kube-system", "mirror", *REFUSED])
    ),
)
def test_r05_the_truth_table(label, selected, special):
    """System namespaces first, then what the label says, then what the pod is."""
    decision = plan(
        label,
        selected=selected,
        namespace="kube-system" if special == "kube-system" else "shop",
        spec=REFUSED.get(special),
        annotations={names.MIRROR: "x"} if special == "mirror" else None,
    )

    if special == "kube-system":
        expected = "system_namespace"
    elif label not in (None, "true", "false"):
        expected = "invalid_label"
    elif label == "false":
        expected = "opted_out"
    elif label is None and not selected:
        expected = "not_opted_in"
    else:
        expected = {"mirror": "mirror_pod", None: "injected"}.get(special, special)
    assert decision.reason == expected
    assert bool(decision.patch) == (expected == "injected")
    quiet = {"opted_out", "not_opted_in", "already_injected", "mirror_pod", "injected"}
    if expected != "system_namespace":
        assert bool(decision.warnings) == (expected not in quiet)


def test_r05_every_warning_fits_whatever_it_names():
    container = {"name": "a" * 300, "ports": [{"containerPort": 9180}]}

    [warning] = plan("true", spec={"containers": [container]}).warnings

    assert len(warning) == patch.WARNING_CHARACTERS


def test_r12_a_job_needs_a_native_sidecar_whoever_wishes_otherwise():
    wish = {"gin-sidecar.io/native": "false"}

    assert plan("true", spec={"restartPolicy": "Never"}, annotations=wish).reason == "needs_native"
    assert plan("true", spec={"restartPolicy": "Never"}).reason == "injected"
    forced = plan("true", annotations={"gin-sidecar.io/native": "true"}, config=Config(kubernetes_version="1.28"))
    assert forced.native, "a wish counts more than what we know of the cluster"


@pytest.mark.parametrize(
    ("parent", "operations"),
    [
        (None, [("/metadata", {}), ("/metadata/annotations", {})]),
        ({}, [("/metadata", {}), ("/metadata/annotations", {})]),
        ({"name": "x", "annotations": None}, [("/metadata/annotations", {})]),
        ({"annotations": {"a": "b"}}, []),
    ],
)
def test_r04_parents_that_are_missing_come_first(parent, operations):
    pod = {"metadata": parent, "spec": {"containers": [{"name": "app"}]}}

    decision = patch.plan(pod, Config(), namespace="n", auto="cri", selected=True)

    added = [(one["path"], one["value"]) for one in decision.patch]
    assert added[: len(operations)] == operations
    assert added[len(operations)][0] == "/metadata/annotations/gin-sidecar.io~1status"


@pytest.mark.parametrize(("name", "pointer"), [("a/b", "a~1b"), ("a~b", "a~0b"), ("a~1b", "a~01b"), ("~/", "~0~1")])
def test_r04_keys_are_escaped_for_a_pointer(name, pointer):
    assert patch.escaped(name) == pointer


def test_r20_prometheus_annotations_come_together_or_not_at_all():
    config = Config(defaults=Defaults(prometheus_annotations=True))

    def added(annotations):
        decision = plan("true", annotations=annotations, config=config)
        return {one["path"] for one in decision.patch if "prometheus.io" in one["path"]}

    assert len(added({})) == 3
    assert added({"prometheus.io/port": "8080"}) == set()


def test_who_calls_knows_the_workload_better():
    pod = {"metadata": {"name": "shop-0"}, "spec": {"containers": [{"name": "app"}]}}
    owner = workloads.Workload("StatefulSet", "shop")

    decision = patch.plan(pod, Config(), namespace="n", auto="api", selected=True, workload=owner)

    assert decision.workload == owner
    assert {"name": "SIDECAR_SERVICE_NAME", "value": "shop"} in decision.patch[-1]["value"]["env"]
