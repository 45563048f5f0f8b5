#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD_DIR [--quick] [PATTERN...]: a cluster on this machine, the chart and image of this build in it, and the cases of run.py.
# Root. The cluster is taken down afterwards, also after a failure; KEEP=1 leaves it. OTHER_BIN: programs of another version, to which the
# case of upgrade and rollback goes, and back; without, they are built of these sources, but for --quick: then it goes to the same programs.
# One at a time: the cluster uses the machine's sysctls and iptables.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
# shellcheck source=tests/kubernetes/common.sh
. "$here/common.sh"
# shellcheck source=tests/kubernetes/node.sh
. "$here/node.sh"

PINS=/sys/fs/bpf/sidetrack AGENT_CACHE=/var/lib/sidetrack # the chart's defaults

uninstall() {
  "$build/bin/sidetrack-agent" uninstall --drain 1s --cni-conf-dir "$CNI_CONF" --cni-bin-dir "$CNI_BIN"
}

# What the cluster may change of the machine, and has to put back.
machine() {
  # shellcheck disable=SC2086
  sysctl $CHANGED_SYSCTLS 2>/dev/null
  for command in iptables ip6tables; do
    $command-save 2>/dev/null | grep -E '^(-A|:(KUBE|CNI))' | sed "s/^/$command /"
  done
  ip -o link | awk -F': ' '{ print "link", $2 }' | grep -E "$BRIDGE|$NODE_LINK" # others make links of their own meanwhile
  awk '{ print "mount", $5 }' /proc/self/mountinfo | grep -F -e "$HOME_DIR" -e "$STATE" -e /run/netns/cni-
  ls -d "$PINS" "$STATE" /run/netns/cni-* /var/log/containers 2>/dev/null
  true
}

# The programs of these sources as another version, to $OTHER_BIN: from a copy, because for ccache paths below the sources do not count,
# and only what says the version is compiled.
build_other() {
  local source=${OTHER_BIN%/build/bin} version
  version=$("$build/bin/sidetrackctl" --version | cut -d ' ' -f 2)
  mkdir -p "$source"
  find "$source" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
  git ls-files -z --cached --others --exclude-standard | tar --create --null --ignore-failed-read --files-from - | tar --extract --directory "$source"
  (cd "$source" && cmake --preset ci -DBUILD_TESTING=OFF "-DST_VERSION=$version-other" >/dev/null && cmake --build --preset ci)
}

# shellcheck disable=SC2317 # by the trap
finish() {
  local status=$?
  trap '' INT TERM
  if [ -z "${KEEP:-}" ]; then
    "$here/down.sh" 9>&-
    # Of a run that ended before its chart was uninstalled.
    [ ! -e "$PINS" ] || uninstall
    rmdir "$AGENT_CACHE" 2>/dev/null || true # the kubelet made it, if it is there
    if ! diff <(echo "$before") <(machine); then
      echo "run.sh: the machine is not as it was: see above" >&2
      status=1
    fi
  fi
  exit "$status"
}

main() {
  local name
  [ "$(id -u)" = 0 ] || { echo "run.sh: needs root" >&2; exit 2; }
  build=$(realpath "${1:?usage: run.sh BUILD_DIR [--quick] [PATTERN...]}")
  shift
  scripts/install-packages.sh kubernetes
  mkdir -p "$HOME_DIR"
  exec 9>"$HOME_DIR/lock"
  flock -n 9 || { echo "run.sh: the cluster is in use: another run.sh holds $HOME_DIR/lock" >&2; exit 1; }
  scripts/remove-leftovers.sh
  if [ -e "$UP" ]; then # a run was kept, or killed with -9
    "$here/down.sh" 9>&- # its folders stay: the plugin is taken out of them
    mkdir -p "$CNI_CONF" "$CNI_BIN"
    uninstall
  fi
  if [ -e "$PINS" ] || [ -n "$(ls "$AGENT_CACHE" 2>/dev/null)" ]; then
    echo "run.sh: a Sidetrack was on this machine ($PINS, $AGENT_CACHE): 'sidetrack-agent uninstall' takes it back" >&2
    exit 1
  fi
  "$here/build.sh" 9>&-
  if [ -z "${OTHER_BIN:-}" ] && [[ " $* " != *" --quick "* ]]; then
    OTHER_BIN=$HOME_DIR/other/build/bin
    build_other 9>&-
  fi
  "$here/down.sh" --wipe 9>&- # state and logs of the run before
  before=$(machine)
  trap finish EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$RUN" "$IMAGES"
  touch "$UP"
  # The product's image twice: workloads use the second name, so that the first can be taken from the node.
  for name in sidetrack probe; do
    python3 -B image/build.py --bin "$build/bin" --out "$IMAGES/$name" --name "sidetrack.test/$name" --tag 1
    mv "$IMAGES/$name"/*.oci.tar "$IMAGES/$name.tar"
  done
  if [ -n "${OTHER_BIN:-}" ]; then
    python3 -B image/build.py --bin "$OTHER_BIN" --out "$IMAGES/other" --name sidetrack.test/sidetrack --tag 2
    mv "$IMAGES/other"/*.oci.tar "$IMAGES/other.tar"
  fi
  "$here/up.sh" 9>&-
  ST_K8S_PROGRAMS="$build/bin" ST_K8S_OTHER_PROGRAMS="${OTHER_BIN:-}" python3 -B "$here/run.py" "$@" 9>&-
}

main "$@"
exit # nothing below: the file may be edited while this runs for minutes
