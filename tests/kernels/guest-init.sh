#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
# First process of the guest, in the initrd that boot.sh packs: finds the host's files, makes them the root with a throw-away
# layer of memory on top, mounts what a node has, hands over to guest-main.sh.
bb=/bin/busybox
give_up() {
  echo "guest-init: $*"
  $bb poweroff -f
}

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do
  $bb insmod "$module" || give_up "cannot load $module"
done </modules.list

$bb mount -t virtiofs -o ro host /lower || give_up "the host's files cannot be mounted"
$bb mount -t tmpfs -o size=60% layer /layer
$bb mkdir /layer/upper /layer/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root || give_up "no overlay"

for fs in proc sys dev; do
  $bb mount --move "/$fs" "/root/$fs"
done
$bb mount -t tmpfs run /root/run
$bb mkdir -p /root/dev/pts /root/dev/shm
$bb mount -t devpts pts /root/dev/pts
$bb mount -t tmpfs shm /root/dev/shm
$bb mount -t cgroup2 cgroup /root/sys/fs/cgroup || give_up "no cgroup2"
$bb mount -t bpf bpf /root/sys/fs/bpf || give_up "no bpffs"
$bb mount -t tracefs tracefs /root/sys/kernel/tracing || give_up "no tracefs"

# shellcheck source=/dev/null
. /handover
exec $bb switch_root /root /bin/bash "$GUEST_MAIN" "$GUEST_MODULES" "$GUEST_COMMAND"
