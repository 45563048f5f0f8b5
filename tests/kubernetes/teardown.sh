# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a node's pods leave on the machine, and how it goes. Sourced by down.sh and reboot.sh after common.sh.

remove_containers() {
  local id
  alive containerd || return 0
  for id in $(ctr_k8s tasks list -q); do ctr_k8s tasks kill -s KILL "$id" >/dev/null 2>&1; done
  for id in $(ctr_k8s tasks list -q); do
    wait_for 5 "container $id to end" sh -c "ctr -a $SOCKET -n k8s.io tasks list | grep $id | grep -q STOPPED"
    ctr_k8s tasks delete -f "$id" >/dev/null 2>&1
  done
  for id in $(ctr_k8s containers list -q); do ctr_k8s containers delete "$id" >/dev/null 2>&1; done
}

mounts_below() { # mounts_below PREFIX: deepest first
  awk -v prefix="$1" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo | sort -ru
}

remove_mounts() { # remove_mounts PREFIX...
  local prefix mount file
  for prefix in "$@" /run/netns/cni- /var/run/netns/cni-; do
    mounts_below "$prefix" | while read -r mount; do umount -l "$mount" 2>/dev/null; done
  done
  for file in /run/netns/cni-*; do
    [ ! -e "$file" ] || rm -f "$file" 2>/dev/null || echo "cannot remove $file" >&2
  done
}

remove_cgroups() {
  local root
  for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ ! -d "$root/kubepods" ] || find "$root/kubepods" -depth -type d -exec rmdir {} + 2>/dev/null
  done
}

# Chains of kubelet, kube-proxy and the CNI plugins, and the rules that jump to them.
remove_rules() {
  local command table
  for command in iptables ip6tables; do
    for table in mangle nat filter; do
      edit_table $command $table 's/^-A (.* -j (KUBE|CNI)-.*)/-D \1/p'
      edit_table $command $table 's/^:((KUBE|CNI)-[^ ]*).*/-F \1/p'
      edit_table $command $table 's/^:((KUBE|CNI)-[^ ]*).*/-X \1/p'
    done
  done
}

edit_table() { # edit_table COMMAND TABLE SED: what SED makes of the saved table is what is done to it
  local edits
  edits=$("$1-save" -t "$2" 2>/dev/null | sed -nE "$3")
  [ -z "$edits" ] || printf '*%s\n%s\nCOMMIT\n' "$2" "$edits" | "$1-restore" --noflush
}

remove_log_links() {
  find /var/log/containers -lname "$VAR/*" -delete 2>/dev/null
  rmdir /var/log/containers 2>/dev/null
}

remove_bridge() {
  ip link del "$BRIDGE" 2>/dev/null
}
