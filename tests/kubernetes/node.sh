# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# containerd with its CNI chain, cluster DNS, kubelet, kube-proxy. Sourced by up.sh after common.sh.

# kubelet, kube-proxy and prepare_host change these; down.sh puts the old values back.
CHANGED_SYSCTLS="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
  kernel.keys.root_maxbytes net.ipv4.ip_forward net.ipv4.conf.all.route_localnet net.bridge.bridge-nf-call-iptables"

prepare_host() {
  # The node's address is on a link of its own: nothing depends on the machine's network.
  ip link show "$NODE_LINK" >/dev/null 2>&1 || ip link add "$NODE_LINK" type bridge
  ip addr replace "$NODE_IP/32" dev "$NODE_LINK"
  ip link set "$NODE_LINK" up
  # A cluster IP that kube-proxy does not know yet leads nowhere: the machine's own network may answer for any address.
  ip route replace "$SERVICE_CIDR" dev "$NODE_LINK"
  # shellcheck disable=SC2086
  [ -s "$RUN/sysctl.saved" ] || sysctl $CHANGED_SYSCTLS 2>/dev/null | sed 's/ = /=/' >"$RUN/sysctl.saved"
  # The state that `ip netns add` makes. Made later, on top of running pods, their namespaces would be mounted
  # twice and no pod could be removed any more.
  mkdir -p /run/netns
  if ! mountpoint -q /run/netns; then
    mount --bind /run/netns /run/netns
    mount --make-shared /run/netns
    touch "$RUN/netns.mounted"
  fi
  if ! mountpoint -q /sys/fs/bpf; then
    mount -t bpf bpf /sys/fs/bpf
    touch "$RUN/bpffs.mounted"
  fi
}

write_cni() {
  mkdir -p "$CNI_CONF" "$CNI_BIN"
  for plugin in bridge portmap host-local loopback; do
    [ -e "$CNI_BIN/$plugin" ] || cp "/usr/lib/cni/$plugin" "$CNI_BIN/"
  done
  [ -n "$(ls "$CNI_CONF")" ] || main_conflist >"$CNI_CONF/10-main.conflist"
}

# What the main CNI of a cluster would write; also what "it rewrites its file" means in the tests.
main_conflist() {
  cat <<END
{
  "cniVersion": "1.0.0",
  "name": "sidetrack-k8s",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "$BRIDGE",
      "isGateway": true,
      "ipMasq": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$POD_CIDR"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "$STATE/ipam"
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
END
}

start_containerd() {
  # runsc: cases_sandboxed.py builds its programs.
  # restrict_oom_score_adj: a root without CAP_SYS_RESOURCE may not lower it, and every pod would fail.
  if put "$ETC/containerd.toml" <<END; then stop containerd; fi
version = 2
root = "$VAR/containerd"
state = "$STATE/containerd"
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "sidetrack.test/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$CNI_CONF"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
END
  start containerd containerd --config "$ETC/containerd.toml"
  wait_for 30 containerd ctr_k8s version
}

# A process of the host on the node's address, not a pod: pods reach it as they reach a node-local DNS cache.
start_dns() {
  if put "$ETC/Corefile" <<END; then stop coredns; fi
. {
  bind $NODE_IP
  errors
  kubernetes cluster.local {
    kubeconfig $ETC/admin.kubeconfig
  }
  cache 5
}
END
  start coredns coredns -conf "$ETC/Corefile"
}

start_kubelet() {
  : >"$ETC/resolv.conf"
  mkdir -p "$STATE/manifests"
  # No image is ever deleted: nothing could pull it again. Containers that tests kill are started again at once.
  if put "$ETC/kubelet.yaml" <<END; then stop kubelet; fi
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: "$ETC/pki/ca.crt"}
authorization: {mode: Webhook}
tlsCertFile: $ETC/pki/kubelet-server.crt
tlsPrivateKeyFile: $ETC/pki/kubelet-server.key
containerRuntimeEndpoint: unix://$SOCKET
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
resolvConf: $ETC/resolv.conf
clusterDomain: cluster.local
clusterDNS: [$NODE_IP]
podLogsDir: $VAR/pod-logs
staticPodPath: $STATE/manifests
volumePluginDir: $VAR/volume-plugins
maxPods: 250
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
END
  wait_for 30 "kubelet" kubelet_runs
}

# It ends when containerd listens but is not ready yet; the service managers of nodes start it again, too.
kubelet_runs() {
  start kubelet kubelet --config "$ETC/kubelet.yaml" --kubeconfig "$ETC/kubelet.kubeconfig" \
    --hostname-override "$NODE" --node-ip "$NODE_IP" --root-dir "$VAR/kubelet"
  curl -sf -m 2 http://127.0.0.1:10248/healthz
}

start_proxy() {
  if put "$ETC/proxy.yaml" <<END; then stop kube-proxy; fi
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: "$ETC/proxy.kubeconfig"}
mode: ${ST_K8S_PROXY_MODE:-iptables}
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
  start kube-proxy kube-proxy --config "$ETC/proxy.yaml"
}
