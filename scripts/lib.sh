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
