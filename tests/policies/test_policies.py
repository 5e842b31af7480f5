"""R27: the policies let our own renders pass and refuse every seeded violation, in init containers too."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import yaml

from tests.support import charts, policies, programs

pytestmark = pytest.mark.e2e

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


@pytest.fixture(scope="module")
def deny():
    return policies.load()


def container(**changes):
    """A container that satisfies everything."""
    return {
        "name": "shop",
        "image": "registry.example/shop:v1.2.0",
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi"},
            "limits": {"memory": "32Mi"},
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": 8080},
            "initialDelaySeconds": 10,
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    } | changes


def pod(*containers, **spec):
    return {
        "kind": "Pod",
        "metadata": {"name": "shop"},
        "spec": {"containers": [*(containers or [container()])], **spec},
    }


def without(one, *path):
    one = copy.deepcopy(one)
    place = one
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return one


def with_(one, value, *path):
    one = copy.deepcopy(one)
    place = one
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return one


def _hosted(mount, path="/var/log/pods"):
    mounts = [{"name": "logs", "mountPath": "/logs", **mount}]
    return pod(container(volumeMounts=mounts), volumes=[{"name": "logs", "hostPath": {"path": path}}])


GOOD_MOUNT = {"readOnly": True, "subPathExpr": "$(POD_UID)"}
LIVENESS = container()["livenessProbe"]


def test_a_good_pod_passes(deny):
    assert deny(pod()) == []
    assert deny(_hosted(GOOD_MOUNT)) == []


@pytest.mark.parametrize("case", charts.CASES)
def test_r27_what_the_chart_renders_passes(deny, case):
    rendered = charts.objects((programs.ROOT / "tests" / "golden" / "chart" / f"{case}.yaml").read_text())

    assert rendered
    assert [message for one in rendered for message in deny(one)] == []


GOLDEN_PODS = sorted((programs.ROOT / "tests" / "golden" / "pods").glob("*.yaml"))


@pytest.mark.parametrize("path", GOLDEN_PODS, ids=lambda path: path.name)
def test_r27_an_injected_container_passes_in_whatever_pod_it_is(deny, path):
    """Of the golden pods: what is said is said of the application, never of the sidecar."""
    expected = list(yaml.safe_load_all(path.read_text()))[-1]
    if expected["reason"] == "injected":
        assert [message for message in deny(expected["pod"]) if "container gin-sidecar" in message] == []


@pytest.mark.parametrize("native", ["true", "false"])
def test_an_injected_deployment_passes(deny, native, tmp_path):
    manifest = tmp_path / "shop.yaml"
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}, "annotations": {"gin-sidecar.io/native": native}},
                "spec": {"containers": [container()]},
            },
        },
    }
    manifest.write_text(yaml.safe_dump(deployment))
    image = "ghcr.io/gin-sidecar/gin-sidecar:v0.1.0"
    mode = ("--log-mode", "cri")
    command = [sys.executable, "-m", "sidecar", "inject", "--all", "-f", manifest, "--image", image, *mode]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=programs.ROOT).stdout

    injected = yaml.safe_load(text)
    names = [one["name"] for place in ("initContainers", "containers") for one in _spec(injected).get(place, ())]
    assert "gin-sidecar" in names
    assert deny(injected) == []


def _spec(workload):
    return workload["spec"]["template"]["spec"]


VIOLATIONS = (
    {
        "latest": (with_(container(), "shop:latest", "image"), "latest"),
        "latest-by-digest": (with_(container(), f"shop:latest@{DIGEST}", "image"), "latest"),
        "no-tag": (with_(container(), "registry.example:5000/shop", "image"), "SemVer"),
        "half-a-version": (with_(container(), "shop:v1.2", "image"), "SemVer"),
        "no-v": (with_(container(), "shop:1.2.0", "image"), "SemVer"),
        "a-branch": (with_(container(), "shop:main", "image"), "SemVer"),
        "no-image": (without(container(), "image"), "image is missing"),
        "no-security": (without(container(), "securityContext"), "runAsNonRoot"),
        "may-be-root": (without(container(), "securityContext", "runAsNonRoot"), "runAsNonRoot"),
        "says-root": (with_(container(), False, "securityContext", "runAsNonRoot"), "runAsNonRoot"),
        "is-root": (with_(container(), 0, "securityContext", "runAsUser"), "runAsUser"),
        "writable-root": (without(container(), "securityContext", "readOnlyRootFilesystem"), "readOnlyRootFilesystem"),
        "escalation": (without(container(), "securityContext", "allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
        "privileged": (with_(container(), True, "securityContext", "privileged"), "privileged"),
        "capabilities": (without(container(), "securityContext", "capabilities"), "capabilities"),
        "one-capability": (with_(container(), ["NET_RAW"], "securityContext", "capabilities", "drop"), "capabilities"),
        "seccomp": (without(container(), "securityContext", "seccompProfile"), "seccompProfile"),
        "unconfined": (with_(container(), "Unconfined", "securityContext", "seccompProfile", "type"), "seccompProfile"),
        "no-liveness": (without(container(), "livenessProbe"), "livenessProbe is missing"),
        "no-cpu": (without(container(), "resources", "requests", "cpu"), "resources.requests.cpu"),
        "no-memory-limit": (without(container(), "resources", "limits"), "resources.limits.memory"),
        "no-resources": (without(container(), "resources"), "resources.requests.ephemeral-storage"),
    }
    | {
        f"liveness-{name}": (with_(container(), LIVENESS[name] + 1, "livenessProbe", name), f"livenessProbe.{name}")
        for name in LIVENESS
        if name != "httpGet"
    }
    | {
        f"default-{name}": (without(container(), "livenessProbe", name), f"livenessProbe.{name}")
        for name in LIVENESS
        if name != "httpGet"
    }
)


@pytest.mark.parametrize(("one", "said"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_r27_a_violation_is_refused_in_a_container_and_in_a_native_sidecar(deny, one, said):
    native = pod(initContainers=[one | {"name": "native", "restartPolicy": "Always"}])

    assert any(said in message for message in deny(pod(one)))
    assert any(said in message and "container native" in message for message in deny(native))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (_hosted(without(GOOD_MOUNT, "readOnly")), "readOnly"),
        (_hosted(GOOD_MOUNT | {"readOnly": False}), "readOnly"),
        (_hosted(without(GOOD_MOUNT, "subPathExpr")), "subPathExpr"),
        (_hosted(GOOD_MOUNT, "/var/log"), "only /var/log/pods"),
        (_hosted(GOOD_MOUNT, "/"), "only /var/log/pods"),
        (pod(hostNetwork=True), "hostNetwork"),
        (pod(hostPID=True), "hostPID"),
        (pod(hostIPC=True), "hostIPC"),
    ],
    ids=["writable", "says-writable", "everybodys", "var-log", "root", "network", "pid", "ipc"],
)
def test_reaching_into_the_node_is_refused(deny, bad, said):
    assert any(said in message for message in deny(bad))


def _in(kind):
    spec = pod(container(image="shop:latest"))["spec"]
    template = {"metadata": {}, "spec": spec}
    wrapped = {"CronJob": {"jobTemplate": {"spec": {"template": template}}}, "Pod": spec}
    return {"kind": kind, "metadata": {"name": "x"}, "spec": wrapped.get(kind, {"template": template})}


KINDS = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_workload_is_looked_at_alone_and_in_a_list(deny, kind):
    listed = {"kind": "List", "items": [{"kind": "ConfigMap"}, _in(kind)]}

    assert any(f"{kind}/x" in message and "latest" in message for message in deny(_in(kind)))
    assert any(f"{kind}/x" in message and "latest" in message for message in deny(listed))


def test_a_container_that_ends_needs_no_liveness_probe(deny):
    plain = without(container(), "livenessProbe")
    job = {"kind": "Job", "metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [plain]}}}}

    assert deny(job) == []
    assert deny(pod(initContainers=[plain | {"name": "init"}])) == []


def test_what_the_pod_says_counts_where_the_container_says_nothing(deny):
    one = without(without(container(), "securityContext", "runAsNonRoot"), "securityContext", "seccompProfile")
    of_pod = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}

    assert deny(pod(one, securityContext=of_pod)) == []
    assert deny(pod(with_(one, False, "securityContext", "runAsNonRoot"), securityContext=of_pod)) != []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (f"ghcr.io/x/shop:v1.0.0@{DIGEST}", None),
        ("ghcr.io/x/shop:v1.0.0", None),
        (f"ghcr.io/x/other:v1.0.0@{OTHER}", None),  # nothing is known of it
        (f"ghcr.io/x/shop:v1.0.0@{OTHER}", f"v1.0.0 was released as {DIGEST}"),
        ("ghcr.io/x/shop:v1.0.1", "this tag has not been released"),
    ],
)
def test_a_tag_is_what_it_was_when_it_was_released(image, said):
    deny = policies.load({"release": {"ghcr.io/x/shop": {"v1.0.0": DIGEST}}})

    messages = deny(pod(container(image=image)))

    assert [said in message for message in messages] == ([True] if said else [])


def test_what_is_no_workload_is_let_through(deny):
    assert deny({"kind": "Service", "spec": {"ports": []}}) == []
    assert deny({"kind": "Deployment", "metadata": {}, "spec": {"template": {"spec": {}}}}) == []


def test_the_gatekeeper_template_holds_the_policies_as_they_are():
    template = next(yaml.safe_load_all((policies.FOLDER / "gatekeeper.yaml").read_text()))
    (target,) = template["spec"]["targets"]
    (code,) = target["code"]

    assert code["engine"] == "Rego"
    assert code["source"]["version"] == "v1"
    assert code["source"]["libs"] == [(policies.FOLDER / "workloads.rego").read_text()]


def test_gatekeepers_entry_says_what_the_policies_say():
    """Gatekeeper hands the object over as input.review.object and wants violations with a msg."""
    template = next(yaml.safe_load_all((policies.FOLDER / "gatekeeper.yaml").read_text()))
    source = template["spec"]["targets"][0]["code"][0]["source"]
    asked = policies.load(
        modules={"lib": source["libs"][0], "entry": source["rego"]}, query="data.ginsidecar.violation"
    )

    said = asked({"review": {"object": pod(container(image="shop:latest"))}})

    assert [one["msg"] for one in said] == [
        "Pod/shop, container shop: image shop:latest: latest is another program tomorrow"
    ]
