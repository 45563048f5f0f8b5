{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* How values are written that the schema would refuse with nothing but a pattern. Each is refused with its key, itself and what is meant. */ -}}

{{- /* dict "key" KEY "text" TEXT "pattern" PATTERN "meant" TEXT */ -}}
{{- define "sidetrack.expect" -}}
{{- if not (regexMatch (printf "^(%s)$" .pattern) .text) -}}
{{- fail (printf "%s: '%s': %s is meant" .key .text .meant) -}}
{{- end -}}
{{- end -}}

{{- /* A list in one line, as a program reads it: a block of YAML has line ends, which may stand around each item. */ -}}
{{- define "sidetrack.list" -}}
{{- regexReplaceAll "\\s*,\\s*" (toString . | trim) "," -}}
{{- end -}}

{{- /* "443" or "8000-8100": dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkPorts" -}}
{{- $meant := "a port or a range of ports, such as 443 or 8000-8100," -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" "[0-9]{1,5}(-[0-9]{1,5})?" "meant" $meant) -}}
{{- $bounds := splitList "-" .text -}}
{{- $low := first $bounds | atoi -}}
{{- $high := last $bounds | atoi -}}
{{- if or (lt $low 1) (gt $high 65535) (gt $low $high) -}}
{{- fail (printf "%s: '%s': ports are 1 to 65535, the lower one first" .key .text) -}}
{{- end -}}
{{- end -}}

{{- /* A number and its unit, by what units are worth: dict "key" KEY "text" TEXT "units" (dict UNIT WORTH...) "low" N "high" N "meant" TEXT */ -}}
{{- define "sidetrack.amount" -}}
{{- /* More than a million of anything but bytes is refused by the programs, too. */ -}}
{{- $number := ternary "[0-9]{1,8}" "([0-9]{1,6}|1000000)" (hasKey .units "B") -}}
{{- $pattern := printf "%s(%s)" $number (keys .units | join "|") -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" $pattern "meant" .meant) -}}
{{- $unit := regexFind "[A-Za-z]*$" .text -}}
{{- /* atoi: zeros before it do not make it octal. */ -}}
{{- $amount := mul (trimSuffix $unit .text | atoi) (get .units $unit) -}}
{{- if or (lt $amount (int64 .low)) (gt $amount (int64 .high)) -}}
{{- fail (printf "%s: '%s': %s is meant" .key .text .meant) -}}
{{- end -}}
{{- $amount -}}
{{- end -}}

{{- /* What a quantity of Kubernetes is worth: "100m", "64Mi", "1e3", 2 */ -}}
{{- define "sidetrack.quantity" -}}
{{- $number := regexFind "^[0-9.]+([eE][-+]?[0-9]+)?" (toString .) -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- $power := index (dict "n" -3 "u" -2 "m" -1 "k" 1 "K" 1 "M" 2 "G" 3 "T" 4 "P" 5 "E" 6) (trimSuffix "i" $unit) | default 0 -}}
{{- $worth := float64 $number -}}
{{- range until (max $power (sub 0 $power) | int) -}}
{{- $worth = ternary (divf $worth 1000) (mulf $worth (ternary 1024 1000 (hasSuffix "i" $unit))) (lt $power 0) -}}
{{- end -}}
{{- $worth -}}
{{- end -}}

{{- /* Addresses, as inet_pton(3) reads them. */ -}}
{{- define "sidetrack.ipv4" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" -}}
{{- printf "(%s(\\.%s){3})" $octet $octet -}}
{{- end -}}
{{- define "sidetrack.ipv6" -}}
{{- $group := "[0-9a-fA-F]{1,4}" -}}
{{- $v4 := include "sidetrack.ipv4" . -}}
{{- /* Whole ones, then those with 0 to 7 groups before "::", and as many behind it as leave a group for it. */ -}}
{{- $all := list (printf "(%s:){7}%s" $group $group) (printf "(%s:){6}%s" $group $v4) -}}
{{- range $before := until 8 -}}
{{- $behind := list "" -}}
{{- if le $before 6 -}}{{- $behind = append $behind (printf "(%s:){0,%d}%s" $group (sub 6 $before) $group) -}}{{- end -}}
{{- if le $before 5 -}}{{- $behind = append $behind (printf "(%s:){0,%d}%s" $group (sub 5 $before) $v4) -}}{{- end -}}
{{- $head := ternary ":" (printf "(%s:){%d}" $group $before) (eq $before 0) -}}
{{- $all = append $all (printf "%s:(%s)" $head (join "|" $behind)) -}}
{{- end -}}
{{- printf "(%s)" (join "|" $all) -}}
{{- end -}}

{{- /* dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkAddress" -}}
{{- $v6 := include "sidetrack.ipv6" . -}}
{{- $pattern := printf "%s|%s|\\[%s\\]" (include "sidetrack.ipv4" .) $v6 $v6 -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" $pattern "meant" "an address, such as 127.0.0.1, 0.0.0.0 or ::,") -}}
{{- end -}}

{{- /* Whether only the node itself reaches an address; empty: no. */ -}}
{{- define "sidetrack.isLoopback" -}}
{{- if regexMatch "^(127\\..*|\\[?[0:]*:0{0,3}1\\]?)$" . -}}yes{{- end -}}
{{- end -}}

{{- /* A path that neither YAML nor our configuration file nor Kubernetes reads as something else: dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkPath" -}}
{{- $meant := "an absolute path without '..', blanks, a slash at its end, and any of #:$\"'\\" -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" "(/[^/\\s#:$\"'\\\\]+)+" "meant" $meant) -}}
{{- if regexMatch "/\\.\\.?(/|$)" .text -}}
{{- fail (printf "%s: '%s': %s is meant" .key .text $meant) -}}
{{- end -}}
{{- end -}}

{{- /* As above, of what the containers see at the same path: dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkMounted" -}}
{{- include "sidetrack.checkPath" . -}}
{{- if regexMatch "^/(usr(/bin|/lib(64|/x86_64-linux-gnu)?)?|bin|lib|lib64|etc(/sidetrack)?|host(/.*)?|proc|sys|dev|var)$" .text -}}
{{- fail (printf "%s: '%s': it would hide what the containers are made of; a folder of its own is meant" .key .text) -}}
{{- end -}}
{{- end -}}

{{- /* None that a program reads as an option, or that the chart sets: dict "key" KEY "list" LIST */ -}}
{{- define "sidetrack.checkEnvironment" -}}
{{- range .list -}}
{{- include "sidetrack.expect" (dict "key" $.key "text" .name "pattern" "[-._a-zA-Z][-._a-zA-Z0-9]*" "meant" "the name of a variable") -}}
{{- if regexMatch "^(SIDETRACK_.*|NODE_NAME|POD_NAMESPACE|KUBERNETES_SERVICE_(HOST|PORT))$" .name -}}
{{- fail (printf "%s: '%s' would set what the chart sets; use the key for it, or agent.extraOptions" $.key .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* "10.0.0.0/8", "10.0.0.0/8:443", "[fd00::/8]:443": dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkCidr" -}}
{{- $ports := ":[0-9-]+" -}}
{{- $v4 := printf "%s(/(3[0-2]|[12]?[0-9]))?" (include "sidetrack.ipv4" .) -}}
{{- $v6 := printf "%s(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?" (include "sidetrack.ipv6" .) -}}
{{- $pattern := printf "%s(%s)?|%s|\\[%s\\](%s)?" $v4 $ports $v6 $v6 $ports -}}
{{- $meant := "a CIDR, such as 10.0.0.0/8, fd00::/8, 10.1.2.3, 10.0.0.0/8:443 or [fd00::/8]:443," -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" $pattern "meant" $meant) -}}
{{- with regexFind "(\\]|\\.[0-9/]+):[0-9-]+$" .text -}}
{{- include "sidetrack.checkPorts" (dict "key" $.key "text" (regexFind "[0-9-]+$" .)) -}}
{{- end -}}
{{- end -}}

{{- /* "10.0.0.1:15001", "[fd00::1]:15001": dict "key" KEY "text" TEXT */ -}}
{{- define "sidetrack.checkEndpoint" -}}
{{- $pattern := printf "(%s|\\[%s\\]):[0-9]+" (include "sidetrack.ipv4" .) (include "sidetrack.ipv6" .) -}}
{{- include "sidetrack.expect" (dict "key" .key "text" .text "pattern" $pattern "meant" "ADDR:PORT, such as 10.0.0.1:15001 or [fd00::1]:15001,") -}}
{{- include "sidetrack.checkPorts" (dict "key" .key "text" (regexFind "[0-9]+$" .text)) -}}
{{- end -}}
