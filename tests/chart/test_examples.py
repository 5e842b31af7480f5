"""The examples are what our own programs say now."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from tests.support import charts, policies, programs
from tools import release

EXAMPLES = programs.ROOT / "examples"
PLAIN = EXAMPLES / "plain"


def _inject(*arguments):
    command = [sys.executable, "-m", "sidecar", "inject", "-f", str(PLAIN / "shop.yaml"), *arguments]
    return subprocess.run(
        [*command, "-c", str(PLAIN / "injector.yaml")], capture_output=True, text=True, check=False, cwd=programs.ROOT
    )


def test_the_plain_manifests_are_what_the_offline_command_writes(update_golden):
    path = PLAIN / "shop.injected.yaml"
    done = _inject()
    assert done.returncode == 0, done.stderr
    if update_golden:
        path.write_text(done.stdout, encoding="utf-8")

    assert done.stdout == path.read_text(encoding="utf-8")


def test_the_offline_command_finds_nothing_left_to_do_in_them(tmp_path):
    command = [sys.executable, "-m", "sidecar", "inject", "--check", "-f", str(PLAIN / "shop.injected.yaml")]

    done = subprocess.run(
        [*command, "-c", str(PLAIN / "injector.yaml")], capture_output=True, text=True, check=False, cwd=programs.ROOT
    )

    assert done.returncode == 0, done.stderr
    assert _inject("--check").returncode == 3


@pytest.mark.e2e
def test_the_plain_manifests_satisfy_our_policies():
    deny = policies.load()

    for one in yaml.safe_load_all((PLAIN / "shop.injected.yaml").read_text()):
        assert deny(one) == []


def test_argo_cd_follows_a_version_and_leaves_alone_what_the_cluster_writes():
    application = yaml.safe_load((EXAMPLES / "argocd-application.yaml").read_text())
    spec = application["spec"]

    assert spec["source"]["targetRevision"] == release.versions()["helm/gin-sidecar/Chart.yaml version"]
    (ignored,) = spec["ignoreDifferences"]
    assert ignored["kind"] == "MutatingWebhookConfiguration"
    assert ignored["jqPathExpressions"] == [".webhooks[]?.clientConfig.caBundle"]
    options = spec["syncPolicy"]["syncOptions"]
    assert {"CreateNamespace=true", "ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(options)


@pytest.mark.e2e
def test_the_chart_takes_the_values_of_argo_cds_application(tmp_path):
    application = yaml.safe_load((EXAMPLES / "argocd-application.yaml").read_text())
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(application["spec"]["source"]["helm"]["valuesObject"]))

    text = charts.render("--values", str(values), namespace=application["spec"]["destination"]["namespace"])

    kinds = {one["kind"] for one in charts.objects(text)}
    assert {"PodMonitor", "PrometheusRule", "MutatingWebhookConfiguration"} <= kinds
