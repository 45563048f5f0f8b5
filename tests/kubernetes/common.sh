# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# Names, places and process handling of the test cluster. Sourced.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
HOME_DIR=${ST_K8S_HOME:-$HOME/.cache/sidetrack-k8s} # binaries, state, logs
BIN=$HOME_DIR/bin RUN=$HOME_DIR/run ETC=$HOME_DIR/etc VAR=$HOME_DIR/var IMAGES=$HOME_DIR/images
CNI_CONF=$HOME_DIR/cni/net.d CNI_BIN=$HOME_DIR/cni/bin
STATE=/run/sidetrack-k8s # sockets: their paths have to be short
SOCKET=$STATE/containerd.sock
NODE=sidetrack-node NODE_IP=10.198.0.1
UP=$HOME_DIR/up # there while this machine has a cluster of ours, and what its chart put on the node
POD_CIDR=10.197.0.0/22 SERVICE_CIDR=10.196.0.0/16 API_SERVICE=10.196.0.1
ETCD_PORT=23379 ETCD_PEER_PORT=23380 API_PORT=16443
BRIDGE=stk8s0 NODE_LINK=stk8snode
PATH=$BIN:/usr/local/sbin:/usr/sbin:/sbin:$PATH
export KUBECONFIG=$ETC/admin.kubeconfig

ctr_k8s() { ctr -a "$SOCKET" -n k8s.io "$@"; }

# A pid file holds "PID STARTTIME": the start time tells a process from a later one with the same pid.
start_time() { awk '{ print $22 }' "/proc/$1/stat" 2>/dev/null; }

alive() { # alive NAME
  local pid start
  [ -r "$RUN/$1.pid" ] && read -r pid start <"$RUN/$1.pid" && [ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ]
}

start() { # start NAME COMMAND...: in the background, unless it runs
  local name=$1 pid
  shift
  ! alive "$name" || return 0
  setsid nice -n 5 "$@" >>"$RUN/$name.log" 2>&1 9>&- </dev/null &
  pid=$!
  echo "$pid $(start_time "$pid")" >"$RUN/$name.pid"
}

stop() { # stop NAME: TERM, after 5 s KILL
  local pid _
  if alive "$1"; then
    read -r pid _ <"$RUN/$1.pid"
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 50); do
      alive "$1" || break
      sleep 0.1
    done
    ! alive "$1" || kill -KILL "$pid"
  fi
  rm -f "$RUN/$1.pid"
}

wait_for() { # wait_for SECONDS WHAT COMMAND...: wait_until, silently
  wait_until "$@" >/dev/null || { echo "(logs are in $RUN)" >&2; return 1; }
}

# put FILE: standard input becomes FILE if it differs; false if it does not. kube-proxy ends when its
# configuration is touched.
put() {
  local new
  new=$(mktemp)
  cat >"$new"
  if cmp -s "$new" "$1"; then
    rm -f "$new"
    return 1
  fi
  cat "$new" >"$1"
  rm -f "$new"
}
