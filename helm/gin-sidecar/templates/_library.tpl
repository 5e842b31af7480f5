{{/*
For a team's own chart. Each takes one dictionary:
  context      the context of the calling template (.)
  container    the name of the container to follow
  logMode      cri, api, file or fifo; default: defaults.log_mode
  logPath      for file and fifo: where the application writes; default: defaults.log_path
  serviceName  default: the container's name
  grace        the pod's terminationGracePeriodSeconds; default 30
*/}}

{{/* The container, as a list of one: for initContainers where sidecars are native, else for containers. */}}
{{- define "gin-sidecar.container" -}}
{{- include "gin-sidecar.container.of" (include "gin-sidecar.variables" .) | trim }}
{{- end }}

{{/* The same, where it belongs: nothing in the one of the two places in which it does not. */}}
{{- define "gin-sidecar.initContainers" -}}
{{- if include "gin-sidecar.variables" . | fromJson | dig "native" false }}{{ include "gin-sidecar.container" . }}{{ else }}[]{{ end }}
{{- end }}

{{- define "gin-sidecar.containers" -}}
{{- if not (include "gin-sidecar.variables" . | fromJson | dig "native" false) }}{{ include "gin-sidecar.container" . }}{{ end }}
{{- end }}

{{/* The volumes, as a list. */}}
{{- define "gin-sidecar.volumes" -}}
{{- include "gin-sidecar.volumes.of" (include "gin-sidecar.variables" .) | trim }}
{{- end }}

{{/* For file and fifo: the mount of the application's container, as a list of one. */}}
{{- define "gin-sidecar.volumeMounts" -}}
{{- $v := include "gin-sidecar.variables" . | fromJson }}
{{- if $v.ownLogVolume -}}
- name: gin-sidecar-logs
  mountPath: {{ toJson $v.logDirectory }}
{{- else -}}
[]
{{- end }}
{{- end }}

{{/* The annotations of the pod, as a mapping. They tell an injector in the cluster that there is nothing left to do. */}}
{{- define "gin-sidecar.annotations" -}}
{{- $v := include "gin-sidecar.variables" . | fromJson }}
{{- $volumes := list "gin-sidecar-state" "gin-sidecar-tmp" }}
{{- if or $v.cri $v.api $v.ownLogVolume }}
{{- $volumes = prepend $volumes "gin-sidecar-logs" }}
{{- end -}}
gin-sidecar.io/status: {{ dict "container" "gin-sidecar" "follows" $v.container "mode" $v.mode "native" $v.native "version" (include "gin-sidecar.version" .) "volumes" $volumes | toJson | toJson }}
kubectl.kubernetes.io/default-container: {{ toJson $v.container }}
{{- end }}

{{/* The variables of one pod, as JSON: see sidecar/injector/variables.py. */}}
{{- define "gin-sidecar.variables" -}}
{{- $values := get .context.Values "gin-sidecar" | default .context.Values }}
{{- $d := $values.defaults }}
{{- $container := required "gin-sidecar: which container? (\"container\")" .container }}
{{- $mode := .logMode | default $d.log_mode }}
{{- if not (has $mode (list "cri" "api" "file" "fifo")) }}
{{- fail (printf "gin-sidecar: logMode %q: expected cri, api, file or fifo; auto is decided by an injector in the cluster" $mode) }}
{{- end }}
{{- $shared := has $mode (list "file" "fifo") }}
{{- $path := .logPath | default $d.log_path }}
{{- if and $shared (or (not (regexMatch (include "gin-sidecar.pattern.log_path" .) $path)) (regexMatch (include "gin-sidecar.pattern.no_log_path" .) $path)) }}
{{- fail (printf "gin-sidecar: logPath %q: expected the absolute path of a file in a directory of its own; a volume there must hide nothing" $path) }}
{{- end }}
{{- $native := ternary (include "gin-sidecar.native" (dict "values" $values "context" .context) | eq "true") (eq $d.native "true") (eq $d.native "auto") }}
{{- $grace := .grace | default 30 | int }}
{{- $drain := min (ternary 10 28 $native) (max 1 (sub $grace 2)) }}
{{- $health := include "gin-sidecar.literal" $d.app_health_url }}
{{- $metrics := include "gin-sidecar.literal" $d.app_metrics_url }}
{{- $labels := ternary (include "gin-sidecar.pairs" $d.loki_labels) "" (ne $d.loki_url "") }}
{{- $one := dict
  "container" $container
  "mode" $mode
  "serviceName" (include "gin-sidecar.literal" (.serviceName | default $container))
  "serviceNameSet" true
  "native" $native
  "ordinary" (not $native)
  "sourceKind" (ternary "kubernetes" $mode (eq $mode "api"))
  "byContainer" (not $shared)
  "sourcePath" (ternary (printf "/logs/%s" (base $path)) (ternary "/logs" "" (eq $mode "cri")) $shared)
  "sourcePathSet" (ne $mode "api")
  "cri" (eq $mode "cri")
  "api" (eq $mode "api")
  "noToken" (ne $mode "api")
  "ownLogVolume" $shared
  "logVolume" "gin-sidecar-logs"
  "logSubPath" ""
  "logDirectory" (dir $path)
  "sharedRead" (eq $mode "file")
  "sharedReadSub" false
  "sharedWrite" (eq $mode "fifo")
  "sharedWriteSub" false
  "drain" (printf "%ds" (int $drain))
  "healthUrl" $health
  "healthUrlSet" (ne $health "")
  "metricsUrl" $metrics
  "metricsUrlSet" (ne $metrics "")
  "lokiLabels" $labels
  "lokiLabelsSet" (ne $labels "")
  "cpuRequest" $d.cpu_request
  "memoryRequest" $d.memory_request
  "memoryLimit" $d.memory_limit
  "ephemeralLimit" (.ephemeralLimit | default "1Ti")
  "podResources" false
  "user" 65532
  "group" (ternary 0 65532 (eq $mode "cri"))
}}
{{- merge $one (include "gin-sidecar.constants" (dict "values" $values "context" .context) | fromJson) | toJson }}
{{- end }}
