{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "sidetrack.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidetrack.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sidetrack.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Never changed between versions: a DaemonSet's selector cannot be. */ -}}
{{- define "sidetrack.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sidetrack.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sidetrack.labels" -}}
{{ include "sidetrack.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sidetrack.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sidetrack.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* One name in a cluster, whatever the release's is: its agents would share nodes with another release's. */ -}}
{{- define "sidetrack.clusterRole" -}}sidetrack{{- end -}}

{{- define "sidetrack.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "sidetrack.testNamespace" -}}
{{- default (printf "%s-test" (include "sidetrack.fullname" . | trunc 58 | trimSuffix "-" | replace "." "-")) .Values.test.namespace -}}
{{- end -}}

{{- /* As Kubernetes before 1.30 has it. */ -}}
{{- define "sidetrack.appArmorAnnotation" -}}
{{- with .Values.appArmorProfile -}}
{{- get (dict "Unconfined" "unconfined" "RuntimeDefault" "runtime/default" "Localhost" (printf "localhost/%v" .localhostProfile)) .type -}}
{{- end -}}
{{- end -}}

{{- /* securityContext of a container: dict "root" . "capabilities" LIST */ -}}
{{- define "sidetrack.securityContext" -}}
{{- $values := .root.Values -}}
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
{{- if $values.privileged }}
privileged: true
{{- else }}
privileged: false
capabilities:
  drop: [ALL]
  add: {{ toJson .capabilities }}
seccompProfile: {{ toJson $values.seccompProfile }}
{{- if semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version }}
appArmorProfile: {{ toJson $values.appArmorProfile }}
{{- end }}
{{- end }}
{{- with $values.seLinuxOptions }}
seLinuxOptions: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* startup and liveness probe: dict "root" . "port" PORT "address" ADDRESS "grace" SECONDS; what hangs is given the grace, not the drain */ -}}
{{- define "sidetrack.probeHost" -}}
{{- if or (eq . "0.0.0.0") (eq . "::") (eq . "[::]") -}}127.0.0.1{{- else -}}{{ trimAll "[]" . }}{{- end -}}
{{- end -}}

{{- define "sidetrack.liveProbes" -}}
{{- $probes := .root.Values.probes -}}
startupProbe:
  httpGet: {host: {{ include "sidetrack.probeHost" .address | quote }}, port: {{ .port }}, path: /healthz}
  periodSeconds: 1
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.startupSeconds }}
livenessProbe:
  httpGet: {host: {{ include "sidetrack.probeHost" .address | quote }}, port: {{ .port }}, path: /healthz}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.failureThreshold }}
  {{- with .grace }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
{{- end -}}

{{- define "sidetrack.httpListen" -}}
{{- if and (contains ":" .address) (not (hasPrefix "[" .address)) -}}[{{ .address }}]:{{ .port }}{{- else -}}{{ .address }}:{{ .port }}{{- end -}}
{{- end -}}
