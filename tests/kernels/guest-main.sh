#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# guest-main.sh MODULES COMMAND: first process of the guest once the host's files are its root. MODULES: folder that becomes
# /lib/modules. Runs COMMAND with its output on the second serial port and ends the guest.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
modules=$1 command=$2

set_up() {
  mkdir -p /lib/modules &&
    mount --bind "$modules" "$(readlink -f /lib/modules)" &&
    ln -sfn /proc/self/fd /dev/fd &&
    hostname guest &&
    ip link set lo up &&
    ulimit -n 20000 &&
    stty -F /dev/ttyS1 raw -echo
}

if set_up; then
  bash -c "$command" </dev/null >/dev/ttyS1 2>&1
  echo "guest: exit $?" >/dev/ttyS1
  stty -F /dev/ttyS1 cooked # waits until all is sent
fi
echo o >/proc/sysrq-trigger
sleep infinity
