{{/* Names and labels. Selectors use name, instance and component only: they may never change. */}}
{{- define "gin-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: the longest suffix must fit into 63. */}}
{{- define "gin-sidecar.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "gin-sidecar" .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-gin-sidecar" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gin-sidecar.selector" -}}
app.kubernetes.io/name: {{ include "gin-sidecar.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "gin-sidecar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gin-sidecar.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/part-of: gin-sidecar
{{- with .context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gin-sidecar.metadata" -}}
name: {{ .name | default (include "gin-sidecar.fullname" .context) }}
labels:
  {{- include "gin-sidecar.labels" . | nindent 2 }}
{{- end }}

{{- define "gin-sidecar.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "gin-sidecar.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The image, of the values `.`. A digest beats a tag. */}}
{{- define "gin-sidecar.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default (printf "v%s" (include "gin-sidecar.version" .)) }}
{{- end }}
{{- end }}

{{/* Namespaces without injection: never the control plane's, never our own. */}}
{{- define "gin-sidecar.excludedNamespaces" -}}
{{- concat (list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace) .Values.injector.excludedNamespaces | uniq | toJson }}
{{- end }}

{{/* A duration of one unit in whole seconds, rounded up. */}}
{{- define "gin-sidecar.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- get (dict "ms" (div (add $number 999) 1000) "s" $number "m" (mul $number 60)) (regexFind "[a-z]+$" .) }}
{{- end }}

{{- define "gin-sidecar.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- with .Values.injector.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gin-sidecar.secretName" -}}
{{- if eq .Values.certificates.mode "existingSecret" -}}
{{ .Values.certificates.existingSecret.name }}
{{- else -}}
{{ include "gin-sidecar.fullname" . }}-tls
{{- end }}
{{- end }}
