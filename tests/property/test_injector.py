"""Laws of injection, over pods that nobody would send."""

from __future__ import annotations

import copy
import json
import socket

from hypothesis import given
from hypothesis import strategies as st

from sidecar.injector import grammar, names, patch, review, wishes, workloads
from sidecar.injector.settings import Config
from tests.support import pods

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.sampled_from(
    [
        "true",
        "false",
        "auto",
        "cri",
        "api",
        "file",
        "fifo",
        "app",
        "/var/log/x/y.log",
        "/etc/y.log",
        "64Mi",
        "1",
        "a=b",
        "a=b,a=c",
        "http://x:1/y",
    ]
) | st.text(max_size=6)
ANNOTATIONS = st.dictionaries(
    st.sampled_from([*wishes.KNOWN, names.MIRROR, names.DEFAULT_CONTAINER, f"{names.DOMAIN}/wrong", "a/b~c"]),
    VALUES,
    max_size=4,
)
CONTAINER = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["app", "web", "daprd", "istio-proxy", "gin-sidecar"])
        | st.text("abc", min_size=1, max_size=3),
        "image": st.just("x"),
    },
    optional={
        "ports": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {"containerPort": st.sampled_from([80, 9180])}, optional={"protocol": st.sampled_from(["TCP", "UDP"])}
            ),
            max_size=2,
        ),
        "restartPolicy": st.just("Always"),
        "securityContext": st.none() | st.fixed_dictionaries({}, optional={"runAsUser": st.integers(0, 2000)}),
        "resources": st.none() | st.fixed_dictionaries({"limits": st.none() | st.just({"ephemeral-storage": "1Gi"})}),
        "workingDir": st.sampled_from(["", "/", "/var/log/x", "/var/log/x/z"]),
        "volumeMounts": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.just("v"),
                    "mountPath": st.sampled_from(["/var", "/var/log/x", "/var/log/x/", "/var/log/x/y.log", "/"]),
                },
                optional={"subPath": st.just("s"), "subPathExpr": st.just("$(X)")},
            ),
            max_size=3,
        ),
    },
)
VOLUME = st.sampled_from(
    [
        {"name": names.STATE, "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": names.STATE, "persistentVolumeClaim": {"claimName": "shop"}},
        {"name": names.STATE, "emptyDir": {}},
        {"name": names.TMP, "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": names.LOGS, "hostPath": {"path": "/var/log/pods", "type": "Directory"}},
        {"name": names.LOGS, "emptyDir": {"sizeLimit": "256Mi"}},
    ]
)
POD = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "name": st.text(max_size=4),
                "generateName": st.none() | st.just("shop-"),
                "labels": st.none()
                | st.dictionaries(st.sampled_from([names.INJECT, "app", "istio.io/rev"]), VALUES, max_size=3),
                "annotations": st.none() | ANNOTATIONS,
            },
        ),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(CONTAINER, min_size=1, max_size=3)},
            optional={
                "initContainers": st.none() | st.lists(CONTAINER, max_size=2),
                "volumes": st.none() | st.lists(VOLUME, max_size=2, unique_by=lambda volume: volume["name"]),
                "hostNetwork": st.booleans(),
                "restartPolicy": st.sampled_from(["Always", "Never"]),
                "terminationGracePeriodSeconds": st.none() | st.integers(0, 60),
                "nodeSelector": st.none() | st.just({"kubernetes.io/os": "windows"}),
                "os": st.none() | st.just({"name": "windows"}),
                "resources": st.none() | st.just({"limits": {"memory": "1Gi"}}),
                "futureField": JSON,
            },
        ),
    }
)


def planned(pod: object, *, auto: str = "cri") -> patch.Decision:
    return patch.plan(pod, Config(), namespace="shop", auto=auto, selected=True)


@given(JSON)
def test_r01_any_value_gets_an_answer_that_allows(pod):
    asked = review.parse(json.dumps(pods.review(pod)).encode())
    given = review.answer(asked, review.decide(asked, Config(), "cri"))

    answer = json.loads(given.body)

    assert answer["apiVersion"] == "admission.k8s.io/v1"
    assert answer["response"]["uid"] == asked.uid
    assert answer["response"]["allowed"] is True
    assert pods.operations(answer["response"]) == []


def test_r06_an_answer_asks_nobody(monkeypatch):
    """Whatever is decided about a pod is in the review and the settings: with the network away it is the same."""

    def away(*_: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, away)
    decided = set()
    for case in pods.cases():
        asked = review.parse(json.dumps(pods.review(case.pod, namespace=case.namespace)).encode())
        for auto in ("cri", "api"):
            decision = review.decide(asked, case.config, auto)
            assert json.loads(review.answer(asked, decision).body)["response"]["allowed"] is True
            decided.add(decision.injected)

    assert decided == {True, False}


@given(st.data())
def test_r01_r04_a_pod_with_one_part_of_any_shape_gets_a_decision(data):
    pod = copy.deepcopy(data.draw(POD))  # what a strategy returns again must stay as it is
    target = pod
    for _ in range(data.draw(st.integers(0, 4))):
        keys = list(target) if isinstance(target, dict) else range(len(target)) if isinstance(target, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            target[key] = data.draw(JSON)
            break
        target = target[key]

    decision = planned(pod)

    assert decision.reason in patch.REASONS
    assert bool(decision.patch) == decision.injected
    json.dumps(decision.patch)


@given(POD, st.sampled_from(["cri", "api"]))
def test_r02_r03_a_patch_applies_once_and_only_adds(pod, auto):
    before = copy.deepcopy(pod)

    decision = planned(pod, auto=auto)

    assert pod == before, "the pod itself is not touched"
    after = pods.apply(pod, decision.patch)
    assert planned(after, auto=auto).patch == []
    if decision.injected:
        assert after["spec"].get("futureField") == pod["spec"].get("futureField")
        kept = [one["name"] for one in after["spec"]["containers"] if one["name"] != names.CONTAINER]
        assert kept == [one["name"] for one in pod["spec"]["containers"]]
        volumes = [volume["name"] for volume in after["spec"]["volumes"]]
        assert len(volumes) == len(set(volumes))
        mounted = {mount["name"] for mount in pods.sidecar_of(after)["volumeMounts"]}
        assert mounted <= {*volumes, "v"}
        variables = [one["name"] for one in pods.sidecar_of(after)["env"]]
        assert len(variables) == len(set(variables))


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3), st.text(max_size=10))
def test_r03_r04_foreign_annotations_survive_whatever_their_names(annotations, value):
    pod = {"metadata": {"annotations": {**annotations, "a~1/b~": value}}, "spec": {"containers": [{"name": "app"}]}}

    after = pods.apply(pod, planned(pod).patch)

    assert pod["metadata"]["annotations"].items() <= after["metadata"]["annotations"].items()


@given(st.from_regex(grammar.memory(64 << 20), fullmatch=True))
def test_an_amount_is_never_less_than_its_least(text):
    assert grammar.amount(text) >= 64 << 20


@given(st.integers(0, 300_000_000), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_every_whole_amount_from_the_least_on_is_one(number, unit):
    text = f"{number // max(1, grammar.amount(f'1{unit}'))}{unit}"

    assert grammar.matches(grammar.memory(64 << 20), text) == (grammar.amount(text) >= 64 << 20)


@given(st.text(max_size=20), st.text("abcdef0123456789", min_size=5, max_size=10))
def test_a_replica_set_leads_to_its_deployment(name, digest):
    reference = {"kind": "ReplicaSet", "name": f"{name}-{digest}", "controller": True}
    pod = {"metadata": {"labels": {"pod-template-hash": digest}, "ownerReferences": [reference]}}

    assert workloads.of_pod(pod) == workloads.Workload("Deployment", name)
