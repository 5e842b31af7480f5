"""Render the chart with Helm itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tests.support import programs

if TYPE_CHECKING:
    from pathlib import Path

CHART = programs.ROOT / "helm" / "gin-sidecar"
CASES = ["default", *sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml"))]
# A helm made by `go install` takes itself to face Kubernetes 1.20.
KUBERNETES = ("--kube-version", "1.33.0")
CUSTOM = ("cert-manager.io/", "monitoring.coreos.com/")


def values(case: str) -> tuple[str, ...]:
    return () if case == "default" else ("--values", str(CHART / "ci" / f"{case}-values.yaml"))


def render(*arguments: str, chart: Path = CHART, name: str = "gin-sidecar", namespace: str = "platform") -> str:
    """Return what `helm template` prints."""
    return programs.passes("helm", "template", name, chart, "--namespace", namespace, *KUBERNETES, *arguments)


def objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def of_kind(text: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in objects(text) if one["kind"] == kind]


def only(text: str, kind: str) -> dict[str, Any]:
    (one,) = of_kind(text, kind)
    return one


def pod_templates(text: str) -> list[dict[str, Any]]:
    """Return the pod template of every workload."""
    found = []
    for one in objects(text):
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "containers" in spec.get("template", {}).get("spec", {}):
            found.append(spec["template"])
    return found
