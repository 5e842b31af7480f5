"""The admission policy puts the same into a pod as the webhook: the API server's own CEL says so.

What is run is the code of k8s.io/apiserver that compiles and evaluates a MutatingAdmissionPolicy, on every golden pod
and on pods nobody would send. Not run, because they need a server: selectors of namespaces and objects (the policy
judges labels once more itself), admission of the policy object, and what other admission plugins do between two calls.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sidecar.injector import names, patch, policy
from sidecar.injector.settings import Config
from tests.property.test_injector import POD
from tests.support import pods
from tests.support.patience import as_long_as_it_takes

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("admission")]

SOURCES = Path(__file__).parent / "admission"


@pytest.fixture(scope="module")
def admission(pytestconfig):
    """Return the built evaluator. The first build compiles the API server's libraries: minutes; Go's cache keeps them."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("Go is not installed: the API server's code cannot be built")
    as_long_as_it_takes()
    binary = pytestconfig.cache.mkdir("admission") / "admission"
    built = subprocess.run(
        [go, "build", "-trimpath", "-o", str(binary), "."], cwd=SOURCES, capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.fail(f"the evaluator does not build:\n{built.stderr}", pytrace=False)
    return binary


def evaluated(admission, config, cases):
    """Return what the policy of these settings makes of (name, namespace, pod)."""
    asked = {"policy": policy.manifests(config)[0], "cases": cases}
    ran = subprocess.run([admission], input=json.dumps(asked), capture_output=True, text=True, check=True)
    answer = json.loads(ran.stdout)
    assert answer["problems"] == []
    return {result["name"]: result for result in answer["results"]}


def test_the_golden_pods_become_the_same(admission):
    alike = defaultdict(list)
    for case in pods.cases():
        alike[repr(case.config)].append(case)

    for cases in alike.values():
        asked = [
            {
                "name": case.name,
                "namespace": {"metadata": {"name": case.namespace, "labels": case.labels}},
                "pod": case.pod,
            }
            for case in cases
        ]
        results = evaluated(admission, cases[0].config, asked)
        for case in cases:
            result = results[case.name]
            assert result["error"] == "", case.name
            assert result["pod"] == pods.apply(case.pod, case.plan().patch), case.name


def test_a_pod_is_injected_once(admission):
    injected = [case for case in pods.cases() if case.said["reason"] == "injected"]

    for case in injected:
        pod = pods.apply(case.pod, case.plan().patch)
        namespace = {"metadata": {"name": case.namespace, "labels": case.labels}}
        results = evaluated(admission, case.config, [{"name": case.name, "namespace": namespace, "pod": pod}])
        assert results[case.name]["matched"] is False
        assert results[case.name]["pod"] == pod


def test_pods_that_nobody_would_send_become_the_same(admission):
    drawn = []

    @settings(
        max_examples=400,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(POD, st.sampled_from(["", "restricted"]), st.sampled_from(["", "true"]))
    def draw(pod, level, inject):
        labels = {names.POD_SECURITY: level, names.INJECT: inject}
        drawn.append((_as_sent(pod), {key: value for key, value in labels.items() if value}))

    draw()
    config = Config()
    asked = [
        {"name": str(number), "namespace": {"metadata": {"name": "shop", "labels": labels}}, "pod": pod}
        for number, (pod, labels) in enumerate(drawn)
    ]
    results = evaluated(admission, config, asked)

    injected = 0
    for number, (pod, labels) in enumerate(drawn):
        decision = patch.plan(
            pod,
            config,
            namespace="shop",
            auto="api" if names.POD_SECURITY in labels else "cri",
            selected=names.INJECT in labels,
        )
        injected += decision.injected
        assert results[str(number)]["error"] == "", pod
        assert results[str(number)]["pod"] == pods.apply(pod, decision.patch), (decision.reason, pod)
    assert injected > 20, "enough of them get a sidecar to mean something"


def _as_sent(pod):
    """Return the pod as the API server has it at admission: with its kind, without nulls and unknown fields."""

    def kept(value):
        if isinstance(value, dict):
            return {key: kept(one) for key, one in value.items() if one is not None}
        return [kept(one) for one in value] if isinstance(value, list) else value

    spec = {key: value for key, value in pod["spec"].items() if key != "futureField"}
    return kept({"apiVersion": "v1", "kind": "Pod", **pod, "spec": spec})
