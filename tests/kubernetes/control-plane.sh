# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Certificates, etcd, API server, controllers and scheduler. Sourced by up.sh after common.sh.

certificate() { # certificate FILE SUBJECT [ALTERNATIVE NAMES]
  [ ! -s "$1.crt" ] || return 0
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" -extfile <(
    echo "extendedKeyUsage=serverAuth,clientAuth"
    [ -z "${3:-}" ] || echo "subjectAltName=$3"
  ) 2>/dev/null
}

kubeconfig() { # kubeconfig NAME: of the certificate of that name
  [ ! -s "$ETC/$1.kubeconfig" ] || return 0
  cat >"$ETC/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
  - name: sidetrack
    cluster: {server: "https://$NODE_IP:$API_PORT", certificate-authority-data: $(base64 -w0 ca.crt)}
users:
  - name: $1
    user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}
contexts:
  - name: sidetrack
    context: {cluster: sidetrack, user: $1}
current-context: sidetrack
END
}

make_certificates() {
  local names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost"
  cd "$ETC/pki" || return
  if [ ! -s ca.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
      -subj /CN=sidetrack-ca -keyout ca.key -out ca.crt 2>/dev/null
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  fi
  certificate apiserver /CN=kube-apiserver \
    "$names,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$NODE_IP,IP:$API_SERVICE"
  certificate kubelet-server "/CN=$NODE" "DNS:$NODE,IP:$NODE_IP"
  certificate admin /O=system:masters/CN=admin
  certificate controllers /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE"
  certificate proxy /CN=system:kube-proxy
  for name in admin controllers scheduler kubelet proxy; do kubeconfig $name; done
  cd - >/dev/null || return
}

start_control_plane() {
  local etcd=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT
  start etcd etcd --data-dir "$VAR/etcd" --unsafe-no-fsync --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  start kube-apiserver kube-apiserver --etcd-servers "$etcd" --secure-port "$API_PORT" --advertise-address "$NODE_IP" \
    --service-cluster-ip-range "$SERVICE_CIDR" --authorization-mode Node,RBAC --allow-privileged \
    --tls-cert-file "$ETC/pki/apiserver.crt" --tls-private-key-file "$ETC/pki/apiserver.key" \
    --client-ca-file "$ETC/pki/ca.crt" --enable-admission-plugins NodeRestriction \
    --kubelet-client-certificate "$ETC/pki/admin.crt" --kubelet-client-key "$ETC/pki/admin.key" \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$ETC/pki/sa.pub" --service-account-signing-key-file "$ETC/pki/sa.key"
  wait_for 120 "kube-apiserver to be ready" kubectl get --raw /readyz
  start kube-controller-manager kube-controller-manager --kubeconfig "$ETC/controllers.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --root-ca-file "$ETC/pki/ca.crt" \
    --service-account-private-key-file "$ETC/pki/sa.key" --allocate-node-cidrs --cluster-cidr "${POD_CIDR%/*}/16" \
    --node-cidr-mask-size "${POD_CIDR#*/}" --service-cluster-ip-range "$SERVICE_CIDR"
  start kube-scheduler kube-scheduler --kubeconfig "$ETC/scheduler.kubeconfig" --leader-elect=false \
    --authentication-kubeconfig "$ETC/scheduler.kubeconfig" --authorization-kubeconfig "$ETC/scheduler.kubeconfig"
  wait_for 60 "the default service account" kubectl get serviceaccount default
}
