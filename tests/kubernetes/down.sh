#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the test cluster down, also half a one: ends the recorded processes and the containers of its own containerd, puts
# sysctls, iptables, mounts and links back.
#   down.sh [--wipe]     --wipe: its state (etcd, certificates, images, logs) goes, too; the built programs stay
set -uo pipefail
# shellcheck source=tests/kubernetes/common.sh
. "$(cd "$(dirname "$0")" && pwd)/common.sh"

# While kubelet runs and no controller makes new pods, pods go in order: CNI DEL, mounts, cgroups.
remove_pods() {
  stop kube-scheduler
  stop kube-controller-manager
  if alive kubelet && alive kube-apiserver; then
    timeout 90 kubectl delete pods -A --all --grace-period=1 --timeout=60s >/dev/null 2>&1
  fi
  stop kubelet
}

remove_containers() {
  local id
  alive containerd || return
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

remove_mounts() {
  local prefix mount file
  for prefix in "$VAR/" "$STATE/" /run/netns/cni- /var/run/netns/cni-; do
    mounts_below "$prefix" | while read -r mount; do umount -l "$mount" 2>/dev/null; done
  done
  for file in /run/netns/cni-*; do
    [ ! -e "$file" ] || rm -f "$file" 2>/dev/null || echo "down.sh: cannot remove $file" >&2
  done
  if [ -e "$RUN/netns.mounted" ] && [ -z "$(ls /run/netns)" ]; then
    umount /run/netns && rmdir /run/netns && rm -f "$RUN/netns.mounted"
  fi
  if [ -e "$RUN/bpffs.mounted" ] && [ -z "$(ls /sys/fs/bpf)" ]; then
    umount /sys/fs/bpf && rm -f "$RUN/bpffs.mounted"
  fi
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
      $command-save -t $table 2>/dev/null | grep -E '^-A .* -j (KUBE|CNI)-' | sed 's/^-A/-D/' |
        xargs -r -L1 $command -t $table 2>/dev/null
      for verb in F X; do
        $command-save -t $table 2>/dev/null | sed -nE 's/^:((KUBE|CNI)-[^ ]*).*/\1/p' |
          xargs -r -n1 $command -t $table -$verb 2>/dev/null
      done
    done
  done
}

remove_pods
if alive kube-proxy; then
  stop kube-proxy
  kube-proxy --cleanup --config "$ETC/proxy.yaml" >/dev/null 2>&1
fi
remove_containers
for name in containerd coredns kube-apiserver etcd; do stop $name; done
remove_mounts
remove_cgroups
remove_rules
ip link del "$BRIDGE" 2>/dev/null
ip link del "$NODE_LINK" 2>/dev/null
if [ -s "$RUN/sysctl.saved" ]; then
  # shellcheck disable=SC2046
  sysctl -qw $(cat "$RUN/sysctl.saved") 2>/dev/null
  rm -f "$RUN/sysctl.saved"
fi
rm -rf "$STATE"
[ "${1:-}" != --wipe ] || rm -rf "$VAR" "$ETC" "$IMAGES" "$RUN" "$HOME_DIR/cni"
echo "down.sh: down"
