#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# remove-leftovers.sh: takes away what tests, benchmarks and a demo left on this machine that were killed with -9: cgroups (with their
# programs and processes), network namespaces, and folders in which a bpf file system is mounted. Only what carries a name of theirs
# with the pid of a process that is gone, and the demo's while none runs. Says what it removed.
# Who is not root has left nothing of that kind.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/demo-lab.sh
. scripts/demo-lab.sh

# lives PID: a process of this pid here or in a pid namespace below, where a test may run, too. One that has ended but that nobody has
# waited for does not.
lives() {
  local status
  # shellcheck disable=SC2013 # a path each
  for status in $(grep -lsE "^NSpid:.*[[:space:]]$1\$" /proc/[0-9]*/status); do
    [ -e "$status" ] && ! grep -qs '^State:.Z' "$status" && return 0
  done
  return 1
}

# Names that only tests and benchmarks make; their pid is the first group that is not empty.
names='st-([0-9]+)-([0-9]+-[^/]+|memory|readme)|st-bench-([0-9]+)([-.][^/]*)?'

# of_dead_owners PATH...: those whose owner is gone.
of_dead_owners() {
  local path
  for path in "$@"; do
    [[ $path =~ /($names)(/bpf)?$ ]] && ! lives "${BASH_REMATCH[2]:-${BASH_REMATCH[4]}}" && printf '%s\n' "$path"
  done
}

remove_netns() { ip netns del "${1##*/}"; } # remove_netns PATH

remove_bpffs() { # remove_bpffs PATH: FOLDER/bpf, and the folder, which is then surely a test's
  umount "$1" && rm -rf --one-file-system "${1%/bpf}"
}

remove() { # remove HOW PATH...
  local how=$1 path
  shift
  of_dead_owners "$@" | while read -r path; do
    "$how" "$path" && echo "remove-leftovers: removed $path"
  done
}

remove_demo() {
  lock_demo || return 0
  dir=
  lab_remove_leftovers
  rm -f "$lock"
}

[ "$(id -u)" = 0 ] || exit 0
shopt -s nullglob
root=$(cgroup2_root)
[ -z "$root" ] || remove remove_cgroup "$root"/st-*
remove remove_netns /run/netns/st-*
# shellcheck disable=SC2046 # a word each
remove remove_bpffs $(sed -nE "s|^([^ ]+ ){4}(${TMPDIR:-/tmp}/st-[^ /]*/bpf) .* - bpf .*|\2|p" /proc/self/mountinfo)
remove_demo
