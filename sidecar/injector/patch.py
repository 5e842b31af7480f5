"""The one decision: does this pod get a sidecar, and which JSON Patch puts it there.

Problem: an observability sidecar that keeps a pod from starting is worse than none.
Promise: `plan` is pure and total: for any value it returns a decision with a reason of a closed set; the patch only
adds; applied to the pod it was made for it yields a valid pod, and planned again it yields nothing. Idempotent by the
container's name, never by an annotation, which people copy. Webhook and offline command share it.
Refused: reading a cluster, replacing what a pod has, writing a pod anew (fields younger than this program would go).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar.injector import names, settings, shape, template, variables, wishes, workloads

if TYPE_CHECKING:
    from sidecar.injector.settings import Config
    from sidecar.injector.wishes import Wishes
    from sidecar.injector.workloads import Workload

INJECTED = "injected"
REASONS = (
    INJECTED,
    "not_a_pod",
    "not_created",
    "malformed_pod",
    "system_namespace",
    "invalid_label",
    "opted_out",
    "not_opted_in",
    "mirror_pod",
    "already_injected",
    "windows",
    "host_network",
    "invalid_annotation",
    "pod_security",
    "log_volume",
    "volume_taken",
    "port_taken",
    "needs_native",
    "internal_error",
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a pod, and why. `patch` is empty unless the reason is `injected`."""

    reason: str
    patch: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    mode: str = ""
    container: str = ""  # the one that is followed
    native: bool = False
    workload: Workload = workloads.UNKNOWN

    @property
    def injected(self) -> bool:
        return self.reason == INJECTED


def skipped(reason: str, warning: str = "", workload: Workload | None = None) -> Decision:
    """Return the decision not to inject, with a warning for whoever applies the manifest."""
    warnings = (f"gin-sidecar: not injected: {warning}",) if warning else ()
    return Decision(reason, warnings=warnings, workload=workload or workloads.UNKNOWN)


def plan(
    pod: Any,  # noqa: ANN401  whatever JSON holds
    config: Config,
    *,
    namespace: str,
    auto: str,
    selected: bool,
    workload: Workload | None = None,
) -> Decision:
    """Decide about one pod, or one pod template.

    `auto` is the log mode that `auto` stands for in this namespace: `cri`, or `api` where hostPath is forbidden and the
    API server would refuse a pod that has it. `selected` says what holds without a label on the pod. `workload` is
    whose pod this is, where the caller knows better than the pod.
    """
    if flaw := shape.flaw(pod):
        return skipped("malformed_pod", flaw)
    pod = pod if pod.get("metadata") else {**pod, "metadata": {}}
    owner = workload or workloads.of_pod(pod)
    if refused := _refusal(pod, config, namespace, selected=selected):
        return skipped(*refused, workload=owner)
    wished = wishes.read(pod["metadata"].get("annotations") or {}, config.defaults)
    if isinstance(wished, wishes.Flaw):
        return skipped("invalid_annotation", str(wished), owner)
    return _inject(pod, wished, config, auto, owner)


def _refusal(pod: dict[str, Any], config: Config, namespace: str, *, selected: bool) -> tuple[str, str] | None:
    """Return why this pod gets no sidecar whatever it asks for: reason and warning. None: it may have one."""
    metadata, spec = pod["metadata"], pod["spec"]
    label = (metadata.get("labels") or {}).get(names.INJECT)
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    every = [*spec["containers"], *(spec.get("initContainers") or ())]
    if namespace in config.excluded_namespaces:
        return "system_namespace", "the namespace is excluded" if label == "true" else ""
    if label not in (None, "true", "false"):
        return "invalid_label", f'label {names.INJECT}: expected "true" or "false"'
    if label == "false":
        return "opted_out", ""
    if label is None and not selected:
        return "not_opted_in", ""
    if names.MIRROR in (metadata.get("annotations") or {}):
        return "mirror_pod", ""
    if any(container["name"] == names.CONTAINER for container in every):
        return "already_injected", ""
    if system == "windows":
        return "windows", "the sidecar runs on Linux only"
    if spec.get("hostNetwork") is True:
        return "host_network", "hostNetwork: two pods of a node would want the same port"
    if taker := _taker(every, config.defaults.port):
        return "port_taken", f"container {taker} has port {config.defaults.port}"
    return None


def _inject(pod: dict[str, Any], wished: Wishes, config: Config, auto: str, owner: Workload) -> Decision:
    spec = pod["spec"]
    follows = variables.container(pod, wished.container)
    if follows is None:
        waits = any(one["name"] == wished.container for one in spec.get("initContainers") or ())
        said = "is an init container; expected one of the containers" if waits else "is no container of the pod"
        text = f"annotation {wishes.KEYS['container']}: {wished.container} {said}"
        return skipped("invalid_annotation", text, owner)
    native = settings.native_by_version(config) if wished.native == "auto" else wished.native == "true"
    if not native and spec.get("restartPolicy", "Always") != "Always":
        text = "a Job would never end beside an ordinary container: it needs a native one"
        return skipped("needs_native", text, owner)
    mode = auto if wished.log_mode == "auto" else wished.log_mode
    if mode == "cri" and auto != "cri":
        return skipped("pod_security", "log-mode cri needs hostPath, forbidden in this namespace: use auto", owner)
    index = next(place for place, one in enumerate(spec["containers"]) if one["name"] == follows)
    where = variables.place(spec["containers"][index], wished.log_path) if mode in ("file", "fifo") else None
    if isinstance(where, str):
        return skipped("log_volume", where, owner)
    values = variables.constants(config) | variables.of_pod(
        pod, wished, config, mode=mode, follows=follows, where=where, native=native
    )
    values = variables.with_workload(values, owner.name)
    wanted = template.fill(template.VOLUMES, values)
    if name := _taken(spec, wanted):
        return skipped("volume_taken", f"volume {name} is not what the sidecar needs: give yours another name", owner)
    added = variables.annotations_to_add(pod, config, values, mode)
    operations = [*_annotate(pod, added), *_volumes(spec, wanted)]
    if where is not None and where.own:
        operations += _append(
            spec["containers"][index], f"/spec/containers/{index}", "volumeMounts", template.MOUNT, values
        )
    operations += _contain(spec, values, native=native)
    return Decision(INJECTED, operations, mode=mode, container=follows, native=native, workload=owner)


def _taker(containers: list[dict[str, Any]], port: int) -> str:
    for container in containers:
        ports = container.get("ports") or ()
        if any(one.get("containerPort") == port and one.get("protocol") in (None, "", "TCP") for one in ports):
            return str(container["name"])
    return ""


def _add(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _annotate(pod: dict[str, Any], added: dict[str, str]) -> list[dict[str, Any]]:
    """Return what adds annotations, one by one, so that those of others stay."""
    operations = [] if pod["metadata"] else [_add("/metadata", {})]
    if pod["metadata"].get("annotations") is None:
        operations.append(_add("/metadata/annotations", {}))
    return operations + [_add(f"/metadata/annotations/{escaped(name)}", text) for name, text in added.items()]


def _taken(spec: dict[str, Any], wanted: list[dict[str, Any]]) -> str:
    """Return the name of a volume of the pod that has our name and is something else; "" where there is none.

    What is mounted must be what we would have made: under our name may stand the node's root, another's secret, or
    the logs of the node, which the application would get to write. State alone may be a claim that outlives the pod.
    """
    ours = {volume["name"]: volume for volume in wanted}
    for volume in spec.get("volumes") or ():
        name: str = volume["name"]
        if name not in ours or volume == ours[name]:
            continue
        if name != names.STATE or not any(volume.get(kind) for kind in names.CLAIMS):
            return name
    return ""


def _volumes(spec: dict[str, Any], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what adds those of our volumes that the pod does not have yet."""
    present = {volume["name"] for volume in spec.get("volumes") or ()}
    operations = [_add("/spec/volumes", [])] if spec.get("volumes") is None else []
    return operations + [_add("/spec/volumes/-", volume) for volume in wanted if volume["name"] not in present]


def _append(
    parent: dict[str, Any], path: str, member: str, node: object, values: dict[str, Any]
) -> list[dict[str, Any]]:
    operations = [_add(f"{path}/{member}", [])] if parent.get(member) is None else []
    return [*operations, _add(f"{path}/{member}/-", template.fill(node, values))]


def _contain(spec: dict[str, Any], values: dict[str, Any], *, native: bool) -> list[dict[str, Any]]:
    """Return what adds the container: first among the init containers, whose logs it then sees, or last of all."""
    container = template.fill(template.CONTAINER, values)
    if not native:
        return [_add("/spec/containers/-", container)]
    operations = [_add("/spec/initContainers", [])] if spec.get("initContainers") is None else []
    return [*operations, _add("/spec/initContainers/0", container)]


def escaped(name: str) -> str:
    """Escape a key for a JSON Pointer; the tilde first, or it would be escaped twice."""
    return name.replace("~", "~0").replace("/", "~1")
