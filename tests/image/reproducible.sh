#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# reproducible.sh BUILD_DIR: compiles the programs of BUILD_DIR once more, from a copy of the sources in another folder, in another
# time zone and without ccache, and compares the images of both. Where they differ, it names the files.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=$(realpath "${1:?usage: reproducible.sh BUILD_DIR}")
programs=(sidetrack-agent sidetrack-engine sidetrack-cni sidetrackctl sidetrack-probe)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

image() { # NAME BIN: its archive is in $scratch/NAME
  python3 -B image/build.py --bin "$2" --out "$scratch/$1" > /dev/null
  sha256sum "$scratch/$1"/*.oci.tar | cut -d ' ' -f 1
}

source="$scratch/another/folder"
mkdir -p "$source"
git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$source"
export CCACHE_DISABLE=1 TZ=Pacific/Auckland
(cd "$source" && cmake --preset release -DBUILD_TESTING=OFF > /dev/null && nice -n 10 cmake --build --preset release --target "${programs[@]}")

first=$(image first "$build/bin")
second=$(image second "$source/build/bin")
if [ "$first" = "$second" ]; then
  echo "reproducible: both images are $first"
  exit 0
fi
echo "not reproducible: $first and $second" >&2
python3 -B image/build.py --bin "$build/bin" --rootfs "$scratch/root1"
python3 -B image/build.py --bin "$source/build/bin" --rootfs "$scratch/root2"
diff --recursive --brief --no-dereference "$scratch/root1" "$scratch/root2" >&2
exit 1
