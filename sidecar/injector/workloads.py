"""Whose pod it is, and where in a manifest its pods are described.

Problem: a pod at admission often has no name, and its owner is a ReplicaSet that nobody wrote.
Promise: the workload a person would name, from what the pod itself says. Refused: asking the API server, which costs
time, permissions and a second way to fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

_CRON_JOB = re.compile(r"(.+)-[0-9]{8,10}")


@dataclass(frozen=True, slots=True)
class Workload:
    """What a person wrote to get this pod. The name is "" where nobody can know it yet."""

    kind: str
    name: str


UNKNOWN: Final = Workload("", "")

# API group, kind → where the pod template is; () is the object itself.
TEMPLATES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): ("spec", "template"),
    ("", "PodTemplate"): ("template",),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("argoproj.io", "Rollout"): ("spec", "template"),
}


def template_path(manifest: dict[str, Any]) -> tuple[str, ...] | None:
    """Return where the pod template of a manifest is; None where it describes no pods."""
    version, kind = manifest.get("apiVersion"), manifest.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    group, slash, _ = version.partition("/")
    return TEMPLATES.get((group if slash else "", kind))


def of_pod(pod: dict[str, Any]) -> Workload:
    """Return the workload that a pod belongs to, from its controller's reference and its labels."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    references = metadata.get("ownerReferences") or []
    for reference in references:
        if isinstance(reference, dict) and reference.get("controller") is True:
            kind, name = reference.get("kind"), reference.get("name")
            if isinstance(kind, str) and isinstance(name, str):
                return _behind(kind, name, labels)
    name = metadata.get("name") or (metadata.get("generateName") or "").removesuffix("-")
    return Workload("Pod", name)


def _behind(kind: str, name: str, labels: dict[str, str]) -> Workload:
    """Return who made the controller that made the pod."""
    if kind == "ReplicaSet":
        for label, maker in (("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout")):
            suffix = f"-{labels.get(label)}"
            if label in labels and name.endswith(suffix):
                return Workload(maker, name.removesuffix(suffix))
    if kind == "ReplicationController" and labels.get("deploymentconfig"):
        return Workload("DeploymentConfig", labels["deploymentconfig"])
    if kind == "Job" and (match := _CRON_JOB.fullmatch(name)):
        return Workload("CronJob", match[1])
    return Workload(kind, name)
