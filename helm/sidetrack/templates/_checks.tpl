{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* What the schema cannot say. Each refuses before anything is changed what would fail afterwards, or never finish. */ -}}
{{- define "sidetrack.checks" -}}
{{- include "sidetrack.checkLists" . -}}
{{- include "sidetrack.checkAgent" . -}}
{{- include "sidetrack.checkNode" . -}}
{{- include "sidetrack.checkFolders" . -}}
{{- include "sidetrack.checkResources" . -}}
{{- include "sidetrack.checkEngine" . -}}
{{- include "sidetrack.checkMonitoring" . -}}
{{- include "sidetrack.checkTest" . -}}
{{- include "sidetrack.checkUpdates" . -}}
{{- include "sidetrack.checkAlone" . -}}
{{- include "sidetrack.checkRunning" . -}}
{{- end -}}

{{- define "sidetrack.checkLists" -}}
{{- range $kind, $check := dict "Ports" "sidetrack.checkPorts" "Cidrs" "sidetrack.checkCidr" -}}
{{- range $which := list "exclude" "include" -}}
{{- $key := printf "%sOutbound%s" $which $kind -}}
{{- with include "sidetrack.list" (get $.Values.agent $key) -}}
{{- range splitList "," . -}}
{{- include $check (dict "key" (printf "agent.%s" $key) "text" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkAgent" -}}
{{- with .Values.agent -}}
{{- include "sidetrack.checkAddress" (dict "key" "agent.httpAddress" "text" .httpAddress) -}}
{{- include "sidetrack.expect" (dict "key" "agent.listenerPorts" "text" .listenerPorts "pattern" "[0-9]+-[0-9]+" "meant" "a range of ports, such as 15900-15999,") -}}
{{- include "sidetrack.checkPorts" (dict "key" "agent.listenerPorts" "text" .listenerPorts) -}}
{{- $bounds := splitList "-" .listenerPorts -}}
{{- if lt (sub (last $bounds | atoi) (first $bounds | atoi) | add1) (int64 .listenersPerPod) -}}
{{- fail (printf "agent.listenerPorts: '%s': fewer ports than agent.listenersPerPod (%d)" .listenerPorts (int .listenersPerPod)) -}}
{{- end -}}
{{- $more := default dict .extraOptions -}}
{{- if hasKey $more "fast-path-window" -}}
{{- $_ := include "sidetrack.amount" (dict "key" "agent.extraOptions.fast-path-window" "text" (get $more "fast-path-window") "units" (dict "KiB" 1024 "MiB" 1048576) "low" 16384 "high" 67108864 "meant" "a size, such as 512KiB, of 16KiB to 64MiB") -}}
{{- end -}}
{{- if hasKey $more "fast-path-probation" -}}
{{- $_ := include "sidetrack.amount" (dict "key" "agent.extraOptions.fast-path-probation" "text" (get $more "fast-path-probation") "units" (dict "ms" 1 "s" 1000 "m" 60000) "low" 0 "high" 60000000000 "meant" "a time, such as 30s or 2m,") -}}
{{- end -}}
{{- end -}}
{{- with get .Values.kubernetes "apiServerPort" | toString -}}
{{- include "sidetrack.expect" (dict "key" "kubernetes.apiServerPort" "text" . "pattern" "[0-9]+" "meant" "a port") -}}
{{- include "sidetrack.checkPorts" (dict "key" "kubernetes.apiServerPort" "text" .) -}}
{{- end -}}
{{- with .Values.kubernetes.apiServerHost -}}
{{- $host := printf "[A-Za-z0-9.-]+|%s" (include "sidetrack.ipv6" .) -}}
{{- include "sidetrack.expect" (dict "key" "kubernetes.apiServerHost" "text" . "pattern" $host "meant" "a name or an address, without scheme and port,") -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkNode" -}}
{{- range $option := list "cgroup" "engine-cgroup" -}}
{{- with get (default dict $.Values.agent.extraOptions) $option -}}
{{- include "sidetrack.checkPath" (dict "key" (printf "agent.extraOptions.%s" $option) "text" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.cni -}}
{{- include "sidetrack.checkMounted" (dict "key" "cni.confDir" "text" .confDir) -}}
{{- include "sidetrack.checkMounted" (dict "key" "cni.binDir" "text" .binDir) -}}
{{- with get . "logFile" -}}
{{- if ne . "off" -}}
{{- include "sidetrack.checkPath" (dict "key" "cni.logFile" "text" .) -}}
{{- end -}}
{{- end -}}
{{- $meant := "a time, such as 10m or 1h, of 1m to 8760h, or 0s for ever" -}}
{{- $seconds := include "sidetrack.amount" (dict "key" "cni.denyFor" "text" .denyFor "units" (dict "s" 1 "m" 60 "h" 3600) "low" 0 "high" 31536000 "meant" $meant) | atoi -}}
{{- if and $seconds (lt $seconds 60) -}}
{{- fail (printf "cni.denyFor: '%s': %s is meant" .denyFor $meant) -}}
{{- end -}}
{{- $_ := include "sidetrack.amount" (dict "key" "cni.timeout" "text" .timeout "units" (dict "ms" 1 "s" 1000 "m" 60000) "low" 50 "high" 60000 "meant" "a time, such as 500ms or 5s, of 50ms to 1m") -}}
{{- end -}}
{{- with .Values.hostPaths -}}
{{- include "sidetrack.checkMounted" (dict "key" "hostPaths.state" "text" .state) -}}
{{- if gt (len .state) 95 -}}
{{- fail (printf "hostPaths.state: '%s': too long for the path of a socket in it (95 bytes at most)" .state) -}}
{{- end -}}
{{- include "sidetrack.checkMounted" (dict "key" "hostPaths.cache" "text" .cache) -}}
{{- include "sidetrack.checkMounted" (dict "key" "hostPaths.bpf" "text" .bpf) -}}
{{- include "sidetrack.checkPath" (dict "key" "hostPaths.cgroup" "text" .cgroup) -}}
{{- if eq (printf "%s/%s" .bpf .pinFolder) "/sys/fs/bpf" -}}
{{- fail "hostPaths.bpf and hostPaths.pinFolder are /sys/fs/bpf together: a folder of our own below a bpf file system is meant, such as bpf /sys/fs/bpf and pinFolder sidetrack" -}}
{{- end -}}
{{- end -}}
{{- range $container := list "agent" "engine" -}}
{{- include "sidetrack.checkEnvironment" (dict "key" (printf "%s.extraEnv" $container) "list" (get $.Values $container).extraEnv) -}}
{{- end -}}
{{- end -}}

{{- /* None is another one, and the plugin's log is none: the first of the node's CNI configurations is the one that counts. */ -}}
{{- define "sidetrack.checkFolders" -}}
{{- $folders := dict "/var/run/secrets/kubernetes.io/serviceaccount" "the agent's token" -}}
{{- range $key := list "hostPaths.state" "hostPaths.cache" "hostPaths.bpf" "hostPaths.cgroup" "cni.confDir" "cni.binDir" -}}
{{- $parts := splitList "." $key -}}
{{- $path := get (get $.Values (first $parts)) (last $parts) -}}
{{- with get $folders $path -}}
{{- fail (printf "%s: '%s' is the folder of %s, too; each needs its own" $key $path .) -}}
{{- end -}}
{{- $_ := set $folders $path $key -}}
{{- end -}}
{{- range $key := list "state" "cache" -}}
{{- $path := get $.Values.hostPaths $key -}}
{{- range $outer := list "cni.confDir" "cni.binDir" "hostPaths.bpf" "hostPaths.cgroup" -}}
{{- $parts := splitList "." $outer -}}
{{- if hasPrefix (printf "%s/" (get (get $.Values (first $parts)) (last $parts))) $path -}}
{{- fail (printf "hostPaths.%s: '%s' is in the folder of %s; it needs one of its own" $key $path $outer) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.cni.logFile -}}
{{- if or (get $folders .) (hasPrefix (printf "%s/" $.Values.cni.confDir) .) -}}
{{- fail (printf "cni.logFile: '%s': a file is meant, and not in cni.confDir, where the node would take it for a network's configuration" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkResources" -}}
{{- range $container := list "agent" "engine" -}}
{{- $resources := (get $.Values $container).resources -}}
{{- $limits := dig "limits" dict (default dict $resources) -}}
{{- range $name, $request := dig "requests" dict (default dict $resources) -}}
{{- $limit := get $limits $name | toString -}}
{{- if and $limit (gt (include "sidetrack.quantity" $request | float64) (include "sidetrack.quantity" $limit | float64)) -}}
{{- fail (printf "%s.resources: %s: the request (%v) is above the limit (%s)" $container $name $request $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The endpoints of agent.engine: one of a family, that pods reach. */ -}}
{{- define "sidetrack.checkExternal" -}}
{{- $families := list -}}
{{- range splitList "," . -}}
{{- include "sidetrack.checkEndpoint" (dict "key" "agent.engine" "text" .) -}}
{{- if regexMatch "^\\[[0:]*:[fF]{4}:" . -}}
{{- fail (printf "agent.engine: '%s': write an IPv4 address as such" .) -}}
{{- end -}}
{{- if regexMatch "^(127\\.|169\\.254\\.|22[4-9]\\.|2[345][0-9]\\.|0\\.0\\.0\\.0:|\\[[0:]*:0{0,3}1?\\]|\\[[fF][eE][89abAB][0-9a-fA-F]:|\\[[fF]{2}[0-9a-fA-F]{2}:)" . -}}
{{- fail (printf "agent.engine: '%s': an address of loopback, link-local, multicast or none is each pod's own, or nobody's; name one of the node or of the network" .) -}}
{{- end -}}
{{- $families = append $families (hasPrefix "[" .) -}}
{{- end -}}
{{- if ne (len $families) (len (uniq $families)) -}}
{{- fail (printf "agent.engine: 'external=%s': one address per family at most" .) -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkEngine" -}}
{{- $external := trimPrefix "external=" .Values.agent.engine -}}
{{- if ne $external .Values.agent.engine -}}
{{- include "sidetrack.checkExternal" $external -}}
{{- else -}}
{{- include "sidetrack.expect" (dict "key" "agent.engine" "text" .Values.agent.engine "pattern" "embedded|none" "meant" "embedded, external=ADDR:PORT[,ADDR:PORT] or none") -}}
{{- end -}}
{{- include "sidetrack.checkAddress" (dict "key" "engine.httpAddress" "text" .Values.engine.httpAddress) -}}
{{- $_ := include "sidetrack.amount" (dict "key" "engine.buffer" "text" .Values.engine.buffer "units" (dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576) "low" 4096 "high" 67108864 "meant" "a size, such as 256KiB, of 4KiB to 64MiB") -}}
{{- $drain := include "sidetrack.amount" (dict "key" "engine.drain" "text" .Values.engine.drain "units" (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) "low" 0 "high" 3600000000000 "meant" "a time, such as 500ms, 30s or 2m,") | atoi -}}
{{- if eq .Values.agent.engine "embedded" -}}
{{- if eq (int .Values.agent.httpPort) (int .Values.engine.httpPort) -}}
{{- fail (printf "agent.httpPort and engine.httpPort are both %d: they share the node's network" (int .Values.agent.httpPort)) -}}
{{- end -}}
{{- if ge $drain (mul (int .Values.terminationGracePeriodSeconds) 1000 | int) -}}
{{- fail (printf "engine.drain %s has to be shorter than terminationGracePeriodSeconds (%d): Kubernetes ends the engine then, whatever is open" .Values.engine.drain (int .Values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkMonitoring" -}}
{{- if and .Values.podMonitor.enabled (include "sidetrack.isLoopback" .Values.agent.httpAddress) -}}
{{- fail (printf "podMonitor.enabled: Prometheus cannot reach agent.httpAddress %s, the node's loopback; set agent.httpAddress (and engine.httpAddress) to 0.0.0.0" .Values.agent.httpAddress) -}}
{{- end -}}
{{- end -}}

{{- define "sidetrack.checkTest" -}}
{{- $name := include "sidetrack.testNamespace" . -}}
{{- if or (eq $name .Release.Namespace "default") (hasPrefix "kube-" $name) -}}
{{- fail (printf "test.namespace: '%s': helm test makes a namespace, and removes it; one that is not there is meant" $name) -}}
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

{{- /* Of two releases in a cluster helm would refuse the second itself, but say nothing of what to do. To look at an object by its name takes no
right that installing it does not. */ -}}
{{- define "sidetrack.checkAlone" -}}
{{- $role := and .Values.rbac.create (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" (include "sidetrack.clusterRole" .)) -}}
{{- if $role -}}
{{- $owner := dig "metadata" "annotations" dict $role -}}
{{- $name := get $owner "meta.helm.sh/release-name" -}}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" -}}
{{- if and $name (or (ne $name .Release.Name) (ne $namespace .Release.Namespace)) -}}
{{- fail (printf "this cluster has Sidetrack already: release %s in namespace %s. A second one would wait on every node for the first to go; upgrade that one (helm upgrade %s -n %s), or uninstall it first" $name $namespace $name $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What an installed release must keep. lookup finds nothing without a cluster (helm template, --dry-run=client). */ -}}
{{- define "sidetrack.checkRunning" -}}
{{- $running := lookup "v1" "ConfigMap" .Release.Namespace (include "sidetrack.fullname" .) -}}
{{- $old := dig "data" "agent.conf" "" (default dict $running) -}}
{{- $new := dig "data" "agent.conf" "" (include (print .Template.BasePath "/configmap.yaml") . | fromYaml) -}}
{{- range $option := list "http" "state-dir" "cache-dir" "pin-dir" "cni-conf-dir" "cni-bin-dir" -}}
{{- $line := printf "(?m)^%s = [^ \\n]+" $option -}}
{{- $was := regexFind $line $old -}}
{{- if and $was (ne $was (regexFind $line $new)) -}}
{{- if ne $option "http" -}}
{{- fail (printf "this release runs with '%s', by which the nodes find what is there from before; these values make it %s. To keep it, pass the values of this release again (-f FILE, or --reset-then-reuse-values); to change it, helm uninstall, then install (docs/upgrade.md)" $was (regexFind $line $new | default "nothing" | squote)) -}}
{{- else if include "sidetrack.surges" $ -}}
{{- fail (printf "this release runs with '%s': the pod that waits beside the old one would be asked at an address where nobody answers, and the upgrade would never finish; do it with --set updateStrategy.rollingUpdate.maxSurge=0,updateStrategy.rollingUpdate.maxUnavailable=1 (docs/upgrade.md)" $was) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
