#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install-packages.sh GROUP...: installs the Debian packages that scripts/packages.txt lists for these groups.
# Does nothing if all are there, or the commands that they are wanted for. No service is started and none is left enabled to start by this script.
set -euo pipefail

list="$(dirname "$0")/packages.txt"
policy=/usr/sbin/policy-rc.d
saved=

if [ $# -eq 0 ]; then
  echo "usage: $0 GROUP...   groups: $(sed '/^#/d' "$list" | cut -f1 | sort -u | tr '\n' ' ')" >&2
  exit 2
fi

wanted=()
for group in "$@"; do
  mapfile -t of_group < <(awk -v g="$group" '$1 == g { print $2 " " $3 }' "$list")
  if [ ${#of_group[@]} -eq 0 ]; then
    echo "install-packages: no group '$group' in $list" >&2
    exit 2
  fi
  wanted+=("${of_group[@]}")
done

installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Where cmake looks for Go, too.
has_command() {
  [ -n "$1" ] && PATH="$PATH:/usr/local/go/bin" command -v "$1" >/dev/null
}

missing=()
while read -r package for_command; do
  installed "$package" || has_command "$for_command" || missing+=("$package")
done < <(printf '%s\n' "${wanted[@]}" | sort -u)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "install-packages: these packages are missing; install them as root: ${missing[*]}" >&2
  exit 1
fi

# Packages of daemons start them when they are configured; policy-rc.d (Debian policy 9.3.3) forbids it for the time being.
forbid_service_starts() {
  if [ -e "$policy" ]; then
    saved=$(mktemp "$policy.XXXXXX")
    cp -p "$policy" "$saved"
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy.new"
  chmod 755 "$policy.new"
  mv "$policy.new" "$policy"
}

restore_service_starts() {
  if [ -n "$saved" ]; then
    mv "$saved" "$policy"
  else
    rm -f "$policy"
  fi
}

echo "install-packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
trap restore_service_starts EXIT
trap 'exit 130' INT TERM
forbid_service_starts
options=(-y -q -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
apt-get update "${options[@]}" </dev/null
apt-get install "${options[@]}" --no-install-recommends "${missing[@]}" </dev/null
