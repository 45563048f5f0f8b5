#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What several scripts need. Sourced.

# The mount point of cgroup2, from mountinfo: it may sit at /sys/fs/cgroup/unified.
cgroup2_root() {
  awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' /proc/self/mountinfo
}

# May this process load BPF programs and attach them to a cgroup?
bpf_works() {
  local bpftool
  bpftool=$(command -v bpftool || echo /usr/sbin/bpftool)
  [ "$(id -u)" = 0 ] && [ -n "$(cgroup2_root)" ] && "$bpftool" prog list >/dev/null 2>&1
}

# wait_until SECONDS WHAT COMMAND...: polls; dies after the time.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    if [ $SECONDS -ge $deadline ]; then
      echo "gave up waiting for: $what" >&2
      return 1
    fi
    sleep 0.05
  done
}

# remove_cgroup PATH: ends what runs in it and below. Fails if it is still there.
remove_cgroup() {
  local pids pid group
  pids=$(find "$1" -depth -name cgroup.procs -exec cat {} +)
  # So are processes of other pid namespaces shown: who owns them lives there.
  ! grep -qx 0 <<<"$pids" || return 1
  for pid in $pids; do
    kill -9 "$pid" 2>/dev/null || true
  done
  find "$1" -depth -type d | while read -r group; do
    wait_until 5 "$group to be empty" rmdir "$group" || true
  done
  [ ! -d "$1" ]
}
