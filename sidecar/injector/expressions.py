"""What the webhook works out of a pod in `wishes` and `variables`, said in CEL under the same names.

Promise: for every pod that the API server admits, these variables have the values that the webhook fills in, and
`injects` holds where the webhook injects. That is proved by running both, on the API server's own CEL (tests/e2e).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.injector import cel, grammar, names, template, variables, wishes

if TYPE_CHECKING:
    from collections.abc import Iterator


def _wish(key: str, default: str) -> str:
    name = wishes.KEYS[key]
    return f'"{name}" in variables.annotations ? string(variables.annotations["{name}"]) : variables.{default}'


def _absent_or(key: str, test: str) -> str:
    """Return the test of an annotation's value `a`, which holds where there is none."""
    name = wishes.KEYS[key]
    value = f'string(variables.annotations["{name}"])'
    return f'(!("{name}" in variables.annotations) || [{value}].all(a, {test}))'


def _rules() -> Iterator[str]:
    """Return what the annotations of a pod must be, as the table of rules says."""
    known = cel.write(list(wishes.KNOWN))
    yield f'variables.annotations.all(k, !k.startsWith("{names.DOMAIN}/") || k in {known})'
    for key, rule in wishes.RULES.items():
        yield _absent_or(
            key, f"a in {cel.write(list(rule.choices))}" if rule.choices else f'a.matches(r"^({rule.pattern})$")'
        )
    yield _absent_or("log-path", '!a.split("/").exists(p, p == "." || p == "..")')
    alone = 'a.split(",").filter(q, q.startsWith(p.split("=")[0] + "=")).size() == 1'
    free = f'!p.startsWith("__") && !(p.split("=")[0] in {cel.write(list(grammar.RESERVED_LABELS))})'
    each = f"p.size() <= {grammar.LOKI_LABEL_SIZE} && {free} && {alone}"
    few = f'a.split(",").size() <= {grammar.LOKI_LABELS_COUNT}'
    yield _absent_or("loki-labels", f'a == "" || ({few} && a.split(",").all(p, {each}))')
    yield '(!variables.shared || variables.logPath != "")'
    yield _absent_or("memory-limit", "quantity(a).compareTo(quantity(variables.memoryRequest)) >= 0")


def _security(name: str) -> str:
    places = ("variables.application.securityContext", "object.spec.securityContext")
    tests = (f"has({place}) && has({place}.{name}) && {place}.{name} != 0 ? {place}.{name} : " for place in places)
    return f"({''.join(tests)}{names.USER})"


def _literal(expression: str) -> str:
    return f'({expression}).replace("$", "$$")'


def _label(name: str) -> str:
    return f'("{name}" in variables.labels ? variables.labels["{name}"] : "")'


def of_pod() -> dict[str, str]:
    """Return the variables of a pod, as CEL; each may use those before it and the constants."""
    slash = '(m.mountPath.endsWith("/") ? m.mountPath : m.mountPath + "/")'
    inject = f'"{names.INJECT}"'
    namespace_labels = "variables.namespaceLabels"
    security = f'"{names.POD_SECURITY}"'
    foreign = cel.write(list(names.FOREIGN))
    default = f'"{names.DEFAULT_CONTAINER}"'
    claims = " || ".join(f"has(o.{kind})" for kind in names.CLAIMS)
    kind = "variables.controllers[0].kind"
    owner = "variables.controllers[0].name"

    def made_by(label: str) -> str:
        test = f'{kind} == "ReplicaSet" && "{label}" in variables.labels'
        suffix = f'("-" + variables.labels["{label}"])'
        return f"{test} && {owner}.endsWith({suffix}) ? {owner}.substring(0, size({owner}) - size({suffix})) : "

    def flag(name: str) -> str:
        return f'variables.{name} != ""'

    return {
        "labels": "has(object.metadata.labels) ? object.metadata.labels : {}",
        "annotations": "has(object.metadata.annotations) ? object.metadata.annotations : {}",
        "namespaceLabels": "has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {}",
        "initContainers": "has(object.spec.initContainers) ? object.spec.initContainers : []",
        "every": "object.spec.containers + variables.initContainers",
        "volumeNames": "has(object.spec.volumes) ? object.spec.volumes.map(v, v.name) : []",
        # which container, and how
        "containerNames": "object.spec.containers.map(c, c.name)",
        "container": f'"{wishes.KEYS["container"]}" in variables.annotations '
        f'? variables.annotations["{wishes.KEYS["container"]}"] '
        f": {default} in variables.annotations && variables.annotations[{default}] in variables.containerNames "
        f"? variables.annotations[{default}] "
        f": variables.containerNames.exists(n, !(n in {foreign})) "
        f"? variables.containerNames.filter(n, !(n in {foreign}))[0] : variables.containerNames[0]",
        "application": "object.spec.containers.filter(c, c.name == variables.container)[0]",
        "applicationPath": '"/spec/containers/" + string(variables.containerNames.indexOf(variables.container))',
        "nativeWish": _wish("native", "defaultNative"),
        "native": 'variables.nativeWish == "auto" ? variables.nativeByVersion : variables.nativeWish == "true"',
        "ordinary": "!variables.native",
        "containerPath": 'variables.native ? "/spec/initContainers/0" : "/spec/containers/-"',
        "memberPath": 'variables.native ? "/spec/initContainers/0" '
        ': "/spec/containers/" + string(size(object.spec.containers))',
        "modeWish": _wish("log-mode", "defaultLogMode"),
        "hostPathForbidden": f"{security} in {namespace_labels} "
        f"&& {namespace_labels}[{security}] in {cel.write(list(names.NO_HOST_PATH))}",
        "mode": 'variables.modeWish != "auto" ? variables.modeWish : variables.hostPathForbidden ? "api" : "cri"',
        "cri": 'variables.mode == "cri"',
        "api": 'variables.mode == "api"',
        "noToken": "!variables.api",
        "shared": 'variables.mode == "file" || variables.mode == "fifo"',
        "byContainer": "!variables.shared",
        "sourceKind": 'variables.api ? "kubernetes" : variables.mode',
        # where the log is
        "logPath": _wish("log-path", "defaultLogPath"),
        "inside": "variables.shared && has(variables.application.volumeMounts) "
        f"? variables.application.volumeMounts.filter(m, variables.logPath.startsWith({slash})) : []",
        "innermost": "variables.inside.filter(m, variables.inside.all(o, size(o.mountPath) <= size(m.mountPath)))",
        "reused": "variables.innermost.size() > 0",
        "ownLogVolume": "variables.shared && !variables.reused",
        "logVolume": f'variables.reused ? variables.innermost[0].name : "{names.LOGS}"',
        "logSubPath": 'variables.reused && has(variables.innermost[0].subPath) ? variables.innermost[0].subPath : ""',
        "logDirectory": 'variables.ownLogVolume ? variables.logPath.substring(0, variables.logPath.lastIndexOf("/")) '
        ': !variables.reused ? "" : variables.innermost[0].mountPath.endsWith("/") '
        "? variables.innermost[0].mountPath.substring(0, size(variables.innermost[0].mountPath) - 1) "
        ": variables.innermost[0].mountPath",
        "mountsItself": "has(variables.application.volumeMounts) && variables.application.volumeMounts.exists("
        'm, m.mountPath == variables.logPath || m.mountPath == variables.logPath + "/")',
        "hides": f'variables.logDirectory.matches("^({grammar.OCCUPIED})$") || has(variables.application.workingDir) '
        '&& (variables.application.workingDir + "/").startsWith(variables.logDirectory + "/")',
        "usable": "!variables.shared || !variables.mountsItself && (variables.reused "
        '? !has(variables.innermost[0].subPathExpr) || variables.innermost[0].subPathExpr == "" : !variables.hides)',
        "sourcePath": f'variables.shared ? "{template.LOG_DIRECTORY}" '
        "+ variables.logPath.substring(size(variables.logDirectory)) "
        f': variables.cri ? "{template.LOG_DIRECTORY}" : ""',
        "sourcePathSet": flag("sourcePath"),
        "sharedRead": 'variables.mode == "file" && variables.logSubPath == ""',
        "sharedReadSub": 'variables.mode == "file" && variables.logSubPath != ""',
        "sharedWrite": 'variables.mode == "fifo" && variables.logSubPath == ""',
        "sharedWriteSub": 'variables.mode == "fifo" && variables.logSubPath != ""',
        "user": f"variables.shared ? {_security('runAsUser')} : {names.USER}",
        "group": f"variables.shared ? {_security('runAsGroup')} : variables.cri ? 0 : {names.USER}",
        # what it is called
        "controllers": "has(object.metadata.ownerReferences) "
        "? object.metadata.ownerReferences.filter(r, has(r.controller) && r.controller) : []",
        "ownName": 'has(object.metadata.name) && object.metadata.name != "" ? object.metadata.name '
        ': !has(object.metadata.generateName) ? "" : object.metadata.generateName.endsWith("-") '
        "? object.metadata.generateName.substring(0, size(object.metadata.generateName) - 1) "
        ": object.metadata.generateName",
        "workload": "variables.controllers.size() == 0 ? variables.ownName : "
        + made_by("pod-template-hash")
        + made_by("rollouts-pod-template-hash")
        + f'{kind} == "ReplicationController" && {_label("deploymentconfig")} != "" '
        f"? {_label('deploymentconfig')} : "
        f'{kind} == "Job" && {owner}.matches("^.+-[0-9]{{8,10}}$") '
        f'? {owner}.substring(0, {owner}.lastIndexOf("-")) : {owner}',
        "serviceName": _literal(
            f'"{wishes.KEYS["service-name"]}" in variables.annotations '
            f'? string(variables.annotations["{wishes.KEYS["service-name"]}"]) '
            f': {_label("app.kubernetes.io/name")} != "" ? {_label("app.kubernetes.io/name")} '
            f': {_label("app")} != "" ? {_label("app")} : variables.workload'
        ),
        "serviceNameSet": flag("serviceName"),
        # amounts and addresses
        "cpuRequest": _wish("cpu-request", "defaultCpuRequest"),
        "memoryRequest": _wish("memory-request", "defaultMemoryRequest"),
        "memoryLimit": f'"{wishes.KEYS["memory-limit"]}" in variables.annotations '
        f'? string(variables.annotations["{wishes.KEYS["memory-limit"]}"]) '
        ": quantity(variables.memoryRequest).compareTo(quantity(variables.defaultMemoryLimit)) > 0 "
        "? variables.memoryRequest : variables.defaultMemoryLimit",
        "ephemeralLimit": "(object.spec.containers + variables.initContainers.filter(c, has(c.restartPolicy) "
        '&& c.restartPolicy == "Always")).all(c, has(c.resources) && has(c.resources.limits) '
        f'&& "ephemeral-storage" in c.resources.limits) ? variables.limit : "{variables.NO_LIMIT}"',
        "podResources": "has(object.spec.resources) && size(object.spec.resources) > 0",
        "grace": "(has(object.spec.terminationGracePeriodSeconds) ? object.spec.terminationGracePeriodSeconds "
        f": {variables.GRACE}) - {variables.SPARE}",
        "longest": f"variables.native ? {variables.LONGEST_DRAIN} : {variables.LONGEST_WAIT}",
        "drain": "string(variables.grace > variables.longest ? variables.longest : variables.grace "
        f'< {variables.SHORTEST_DRAIN} ? {variables.SHORTEST_DRAIN} : variables.grace) + "s"',
        "healthUrl": _literal(_wish("app-health-url", "defaultHealthUrl")),
        "healthUrlSet": flag("healthUrl"),
        "metricsUrl": _literal(_wish("app-metrics-url", "defaultMetricsUrl")),
        "metricsUrlSet": flag("metricsUrl"),
        "lokiLabels": _wish("loki-labels", "defaultLokiLabels"),
        "lokiLabelsSet": 'variables.lokiUrlSet && variables.lokiLabels != ""',
        # annotations of others
        "addPrometheus": "variables.prometheus && !variables.annotations.exists(k, k in "
        '["prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"])',
        "istioNow": f'"{variables.ISTIO_PORTS}" in variables.annotations '
        f'? variables.annotations["{variables.ISTIO_PORTS}"].split(",").filter(p, p != "") : []',
        "addIstioPorts": '("sidecar.istio.io/inject" in variables.labels '
        '&& variables.labels["sidecar.istio.io/inject"] == "true" || "istio.io/rev" in variables.labels '
        f"|| variables.every.exists(c, c.name in {cel.write(list(variables.ISTIO_CONTAINERS))})) "
        "&& !(variables.portText in variables.istioNow)",
        "istioPorts": '(variables.istioNow + [variables.portText]).join(",")',
        # whether
        "selected": f'{inject} in variables.labels ? variables.labels[{inject}] == "true" '
        f': {inject} in {namespace_labels} && {namespace_labels}[{inject}] == "true"',
        "fits": '!(has(object.spec.os) && has(object.spec.os.name) && object.spec.os.name == "windows") '
        '&& !(has(object.spec.nodeSelector) && "kubernetes.io/os" in object.spec.nodeSelector '
        '&& object.spec.nodeSelector["kubernetes.io/os"] == "windows") '
        "&& !(has(object.spec.hostNetwork) && object.spec.hostNetwork) "
        "&& !variables.every.exists(c, has(c.ports) && c.ports.exists(p, p.containerPort == variables.port "
        '&& (!has(p.protocol) || p.protocol in ["", "TCP"]))) '
        '&& (variables.native || !has(object.spec.restartPolicy) || object.spec.restartPolicy == "Always")',
        "valid": " && ".join(_rules()),
        # What has our name must be what we would make; state alone may be a claim.
        "volumes": cel.write(template.VOLUMES),
        "volumesFree": "variables.volumes.all(v, !has(object.spec.volumes) || object.spec.volumes.all(o, "
        f'o.name != v.name || o == v || o.name == "{names.STATE}" && ({claims})))',
        "injects": "!(request.namespace in variables.excludedNamespaces) && variables.selected && variables.valid "
        "&& variables.fits && variables.container in variables.containerNames && variables.usable "
        "&& !(variables.cri && variables.hostPathForbidden) && variables.volumesFree",
    }
