#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a reboot does to the node, as far as its kernel's state goes: every container, network namespace, link, cgroup, rule, pin
# and file below /run is gone, and the main CNI writes its configuration again before the pods start. The API server is
# elsewhere and goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/kubernetes/common.sh
. "$here/common.sh"
# shellcheck source=tests/kubernetes/teardown.sh
. "$here/teardown.sh"
# shellcheck source=tests/kubernetes/node.sh
. "$here/node.sh"

set +e
stop kubelet
stop kube-proxy
remove_containers
stop containerd
remove_mounts "$VAR/kubelet/" "$STATE/"
remove_cgroups
remove_rules
remove_bridge
set -e
rm -rf "$STATE/containerd" "$STATE/ipam" /run/sidetrack /sys/fs/bpf/sidetrack
main_conflist >"$CNI_CONF/10-main.conflist"
start_containerd
start_kubelet
start_proxy
wait_for 90 "the node to be Ready" kubectl wait --for=condition=Ready "node/$NODE" --timeout=1s
