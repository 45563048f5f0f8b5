#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the test cluster down, also half a one: ends the recorded processes and the containers of its own containerd, puts
# sysctls, iptables, mounts and links back. What Sidetrack itself left on the node is not touched: its tests look at that.
#   down.sh [--wipe]     --wipe: its state (etcd, certificates, images, logs) goes, too; the built programs stay
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/kubernetes/common.sh
. "$here/common.sh"
# shellcheck source=tests/kubernetes/teardown.sh
. "$here/teardown.sh"

# While kubelet runs and no controller makes new pods, pods go in order: CNI DEL, mounts, cgroups.
remove_pods() {
  stop kube-scheduler
  stop kube-controller-manager
  if alive kubelet && alive kube-apiserver; then
    timeout 90 kubectl delete pods -A --all --grace-period=1 --timeout=60s >/dev/null 2>&1
  fi
  stop kubelet
}

# Mounts that up.sh made, unless somebody uses them by now.
remove_own_mounts() {
  if [ -e "$RUN/netns.mounted" ] && [ -z "$(ls /run/netns)" ]; then
    umount /run/netns && rmdir /run/netns && rm -f "$RUN/netns.mounted"
  fi
  if [ -e "$RUN/bpffs.mounted" ] && [ -z "$(find /sys/fs/bpf -mindepth 1 ! -name '*.debug')" ]; then
    umount /sys/fs/bpf && rm -f "$RUN/bpffs.mounted"
  fi
}

remove_pods
if alive kube-proxy; then
  stop kube-proxy
  kube-proxy --cleanup --config "$ETC/proxy.yaml" >/dev/null 2>&1
fi
remove_containers
for name in containerd coredns kube-apiserver etcd; do stop $name; done
remove_mounts "$VAR/" "$STATE/"
remove_own_mounts
remove_cgroups
remove_rules
remove_bridge
remove_log_links
ip link del "$NODE_LINK" 2>/dev/null
if [ -s "$RUN/sysctl.saved" ]; then
  # shellcheck disable=SC2046
  sysctl -qw $(cat "$RUN/sysctl.saved") 2>/dev/null
  rm -f "$RUN/sysctl.saved"
fi
rm -rf "$STATE"
[ "${1:-}" != --wipe ] || rm -rf "$VAR" "$ETC" "$IMAGES" "$RUN" "$HOME_DIR/cni"
rm -f "$UP"
echo "down.sh: down"
