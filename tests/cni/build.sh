#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh GO OUT_DIR: builds what runs CNI plugins in the tests, from Go modules: our program around libcni and go-cni (named
# "cni"), cnitool, and the reference plugins ptp and host-local in a version that speaks CNI 1.1.0.
set -euo pipefail
go=${1:?usage: build.sh GO OUT_DIR}
out=$(realpath -m "${2:?usage: build.sh GO OUT_DIR}")
mkdir -p "$out"
cd "$(dirname "$0")/runtime"
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false -trimpath"
exec "$go" build -ldflags '-s -w' -o "$out/" . github.com/containernetworking/cni/cnitool \
  github.com/containernetworking/plugins/plugins/ipam/host-local github.com/containernetworking/plugins/plugins/main/ptp
