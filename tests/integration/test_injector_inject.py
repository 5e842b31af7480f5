"""`sidecar inject`: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import io
import json
import re
import sys

import pytest
import yaml

from sidecar import cli
from sidecar.injector import manifests, names, patch, workloads
from sidecar.injector.settings import Config
from tests.support import pods

SHOP = """\
# Source: shop/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop, gin-sidecar.io/inject: "true"}
    spec:
      containers:
      - name: app
        image: y            # kubectl reads y as true
        args: [0o17, 1e3, "yes", 2024-01-01, '1', |-]
"""
SHOP = SHOP.replace(", |-", "")
OTHER = """\
---
apiVersion: v1
kind: ConfigMap
metadata:   {name: shop}
data:
    odd: &a   "spaces"   # and a comment
    same: *a
    text: |
      ---not a document
      kind: Deployment
"""


@pytest.fixture
def inject(monkeypatch, capfdbinary):
    """Return a function that runs the command on a stream: exit code, stdout, stderr."""

    def run(stream, *arguments):
        data = stream if isinstance(stream, bytes) else stream.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = cli.main(["inject", *arguments])
        out = capfdbinary.readouterr()
        return code, out.out.decode(), out.err.decode()

    return run


def template(manifest):
    """Return the pod template of a manifest."""
    for part in workloads.template_path(manifest):
        manifest = manifest[part]
    return manifest


def workload(kind, *, group="apps/v1", labels=None, name="shop"):
    pod = {
        "metadata": {"labels": labels or {names.INJECT: "true"}},
        "spec": {"containers": [{"name": "app", "image": "x"}]},
    }
    manifest = {"apiVersion": group, "kind": kind, "metadata": {"name": name}}
    path = workloads.template_path(manifest)
    if not path:
        return {**manifest, "metadata": {"name": name, **pod["metadata"]}, "spec": pod["spec"]}
    for part in reversed(path[1:]):
        pod = {part: pod}
    return {**manifest, path[0]: pod}


def test_a_document_without_workloads_stays_byte_by_byte(inject):
    code, out, err = inject(f"{SHOP}{OTHER}---\n# nothing\n")

    assert (code, err) == (0, "")
    assert out.startswith("# Source: shop/templates/deployment.yaml\n")
    assert out.endswith(f"{OTHER}---\n# nothing\n")


def test_scalars_of_a_changed_document_stay_as_they_were_written(inject):
    _, out, _ = inject(SHOP)

    assert "image: y\n" in out
    assert "args: [0o17, 1e3, \"yes\", 2024-01-01, '1']\n" in out


def test_r11_a_second_run_changes_nothing(inject):
    _, once, _ = inject(f"{SHOP}{OTHER}", "--log-mode", "api")

    code, twice, _ = inject(once, "--log-mode", "api")

    assert code == 0
    assert twice == once
    assert inject(once, "--check")[0] == 0


def test_check_tells_what_would_change_and_writes_nothing(inject):
    code, out, err = inject(f"{SHOP}{OTHER}", "--check")

    assert code == 3
    assert out == ""
    assert "Deployment/shop would change" in err


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        ("Pod", "v1"),
        ("ReplicationController", "v1"),
        ("PodTemplate", "v1"),
        ("Deployment", "apps/v1"),
        ("StatefulSet", "apps/v1"),
        ("DaemonSet", "apps/v1"),
        ("ReplicaSet", "apps/v1"),
        ("Job", "batch/v1"),
        ("CronJob", "batch/v1"),
        ("Rollout", "argoproj.io/v1alpha1"),
    ],
)
def test_r11_every_kind_of_workload_gets_it(inject, kind, group):
    _, out, _ = inject(pods.dump(workload(kind, group=group)))

    [manifest] = yaml.safe_load_all(out)
    container = pods.sidecar_of(template(manifest))
    assert pods.environment(container)["SIDECAR_SERVICE_NAME"] == "shop"


def test_r11_kinds_of_other_groups_are_not_workloads(inject):
    manifest = workload("Deployment") | {"apiVersion": "example.com/v1"}

    assert inject(pods.dump(manifest))[1] == pods.dump(manifest)


def test_r11_a_deployment_becomes_what_its_pods_become_at_the_webhook(inject):
    """Rule R11: one decision for both."""
    manifest = workload("Deployment")
    pod = copy.deepcopy(template(manifest))
    pod["metadata"]["labels"]["pod-template-hash"] = "5d4f"
    pod["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "shop-5d4f", "controller": True}]
    at_webhook = patch.plan(pod, Config(), namespace="default", auto="cri", selected=True)

    _, out, _ = inject(pods.dump(manifest), "-o", "patch")

    offline = json.loads(out)["patch"]
    prefix = "/spec/template"
    assert [{**one, "path": one["path"].removeprefix(prefix)} for one in offline] == at_webhook.patch
    assert all(one["path"].startswith(prefix) for one in offline)


def test_a_patch_is_one_line_per_workload_and_says_whose_it_is(inject):
    stream = pods.dump(workload("Deployment")) + "---\n" + pods.dump(workload("CronJob", group="batch/v1"))

    _, out, _ = inject(stream, "-o", "patch")

    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["patch"][0]["path"].split("/")[2] for line in lines] == ["template", "jobTemplate"]
    assert [line["workload"] for line in lines] == ["Deployment/shop", "CronJob/shop"]
    assert [line["document"] for line in lines] == [
        "stdin line 1",
        f"stdin line {stream.count(chr(10), 0, stream.index('---')) + 1}",
    ]


def test_a_patch_over_the_api_does_not_lose_the_permissions(inject):
    _, out, _ = inject(SHOP, "-o", "patch", "--log-mode", "api")

    first, *created = [json.loads(line) for line in out.splitlines()]
    assert first["workload"] == "Deployment/shop"
    assert [one["create"]["kind"] for one in created] == ["Role", "RoleBinding"]


def test_r11_items_of_a_list_are_workloads(inject):
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [workload("Deployment"), {"kind": "Other"}, workload("Pod", group="v1")],
    }

    _, out, _ = inject(pods.dump(listed))

    [after] = yaml.safe_load_all(out)
    assert pods.sidecar_of(after["items"][0]["spec"]["template"])
    assert after["items"][1] == {"kind": "Other"}
    assert pods.sidecar_of(after["items"][2])


def test_json_stays_json(inject):
    _, out, _ = inject(json.dumps(workload("Deployment"), indent=4))

    assert pods.sidecar_of(json.loads(out)["spec"]["template"])


def test_without_a_label_only_all_or_the_namespace_injects(inject):
    plain = pods.dump(
        workload("Deployment", labels={"app": "shop"}) | {"metadata": {"name": "shop", "namespace": "shop"}}
    )
    namespace = (
        '---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {gin-sidecar.io/inject: "true"}}\n'
    )

    assert inject(plain)[1] == plain
    assert "gin-sidecar-state" in inject(plain, "--all")[1]
    assert "gin-sidecar-state" in inject(plain + namespace)[1]
    out = pods.dump(workload("Deployment", labels={names.INJECT: "false"}))
    assert inject(out, "--all")[1] == out, "the pod's own label wins"


@pytest.mark.parametrize(("level", "mode"), [("privileged", "cri"), ("baseline", "api"), ("restricted", "api")])
def test_auto_is_what_the_pod_security_of_a_namespace_in_the_stream_allows(inject, level, mode):
    namespace = (
        f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{names.POD_SECURITY}: {level}}}}}\n"
    )

    _, out, _ = inject(SHOP + namespace)

    deployment = next(yaml.safe_load_all(out))
    status = json.loads(deployment["spec"]["template"]["metadata"]["annotations"][names.STATUS])
    assert status["mode"] == mode


def test_r19_reading_over_the_api_brings_its_permission_once(inject):
    """Rule R19: exactly `get` of `pods/log`, for the workload's service account."""
    stream = SHOP.replace("    spec:\n", "    spec:\n      serviceAccountName: shopper\n", 1)

    _, out, _ = inject(stream, "--log-mode", "api")

    role, binding = [one for one in yaml.safe_load_all(out) if one["kind"].startswith("Role")]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
    assert (role["metadata"]["namespace"], role["metadata"]["name"]) == ("shop", "gin-sidecar-logs")
    assert binding["roleRef"]["name"] == "gin-sidecar-logs"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "shopper", "namespace": "shop"}]
    assert "RoleBinding" not in inject(SHOP, "--log-mode", "cri")[1]


def test_aliases_of_a_changed_document_are_written_out(inject):
    stream = """\
apiVersion: v1
kind: List
items:
- &one
  apiVersion: v1
  kind: Pod
  metadata: {name: a, labels: {gin-sidecar.io/inject: "true"}}
  spec: &spec {containers: &c [{name: app, image: x}]}
- <<: *one
  metadata: {name: b}
"""

    _, out, _ = inject(stream)

    first, second = yaml.safe_load(out)["items"]
    assert pods.sidecar_of(first)
    assert [one["name"] for one in second["spec"]["containers"]] == ["app"]
    assert "initContainers" not in second["spec"]


def test_line_ends_and_the_byte_order_mark_stay(inject):
    _, out, _ = inject("\ufeff" + (SHOP + OTHER).replace("\n", "\r\n"))

    assert out.startswith("\ufeff# Source")
    assert out.replace("\r\n", "").count("\n") == 0
    assert out.endswith(OTHER.replace("\n", "\r\n"))


def test_a_workload_that_cannot_have_it_stays_and_is_named(inject):
    stream = SHOP.replace("    spec:\n", "    spec:\n      hostNetwork: true\n", 1)

    code, out, err = inject(stream)

    assert (code, out) == (0, stream)
    assert "Deployment/shop: not injected: hostNetwork" in err


@pytest.mark.parametrize(
    ("stream", "line", "says"),
    [
        (f"{SHOP}---\na:\n\t- b\n", 17, "tab"),
        (f"{SHOP}---\na: 1\nb: 2\na: 3\n", 18, "stands here and on line"),
        ("a: [\n", 2, "not YAML"),
        ("{{ if .Values.x }}\na: b\n{{ end }}\n", 2, "not YAML"),
        ("a: *nobody\n", 1, "alias"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        (SHOP.replace("containers:\n", "containers: app\n      others:\n"), 1, "spec.containers"),
        (SHOP.replace('inject: "true"', "inject: true"), 1, "quote true"),
        (b"a: \xff\n", 1, "UTF-8"),
    ],
    ids=[
        "tab",
        "duplicate key",
        "unfinished",
        "a template",
        "no such anchor",
        "an object",
        "containers",
        "a boolean",
        "bytes",
    ],
)
def test_what_is_malformed_is_said_with_its_line_and_nothing_is_written(inject, stream, line, says):
    code, out, err = inject(stream)

    assert (code, out) == (2, "")
    assert f"stdin line {line}" in err
    assert says in err


def test_aliases_that_grow_without_bound_are_refused(inject):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    lines = "".join(f"  {line}\n" for line in bomb.splitlines())

    code, _, err = inject(f"{SHOP}extra:\n{lines}")

    assert code == 2
    assert "aliases" in err


def test_a_part_of_a_workload_that_does_not_ask_stays(inject):
    """A kustomize patch has no containers, and is nobody's mistake."""
    partial = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec: {replicas: 2}\n"

    assert inject(partial)[:2] == (0, partial)


def test_settings_come_from_the_same_section_as_the_webhook_s(inject, tmp_path):
    config = tmp_path / "injector.yaml"
    config.write_text("injector: {image: 'r/one:v1', defaults: {loki_url: 'http://loki:3100', log_mode: api}}\n")

    _, out, _ = inject(SHOP, "-c", str(config), "--image", "r/two:v2", "--log-mode", "cri")

    container = pods.sidecar_of(next(yaml.safe_load_all(out))["spec"]["template"])
    assert container["image"] == "r/two:v2"
    assert pods.environment(container)["SIDECAR_SINKS_LOKI_URL"] == "http://loki:3100"
    assert pods.environment(container)["SIDECAR_SOURCE_KIND"] == "cri"


def test_a_file_is_read_and_a_missing_one_is_said(inject, tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)

    assert inject("", "-f", str(path))[1] == inject(SHOP)[1]
    code, _, err = inject("", "-f", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err


def test_nothing_in_nothing_out(inject):
    assert inject("") == (0, "", "")
    assert inject("---\n---\n") == (0, "---\n---\n", "")


def test_the_result_says_what_changed():
    result = manifests.inject([("stdin", SHOP)], Config(), manifests.Asked())

    [change] = result.changes
    assert (change.name, change.namespace, change.service_account, change.mode) == (
        "Deployment/shop",
        "shop",
        "default",
        "cri",
    )


@pytest.mark.parametrize(("arguments", "subject"), [((), "default"), (("-n", "shop"), "shop")])
def test_permissions_leave_out_the_namespace_that_the_workload_leaves_out(inject, arguments, subject):
    """`kubectl apply -n` decides for both, or the Role would be somewhere else than the pods."""
    _, out, err = inject(pods.dump(workload("Deployment")), "--log-mode", "api", *arguments)

    role, binding = [one for one in yaml.safe_load_all(out) if one["kind"].startswith("Role")]
    assert "namespace" not in role["metadata"]
    assert "namespace" not in binding["metadata"]
    assert binding["subjects"][0]["namespace"] == subject
    assert ("say -n NAMESPACE" in err) is (not arguments)
    assert inject(out, "--log-mode", "api", *arguments)[1] == out


def test_json_with_its_permissions_is_json(inject):
    _, out, _ = inject(json.dumps(workload("Deployment")), "--log-mode", "api", "-n", "shop")

    whole = json.loads(out)
    assert whole["kind"] == "List"
    assert [one["kind"] for one in whole["items"]] == ["Deployment", "Role", "RoleBinding"]
    assert inject(out, "--log-mode", "api", "-n", "shop")[1] == out


def test_a_json_list_gets_its_permissions_among_its_items(inject):
    listed = {"apiVersion": "v1", "kind": "List", "metadata": {"x": "y"}, "items": [workload("Deployment")]}

    _, out, _ = inject(json.dumps(listed), "--log-mode", "api", "-n", "shop")

    whole = json.loads(out)
    assert whole["metadata"] == {"x": "y"}
    assert [one["kind"] for one in whole["items"]] == ["Deployment", "Role", "RoleBinding"]


def test_a_changed_document_has_no_anchors_and_no_aliases_whatever_was_merged(inject):
    """YAML 1.2 refuses an alias as a key, which a shared key would be written as."""
    stream = """\
apiVersion: v1
kind: List
x: &env {a: b, c: d}
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a, labels: {gin-sidecar.io/inject: "true"}, annotations: {<<: *env, e: f}}
  spec: {containers: [{name: app, image: x, env: &vars [{name: N, value: v}]}, {name: b, image: x, env: *vars}]}
"""

    _, out, _ = inject(stream)

    assert not re.search(r"(^|[\s{\[,])[&*]\w", out)
    [item] = yaml.safe_load(out)["items"]
    assert {"a": "b", "c": "d", "e": "f"}.items() <= item["metadata"]["annotations"].items()
    assert item["spec"]["containers"][1]["env"] == [{"name": "N", "value": "v"}]


def test_several_files_become_one_stream(inject, tmp_path):
    for name, text in (("a.yaml", SHOP), ("b.yaml", OTHER.removeprefix("---\n").rstrip("\n")), ("c.yaml", SHOP)):
        (tmp_path / name).write_text(text)
    files = [word for name in "abc" for word in ("-f", str(tmp_path / f"{name}.yaml"))]

    _, out, _ = inject("", *files)

    assert [one["kind"] for one in yaml.safe_load_all(out)] == ["Deployment", "ConfigMap", "Deployment"]
    assert out.count("image: ghcr.io/gin-sidecar/") == 2


def test_what_is_injected_with_another_image_is_said_to_stay(inject):
    _, once, _ = inject(SHOP, "--image", "r/one:v1")

    code, out, err = inject(once, "--image", "r/two:v2")

    assert (code, out) == (0, once)
    assert "Deployment/shop: already injected, with r/one:v1" in err
    assert inject(once, "--image", "r/one:v1")[2] == ""


def test_a_label_and_annotations_on_the_workload_itself_are_said_to_belong_on_its_pods(inject):
    manifest = workload("Deployment", labels={"app": "shop"})
    manifest["metadata"] |= {
        "labels": {names.INJECT: "true"},
        "annotations": {"gin-sidecar.io/log-mode": "api", "other": "x"},
    }

    _, out, err = inject(pods.dump(manifest))

    assert out == pods.dump(manifest)
    assert "label gin-sidecar.io/inject belongs on the pods: move it to spec.template.metadata.labels" in err
    assert "gin-sidecar.io/log-mode belongs on the pods: move it to spec.template.metadata.annotations" in err
    assert "other" not in err
    manifest["spec"]["template"]["metadata"]["labels"] |= {names.INJECT: "true"}
    del manifest["metadata"]["annotations"]
    assert inject(pods.dump(manifest))[2] == ""
