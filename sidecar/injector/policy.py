"""The same injection without a server: a MutatingAdmissionPolicy (Kubernetes 1.36 and later) in CEL.

Problem: a webhook is a server that must be up whenever a pod is made; the API server can do the same by itself.
Promise: what goes into a pod is written from `template`, the tree that the webhook fills, over the variables of
`expressions`. `constants` come first and alone depend on settings, so that a chart can put its values there and leave
the rest as it is.
Refused, because the API server cannot: warnings for whoever applies the manifest, an audit line, and the reason of
a pod that gets nothing. An error in CEL leaves the pod as it is (`failurePolicy: Ignore`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sidecar
from sidecar.injector import cel, expressions, names, settings, template, variables
from sidecar.injector.patch import escaped
from sidecar.injector.template import When

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.injector.settings import Config

NAME = "gin-sidecar"
_API = "admissionregistration.k8s.io/v1"


_NOT_INJECTED = (
    f'!object.spec.containers.exists(c, c.name == "{names.CONTAINER}") && (!has(object.spec.initContainers) '
    f'|| !object.spec.initContainers.exists(c, c.name == "{names.CONTAINER}"))'
)
_NOT_MIRROR = f'!has(object.metadata.annotations) || !("{names.MIRROR}" in object.metadata.annotations)'

_STATUS = (
    f"""'{{"container":"{names.CONTAINER}","follows":"' + variables.container + '","mode":"' + variables.mode"""
    f""" + '","native":' + string(variables.native) + ',"version":"{sidecar.__version__}","volumes":['"""
    f""" + (variables.cri || variables.api || variables.ownLogVolume ? '"{names.LOGS}",' : '')"""
    f""" + '"{names.STATE}","{names.TMP}"]}}'"""
)


def constants(config: Config) -> dict[str, str]:
    """Return the variables that depend on settings alone, as CEL."""
    defaults = config.defaults
    values = variables.constants(config) | {
        "excludedNamespaces": list(config.excluded_namespaces),
        "nativeByVersion": settings.native_by_version(config),
        "prometheus": defaults.prometheus_annotations,
        "limit": defaults.ephemeral_limit,
        "defaultLogMode": defaults.log_mode,
        "defaultLogPath": defaults.log_path,
        "defaultNative": defaults.native,
        "defaultCpuRequest": defaults.cpu_request,
        "defaultMemoryRequest": defaults.memory_request,
        "defaultMemoryLimit": defaults.memory_limit,
        "defaultLokiLabels": settings.labels(defaults.loki_labels),
        "defaultHealthUrl": defaults.app_health_url,
        "defaultMetricsUrl": defaults.app_metrics_url,
    }
    return {name: cel.write(value) for name, value in values.items()}


def manifests(config: Config) -> list[dict[str, Any]]:
    """Return the policy and its binding."""
    return [policy(constants(config)), binding()]


def policy(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the policy over these constants (see `constants`)."""
    excluded = [*names.SYSTEM_NAMESPACES]
    return {
        "apiVersion": _API,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": NAME}},
        "spec": {
            "failurePolicy": "Ignore",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded}
                    ]
                },
                "objectSelector": {
                    "matchExpressions": [{"key": names.INJECT, "operator": "NotIn", "values": ["false"]}]
                },
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
            },
            "matchConditions": [
                {"name": "not-injected-yet", "expression": _NOT_INJECTED},
                {"name": "not-a-mirror-pod", "expression": _NOT_MIRROR},
            ],
            "variables": [
                {"name": name, "expression": text} for name, text in (*given.items(), *expressions.of_pod().items())
            ],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation()}}],
        },
    }


def binding() -> dict[str, Any]:
    """Return what puts the policy into force."""
    return {
        "apiVersion": _API,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": NAME}},
        "spec": {"policyName": NAME},
    }


def _add(path: str, value: str) -> str:
    return f'JSONPatch{{op: "add", path: {path}, value: {value}}}'


def _if(condition: str, operation: str) -> str:
    return f"({condition} ? [{operation}] : [])"


def mutation() -> str:
    """Return the expression that gives the JSON Patch of a pod."""
    volume = _add('"/spec/volumes/-"', "v")
    parts = [
        _if("!has(object.metadata.annotations)", _add('"/metadata/annotations"', "{}")),
        f"[{_add(_annotation(names.STATUS), _STATUS)}]",
        _if(
            f'!("{names.DEFAULT_CONTAINER}" in variables.annotations)',
            _add(_annotation(names.DEFAULT_CONTAINER), "variables.container"),
        ),
        *(
            _if("variables.addPrometheus", _add(_annotation(f"prometheus.io/{name}"), value))
            for name, value in (("scrape", '"true"'), ("port", "variables.portText"), ("path", '"/metrics"'))
        ),
        _if("variables.addIstioPorts", _add(_annotation(variables.ISTIO_PORTS), "variables.istioPorts")),
        _if("!has(object.spec.volumes)", _add('"/spec/volumes"', "[]")),
        f"variables.volumes.filter(v, !variables.volumeNames.exists(n, n == v.name)).map(v, {volume})",
        _if(
            "variables.ownLogVolume && !has(variables.application.volumeMounts)",
            _add('variables.applicationPath + "/volumeMounts"', "[]"),
        ),
        _if("variables.ownLogVolume", _add('variables.applicationPath + "/volumeMounts/-"', cel.write(template.MOUNT))),
        _if("variables.native && !has(object.spec.initContainers)", _add('"/spec/initContainers"', "[]")),
        f"[{_add('variables.containerPath', cel.write(template.CONTAINER))}]",
        *(
            _if(f"variables.{value.flag}", _add(f'variables.memberPath + "/{name}"', cel.write(value.value)))
            for name, value in template.CONTAINER.items()
            if isinstance(value, When)
        ),
    ]
    return "!variables.injects ? [] : (\n  " + "\n  + ".join(parts) + "\n)"


def _annotation(name: str) -> str:
    return f'"/metadata/annotations/{escaped(name)}"'
