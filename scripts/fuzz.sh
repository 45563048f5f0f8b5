#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh DIR SECONDS: runs every *_fuzzer of DIR for SECONDS, starting from tests/fuzz/corpus, with the words of
# tests/fuzz/dictionaries. What it finds besides stays in DIR: corpus/ and, where something broke, crashes/. Exit 1 if anything
# broke.
set -euo pipefail
programs=$(realpath "${1:?usage: fuzz.sh DIR SECONDS}")
seconds=${2:?usage: fuzz.sh DIR SECONDS}
tests=$(realpath "$(dirname "$0")/../tests/fuzz")

failed=0
for program in "$programs"/*_fuzzer; do
  name=$(basename "$program" _fuzzer)
  mkdir -p "$programs/corpus/$name" "$programs/crashes"
  echo "fuzz: $name, $seconds s"
  options=()
  [ ! -e "$tests/dictionaries/$name" ] || options=(-dict="$tests/dictionaries/$name")
  if ! "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0 -print_funcs=0 \
    -artifact_prefix="$programs/crashes/$name-" "${options[@]}" "$programs/corpus/$name" "$tests/corpus/$name"; then
    echo "fuzz: $name broke; see $programs/crashes" >&2
    failed=1
  fi
done
exit $failed
