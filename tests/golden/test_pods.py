"""Golden pods: the files in pods/ hold what goes in and what comes out. `--update-golden` writes what comes out now."""

from __future__ import annotations

import copy
import json

import pytest

from sidecar.injector import names, patch
from tests.support import pods

CASES = pods.cases()
INJECTED = [case for case in CASES if case.said.get("reason") == "injected"]
VERSIONS = ("1.29", "1.33", "1.37")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_the_file_says(case, update_golden):
    decision = case.plan()

    said = {"reason": decision.reason, "warnings": list(decision.warnings)}
    if decision.injected:
        said["pod"] = pods.apply(case.pod, decision.patch)
    if update_golden:
        case.update(said)
    else:
        assert said == case.said


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r02_a_pod_is_injected_once(case):
    pod = pods.apply(case.pod, case.plan().patch)
    seen = copy.deepcopy(pod)

    again = case.plan(pod)

    assert (again.reason, again.patch, again.warnings) == ("already_injected", [], ())
    assert pod == seen


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r02_others_may_reorder_and_add_containers_between_two_calls(case):
    pod = pods.apply(case.pod, case.plan().patch)
    pod["spec"]["containers"] = [{"name": "late", "image": "x"}, *reversed(pod["spec"]["containers"])]
    pod["spec"].setdefault("initContainers", []).reverse()
    pod["metadata"]["annotations"].pop(names.STATUS)

    assert case.plan(pod).patch == []


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r03_what_the_pod_had_is_still_there(case):
    after = pods.apply(case.pod, case.plan().patch)

    removed = _without_ours(after, case.pod)
    before = copy.deepcopy(case.pod)
    for key in ("volumes", "initContainers"):
        before["spec"].setdefault(key, [])
    before["metadata"].setdefault("annotations", {})
    for annotation in set(removed["metadata"]["annotations"]) - set(before["metadata"]["annotations"]):
        assert (
            annotation in (names.DEFAULT_CONTAINER, names.STATUS)
            or "prometheus.io" in annotation
            or "istio" in annotation
        )
    for kept in (removed["metadata"]["annotations"], before["metadata"]["annotations"]):
        for key in (names.STATUS, "traffic.sidecar.istio.io/excludeInboundPorts"):
            kept.pop(key, None)
    assert before["metadata"]["annotations"].items() <= removed["metadata"]["annotations"].items()
    removed["metadata"]["annotations"] = before["metadata"]["annotations"]
    assert removed == before


def _without_ours(pod, before):
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    for key in ("containers", "initContainers"):
        spec[key] = [one for one in spec.get(key, []) if one["name"] != names.CONTAINER]
        for container in spec[key]:
            kept = [mount for mount in container.get("volumeMounts", []) if mount["name"] != names.LOGS]
            if kept or not container.get("volumeMounts"):
                continue
            del container["volumeMounts"]
    own = {names.STATE, names.TMP, names.LOGS} - {one["name"] for one in before["spec"].get("volumes", ())}
    spec["volumes"] = [one for one in spec["volumes"] if one["name"] not in own]
    for container in spec["containers"]:
        if "volumeMounts" in container:
            container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != names.LOGS]
    return pod


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r14_r15_r17_r20_the_container_is_hardened_bounded_and_named(case):
    """Rules R14 to R17 and R20: security context, resources, writable places, probes, the named port."""
    pod = pods.apply(case.pod, case.plan().patch)

    container = pods.sidecar_of(pod)
    context = container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    status = json.loads(pod["metadata"]["annotations"][names.STATUS])
    if case.config.defaults.run_as_user:
        assert (context["runAsGroup"] == 0) == (status["mode"] == "cri")
        assert context["runAsUser"] > 0
    else:
        assert not {"runAsUser", "runAsGroup"} & context.keys()
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert {"ephemeral-storage"} <= requests.keys()
    assert {"ephemeral-storage"} <= limits.keys()
    assert "cpu" not in limits
    if "resources" not in pod["spec"]:
        assert {"cpu", "memory"} <= requests.keys()
        assert "memory" in limits
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert writable - {"/logs"} == {"/state", "/tmp"}
    assert ("/logs" in writable) == (status["mode"] == "fifo")
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts
    for volume in pod["spec"]["volumes"]:
        if volume["name"] in (names.STATE, names.TMP, names.LOGS) and "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
        if "hostPath" in volume:
            [mount] = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
            assert mount["readOnly"] is True
            assert mount["subPathExpr"] == "$(POD_NAMESPACE)_$(POD_NAME)_$(POD_UID)"
    live = container["livenessProbe"]
    times = [live[key] for key in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")]
    assert times == [10, 5, 3, 3]
    assert live["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert ("readinessProbe" in container) == case.config.defaults.readiness_probe
    assert [port["name"] for port in container["ports"]] == [names.PORT]


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_rule_39_the_sidecar_has_no_readiness_probe_unless_asked_and_the_two_others_always(case):
    container = pods.sidecar_of(pods.apply(case.pod, case.plan().patch))

    asked = case.config.defaults.readiness_probe
    assert {key for key in container if key.endswith("Probe")} == {
        "livenessProbe",
        "startupProbe",
        *(["readinessProbe"] if asked else []),
    }


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r12_a_native_sidecar_comes_first_and_an_ordinary_one_last(case):
    pod = pods.apply(case.pod, case.plan().patch)

    if json.loads(pod["metadata"]["annotations"][names.STATUS])["native"]:
        assert pod["spec"]["initContainers"][0]["name"] == names.CONTAINER
        assert pod["spec"]["initContainers"][0]["restartPolicy"] == "Always"
    else:
        assert pod["spec"]["containers"][-1]["name"] == names.CONTAINER
        assert "restartPolicy" not in pod["spec"]["containers"][-1]


@pytest.mark.parametrize("case", INJECTED, ids=lambda case: case.name)
def test_r13_the_status_is_sorted_json(case):
    pod = pods.apply(case.pod, case.plan().patch)

    text = pod["metadata"]["annotations"][names.STATUS]
    status = json.loads(text)
    assert text == json.dumps(status, sort_keys=True, separators=(",", ":"))
    assert {"version", "mode", "container", "volumes"} <= status.keys()
    assert status["volumes"] == sorted(status["volumes"])
    present = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert set(status["volumes"]) <= present


@pytest.mark.e2e
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_pod(version):
    """Strictly: a field that the schema does not know is an error. Fields younger than the version are left out."""
    import kubernetes_validate as validator  # noqa: PLC0415  among the programs of the slow suites

    for case in INJECTED:
        pod = pods.apply(case.pod, case.plan().patch)
        pod["metadata"]["name"] = "shop"
        if version == "1.29":
            pod["spec"].pop("resources", None)
        validator.validate(pod, version, strict=True)


def test_the_cases_show_every_reason_that_a_pod_can_give():
    elsewhere = {"not_a_pod", "not_created", "malformed_pod", "internal_error"}

    assert {case.said.get("reason") for case in CASES} == set(patch.REASONS) - elsewhere
