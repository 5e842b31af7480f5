"""Golden pods: what they are, what they become, and JSON Patch applied the way the API server does."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sidecar.injector import names, patch
from sidecar.injector.settings import Config, Defaults

DIRECTORY = Path(__file__).parent.parent / "golden" / "pods"


@dataclass
class Case:
    """One golden file: a comment, the circumstances, the pod, and what is said (the last document)."""

    path: Path
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.path.read_text(encoding="utf-8")
        circumstances, self.pod, *said = yaml.safe_load_all(self.text)
        self.namespace: str = circumstances["namespace"]["name"]
        self.labels: dict[str, str] = circumstances["namespace"].get("labels", {})
        self.config = config(circumstances["injector"])
        self.said: dict[str, Any] = said[0] if said else {}

    @property
    def name(self) -> str:
        return self.path.stem

    def plan(self, pod: dict[str, Any] | None = None) -> patch.Decision:
        return patch.plan(
            copy.deepcopy(self.pod) if pod is None else pod,
            self.config,
            namespace=self.namespace,
            auto="api" if self.labels.get(names.POD_SECURITY) in names.NO_HOST_PATH else "cri",
            selected=self.labels.get(names.INJECT) == "true",
        )

    def update(self, said: dict[str, Any]) -> None:
        """Write what is said now into the file."""
        head = "---\n".join(self.text.split("---\n")[:2])
        self.path.write_text(f"{head}---\n{dump(said)}", encoding="utf-8")


def config(section: dict[str, Any]) -> Config:
    """Return the settings that a section `injector` stands for."""
    return Config(**{**section, "defaults": Defaults(**section.get("defaults", {}))})


def cases() -> list[Case]:
    return [Case(path) for path in sorted(DIRECTORY.glob("*.yaml"))]


def dump(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)


def apply(document: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply `add` operations (RFC 6902) to a copy; a parent that does not exist is an error, as it is there."""
    document = copy.deepcopy(document)
    for operation in operations:
        assert operation.keys() == {"op", "path", "value"}
        assert operation["op"] == "add"
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        target: Any = document
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        value = copy.deepcopy(operation["value"])
        if isinstance(target, list):
            place = len(target) if last == "-" else int(last)
            assert 0 <= place <= len(target)
            target.insert(place, value)
        else:
            assert isinstance(target, dict)
            target[last] = value
    return document


def sidecar_of(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the injected container."""
    every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    [found] = [container for container in every if container["name"] == names.CONTAINER]
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return the plain variables of a container."""
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def review(pod: Any, **request: Any) -> dict[str, Any]:
    """Return an AdmissionReview as the API server sends it."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            **request,
        },
    }


def operations(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the patch of an answer; the two fields that carry it come together or not at all."""
    assert ("patch" in response) == ("patchType" in response)
    if "patch" not in response:
        return []
    assert response["patchType"] == "JSONPatch"
    found: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"], validate=True))
    return found
