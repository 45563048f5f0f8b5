#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests.sh BUILD_DIR [LABEL]: runs the tests of a build, and says at the end which were skipped, and why.
# As many run side by side as there are cores; those that measure run alone (ST_SERIAL_TESTS). Without a label: all but those
# with the label "kubernetes", which `make test-kubernetes` runs (they need its programs).
# Where BPF works, a dataplane tier without tests or with skipped ones is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

build=${1:?usage: run-tests.sh BUILD_DIR [LABEL]}
label=${2:-}
report="$build/tests.xml"

options=(--test-dir "$build" --output-on-failure --no-tests=error --parallel "$(nproc)" --timeout 300 --test-output-size-passed 65536 --output-junit "$(realpath "$build")/tests.xml")
if [ -n "$label" ]; then
  options+=(-L "^($label)\$")
else
  options+=(-LE '^kubernetes$')
fi

dataplane_tests() {
  ctest --test-dir "$build" -N -L '^dataplane$' | sed -n 's/^ *Test *#[0-9]*: //p'
}

# Name, tab, reason.
skipped_tests() {
  python3 -B scripts/skipped_tests.py "$report"
}

needs_dataplane=
if bpf_works && [[ "${label:-dataplane}" == *dataplane* ]]; then
  needs_dataplane=1
  if [ -z "$(dataplane_tests)" ]; then
    echo "run-tests: BPF works here, but there is no test with the label 'dataplane'" >&2
    exit 1
  fi
fi

scripts/remove-leftovers.sh
rm -f "$report"
status=0
ctest "${options[@]}" </dev/null || status=$?
[ -e "$report" ] || exit $status
skipped_tests | sed 's/^\([^\t]*\)\t/run-tests: skipped: \1: /'
[ $status -eq 0 ] || exit $status
[ -n "$needs_dataplane" ] || exit 0
if skipped=$(grep -Fx -f <(dataplane_tests) <(skipped_tests | cut -f 1)); then
  printf 'run-tests: BPF works here, but this dataplane test was skipped: %s\n' "$skipped" >&2
  exit 1
fi
