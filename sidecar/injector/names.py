"""Every name that the injector shares with clusters, charts and people.

Promise: each stands here once. Renaming one is a breaking change for workloads that already run.
"""

from __future__ import annotations

DOMAIN = "gin-sidecar.io"
INJECT = f"{DOMAIN}/inject"  # the label, on a pod or a namespace
STATUS = f"{DOMAIN}/status"  # the annotation we leave
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
MIRROR = "kubernetes.io/config.mirror"
POD_SECURITY = "pod-security.kubernetes.io/enforce"
NO_HOST_PATH = ("baseline", "restricted")  # the Pod Security levels that forbid hostPath

IMAGE = "ghcr.io/gin-sidecar/gin-sidecar"  # where releases are published

CONTAINER = "gin-sidecar"
PORT = "sidecar-http"
STATE = "gin-sidecar-state"
TMP = "gin-sidecar-tmp"
LOGS = "gin-sidecar-logs"  # where lines come from: the node's log directory, a shared directory, or API credentials
ROLE = "gin-sidecar-logs"
CLAIMS = ("persistentVolumeClaim", "ephemeral")  # what a pod may bring for its state

SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")
USER = 65532

# Containers that other injectors add: never the application, wherever they stand.
FOREIGN = ("istio-proxy", "istio-validation", "linkerd-proxy", "daprd")

# Istio's, Dapr's and Linkerd's own ports: whoever listens there takes a working mesh away.
RESERVED_PORTS = {
    **dict.fromkeys(
        (15000, 15001, 15002, 15004, 15006, 15008, 15009, 15010, 15012, 15014, 15017, 15020, 15021, 15053, 15090),
        "Istio",
    ),
    **dict.fromkeys((3500, 3501, 9090, 50001, 50002), "Dapr"),
    **dict.fromkeys((4140, 4143, 4190, 4191), "Linkerd"),
}
