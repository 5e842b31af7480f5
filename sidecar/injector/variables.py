"""What the holes of the template hold: values from the settings, and values from one pod.

Promise: `constants` depends on the settings alone, `of_pod` on the pod, its wishes and the settings; both are pure.
The admission policy (`policy`) says the same in CEL, name by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sidecar
from sidecar import settings as options
from sidecar.injector import grammar, names, settings, template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.injector.settings import Config
    from sidecar.injector.wishes import Wishes

KINDS = {"cri": "cri", "api": "kubernetes", "file": "file", "fifo": "fifo"}
LONGEST_DRAIN, SHORTEST_DRAIN, GRACE, SPARE = 10, 1, 30, 2  # seconds
LONGEST_WAIT = GRACE - SPARE  # of an ordinary container, whose time to drain runs while the application still writes
NO_LIMIT = "1Ti"
ISTIO_PORTS = "traffic.sidecar.istio.io/excludeInboundPorts"
ISTIO_CONTAINERS = ("istio-proxy", "istio-init", "istio-validation")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the application's log is, in volumes."""

    volume: str
    sub_path: str
    mount_path: str  # in the application's container
    own: bool  # the volume is ours, and the application needs a mount


def literal(text: str) -> str:
    """Escape what the kubelet would take for a reference to another variable, or for half of an escaped one."""
    return text.replace("$", "$$")


def expanded(text: str) -> str:
    """Return what the kubelet makes of a literal."""
    return text.replace("$$", "$")


def constants(config: Config) -> dict[str, Any]:
    """Return the variables that are the same for every pod."""
    defaults = config.defaults
    return {
        "image": settings.image(config),
        "pullPolicy": defaults.image_pull_policy,
        "pullPolicySet": bool(defaults.image_pull_policy),
        "port": defaults.port,
        "portText": str(defaults.port),
        "environment": literal(defaults.environment),
        "environmentSet": bool(defaults.environment),
        "lokiUrl": literal(defaults.loki_url),
        "lokiUrlSet": bool(defaults.loki_url),
        "lokiTenant": literal(defaults.loki_tenant_id),
        "lokiTenantSet": bool(defaults.loki_url and defaults.loki_tenant_id),
        "lokiSecret": defaults.loki_secret,
        "lokiSecretSet": bool(defaults.loki_url and defaults.loki_secret),
        "stateSize": defaults.state_size,
        # Spool and dead letters have the same bound: both together take half of the volume, whose end evicts the pod.
        "spoolBytes": str(grammar.amount(defaults.state_size) // 4),
        "ephemeralRequest": defaults.ephemeral_request,
        "runAsUser": defaults.run_as_user,
        "readiness": defaults.readiness_probe,
        "passedOn": [
            {"name": options.variable(name), "value": literal(text)} for name, text in sorted(defaults.settings.items())
        ],
    }


def container(pod: Mapping[str, Any], wished: str) -> str | None:
    """Return the name of the container to follow; None where the wished one is not there."""
    present: list[str] = [one["name"] for one in pod["spec"]["containers"]]
    if wished:
        return wished if wished in present else None
    default: str | None = (pod["metadata"].get("annotations") or {}).get(names.DEFAULT_CONTAINER)
    if default in present:
        return default
    return next((name for name in present if name not in names.FOREIGN), present[0])


def place(application: Mapping[str, Any], path: str) -> Place | str:
    """Return where a path of the application's container is; the innermost mount counts. A text: why it cannot be had.

    Where no volume is mounted one of ours is, over the directory: not where that would hide what the application needs.
    """
    mounts = application.get("volumeMounts") or ()
    if any(mount["mountPath"].removesuffix("/") == path for mount in mounts):
        return f"the application mounts {path} itself: mount its directory"
    inside = [mount for mount in mounts if path.startswith(mount["mountPath"].rstrip("/") + "/")]
    if not inside:
        directory = path.rpartition("/")[0]
        working = f"{application.get('workingDir') or ''}/"
        if grammar.matches(grammar.OCCUPIED, directory) or working.startswith(f"{directory}/"):
            return f"a volume at {directory} would hide what is there: log to a directory of its own"
        return Place(names.LOGS, "", directory, own=True)
    mount = max(inside, key=lambda one: len(one["mountPath"].rstrip("/")))
    if mount.get("subPathExpr"):  # made of the application's variables, which the sidecar does not have
        return f"{path} is on a volume mounted with subPathExpr"
    return Place(mount["name"], mount.get("subPath") or "", mount["mountPath"].rstrip("/"), own=False)


def of_pod(
    pod: Mapping[str, Any],
    wishes: Wishes,
    config: Config,
    *,
    mode: str,
    follows: str,
    where: Place | None,
    native: bool,
) -> dict[str, Any]:
    """Return the variables of one pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    application = next(one for one in spec["containers"] if one["name"] == follows)
    shared = mode in ("file", "fifo")
    user, group = _user(application, spec) if shared else (names.USER, 0 if mode == "cri" else names.USER)
    own = where is not None and where.own
    sub = where is not None and bool(where.sub_path)
    health, metrics = literal(wishes.app_health_url), literal(wishes.app_metrics_url)
    labels = metadata.get("labels") or {}
    service = wishes.service_name or labels.get("app.kubernetes.io/name") or labels.get("app") or ""
    loki_labels = wishes.loki_labels if config.defaults.loki_url else ""
    return {
        "container": follows,
        "serviceName": literal(service),
        "serviceNameSet": bool(service),
        "native": native,
        "ordinary": not native,
        "sourceKind": KINDS[mode],
        "byContainer": not shared,
        "sourcePath": _source_path(mode, wishes.log_path, where),
        "sourcePathSet": mode != "api",
        "cri": mode == "cri",
        "api": mode == "api",
        "noToken": mode != "api",
        "ownLogVolume": own,
        "logVolume": where.volume if where else "",
        "logSubPath": where.sub_path if where else "",
        "logDirectory": where.mount_path if where else "",
        "sharedRead": mode == "file" and not sub,
        "sharedReadSub": mode == "file" and sub,
        "sharedWrite": mode == "fifo" and not sub,
        "sharedWriteSub": mode == "fifo" and sub,
        "drain": f"{_drain(spec, native=native)}s",
        "healthUrl": health,
        "healthUrlSet": bool(health),
        "metricsUrl": metrics,
        "metricsUrlSet": bool(metrics),
        "lokiLabels": loki_labels,
        "lokiLabelsSet": bool(loki_labels),
        "cpuRequest": wishes.cpu_request,
        "memoryRequest": wishes.memory_request,
        "memoryLimit": wishes.memory_limit,
        "ephemeralLimit": config.defaults.ephemeral_limit if _all_limited(spec) else NO_LIMIT,
        "podResources": bool(spec.get("resources")),
        "user": user,
        "group": group,
    }


def with_workload(variables: dict[str, Any], name: str) -> dict[str, Any]:
    """Name the service after the workload, where nothing else names it."""
    if variables["serviceNameSet"] or not name:
        return variables
    return variables | {"serviceName": literal(name), "serviceNameSet": True}


def status(variables: Mapping[str, Any], mode: str) -> str:
    """Return the text of the status annotation: sorted JSON."""
    volumes = [names.LOGS] if mode in ("cri", "api") or variables["ownLogVolume"] else []
    said = {
        "container": names.CONTAINER,
        "follows": variables["container"],
        "mode": mode,
        "native": variables["native"],
        "version": sidecar.__version__,
        "volumes": [*volumes, names.STATE, names.TMP],
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def annotations_to_add(
    pod: Mapping[str, Any], config: Config, variables: Mapping[str, Any], mode: str
) -> dict[str, str]:
    """Return the annotations that the pod gets, in order."""
    present = pod["metadata"].get("annotations") or {}
    added = {names.STATUS: status(variables, mode)}
    if names.DEFAULT_CONTAINER not in present:
        added[names.DEFAULT_CONTAINER] = variables["container"]
    prometheus = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": variables["portText"],
        "prometheus.io/path": "/metrics",
    }
    if config.defaults.prometheus_annotations and not prometheus.keys() & present.keys():
        added |= prometheus
    if in_istio(pod):
        # Probes and scrapes are plain HTTP from outside the mesh, which STRICT mutual TLS would refuse.
        ports = [port for port in present.get(ISTIO_PORTS, "").split(",") if port]
        if variables["portText"] not in ports:
            added[ISTIO_PORTS] = ",".join([*ports, variables["portText"]])
    return added


def in_istio(pod: Mapping[str, Any]) -> bool:
    """Say whether Istio has put its proxy into the pod, or has been asked to by the pod."""
    labels, spec = pod["metadata"].get("labels") or {}, pod["spec"]
    every = [*spec["containers"], *(spec.get("initContainers") or ())]
    return (
        labels.get("sidecar.istio.io/inject") == "true"
        or "istio.io/rev" in labels
        or any(one["name"] in ISTIO_CONTAINERS for one in every)
    )


def _source_path(mode: str, path: str, where: Place | None) -> str:
    if where is not None:
        return template.LOG_DIRECTORY + path[len(where.mount_path) :]
    return template.LOG_DIRECTORY if mode == "cri" else ""


def _user(application: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[int, int]:
    """Return user and group of the application, where it says them: log files are often its owner's only."""
    of_container, of_pod = application.get("securityContext") or {}, spec.get("securityContext") or {}
    user = of_container.get("runAsUser") or of_pod.get("runAsUser") or names.USER
    group = of_container.get("runAsGroup") or of_pod.get("runAsGroup") or names.USER
    return user, group


def _drain(spec: Mapping[str, Any], *, native: bool) -> int:
    """Return how many seconds draining may take: what the pod has, less what the kubelet needs to see the end.

    A native sidecar's time begins when the application is gone. An ordinary one's holds the application's own end too,
    so it has all of the usual grace; not all of a longer one, for a backend that is away would hold up the pod.
    """
    grace = spec.get("terminationGracePeriodSeconds")
    return min(
        LONGEST_DRAIN if native else LONGEST_WAIT, max(SHORTEST_DRAIN, (GRACE if grace is None else grace) - SPARE)
    )


def _all_limited(spec: Mapping[str, Any]) -> bool:
    """Say whether every container that keeps running has a limit of ephemeral storage.

    The kubelet adds up the limits there are and evicts the pod when it uses more than that; a first limit, ours, would
    make one for an application that had none. A LimitRange has filled in its defaults before webhooks are asked; a
    quota on limits of ephemeral storage without one would count all of `NO_LIMIT`, as the chart's README says.
    """
    stays = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return all(
        "ephemeral-storage" in ((one.get("resources") or {}).get("limits") or {})
        for one in [*spec["containers"], *stays]
    )
