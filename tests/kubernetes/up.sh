#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings up a Kubernetes of one node on this machine: etcd, API server, controllers, scheduler, containerd, kubelet,
# kube-proxy, cluster DNS. Root; build.sh first. Does nothing to what runs already. A start that fails is taken down again.
#   up.sh [control]      control: without a node
# It changes sysctls and iptables of the machine: down.sh puts them back.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/kubernetes/common.sh
. "$here/common.sh"
# shellcheck source=tests/kubernetes/control-plane.sh
. "$here/control-plane.sh"
# shellcheck source=tests/kubernetes/node.sh
. "$here/node.sh"

level=${1:-node}
of_control=(etcd kubectl jq openssl kube-apiserver kube-controller-manager kube-scheduler)
of_node=(kubelet kube-proxy coredns containerd ctr runc iptables)
[ "$(id -u)" = 0 ] || { echo "up.sh: needs root" >&2; exit 2; }
[ "$level" = control ] || of_control+=("${of_node[@]}")
for program in "${of_control[@]}"; do
  command -v "$program" >/dev/null || {
    echo "up.sh: no '$program': run tests/kubernetes/build.sh and scripts/install-packages.sh kubernetes" >&2
    exit 1
  }
done
mkdir -p "$RUN" "$ETC/pki" "$VAR" "$IMAGES" "$STATE"

failed() {
  local status=$?
  [ $status = 0 ] && return
  echo "up.sh: failed; last lines of the logs in $RUN:" >&2
  tail -n 5 "$RUN"/*.log >&2 || true
  [ -n "${ST_K8S_KEEP:-}" ] || "$here/down.sh" >&2
  exit $status
}
trap failed EXIT

make_certificates
prepare_host
start_control_plane
if [ "$level" != control ]; then
  python3 -B "$here/images.py" "$IMAGES"
  write_cni
  start_containerd
  for image in "$IMAGES"/*.tar; do
    ctr_k8s images import "$image" >/dev/null
  done
  start_dns
  start_kubelet
  start_proxy
  wait_for 90 "the node to be Ready" kubectl wait --for=condition=Ready "node/$NODE" --timeout=1s
fi
kubectl get nodes -o wide
