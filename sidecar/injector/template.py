"""What is put into a pod, as one tree with holes: the container, its volumes, its mount beside the application's.

Problem: webhook, offline command and admission policy must put the same into a pod, and two of them speak Python, the
third CEL.
Promise: this tree is the only description. `fill` makes JSON of it with the variables of one pod; `policy` writes the
same tree as CEL over variables of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sidecar.injector import names

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
LOG_DIRECTORY = "/logs"


@dataclass(frozen=True, slots=True)
class Var:
    """The value of a variable."""

    name: str


@dataclass(frozen=True, slots=True)
class When:
    """Items of a list, or the value of a member, that are there if a variable is true."""

    flag: str
    value: Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One of two values, by a variable."""

    flag: str
    yes: Any
    no: Any


@dataclass(frozen=True, slots=True)
class Rest:
    """Items of a list that a variable holds."""

    name: str


def _env(name: str, value: object) -> dict[str, object]:
    return {"name": name, "value": value}


def _field(name: str, path: str) -> dict[str, object]:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _secret(key: str) -> When:
    name = f"SIDECAR_SINKS_LOKI_{key.upper()}"
    reference = {"name": Var("lokiSecret"), "key": key, "optional": True}
    return When("lokiSecretSet", {"name": name, "valueFrom": {"secretKeyRef": reference}})


_ENV: Final = [
    _field("POD_NAME", "metadata.name"),
    _field("POD_NAMESPACE", "metadata.namespace"),
    _field("POD_UID", "metadata.uid"),
    _field("NODE_NAME", "spec.nodeName"),
    _env("CONTAINER_NAME", Var("container")),
    When("serviceNameSet", _env("SIDECAR_SERVICE_NAME", Var("serviceName"))),
    When("environmentSet", _env("SIDECAR_ENVIRONMENT", Var("environment"))),
    _env("SIDECAR_SOURCE_KIND", Var("sourceKind")),
    When("byContainer", _env("SIDECAR_SOURCE_CONTAINER", Var("container"))),
    When("sourcePathSet", _env("SIDECAR_SOURCE_PATH", Var("sourcePath"))),
    _env("SIDECAR_STATE_DIR", "/state"),
    _env("SIDECAR_HTTP_PORT", Var("portText")),
    _env("SIDECAR_DRAIN_SECONDS", Var("drain")),
    # An ordinary container gets SIGTERM together with the application, which still writes; a native one after it.
    When("ordinary", _env("SIDECAR_SOURCE_WAIT_FOR_QUIET", "2s")),
    When("healthUrlSet", _env("SIDECAR_HEALTH_APP_URL", Var("healthUrl"))),
    When("metricsUrlSet", _env("SIDECAR_METRICS_APP_URL", Var("metricsUrl"))),
    When("lokiUrlSet", _env("SIDECAR_SINKS_LOKI_URL", Var("lokiUrl"))),
    When("lokiTenantSet", _env("SIDECAR_SINKS_LOKI_TENANT_ID", Var("lokiTenant"))),
    When("lokiLabelsSet", _env("SIDECAR_SINKS_LOKI_LABELS", Var("lokiLabels"))),
    When("lokiUrlSet", _env("SIDECAR_SINKS_LOKI_SPOOL_MAX_BYTES", Var("spoolBytes"))),
    _secret("username"),
    _secret("password"),
    _secret("bearer_token"),
    Rest("passedOn"),
]

_RESTRICTED: Final = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

_EPHEMERAL: Final = {"ephemeral-storage": Var("ephemeralRequest")}, {"ephemeral-storage": Var("ephemeralLimit")}


def _probe(path: str, **times: int) -> dict[str, object]:
    return {"httpGet": {"path": path, "port": names.PORT, "scheme": "HTTP"}, **times}


# Liveness never asks for more than the event loop, so that no backend and no application can restart the sidecar.
# Native sidecars hold the application back until they have started: asked every second.
_LIVENESS: Final = _probe("/livez", initialDelaySeconds=10, periodSeconds=5, timeoutSeconds=3, failureThreshold=3)
_STARTUP: Final = _probe("/livez", periodSeconds=1, timeoutSeconds=3, failureThreshold=60)
_READINESS: Final = _probe("/readyz", initialDelaySeconds=10, periodSeconds=5, timeoutSeconds=3, failureThreshold=3)

_SHARED: Final = {"name": Var("logVolume"), "mountPath": LOG_DIRECTORY}

CONTAINER: Final = {
    "name": names.CONTAINER,
    "image": Var("image"),
    "imagePullPolicy": When("pullPolicySet", Var("pullPolicy")),
    "args": ["run"],
    "restartPolicy": When("native", "Always"),
    "env": _ENV,
    "ports": [{"name": names.PORT, "containerPort": Var("port"), "protocol": "TCP"}],
    "startupProbe": _STARTUP,
    "livenessProbe": _LIVENESS,
    "readinessProbe": When("readiness", _READINESS),
    "resources": Choice(
        "podResources",
        # The pod has limits of its own (KEP-2837): a container's share within them would have to fit, so it has none.
        {"requests": _EPHEMERAL[0], "limits": _EPHEMERAL[1]},
        {
            "requests": {"cpu": Var("cpuRequest"), "memory": Var("memoryRequest"), **_EPHEMERAL[0]},
            "limits": {"memory": Var("memoryLimit"), **_EPHEMERAL[1]},
        },
    ),
    "securityContext": Choice(
        "runAsUser", {**_RESTRICTED, "runAsUser": Var("user"), "runAsGroup": Var("group")}, _RESTRICTED
    ),
    "volumeMounts": [
        {"name": names.STATE, "mountPath": "/state"},
        {"name": names.TMP, "mountPath": "/tmp"},  # noqa: S108  the volume
        When(
            "cri",
            {
                "name": names.LOGS,
                "mountPath": LOG_DIRECTORY,
                "subPathExpr": "$(POD_NAMESPACE)_$(POD_NAME)_$(POD_UID)",  # this pod's directory and no other's
                "readOnly": True,
            },
        ),
        When("api", {"name": names.LOGS, "mountPath": SERVICE_ACCOUNT, "readOnly": True}),
        When("sharedRead", {**_SHARED, "readOnly": True}),
        When("sharedReadSub", {**_SHARED, "readOnly": True, "subPath": Var("logSubPath")}),
        When("sharedWrite", _SHARED),
        When("sharedWriteSub", {**_SHARED, "subPath": Var("logSubPath")}),
        # The ServiceAccount plugin mounts the application's token into every container that has nothing there.
        When("noToken", {"name": names.TMP, "mountPath": SERVICE_ACCOUNT, "subPath": "no-token", "readOnly": True}),
    ],
    "terminationMessagePolicy": "FallbackToLogsOnError",
}

VOLUMES: Final = [
    {"name": names.STATE, "emptyDir": {"sizeLimit": Var("stateSize")}},
    {"name": names.TMP, "emptyDir": {"sizeLimit": "16Mi"}},
    When("cri", {"name": names.LOGS, "hostPath": {"path": "/var/log/pods", "type": "Directory"}}),
    When(
        "api",
        {
            "name": names.LOGS,
            "projected": {
                "defaultMode": 420,  # what the API server fills in: a volume that is ours is known by being equal
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                    {
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "namespace",
                                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                }
                            ]
                        }
                    },
                ],
            },
        },
    ),
    When("ownLogVolume", {"name": names.LOGS, "emptyDir": {"sizeLimit": "256Mi"}}),
]

# In the application's container, for the modes that share a directory with it.
MOUNT: Final = {"name": names.LOGS, "mountPath": Var("logDirectory")}


def fill(node: Any, variables: Mapping[str, Any]) -> Any:  # noqa: ANN401  JSON
    """Return the JSON of a tree with these variables."""
    match node:
        case Var(name):
            return variables[name]
        case Choice(flag, yes, no):
            return fill(yes if variables[flag] else no, variables)
        case dict():
            return {
                key: fill(value.value if isinstance(value, When) else value, variables)
                for key, value in node.items()
                if not isinstance(value, When) or variables[value.flag]
            }
        case list():
            return [item for one in node for item in _items(one, variables)]
        case _:
            return node


def _items(node: Any, variables: Mapping[str, Any]) -> list[Any]:  # noqa: ANN401  JSON
    match node:
        case When(flag, value):
            return [fill(value, variables)] if variables[flag] else []
        case Rest(name):
            return list(variables[name])
        case _:
            return [fill(node, variables)]
