#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds what the test cluster needs and Debian 12 does not have (or has too old) from Go modules, without a
# checkout of anything. Programs go to ${ST_K8S_HOME:-~/.cache/sidetrack-k8s}/bin; one that is there in the
# wanted version is kept. 12 minutes on two cores when nothing is there.
#   build.sh [program...]     default: all of $ALL; of one case only: $GVISOR_PROGRAMS
#   ST_K8S_JOBS=N             packages compiled at a time (default: all cores)
set -euo pipefail
KUBERNETES=1.34.4 # k8s.io/kubernetes v$KUBERNETES with the staging modules v0.${KUBERNETES#1.}
HELM=3.19.0
COREDNS=1.14.3
CNITOOL=1.3.0
ETCD=3.6.4 # Debian's 3.4 cannot stream first lists (WatchList)
GVISOR=0.0.0-20250911055229-61a46406f068 # of its branch "go"; this one needs Go 1.24 and starts with containerd 1.6
HOME_DIR=${ST_K8S_HOME:-$HOME/.cache/sidetrack-k8s}
ALL="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl helm coredns cnitool etcd"
GVISOR_PROGRAMS="runsc containerd-shim-runsc-v1" # 3 minutes on two cores
BIN=$HOME_DIR/bin MODULES=$HOME_DIR/modules
export CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local
export GOFLAGS="-mod=mod -buildvcs=false -trimpath ${ST_K8S_JOBS:+-p=$ST_K8S_JOBS}"
export GOCACHE=${ST_K8S_GOCACHE:-$HOME_DIR/gocache}
[ -z "${ST_K8S_JOBS:-}" ] || export GOMAXPROCS=$ST_K8S_JOBS

fail() {
  echo "build.sh: $*" >&2
  exit 1
}

# own_module NAME MODULE VERSION: a module of ours with the requirements of MODULE's own go.mod, in which
# MODULE itself can be built. False if that is there already.
own_module() {
  local upstream
  mkdir -p "$MODULES/$1"
  cd "$MODULES/$1"
  [ "$(cat .version 2>/dev/null)" != "$3" ] || return 0
  upstream=$(go mod download -json "$2@v$3" | jq -r .GoMod)
  # Kubernetes and etcd replace their libraries by folders of their own trees; they are published as modules, too.
  sed -E -e "s|^module .*|module sidetrack.invalid/$1|" -e '/=> \.\.\//d' \
    -e "s#=> \./staging/src/(k8s\.io/[a-z0-9-]+)#=> \1 v0.${3#1.}#" "$upstream" >go.mod
  go mod edit -require "$2@v$3"
  # The requirements must be used by something, or go drops the sums of the programs' own dependencies.
  if [ "$1" = kubernetes ]; then
    {
      printf '//go:build tools\n\npackage pin\n\nimport (\n'
      printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' kube-apiserver kube-controller-manager kube-proxy \
        kube-scheduler kubectl kubelet
      printf ')\n'
    } >pin.go
  fi
  echo "$3" >.version
}

# Its tree, but for one thing: a root without CAP_SYS_RESOURCE cannot protect the shim from the OOM killer, and it would not start.
gvisor_tree() {
  local tree=$MODULES/gvisor
  if [ "$(cat "$tree/.version" 2>/dev/null)" != "$GVISOR" ]; then
    rm -rf "$tree"
    mkdir -p "$MODULES"
    cp -r --no-preserve=mode "$(go mod download -json "gvisor.dev/gvisor@v$GVISOR" | jq -r .Dir)" "$tree"
    sed -i -E 's/(oomScoreMaxKillable = )-999/\10/' "$tree/pkg/shim/v1/service.go"
    echo "$GVISOR" >"$tree/.version"
  fi
  cd "$tree"
}

kubernetes_flags() {
  local package minor=${KUBERNETES#1.}
  printf -- '-s -w'
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- ' -X %s.gitVersion=v%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=clean' \
      $package "$KUBERNETES" $package $package "${minor%%.*}" $package
    printf -- ' -X %s.gitCommit=sidetrack -X %s.buildDate=1970-01-01T00:00:00Z' $package $package
  done
}

version_of() {
  case $1 in
    helm) echo "v$HELM" ;;
    coredns) echo "v$COREDNS" ;;
    cnitool) echo "v$CNITOOL" ;;
    etcd) echo "v$ETCD" ;;
    runsc | containerd-shim-runsc-v1) echo "v$GVISOR" ;;
    kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | kubectl) echo "v$KUBERNETES" ;;
    *) fail "unknown program '$1', known: $ALL $GVISOR_PROGRAMS" ;;
  esac
}

build_one() {
  local out=$BIN/.$1.new
  case $1 in
    helm)
      own_module helm helm.sh/helm/v3 "$HELM"
      # The version that it takes a cluster for when it is asked without one.
      local kube=helm.sh/helm/v3/pkg/chartutil minor=${KUBERNETES#1.}
      go build -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM -X $kube.k8sVersionMajor=1
        -X $kube.k8sVersionMinor=${minor%%.*}" -o "$out" helm.sh/helm/v3/cmd/helm
      ;;
    coredns)
      own_module coredns github.com/coredns/coredns "$COREDNS"
      go build -ldflags '-s -w' -o "$out" github.com/coredns/coredns
      ;;
    cnitool)
      own_module cnitool github.com/containernetworking/cni "$CNITOOL"
      go build -ldflags '-s -w' -o "$out" github.com/containernetworking/cni/cnitool
      ;;
    etcd)
      own_module etcd go.etcd.io/etcd/server/v3 "$ETCD"
      go build -ldflags '-s -w' -o "$out" go.etcd.io/etcd/server/v3
      ;;
    runsc)
      gvisor_tree
      go build -ldflags '-s -w' -o "$out" ./runsc
      ;;
    containerd-shim-runsc-v1)
      gvisor_tree
      go build -ldflags '-s -w' -o "$out" ./shim
      ;;
    *)
      own_module kubernetes k8s.io/kubernetes "$KUBERNETES"
      go build -ldflags "$(kubernetes_flags)" -o "$out" "k8s.io/kubernetes/cmd/$1"
      ;;
  esac
  mv "$out" "$BIN/$1"
}

main() {
  for tool in go jq; do
    command -v "$tool" >/dev/null || fail "needs $tool"
  done
  mkdir -p "$BIN"
  if [ $# = 0 ]; then
    read -ra programs <<<"$ALL"
    set -- "${programs[@]}"
  fi
  local tool program programs want start
  for program in "$@"; do
    want=$(version_of "$program")
    if [ -x "$BIN/$program" ] && [ "$(cat "$BIN/.$program.version" 2>/dev/null)" = "$want" ]; then
      echo "$program $want: present"
      continue
    fi
    if [ "$program" = kubectl ] && command -v kubectl >/dev/null; then
      echo "kubectl: using $(command -v kubectl)"
      continue
    fi
    start=$SECONDS
    build_one "$program"
    echo "$want" >"$BIN/.$program.version"
    echo "$program $want: built in $((SECONDS - start)) s, $(du -m "$BIN/$program" | cut -f1) MiB"
  done
}

main "$@"
exit # nothing below: the file may be edited while this runs for minutes
