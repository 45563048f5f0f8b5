#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share. Sourced.

kernels_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernels_list=$kernels_dir/kernels.txt

die() {
  echo "test-kernels: $*" >&2
  exit 1
}

# need TOOL PACKAGE: says which Debian package is missing.
need() {
  command -v "$1" >/dev/null || die "$1 is missing: install the Debian package $2"
}

kernel_names() {
  awk '!/^#/ && NF { print $1 }' "$kernels_list"
}

# kernel_cpu NAME: the CPU that it needs, or nothing.
kernel_cpu() {
  kernel_line "$1" | sed -n 's/.* cpu=//p'
}

# kernel_line NAME: its line of the list, or nothing.
kernel_line() {
  awk -v name="$1" '!/^#/ && $1 == name' "$kernels_list"
}
