#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# guest-tests.sh PLAN: runs in the guest the cases of PLAN (lines "PROGRAM CASE"), each in a process of its own.
# One line a case, "pass|fail|skip TAB PROGRAM TAB CASE TAB SECONDS TAB WHY"; under a failed one its output, lines "| ...".
# CASE_SECONDS: deadline of a case; SHOW_OUTPUT=1: output of all.
set -u
plan=$1
limit=${CASE_SECONDS:-240}
log=/tmp/guest-case.log

# The first words of a GTEST_SKIP().
reason_of_skip() {
  grep -A2 ': Skipped' "$log" | sed -n '2p' | tr '\t' ' '
}

# The first failed expectation, without the folders.
reason_of_failure() {
  grep -m1 -A3 -E 'Failure$' "$log" | tr '\t\n' '  ' | sed -E 's#^/[^ ]*/##; s/  +/ /g' | cut -c1-300
}

run_case() {
  local program=$1 name=$2 status=0 outcome=pass why='' start
  start=$EPOCHREALTIME
  timeout -k 10 "$limit" "$program" --gtest_filter="$name" --gtest_color=no >"$log" 2>&1 </dev/null || status=$?
  if [ $status = 124 ] || [ $status = 137 ]; then
    outcome=fail why="not done within $limit s"
  elif [ $status != 0 ] && [ $status != 77 ]; then # tests/lab/whole_program.cpp
    outcome=fail why=$(reason_of_failure)
    [ -n "$why" ] || why="exit status $status"
  elif grep -q '^\[  SKIPPED \]' "$log"; then
    outcome=skip why=$(reason_of_skip)
  fi
  printf '%s\t%s\t%s\t%s\t%s\n' "$outcome" "$(basename "$program")" "$name" \
    "$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')" "$why"
  if [ $outcome = fail ] || [ "${SHOW_OUTPUT:-}" = 1 ]; then
    tail -n 60 "$log" | cut -c1-1500 | sed 's/^/| /'
  fi
}

echo "kernel $(uname -r) $(uname -v | grep -o 'Debian [^ ]*')"
while read -r program name; do
  run_case "$program" "$name"
done <"$plan"
echo "all cases were run"
