"""Rule R22: kubeconform, which reads YAML as kubectl does, takes what we write for Kubernetes 1.29, 1.33 and the newest."""

from __future__ import annotations

import pytest
import yaml

from tests.support import charts, kubeschemas, pods, programs

pytestmark = pytest.mark.e2e

VERSIONS = ["1.29", "1.33", "1.37"]
NEWER = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}  # v1 in 1.36


@pytest.fixture(params=VERSIONS, scope="module")
def version(request):
    return request.param


@pytest.fixture(scope="module")
def schemas(version, tmp_path_factory):
    return tmp_path_factory.mktemp(f"schemas-{version}")


def _verdict(version, text, folder, schemas):
    stream = folder / "stream.yaml"
    stream.write_text(text, encoding="utf-8")
    found = charts.objects(text)
    custom = {one["kind"] for one in found if any(group in one["apiVersion"] for group in charts.CUSTOM)}
    young = set() if version == "1.37" else NEWER
    location = kubeschemas.written(version, {(one["apiVersion"], one["kind"]) for one in found}, schemas)
    verdict = kubeschemas.conform(version, stream, location, sorted(custom | young))
    passed_over = sum(one["kind"] in custom | young for one in found)
    return verdict, len(found) - passed_over


@pytest.mark.parametrize("case", charts.CASES)
def test_r22_kubeconform_takes_every_render(case, version, tmp_path, schemas):
    verdict, expected = _verdict(version, charts.render(*charts.values(case)), tmp_path, schemas)

    assert verdict["summary"]["invalid"] == verdict["summary"]["errors"] == 0, verdict
    assert verdict["summary"]["valid"] == expected


def test_r22_kubeconform_takes_every_golden_pod(version, tmp_path, schemas):
    injected = []
    for case in pods.cases():
        if case.said["reason"] != "injected":
            continue
        pod = pods.apply(case.pod, case.plan().patch)
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] = {**pod["metadata"], "name": case.name}
        if version == "1.29":
            pod["spec"].pop("resources", None)  # of pods: younger
        injected.append(pod)

    verdict, expected = _verdict(version, yaml.safe_dump_all(injected, sort_keys=False), tmp_path, schemas)

    assert verdict["summary"]["invalid"] == verdict["summary"]["errors"] == 0, verdict
    assert verdict["summary"]["valid"] == expected == len(injected) > 0


def test_r22_kubeconform_takes_the_plain_manifests(version, tmp_path, schemas):
    text = (programs.ROOT / "examples" / "plain" / "shop.injected.yaml").read_text(encoding="utf-8")

    verdict, expected = _verdict(version, text, tmp_path, schemas)

    assert verdict["summary"]["invalid"] == verdict["summary"]["errors"] == 0, verdict
    assert verdict["summary"]["valid"] == expected > 0


def test_r22_what_only_kubectl_reads_as_a_boolean_would_be_noticed(version, tmp_path, schemas):
    """`image: y` is text for PyYAML and a boolean for kubectl; an unknown field is refused, too."""
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {{name: shop}}\nspec:\n  containers: [{{name: shop, {} }}]\n"
    for number, wrong in enumerate(["image: y", "image: shop:v1, imagePullPolice: Always"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        verdict, _ = _verdict(version, pod.format(wrong), folder, schemas)
        assert verdict["summary"]["invalid"] == 1, wrong
