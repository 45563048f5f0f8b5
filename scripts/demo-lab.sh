#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo's node and pods: network namespaces, a bridge, a cgroup, a bpffs; made and removed. Sourced by demo.sh, which
# sets `dir` (a temporary folder). Only things with the names below are touched; traffic never leaves these namespaces.
# shellcheck disable=SC2154

prefix=sidetrack-demo
lock=/run/$prefix.lock
node=$prefix-node
cgroup="$(cgroup2_root)/$prefix"
service=10.96.0.10
pids=()

lab_up() {
  lab_remove_leftovers
  mkdir "$cgroup" "$cgroup/agent"
  mkdir -p "$dir/bpf" "$dir/state" "$dir/cache"
  mount -t bpf bpf "$dir/bpf"

  ip netns add "$node"
  ip -n "$node" link set lo up
  ip -n "$node" link add br0 type bridge
  ip -n "$node" addr add 10.244.7.1/24 dev br0
  ip -n "$node" addr add fd00:244:7::1/64 dev br0 nodad
  ip -n "$node" link set br0 up
  in_netns "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.br0.send_redirects=0
  add_pod web 10
  add_pod api 20
  add_pod cron 30
  # Direct connections to the Service address work without netfilter: it is routed to the one backend.
  ip -n "$node" route add "$service/32" via 10.244.7.20
  ip -n "$prefix-api" addr add "$service/32" dev lo

  sed "s|@DIR@|$dir|" "$root/demo/nginx.conf" >"$dir/nginx.conf"
  start_in_pod api nginx -c "$dir/nginx.conf" -p "$dir" -e "$dir/nginx.log"
  wait_until 10 "nginx in the pod" curl_in_pod api http://127.0.0.1:8080/ >/dev/null
}

# add_pod NAME NUMBER: a netns with a veth to the node's bridge, and a cgroup.
add_pod() {
  local netns=$prefix-$1 number=$2
  mkdir "$cgroup/$1"
  ip netns add "$netns"
  ip -n "$netns" link set lo up
  ip -n "$node" link add "veth-$1" type veth peer name eth0 netns "$netns"
  ip -n "$node" link set "veth-$1" master br0 up
  ip -n "$netns" addr add "10.244.7.$number/24" dev eth0
  ip -n "$netns" addr add "fd00:244:7::$number/64" dev eth0 nodad
  ip -n "$netns" link set eth0 up
  ip -n "$netns" route add default via 10.244.7.1
}

in_netns() {
  local netns=$1
  shift
  nsenter --net="/run/netns/$netns" "$@"
}

# become_in CGROUP NETNS COMMAND...: the calling (sub)shell becomes COMMAND there, so that $! of a job is its pid.
# It does not inherit the demo's lock (descriptor 9).
become_in() {
  # shellcheck disable=SC2016
  exec sh -c 'echo $$ >"$1/cgroup.procs" && netns=$2 && shift 2 && exec nsenter --net="/run/netns/$netns" "$@"' \
    sh "$cgroup/$1" "$2" "${@:3}" 9>&-
}

in_pod() {
  (become_in "$1" "$prefix-$1" "${@:2}")
}

start_in_pod() {
  become_in "$1" "$prefix-$1" "${@:2}" >"$dir/$1.log" 2>&1 </dev/null &
  pids+=($!)
}

curl_in_pod() {
  in_pod "$1" curl --silent --show-error --globoff --noproxy '*' --max-time 5 "$2"
}

# Takes the demo's lock, on descriptor 9, for as long as this shell lives. False if another has it, or has just removed the file.
lock_demo() {
  exec 9>"$lock"
  flock -n 9 && [ "/proc/self/fd/9" -ef "$lock" ]
}

# A demo that was killed with -9 leaves these behind.
lab_remove_leftovers() {
  local name old
  for old in "/tmp/$prefix".*; do
    if [ "$old" != "$dir" ] && mountpoint -q "$old/bpf"; then
      umount "$old/bpf" && rm -rf "$old"
    fi
  done
  for name in web api cron node; do
    ip netns del "$prefix-$name" 2>/dev/null || true
  done
  # What is left in the demo's own cgroup was started by an earlier demo.
  [ ! -d "$cgroup" ] || remove_cgroup "$cgroup" || true
}

lab_down() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  lab_remove_leftovers
  umount "$dir/bpf" 2>/dev/null || true
}
