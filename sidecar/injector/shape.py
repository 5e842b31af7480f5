"""Whether a pod is made the way the rest of the injector relies on.

Problem: at admission a pod is whatever somebody sent, and a mistake of ours must not become an answer without words.
Promise: what passes has a mapping where a mapping is read, a list where a list is read, text where text is read; what
is absent may be null. Nothing else is looked at, so that fields younger than this program pass. Pure and total.
"""

from __future__ import annotations

from typing import Any

_MAPPINGS = ("labels", "annotations")


def flaw(pod: Any) -> str:  # noqa: ANN401  whatever JSON holds
    """Return what is wrong with the pod, where; "" where it is fine."""
    if not isinstance(pod, dict):
        return "the pod is not an object"
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if metadata is not None and not isinstance(metadata, dict):
        return "metadata is not an object"
    if not isinstance(spec, dict):
        return "spec is not an object"
    return _metadata(metadata or {}) or _spec(spec)


def _metadata(metadata: dict[str, Any]) -> str:
    for name in _MAPPINGS:
        if not _texts(metadata.get(name)):
            return f"metadata.{name} is not a mapping of text to text (quote true and numbers)"
    for name in ("name", "generateName", "namespace"):
        if not isinstance(metadata.get(name, ""), str | None):
            return f"metadata.{name} is not text"
    if not isinstance(metadata.get("ownerReferences"), list | None):
        return "metadata.ownerReferences is not a list"
    return ""


def _spec(spec: dict[str, Any]) -> str:
    if not isinstance(spec.get("containers"), list) or not spec["containers"]:
        return "spec.containers is not a list of containers"
    for name in ("initContainers", "volumes"):
        if not isinstance(spec.get(name), list | None):
            return f"spec.{name} is not a list"
    for name in ("securityContext", "os", "resources"):
        if not isinstance(spec.get(name), dict | None):
            return f"spec.{name} is not an object"
    if not _texts(spec.get("nodeSelector")):
        return "spec.nodeSelector is not a mapping of text to text"
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        return "spec.terminationGracePeriodSeconds is not a whole number"
    for name in ("containers", "initContainers"):
        for container in spec.get(name) or ():
            if found := _container(container):
                return f"spec.{name}: {found}"
    if not all(
        isinstance(volume, dict) and isinstance(volume.get("name"), str) for volume in spec.get("volumes") or ()
    ):
        return "spec.volumes: a volume without a name"
    return ""


def _container(container: Any) -> str:  # noqa: ANN401  whatever JSON holds
    if not isinstance(container, dict) or not isinstance(container.get("name"), str):
        return "a container without a name"
    for name in ("ports", "volumeMounts"):
        items = container.get(name)
        if not isinstance(items, list | None) or not all(isinstance(item, dict) for item in items or ()):
            return f"{name} is not a list of objects"
    for name in ("securityContext", "resources"):
        if not isinstance(container.get(name), dict | None):
            return f"{name} is not an object"
    if not isinstance(container.get("workingDir"), str | None):
        return "workingDir is not text"
    if not isinstance((container.get("resources") or {}).get("limits"), dict | None):
        return "resources.limits is not an object"
    for mount in container.get("volumeMounts") or ():
        if not isinstance(mount.get("mountPath"), str) or not isinstance(mount.get("name"), str):
            return "a volume mount without name and path"
    return ""


def _texts(value: Any) -> bool:  # noqa: ANN401  whatever JSON holds
    if value is None:
        return True
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
