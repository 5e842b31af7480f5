"""Rule R5: who gets a sidecar, as one table; and what the patch looks like."""

from __future__ import annotations

import itertools
import json

import pytest

from sidecar.injector import names, patch, review, workloads
from sidecar.injector.settings import Config, Defaults
from tests.support import pods

REFUSED = {
    "host_network": {"hostNetwork": True},
    "windows": {"os": {"name": "windows"}},
    "port_taken": {"initContainers": [{"name": "other", "ports": [{"containerPort": 9180}]}]},
    "already_injected": {"initContainers": [{"name": names.CONTAINER}]},
}


def plan(label, *, selected=False, namespace="shop", spec=None, annotations=None, config=None, auto="cri"):
    metadata = {
        "name": "shop",
        "labels": {} if label is None else {names.INJECT: label},
        "annotations": annotations or {},
    }
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "x"}], **(spec or {})}}
    return patch.plan(pod, config or Config(), namespace=namespace, auto=auto, selected=selected)


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

    decision = plan("true", spec={"containers": [container]})

    asked = review.parse(json.dumps(pods.review({})).encode())
    [warning] = json.loads(review.answer(asked, decision).body)["response"]["warnings"]
    assert len(warning) == review.WARNING_CHARACTERS
    assert "a" * 300 in decision.warnings[0], "the offline command has room for all of it"


@pytest.mark.parametrize(("protocol", "reason"), [("UDP", "injected"), ("SCTP", "injected"), ("TCP", "port_taken")])
def test_r05_a_port_of_another_protocol_is_another_port(protocol, reason):
    ports = [{"containerPort": 9180, "protocol": protocol}]

    assert plan("true", spec={"containers": [{"name": "app", "ports": ports}]}).reason == reason


def test_r05_an_init_container_is_told_from_no_container():
    spec = {"containers": [{"name": "app"}], "initContainers": [{"name": "migrate"}]}

    def said(name):
        return plan("true", spec=spec, annotations={"gin-sidecar.io/container": name}).warnings[0]

    assert "migrate is an init container" in said("migrate")
    assert "nobody is no container" in said("nobody")


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


@pytest.mark.parametrize("by", ["annotation", "default"])
def test_where_hostpath_is_forbidden_a_wish_for_it_gets_a_warning_and_not_a_pod_that_is_refused(by):
    wish = {"gin-sidecar.io/log-mode": "cri"} if by == "annotation" else {}
    config = Config(defaults=Defaults(log_mode="cri" if by == "default" else "auto"))

    decision = plan("true", annotations=wish, config=config, auto="api")

    assert (decision.reason, decision.patch) == ("pod_security", [])
    assert "use auto" in decision.warnings[0]
    assert plan("true", annotations=wish, config=config, auto="cri").mode == "cri"


FILE = {"gin-sidecar.io/log-mode": "file"}
LOG = "gin-sidecar.io/log-path"


@pytest.mark.parametrize(
    "volume",
    [
        {"name": names.LOGS, "hostPath": {"path": "/var/log/pods", "type": "Directory"}},
        {"name": names.LOGS, "emptyDir": {}},
        {"name": names.TMP, "hostPath": {"path": "/"}},
        {"name": names.STATE, "secret": {"secretName": "other"}},
        {"name": names.STATE, "emptyDir": {"sizeLimit": "1Mi"}},
    ],
    ids=lambda volume: "-".join([volume["name"], *list(volume)[1:]]),
)
def test_r14_a_volume_with_our_name_that_is_not_ours_is_mounted_nowhere(volume):
    """Rule R14: the node's logs are never writable, and never the application's."""
    decision = plan("true", annotations={**FILE, LOG: "/var/log/shop/shop.log"}, spec={"volumes": [volume]})

    assert (decision.reason, decision.patch) == ("volume_taken", [])
    assert volume["name"] in decision.warnings[0]


def test_a_volume_that_is_what_would_be_made_is_used_and_state_may_be_a_claim():
    claim = {"name": names.STATE, "persistentVolumeClaim": {"claimName": "shop"}}
    tmp = {"name": names.TMP, "emptyDir": {"sizeLimit": "16Mi"}}

    decision = plan("true", spec={"volumes": [claim, tmp]})

    made = [one["value"]["name"] for one in decision.patch if one["path"] == "/spec/volumes/-"]
    assert made == [names.LOGS]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shop.log",
        "/etc/ssl/certs/shop.log",
        "/usr/bin/shop.log",
        "/usr/local/bin/shop.log",
        "/proc/shop.log",
        "/proc/self/fd/1",
        "/dev/stdout",
        "/sys/shop.log",
        "/var/run/secrets/kubernetes.io/serviceaccount/shop.log",
        "/var/shop.log",
        "/opt/shop.log",
        "/app/shop.log",
        "/srv/shop/logs/shop.log",
    ],
)
def test_a_directory_that_the_application_needs_is_not_hidden_by_a_volume(path):
    spec = {"containers": [{"name": "app", "workingDir": "/srv/shop/logs/a" if path.startswith("/srv") else "/app"}]}

    decision = plan("true", annotations={**FILE, LOG: path}, spec=spec)

    assert (decision.reason, decision.patch) == ("log_volume", [])
    assert path.rpartition("/")[0] in decision.warnings[0]


@pytest.mark.parametrize("path", ["/var/log/shop.log", "/logs/shop.log", "/usr/src/app/logs/x.log", "/opt/shop/l.log"])
def test_a_directory_of_logs_may_be_anywhere_else(path):
    assert plan("true", annotations={**FILE, LOG: path}).injected


def test_a_log_that_is_a_mount_of_its_own_cannot_be_shared():
    """A mount of our directory would lie below it, and the sidecar would follow another file."""
    mount = {"name": "v", "mountPath": "/var/log/shop/shop.log", "subPath": "shop.log"}
    spec = {"containers": [{"name": "app", "volumeMounts": [mount]}], "volumes": [{"name": "v", "emptyDir": {}}]}

    decision = plan("true", annotations={**FILE, LOG: "/var/log/shop/shop.log"}, spec=spec)

    assert decision.reason == "log_volume"
    assert "mount its directory" in decision.warnings[0]


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("cpu-request: 64Mi", "CPU"),
        ("memory-request: 1m", "at least 16Mi"),
        ("memory-limit: 64m", "at least 64Mi"),
        ("memory-limit: 8Mi", "at least 64Mi"),
    ],
)
def test_r05_an_amount_of_another_kind_is_told_from_one(annotation, says):
    key, _, text = annotation.partition(": ")

    decision = plan("true", annotations={f"{names.DOMAIN}/{key}": text})

    assert decision.reason == "invalid_annotation"
    assert says in decision.warnings[0]
