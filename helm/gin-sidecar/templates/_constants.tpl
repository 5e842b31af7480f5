{{/*
What every sidecar has in common, of the values `.values` in the context `.context`: the same variables under the same names as
sidecar/injector/variables.py and policy.py compute from the configuration. As JSON, of plain values.
*/}}
{{- define "gin-sidecar.constants" -}}
{{- $d := .values.defaults }}
{{- range $kind := list "memory" "ephemeral" }}
{{- $request := get $d (printf "%s_request" $kind) }}
{{- $limit := get $d (printf "%s_limit" $kind) }}
{{- if gt (include "gin-sidecar.bytes" $request | float64) (include "gin-sidecar.bytes" $limit | float64) }}
{{- fail (printf "gin-sidecar: defaults.%s_limit %q: must be at least defaults.%s_request, %q" $kind $limit $kind $request) }}
{{- end }}
{{- end }}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 }}
{{- $size := mul (regexFind "^[0-9]+" $d.state_size | int64) (get $units (regexFind "[KMG]i$" $d.state_size) | int64) }}
{{- $passed := list }}
{{- range $name, $text := $d.settings }}
{{- $passed = append $passed (dict "name" (printf "SIDECAR_%s" ($name | upper | replace "." "_")) "value" (include "gin-sidecar.literal" $text)) }}
{{- end }}
{{- dict
  "image" (include "gin-sidecar.image" .values)
  "pullPolicy" $d.image_pull_policy
  "pullPolicySet" (ne $d.image_pull_policy "")
  "port" (int $d.port)
  "portText" (toString (int $d.port))
  "environment" (include "gin-sidecar.literal" $d.environment)
  "environmentSet" (ne $d.environment "")
  "lokiUrl" (include "gin-sidecar.literal" $d.loki_url)
  "lokiUrlSet" (ne $d.loki_url "")
  "lokiTenant" (include "gin-sidecar.literal" $d.loki_tenant_id)
  "lokiTenantSet" (and (ne $d.loki_url "") (ne $d.loki_tenant_id ""))
  "lokiSecret" $d.loki_secret
  "lokiSecretSet" (and (ne $d.loki_url "") (ne $d.loki_secret ""))
  "stateSize" $d.state_size
  "spoolBytes" (toString (div $size 4))
  "ephemeralRequest" $d.ephemeral_request
  "runAsUser" $d.run_as_user
  "readiness" $d.readiness_probe
  "passedOn" $passed
  "nativeByVersion" (include "gin-sidecar.native" . | eq "true")
  "prometheus" $d.prometheus_annotations
  "limit" $d.ephemeral_limit
  "defaultLogMode" $d.log_mode
  "defaultLogPath" $d.log_path
  "defaultNative" $d.native
  "defaultCpuRequest" $d.cpu_request
  "defaultMemoryRequest" $d.memory_request
  "defaultMemoryLimit" $d.memory_limit
  "defaultLokiLabels" (include "gin-sidecar.pairs" $d.loki_labels)
  "defaultHealthUrl" $d.app_health_url
  "defaultMetricsUrl" $d.app_metrics_url
  | toJson }}
{{- end }}

{{/* Kubernetes expands $(NAME) in values of variables, and makes one $ of two. */}}
{{- define "gin-sidecar.literal" -}}
{{- . | replace "$" "$$" }}
{{- end }}

{{- define "gin-sidecar.pairs" -}}
{{- $pairs := list }}
{{- range $name, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $name $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{/* The oldest version there is, as far as anybody says: nodes may be older than the API server. */}}
{{- define "gin-sidecar.kubernetesVersion" -}}
{{- .values.injector.kubernetesVersion | default .context.Capabilities.KubeVersion.Version }}
{{- end }}

{{/* Whether sidecars are native: an older Kubernetes would wait for the end of an init container that never ends. */}}
{{- define "gin-sidecar.native" -}}
{{- $version := include "gin-sidecar.kubernetesVersion" . | trimPrefix "v" }}
{{- ge (index (splitList "." $version) 1 | regexFind "^[0-9]+" | int) 29 }}
{{- end }}

{{- define "gin-sidecar.bytes" -}}
{{- $units := dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[kMGTi]*$" .) | default 1.0) | printf "%f" }}
{{- end }}
