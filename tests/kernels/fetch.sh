#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fetch.sh CACHE NAME...: downloads and unpacks Debian's cloud kernels of kernels.txt into CACHE/NAME (vmlinuz, lib/modules, packages).
# From the mirror that apt is set up with, checked by apt with Debian's archive keys. What is in the cache is not asked for again.
set -euo pipefail
# shellcheck source=tests/kernels/lib.sh
. "$(dirname "$0")/lib.sh"

cache=${1:?usage: fetch.sh CACHE NAME...}
shift
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
need apt-get apt
need dpkg dpkg
need depmod kmod
[ -e "$keyring" ] || die "$keyring is missing: install the Debian package debian-archive-keyring"

# Are the packages that the list names unpacked there?
is_cached() {
  [ -e "$cache/$1/complete" ] && [ "$(head -1 "$cache/$1/complete")" = "$2" ]
}

# mirror_of ARCHIVE: the first address ending so among those that this machine's apt has; both formats of its lists.
mirror_of() {
  # shellcheck disable=SC2016  # apt's variables
  apt-get indextargets --format '$(SITE) $(REPO_URI)' 2>/dev/null |
    awk -v end="/$1/?$" '{ for (i = 1; i <= NF; i++) if ($i ~ end) { print $i; exit } }'
}

suite_line() {
  local archive=debian mirror
  [[ "$1" != *-security ]] || archive=debian-security
  mirror=$(mirror_of "$archive")
  [ -n "$mirror" ] || die "apt has no source with an address that ends in /$archive"
  echo "deb [signed-by=$keyring] $mirror $1 main"
}

# An apt of its own for one suite: this machine's lists stay as they are. A suite that gets no updates any more has an old date.
use_suite() {
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  suite_line "$1" >"$work/sources.list"
  apt=(-q -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o Acquire::Check-Valid-Until=false
    -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update </dev/null || die "suite $1: its package list cannot be had"
}

has_package() {
  apt-cache "${apt[@]}" show "$1" >/dev/null 2>&1
}

# newest_like NAME PACKAGE: the newest package of the same kind and series; "newest" has no series.
newest_like() {
  local kind series
  kind=$(sed -E 's/^(linux-[a-z]+)-.*/\1/' <<<"$2")
  series='[0-9]+'
  [ "$1" = newest ] || series=${1//./\\.}'\.'
  apt-cache "${apt[@]}" pkgnames "$kind-" | grep -E "^$kind-${series}[0-9.]*([+-][0-9a-z.]+)*-cloud-amd64\$" |
    grep -v deb11 | sort -V | tail -1
}

# The packages to download: those of the list, or what has taken their place.
choose_packages() {
  local name=$1 package chosen
  shift
  for package in "$@"; do
    chosen=$package
    if ! has_package "$package"; then
      chosen=$(newest_like "$name" "$package")
      [ -n "$chosen" ] || die "$name: the mirror has neither $package nor another one of its series"
      echo "test-kernels: $name: $package is gone from the mirror; taking $chosen (write it in tests/kernels/kernels.txt)" >&2
    fi
    echo "$chosen"
  done
}

# One tree of whatever the packages put into /boot, /lib or /usr/lib.
unpack() {
  local to=$1 package release modules
  shift
  for package in "$@"; do
    dpkg -x "$package" "$work/tree"
  done
  modules=$(find "$work/tree" -type d -path '*lib/modules/*' -prune | head -1)
  [ -n "$modules" ] || die "no modules in $*"
  release=$(basename "$modules")
  rm -rf "$to"
  mkdir -p "$to/lib/modules"
  find "$work/tree" -type f -name 'vmlinuz*' -exec cp {} "$to/vmlinuz" \; -quit
  [ -s "$to/vmlinuz" ] || die "no kernel in $*"
  cp -a "$modules" "$to/lib/modules/"
  depmod -b "$to" "$release"
  echo "$release" >"$to/release"
}

fetch() {
  local name=$1 line suite
  line=$(kernel_line "$name")
  [ -n "$line" ] || die "no kernel '$name' in $kernels_list; there are: $(kernel_names | tr '\n' ' ')"
  ! is_cached "$name" "$line" || return 0
  read -ra fields <<<"${line% cpu=*}"
  suite=${fields[1]}
  echo "test-kernels: $name: downloading from $suite" >&2
  use_suite "$suite"
  local chosen
  chosen=$(choose_packages "$name" "${fields[@]:2}")
  mapfile -t packages <<<"$chosen"
  (cd "$work" && apt-get "${apt[@]}" download "${packages[@]}" </dev/null) || die "$name: download failed"
  unpack "$cache/$name" "$work"/*.deb
  # `Version` of the package is what people know the kernel by: 5.10.262-1.
  { echo "$line"; dpkg-deb -f "$(find "$work" -maxdepth 1 -name '*.deb' | sort | head -1)" Version; } >"$cache/$name/complete"
  rm -rf "$work"
}

work=
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache"
for name in "$@"; do
  fetch "$name"
done
