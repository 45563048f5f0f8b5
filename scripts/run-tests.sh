#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-tests.sh BUILD_DIR [LABEL]: runs the tests of a build; ctest's own summary is the last thing said.
# One at a time: the unit tests take milliseconds each, and what attaches programs shares the machine's clock and cores.
# Where BPF works, a dataplane tier without tests or with skipped ones is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

build=${1:?usage: run-tests.sh BUILD_DIR [LABEL]}
label=${2:-}
report="$build/tests.xml"

options=(--test-dir "$build" --output-on-failure --timeout 300 --output-junit "$(realpath "$build")/tests.xml")
[ -z "$label" ] || options+=(-L "^($label)\$")

tests_labelled() {
  ctest --test-dir "$build" -N -L "^$1\$" | awk '/^Total Tests:/ { print $3 }'
}

needs_dataplane=
if bpf_works && [[ "${label:-dataplane}" == *dataplane* ]]; then
  needs_dataplane=1
  if [ "$(tests_labelled dataplane)" = 0 ]; then
    echo "run-tests: BPF works here, but there is no test with the label 'dataplane'" >&2
    exit 1
  fi
fi

rm -f "$report"
ctest "${options[@]}" </dev/null || exit $?
if [ -n "$needs_dataplane" ] && grep -q 'status="notrun"' "$report"; then
  echo "run-tests: BPF works here, but tests were skipped (see above): that is a failure" >&2
  exit 1
fi
