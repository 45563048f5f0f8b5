#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh: shows on a node made of network namespaces what Sidetrack does with a pod's connections, and cleans up.
# Root, a kernel with BPF and cgroup2. The last line says what was shown and what of it failed, with counts.
# Environment: SIDETRACK_BIN = folder of the programs (default: build/bin, built if needed), KEEP_LOGS=1 keeps the logs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
export PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/demo-lab.sh
. scripts/demo-lab.sh

shown=()
failed=()
engine_pid=
bold='' dim='' red='' plain=''
if [ -t 1 ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
ctl() { "$bin/sidetrackctl" --state-dir "$dir/state" "$@"; }

# check WHAT GOT WANTED: one line; counts a failure if they differ.
check() {
  if [ "$2" = "$3" ]; then
    printf '   %-18s %s\n' "$1" "$2"
  else
    printf '   %-18s %s%s   <- wrong, expected: %s%s\n' "$1" "$red" "$2" "$3" "$plain"
    block_failed=1
  fi
}

# begin WHAT HEADING: what is shown until the next `end`; WHAT is its name in the last line.
begin() {
  heading "$2"
  block_name=$1
  block_failed=0
}

end() {
  if [ "$block_failed" = 0 ]; then
    shown+=("$block_name")
  else
    failed+=("$block_name")
  fi
}

# listed COUNTED NAME...: "2 COUNTED (a, b)", "0 COUNTED".
listed() {
  local counted=$1 names
  shift
  names=$(printf '%s, ' "$@")
  printf '%s %s%s' $# "$counted" "${1:+ (${names%, })}"
}

summary() { say "demo: $(listed shown "${shown[@]}"), $(listed failed "${failed[@]}")"; }

# How often the kernel gave this reason so far, in all namespaces.
kernel_count() {
  ctl counters -o json | jq --arg reason "$1" '[.. | objects | .connections? | objects | .[$reason] // 0] | add // 0'
}

# The newest flow from a pod to a destination, as JSON; waits until the record of the closed connection is there.
flow_of() {
  local flow
  for _ in $(seq 60); do
    flow=$(ctl flows -n "${1%%/*}" --since 1m -o json | jq -c --arg pod "${1##*/}" --arg to "$2" --argjson after "$3" \
      '[.. | objects | select(.pod? == $pod and .destination? == $to and .start? > $after - 0.02)] | last // empty')
    [ -z "$flow" ] || break
    sleep 0.05
  done
  printf '%s\n' "${flow:-{\}}"
}

# How many flow records there are from CLIENT_ADDRESS to a destination since a time. Records come in the order of the
# connections' ends: when that of a later one is there, none is on its way.
flows_between() {
  local later
  later=$(date +%s.%N)
  curl_in_pod web http://$service/ >/dev/null 2>&1 || true
  if [ "$(flow_of shop/web $service:80 "$later")" = '{}' ]; then
    echo "not known: that of a later connection did not come"
    return
  fi
  ctl flows --since 1m -o json | jq --arg client "$1" --arg to "$2" --argjson after "$3" \
    '[.. | objects | select(.destination? == $to and (.source? // "" | contains($client)) and .start? > $after - 0.02)] | length'
}

# request NAMESPACE/POD URL ADDRESS:PORT PATH REASON CLIENT_ADDRESS SERVER_PORT [ENDPOINT]: asks from inside the pod, and compares
# what came back, the kernel's counters, `explain` and `flows` with what is expected. PATH none: left fully alone, no flow record.
request() {
  local pod=$1 url=$2 destination=$3 path=$4 reason=$5 client=$6 port=$7
  local before answer after explained flow start
  say "   ${dim}$pod asks $url$plain"
  before=$(kernel_count "$reason")
  start=$(date +%s.%N)
  answer=$(curl_in_pod "${pod##*/}" "$url" 2>&1) || true
  after=$(kernel_count "$reason")
  explained=$(ctl explain "$pod" "$destination" -o json) || true

  check "answer" "$answer" "served by shop/api on port $port, client address $client"
  check "kernel says" "$reason +$((after - before))" "$reason +1"
  check "explain says" "$(jq -r '.reason' <<<"$explained")" "$reason"
  jq -r 'select(.rule != null and .rule.object != null) | "   rule               \(.rule.object), \(.rule.key): \(.rule.value)"' <<<"$explained"
  if [ "$path" = none ]; then
    check "records in flows" "$(flows_between "$client" "$destination" "$start") (left fully alone)" "0 (left fully alone)"
    return
  fi
  flow=$(flow_of "$pod" "$destination" "$start")
  check "path in flows" "$(jq -r '.path' <<<"$flow")" "$path"
  if [ "$path" = engine ]; then
    check "endpoint in flows" "$(jq -r '.endpoint' <<<"$flow")" "${8:-$destination}"
  fi
  jq -r '"   bytes, end         \(.bytes_out) out, \(.bytes_in) in, \(.close)"' <<<"$flow"
}

start_agent() {
  become_in agent "$node" "$bin/sidetrack-agent" run --node demo-node --objects "$dir/objects" --cgroup "$cgroup" \
    --state-dir "$dir/state" --pin-dir "$dir/bpf/sidetrack" --cache-dir "$dir/cache" \
    --http 127.0.0.1:15880 >"$dir/agent.log" 2>&1 </dev/null &
  agent_pid=$!
  pids+=("$agent_pid")
}

start_engine() {
  become_in agent "$node" "$bin/sidetrack-engine" run --state-dir "$dir/state" --http off \
    >>"$dir/engine.log" 2>&1 </dev/null &
  engine_pid=$!
  pids+=("$engine_pid")
}

pod_is() {
  [ "$(ctl pods -n "${1%%/*}" -o json | jq -r --arg pod "${1##*/}" \
    '[.. | objects | select(.pod? == $pod)] | first | "\(.state) \(.mode)"')" = "$2" ]
}

# The agent's own connections, which try the fast path when it starts, are counted as well: what is shown comes after them.
self_test_is_over() {
  [ "$(ctl status -o json | jq -r .fast_path_reason)" != self_test_running ]
}

explains() {
  [ "$(ctl explain "$1" "$2" -o json | jq -r .verdict)" = "$3" ]
}

label_shop() {
  sed "s|sidetrack.io/mode: .*|sidetrack.io/mode: $1|" "$dir/objects/namespaces.yaml" >"$dir/objects/.edited"
  mv "$dir/objects/.edited" "$dir/objects/namespaces.yaml"
}

netfilter_rules() {
  local name rules=0
  for name in web api cron node; do
    rules=$((rules + $(netfilter_rules_in "$prefix-$name")))
  done
  echo "$rules"
}

netfilter_rules_in() {
  {
    cat <(in_netns "$1" cat /proc/net/ip_tables_names 2>/dev/null) <(in_netns "$1" cat /proc/net/ip6_tables_names 2>/dev/null)
    # Without nft nobody looked, which is as bad as a rule.
    in_netns "$1" nft list ruleset 2>&1 || echo "nft cannot list the rules"
  } | grep -c . || true
}

prepare() {
  [ "$(id -u)" = 0 ] || { echo "demo: needs root: it makes network namespaces and attaches BPF programs" >&2; exit 2; }
  scripts/install-packages.sh build run demo
  if [ -n "${SIDETRACK_BIN:-}" ]; then
    bin=$(realpath "$SIDETRACK_BIN")
  else
    bin=$root/build/bin
    [ -e build/build.ninja ] || cmake --preset release
    cmake --build build --target sidetrack-agent sidetrack-engine sidetrackctl
  fi
  bpf_works || { echo "demo: BPF or cgroup2 is not to be had here" >&2; exit 3; }
  # Whoever only takes away what a killed demo left has it for a moment.
  wait_until 3 "the demo's lock" lock_demo 2>/dev/null || { echo "demo: another demo is running" >&2; exit 1; }
  dir=$(mktemp -d "/tmp/$prefix.XXXXXX")
  trap 'cleanup $?' EXIT
  trap 'cleanup 130' INT TERM
  cp -r demo/objects "$dir/objects"
}

# cleanup STATUS: ends the demo. Ctrl-C also ends what the shell waits for, which alone would look like a failure: the signal
# is still to be handled when this begins, and its own cleanup runs, whole, inside of this one.
cleanup() {
  local status=$1
  trap '' INT TERM
  trap - EXIT
  set +e
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ "${finished:-0}" = 0 ]; then
    say "demo: stopped early; last lines of the logs:"
    tail -n 15 "$dir"/agent.log "$dir"/engine.log 2>/dev/null
  fi
  lab_down
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ "${finished:-0}" = 0 ]; then
    failed+=("stopped in: ${block_name:-getting ready}")
    summary
  fi
  if [ -n "${KEEP_LOGS:-}" ]; then
    say "demo: logs are in $dir" >&2
  else
    rm -rf "$dir"
  fi
  rm -f "$lock"
  exit "$status"
}

show_passthrough() {
  begin "passed through" "Namespace shop is labelled passthrough: connections are observed, not touched"
  request shop/web http://$service/ $service:80 direct passthrough 10.244.7.10 80
  end
}

show_switch() {
  local start
  begin "label changed live" "The label is changed to redirect, live"
  start=$(date +%s%N)
  label_shop redirect
  wait_until 10 "shop/web to be enrolled" pod_is shop/web "enrolled redirect"
  wait_until 10 "explain to say redirected" explains shop/web $service:80 redirected
  say "   in force after      $((($(date +%s%N) - start) / 1000000)) ms, read back from the kernel"
  request shop/web http://$service/ $service:80 engine redirected 10.244.7.10 8080 10.244.7.20:8080
  end
}

show_addresses() {
  begin "pod address" "A pod's address is redirected too, and the server still sees the client pod's own"
  request shop/web http://10.244.7.20:8080/ 10.244.7.20:8080 engine redirected 10.244.7.10 8080
  end
  begin "IPv6" "The same over IPv6"
  request shop/web 'http://[fd00:244:7::20]:8080/' '[fd00:244:7::20]:8080' engine redirected fd00:244:7::10 8080
  end
}

show_exclusions() {
  begin "excluded port" "Port 8500 is excluded by an annotation of the namespace"
  request shop/web http://10.244.7.20:8500/ 10.244.7.20:8500 none excluded_port 10.244.7.10 8500
  end
  begin "unlabelled pod" "A pod of a namespace without the label is left alone"
  request legacy/cron http://$service/ $service:80 none not_enrolled 10.244.7.30 80
  end
  begin "no netfilter rules" "No iptables or nftables rule exists in any of these network namespaces"
  check "rules" "$(netfilter_rules)" 0
  end
}

show_engine_loss() {
  begin "engine killed" "The engine is killed (kill -9): the very next connection goes direct"
  kill -9 "$engine_pid"
  wait "$engine_pid" 2>/dev/null || true
  request shop/web http://$service/ $service:80 direct engine_down 10.244.7.10 80
  end
  begin "engine back" "The engine is started again: redirection comes back"
  start_engine
  wait_until 10 "explain to say redirected" explains shop/web $service:80 redirected
  request shop/web http://$service/ $service:80 engine redirected 10.244.7.10 8080 10.244.7.20:8080
  end
}

show_agent_loss() {
  begin "agent killed" "The agent is killed (kill -9): the kernel goes on redirecting; a new agent takes over"
  kill -9 "$agent_pid"
  wait "$agent_pid" 2>/dev/null || true
  check "answer" "$(curl_in_pod web http://$service/ 2>&1 || true)" \
    "served by shop/api on port 8080, client address 10.244.7.10"
  start_agent
  wait_until 20 "shop/web to be enrolled" pod_is shop/web "enrolled redirect"
  wait_until 10 "explain to say redirected" explains shop/web $service:80 redirected
  request shop/web http://$service/ $service:80 engine redirected 10.244.7.10 8080 10.244.7.20:8080
  end
}

show_uninstall() {
  begin "uninstalled" "Uninstall: programs, links and maps are gone, the pod goes on"
  kill "$engine_pid" "$agent_pid"
  wait "$engine_pid" "$agent_pid" 2>/dev/null || true
  "$bin/sidetrack-agent" uninstall --state-dir "$dir/state" --pin-dir "$dir/bpf/sidetrack" --cache-dir "$dir/cache" \
    --cgroup "$cgroup" --drain 1s >"$dir/uninstall.log" 2>&1 || { block_failed=1; cat "$dir/uninstall.log"; }
  check "pins left" "$(find "$dir/bpf/sidetrack" 2>/dev/null | wc -l)" 0
  check "programs attached" "$(bpftool cgroup show "$cgroup" 2>/dev/null | grep -c ' st_' || true)" 0
  check "answer" "$(curl_in_pod web http://$service/ 2>&1 || true)" \
    "served by shop/api on port 80, client address 10.244.7.10"
  end
}

main() {
  prepare
  heading "A node of three pods: shop/web and legacy/cron (clients), shop/api (nginx behind Service $service:80)"
  lab_up
  start_agent
  wait_until 20 "the agent" ctl status -o json >/dev/null
  wait_until 20 "the self-test of the fast path to end" self_test_is_over
  start_engine
  wait_until 20 "shop/web to be enrolled" pod_is shop/web "enrolled passthrough"
  ctl status || true
  show_passthrough
  show_switch
  show_addresses
  show_exclusions
  show_engine_loss
  heading "What sidetrackctl flows shows of all this"
  ctl flows -n shop --since 5m || true
  show_agent_loss
  show_uninstall
  finished=1
  say
  summary
  [ ${#failed[@]} = 0 ]
}

main "$@"
