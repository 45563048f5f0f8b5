#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# boot.sh KERNEL OUT COMMAND: boots KERNEL (a folder made by fetch.sh) in qemu by software emulation and runs COMMAND there as root
# by bash. The guest sees this machine's files under the same paths; what it writes stays in its memory. It has no network.
# OUT/output is what COMMAND said, OUT/console.log what the kernel said. Exits with COMMAND's status; 125 if it never ended.
# BOOT_SECONDS (600): until the guest is ended; BOOT_CPUS (2), BOOT_MEGABYTES (3072), BOOT_CPU (max,cx16=off).
set -euo pipefail
# shellcheck source=tests/kernels/lib.sh
. "$(dirname "$0")/lib.sh"

kernel=$(realpath "${1:?usage: boot.sh KERNEL OUT COMMAND}")
mkdir -p "${2:?}"
out=$(realpath "$2")
command=${3:?}
seconds=${BOOT_SECONDS:-600} cpus=${BOOT_CPUS:-2} megabytes=${BOOT_MEGABYTES:-3072}
release=$(cat "$kernel/release")
# A busy host stops the guest for seconds: neither its timer check nor its watchdogs may take that for a fault.
parameters="console=ttyS0 panic=-1 loglevel=5 mitigations=off no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
work=$(mktemp -d)
files_pid=

need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need cpio cpio
need modprobe kmod
need xz xz-utils
[ "$(id -u)" = 0 ] || die "root is needed: the guest's root reads all files of this machine"

virtiofsd=
for path in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do
  [ ! -x "$path" ] || virtiofsd=$path
done
[ -n "$virtiofsd" ] || die "virtiofsd is missing: install the Debian package qemu-system-common (virtiofsd from Debian 13 on)"

# shellcheck disable=SC2317  # called by the trap
clean_up() {
  [ -z "$files_pid" ] || kill "$files_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT

# The modules that the root file system needs, in the order in which they are loaded.
pack_modules() {
  local module file
  for module in virtio_pci virtiofs overlay; do
    # A module that is part of the kernel has no file ("builtin NAME").
    modprobe -d "$kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
  done | awk '!seen[$0]++' >"$work/files"
  while read -r file; do
    module=$(basename "${file%.xz}")
    case $file in
      *.xz) xz -dc "$file" >"$work/tree/modules/$module" ;;
      *) cp "$file" "$work/tree/modules/$module" ;;
    esac
    echo "/modules/$module"
  done <"$work/files" >"$work/tree/modules.list"
}

pack_initrd() {
  mkdir -p "$work/tree"/{bin,proc,sys,dev,lower,layer,root,modules}
  cp "$(command -v busybox)" "$work/tree/bin/busybox"
  cp "$kernels_dir/guest-init.sh" "$work/tree/init"
  chmod 755 "$work/tree/init"
  printf '%s=%q\n' GUEST_MAIN "$kernels_dir/guest-main.sh" GUEST_MODULES "$kernel/lib/modules" >"$work/tree/handover"
  # busybox sh does not know all of bash's quoting.
  printf "GUEST_COMMAND='%s'\n" "${command//\'/\'\\\'\'}" >>"$work/tree/handover"
  pack_modules
  (cd "$work/tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
}

serve_files() {
  "$virtiofsd" --socket-path="$work/files.sock" -o source=/ -o cache=always -o sandbox=chroot --rlimit-nofile=0 \
    >"$out/files.log" 2>&1 </dev/null &
  files_pid=$!
  local tries=0
  until [ -S "$work/files.sock" ]; do
    if ! kill -0 "$files_pid" 2>/dev/null || [ $((tries += 1)) -gt 500 ]; then
      die "virtiofsd does not start: $(tail -n 3 "$out/files.log")"
    fi
    sleep 0.02
  done
}

run_guest() {
  # The guest's CPUs take turns in one thread: with a thread each, qemu 7.2 may run code that another CPU has just replaced (an int3 that
  # the kernel took back long ago: oops), which the kernel does whenever something attaches to a function.
  # Mostly without cmpxchg16b, after which qemu 7.2 has wrong flags: 6.12's slab allocator uses it, and most boots died.
  timeout --foreground "$seconds" qemu-system-x86_64 -machine q35,memory-backend=ram -accel tcg,thread=single -cpu "${BOOT_CPU:-max,cx16=off}" \
    -smp "$cpus" \
    -m "$megabytes" -object "memory-backend-memfd,id=ram,size=${megabytes}M,share=on" \
    -chardev "socket,id=files,path=$work/files.sock" -device vhost-user-fs-pci,chardev=files,tag=host \
    -display none -monitor none -nic none -no-reboot -serial "file:$out/console.log" -serial "file:$out/output" \
    -kernel "$kernel/vmlinuz" -initrd "$work/initrd" -append "$parameters" \
    </dev/null >"$out/qemu.log" 2>&1
}

pack_initrd
serve_files
: >"$out/output"
run_guest || true
status=$(tr -d '\r' <"$out/output" | sed -n 's/^guest: exit \([0-9]*\)$/\1/p' | tail -1)
exit "${status:-125}"
