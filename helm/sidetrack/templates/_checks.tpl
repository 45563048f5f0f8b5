{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* What the schema cannot say. Each refuses before anything is changed what would fail afterwards, or never finish. */ -}}
{{- define "sidetrack.checks" -}}
{{- include "sidetrack.checkLists" . -}}
{{- include "sidetrack.checkEngine" . -}}
{{- include "sidetrack.checkUpdates" . -}}
{{- include "sidetrack.checkRunning" . -}}
{{- end -}}

{{- /* "443" or "8000-8100": dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkPorts" -}}
{{- $bounds := splitList "-" .text -}}
{{- $low := first $bounds | trim | int -}}
{{- $high := last $bounds | trim | int -}}
{{- if or (lt $low 1) (gt $high 65535) (gt $low $high) -}}
{{- fail (printf "%s: %s: ports are 1 to 65535, the lower one first" .key .text) -}}
{{- end -}}
{{- end -}}

{{- /* Patterns, as far as a pattern can say it; the agent reads addresses itself. */ -}}
{{- define "sidetrack.ipv4" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" -}}
{{- printf "%s(\\.%s){3}" $octet $octet -}}
{{- end -}}
{{- define "sidetrack.ipv6" -}}
(([0-9a-fA-F]{0,4}:){2,7}([0-9a-fA-F]{0,4}|{{ include "sidetrack.ipv4" . }}))
{{- end -}}

{{- define "sidetrack.checkLists" -}}
{{- range $key := list "excludeOutboundPorts" "includeOutboundPorts" -}}
{{- range compact (splitList "," (get $.Values.agent $key | toString | nospace)) -}}
{{- include "sidetrack.checkPorts" (dict "key" (printf "agent.%s" $key) "text" .) -}}
{{- end -}}
{{- end -}}
{{- include "sidetrack.checkPorts" (dict "key" "agent.listenerPorts" "text" .Values.agent.listenerPorts) -}}
{{- $ports := ":[0-9]{1,5}(-[0-9]{1,5})?" -}}
{{- $v4 := printf "%s(/(3[0-2]|[12]?[0-9]))?" (include "sidetrack.ipv4" .) -}}
{{- $v6 := printf "%s(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?" (include "sidetrack.ipv6" .) -}}
{{- $cidr := printf "^(%s(%s)?|%s|\\[%s\\]%s)$" $v4 $ports $v6 $v6 $ports -}}
{{- range $key := list "excludeOutboundCidrs" "includeOutboundCidrs" -}}
{{- $list := get $.Values.agent $key | nospace -}}
{{- range ternary (splitList "," $list) list (ne $list "") -}}
{{- if not (regexMatch $cidr .) -}}
{{- fail (printf "agent.%s: '%s' is no CIDR: 10.0.0.0/8, fd00::/8, 10.1.2.3, 10.0.0.0/8:443, [fd00::/8]:443" $key .) -}}
{{- end -}}
{{- with regexFind "(\\]|\\.[0-9/]+):[0-9-]+$" . -}}
{{- include "sidetrack.checkPorts" (dict "key" (printf "agent.%s" $key) "text" (regexFind "[0-9-]+$" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkEngine" -}}
{{- $external := trimPrefix "external=" .Values.agent.engine -}}
{{- if ne $external .Values.agent.engine -}}
{{- $endpoint := printf "^(%s|\\[%s\\]):[0-9]{1,5}$" (include "sidetrack.ipv4" .) (include "sidetrack.ipv6" .) -}}
{{- range splitList "," $external -}}
{{- if not (regexMatch $endpoint .) -}}
{{- fail (printf "agent.engine: '%s' is no ADDR:PORT: 10.0.0.1:15001 or [fd00::1]:15001" .) -}}
{{- end -}}
{{- include "sidetrack.checkPorts" (dict "key" "agent.engine" "text" (regexFind "[0-9]+$" .)) -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" . -}}
{{- fail (printf "agent.engine: %s: a loopback address is each pod's own; name one of the node or of the network" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.agent.engine "embedded" -}}
{{- if eq (int .Values.agent.httpPort) (int .Values.engine.httpPort) -}}
{{- fail (printf "agent.httpPort and engine.httpPort are both %d: they share the node's network" (int .Values.agent.httpPort)) -}}
{{- end -}}
{{- $unit := regexFind "[a-z]+$" .Values.engine.drain -}}
{{- $drain := mul (trimSuffix $unit .Values.engine.drain | int) (get (dict "ms" 1 "s" 1000 "m" 60000) $unit) -}}
{{- if ge $drain (mul (int .Values.terminationGracePeriodSeconds) 1000) -}}
{{- fail (printf "engine.drain %s has to be shorter than terminationGracePeriodSeconds (%d): Kubernetes ends the engine then, whatever is open" .Values.engine.drain (int .Values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether pods of an update start beside the old ones; empty: no. */ -}}
{{- define "sidetrack.surges" -}}
{{- $rolling := default dict .Values.updateStrategy.rollingUpdate -}}
{{- $surge := ternary $rolling.maxSurge 0 (and (hasKey $rolling "maxSurge") (ne $rolling.maxSurge nil)) | toString | trimSuffix "%" | int -}}
{{- if and (eq .Values.updateStrategy.type "RollingUpdate") $surge -}}yes{{- end -}}
{{- end -}}

{{- define "sidetrack.checkUpdates" -}}
{{- if eq .Values.updateStrategy.type "RollingUpdate" -}}
{{- $rolling := default dict .Values.updateStrategy.rollingUpdate -}}
{{- /* Kubernetes' default is 1. */ -}}
{{- $unavailable := ternary $rolling.maxUnavailable 1 (and (hasKey $rolling "maxUnavailable") (ne $rolling.maxUnavailable nil)) | toString | trimSuffix "%" | int -}}
{{- if eq (not (include "sidetrack.surges" .)) (eq $unavailable 0) -}}
{{- fail "updateStrategy.rollingUpdate: of maxSurge and maxUnavailable exactly one has to be above 0 (Kubernetes refuses anything else); set both" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What an installed release must keep. lookup finds nothing without a cluster (helm template, --dry-run=client). */ -}}
{{- define "sidetrack.checkRunning" -}}
{{- $running := lookup "v1" "ConfigMap" .Release.Namespace (include "sidetrack.fullname" .) -}}
{{- $old := dig "data" "agent.conf" "" (default dict $running) -}}
{{- $new := dig "data" "agent.conf" "" (include (print .Template.BasePath "/configmap.yaml") . | fromYaml) -}}
{{- range $option := list "http" "state-dir" "cache-dir" "pin-dir" "cni-conf-dir" "cni-bin-dir" -}}
{{- $line := printf "(?m)^%s = .*$" $option -}}
{{- $was := regexFind $line $old -}}
{{- if and $was (ne $was (regexFind $line $new)) -}}
{{- if ne $option "http" -}}
{{- fail (printf "this release runs with '%s', by which the nodes find what is there from before; these values make it %s. To keep it, pass the values of this release again (-f FILE, or --reuse-values); to change it, helm uninstall, then install (docs/upgrade.md)" $was (regexFind $line $new | default "nothing" | squote)) -}}
{{- else if include "sidetrack.surges" $ -}}
{{- fail (printf "this release runs with '%s': the pod that waits beside the old one would be asked at an address where nobody answers, and the upgrade would never finish; do it with --set updateStrategy.rollingUpdate.maxSurge=0,updateStrategy.rollingUpdate.maxUnavailable=1 (docs/upgrade.md)" $was) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
