#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD_DIR [PATTERN...]: a cluster on this machine, the chart and image of this build in it, and the cases of run.py.
# Root. The cluster is taken down afterwards, also after a failure; KEEP=1 leaves it.
# One at a time: the cluster uses the machine's sysctls and iptables.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
build=$(realpath "${1:?usage: run.sh BUILD_DIR [PATTERN...]}")
shift
# shellcheck source=tests/kubernetes/common.sh
. "$here/common.sh"
# shellcheck source=tests/kubernetes/node.sh
. "$here/node.sh"

[ "$(id -u)" = 0 ] || { echo "run.sh: needs root" >&2; exit 2; }
scripts/install-packages.sh kubernetes
"$here/build.sh"
mkdir -p "$RUN" "$IMAGES"
exec 9>"$RUN/lock"
flock -n 9 || { echo "run.sh: the cluster is in use: another run.sh holds $RUN/lock" >&2; exit 1; }

# What the cluster may change of the machine, and has to put back.
machine() {
  # shellcheck disable=SC2086
  sysctl $CHANGED_SYSCTLS 2>/dev/null
  for command in iptables ip6tables; do $command-save 2>/dev/null | grep -E '^(-A|:(KUBE|CNI))' | sed "s/^/$command /"; done
  ip -o link | awk -F': ' '{ print "link", $2 }'
  awk '{ print "mount", $5 }' /proc/self/mountinfo | grep -E ' /(run|sys|var/lib/kubelet|root)' | sort
}

finish() {
  local status=$?
  trap '' INT TERM
  if [ -z "${KEEP:-}" ]; then
    "$here/down.sh" 9>&-
    if ! diff <(echo "$before") <(machine); then
      echo "run.sh: the machine is not as it was: see above" >&2
      status=1
    fi
  fi
  exit $status
}
before=$(machine)
trap finish EXIT
trap 'exit 130' INT TERM

# The product's image twice: workloads use the second name, so that the first can be taken from the node.
for name in sidetrack probe; do
  python3 -B image/build.py --bin "$build/bin" --out "$IMAGES/$name" --name "sidetrack.test/$name" --tag 1
  mv "$IMAGES/$name"/*.oci.tar "$IMAGES/$name.tar"
done
[ -z "$(ls "$CNI_CONF" 2>/dev/null)" ] || [ -n "${KEEP:-}" ] || rm -rf "$HOME_DIR/cni" # of a run that was killed
"$here/up.sh" 9>&-
ST_K8S_PROGRAMS="$build/bin" python3 -B "$here/run.py" "$@" 9>&-
