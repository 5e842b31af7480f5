# What every workload of the platform must be, whoever wrote its manifest.
# Knows Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob and List, and looks at init
# containers as well: a native sidecar is one. Nothing here asks for anything but the manifest.
package lib.gin_sidecar

import rego.v1

# the pods of a manifest

# Gatekeeper hands it over within a review.
given := input.review.object

given := input if not input.review

manifests contains given if given.kind != "List"

manifests contains item if {
	given.kind == "List"
	some item in given.items
}

# Kind → do its containers stay?
templated := {
	"Deployment": true,
	"StatefulSet": true,
	"DaemonSet": true,
	"ReplicaSet": true,
	"ReplicationController": true,
	"Job": false,
}

specs contains {"name": full_name(manifest), "stays": true, "spec": manifest.spec} if {
	some manifest in manifests
	manifest.kind == "Pod"
}

specs contains {"name": full_name(manifest), "stays": stays, "spec": manifest.spec.template.spec} if {
	some manifest in manifests
	stays := templated[manifest.kind]
}

specs contains {"name": full_name(manifest), "stays": false, "spec": manifest.spec.jobTemplate.spec.template.spec} if {
	some manifest in manifests
	manifest.kind == "CronJob"
}

full_name(manifest) := sprintf("%s/%s", [manifest.kind, manifest.metadata.name]) if manifest.metadata.name

full_name(manifest) := sprintf("%s/?", [manifest.kind]) if not manifest.metadata.name

containers contains {"where": where(pod, container), "stays": pod.stays, "pod": pod.spec, "container": container} if {
	some pod in specs
	some container in object.get(pod.spec, "containers", [])
}

containers contains {"where": where(pod, container), "stays": native(container), "pod": pod.spec, "container": container} if {
	some pod in specs
	some container in object.get(pod.spec, "initContainers", [])
}

where(pod, container) := sprintf("%s, container %s", [pod.name, container.name]) if container.name

where(pod, container) := sprintf("%s, container ?", [pod.name]) if not container.name

default native(_) := false

native(container) if container.restartPolicy == "Always"

# images: a version or a digest, so that what runs tomorrow is what was tested today

digest := `@sha256:[0-9a-f]{64}$`

version := `:v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(@sha256:[0-9a-f]{64})?$`

latest := `:latest(@|$)`

deny contains sprintf("%s: image %s: latest is another program tomorrow", [one.where, image]) if {
	some one in containers
	image := one.container.image
	regex.match(latest, image)
}

deny contains sprintf("%s: image %s: expected a tag such as v1.2.0 (SemVer) or a digest", [one.where, image]) if {
	some one in containers
	image := one.container.image
	not regex.match(latest, image)
	not regex.match(version, image)
	not regex.match(digest, image)
}

deny contains sprintf("%s: image is missing", [one.where]) if {
	some one in containers
	not one.container.image
}

# security: Kubernetes' restricted level, and a root file system that nobody writes to

# A container's own word counts before its pod's.
setting(one, name) := object.get(one.container, ["securityContext", name], object.get(one.pod, ["securityContext", name], null))

deny contains sprintf("%s: runAsNonRoot must be true", [one.where]) if {
	some one in containers
	setting(one, "runAsNonRoot") != true
}

deny contains sprintf("%s: runAsUser must not be 0", [one.where]) if {
	some one in containers
	setting(one, "runAsUser") == 0
}

deny contains sprintf("%s: readOnlyRootFilesystem must be true", [one.where]) if {
	some one in containers
	not one.container.securityContext.readOnlyRootFilesystem
}

deny contains sprintf("%s: allowPrivilegeEscalation must be false", [one.where]) if {
	some one in containers
	object.get(object.get(one.container, "securityContext", {}), "allowPrivilegeEscalation", true) != false
}

deny contains sprintf("%s: privileged must not be true", [one.where]) if {
	some one in containers
	one.container.securityContext.privileged
}

deny contains sprintf("%s: capabilities: expected drop: [ALL]", [one.where]) if {
	some one in containers
	not drops_all(one.container)
}

drops_all(container) if "ALL" in container.securityContext.capabilities.drop

deny contains sprintf("%s: seccompProfile: expected RuntimeDefault or Localhost", [one.where]) if {
	some one in containers
	not profiled(one)
}

profiled(one) if setting(one, "seccompProfile").type in {"RuntimeDefault", "Localhost"}

# probes: the platform's numbers, where a container stays

liveness := {"initialDelaySeconds": 10, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3}

deny contains sprintf("%s: livenessProbe is missing", [one.where]) if {
	some one in containers
	one.stays
	not one.container.livenessProbe
}

deny contains sprintf("%s: livenessProbe.%s: expected %d", [one.where, name, wanted]) if {
	some one in containers
	one.stays
	probe := one.container.livenessProbe
	some name, wanted in liveness
	object.get(probe, name, -1) != wanted
}

# resources: what the scheduler and the kubelet must know

needed := {"requests": {"cpu", "memory", "ephemeral-storage"}, "limits": {"memory"}}

deny contains sprintf("%s: resources.%s.%s is missing", [one.where, kind, name]) if {
	some one in containers
	some kind, names in needed
	some name in names
	not one.container.resources[kind][name]
	not one.pod.resources[kind][name] # the pod may say it for all of its containers
}

# the node: its logs may be read, this pod's own, and nothing else of it

deny contains sprintf("%s: hostPath %s: only /var/log/pods is allowed", [pod.name, path]) if {
	some pod in specs
	some volume in object.get(pod.spec, "volumes", [])
	path := volume.hostPath.path
	path != "/var/log/pods"
}

host_mounts contains {"where": one.where, "mount": mount} if {
	some one in containers
	some volume in object.get(one.pod, "volumes", [])
	volume.hostPath
	some mount in object.get(one.container, "volumeMounts", [])
	mount.name == volume.name
}

deny contains sprintf("%s: hostPath at %s must be readOnly", [one.where, one.mount.mountPath]) if {
	some one in host_mounts
	not one.mount.readOnly
}

deny contains sprintf("%s: hostPath at %s shows the logs of other pods: expected a subPathExpr", [one.where, one.mount.mountPath]) if {
	some one in host_mounts
	not one.mount.subPathExpr
}

deny contains sprintf("%s: %s must not be true", [pod.name, name]) if {
	some pod in specs
	some name in {"hostNetwork", "hostPID", "hostIPC"}
	pod.spec[name] == true
}
