#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD [NAME...]: runs the test programs of tests.txt, built in BUILD, on the kernels of kernels.txt (or those named) in qemu.
# Per kernel BUILD/kernels/results/NAME.tsv (one line a case) and NAME/ (consoles); results/summary.txt in the end.
# Exits with 1 if a case failed or was not run, or if a kernel complained (warning, oops, lockup).
# KERNEL_TESTS: "all" (default), "smoke", or any gtest programs of BUILD/tests, "PROGRAM[:FILTER] ...".
# KERNEL_SECONDS (6000): deadline of one kernel; CASE_SECONDS (240): of one case; ST_TIME_SCALE (4): factor of the tests' deadlines.
set -euo pipefail
# shellcheck source=tests/kernels/lib.sh
. "$(dirname "$0")/lib.sh"

build=$(realpath "${1:?usage: run.sh BUILD [NAME...]}")
shift
names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(kernel_names)
results=$build/kernels/results
tests=${KERNEL_TESTS:-all}

# Lines "PROGRAM FILTER" of what is to be run.
selection() {
  local word
  case $tests in
    all) awk '!/^#/ && NF { print $1, $2 }' "$kernels_dir/tests.txt" ;;
    smoke) awk '!/^#/ && $3 == "smoke" { print $1, $2 }' "$kernels_dir/tests.txt" ;;
    *) for word in $tests; do
        [[ $word == *:* ]] && echo "${word%%:*} ${word#*:}" || echo "$word *"
      done ;;
  esac
}

# cases_of PROGRAM FILTER: lines "PATH SUITE.CASE".
cases_of() {
  local path=$build/tests/$1
  [ -x "$path" ] || die "$path is not built"
  "$path" --gtest_list_tests --gtest_filter="$2" </dev/null | sed 's/ *#.*//' |
    awk -v path="$path" '/^[^ ]/ { suite = $1 } /^ / { print path, suite $1 }'
}

make_plan() {
  local program filter
  selection | while read -r program filter; do
    cases_of "$program" "$filter"
  done
}

# What the kernel itself complains about; a boot has none of these lines.
complaints() {
  grep -aE 'BUG:|WARNING:|Oops|general protection|soft lockup|rcu.*stall|KASAN|hung_task|Kernel panic' "$1" || true
}

run_kernel() {
  local name=$1 out=$results/$1 status=0
  rm -rf "$out"
  mkdir -p "$out"
  BOOT_SECONDS=${KERNEL_SECONDS:-6000} BOOT_CPU=$(kernel_cpu "$name") "$kernels_dir/boot.sh" "$build/kernels/$name" "$out" \
    "ST_TIME_SCALE=${ST_TIME_SCALE:-4} CASE_SECONDS=${CASE_SECONDS:-240} $kernels_dir/guest-tests.sh $plan" || status=$?
  tr -d '\r' <"$out/output" | grep -aE '^(pass|fail|skip)	' >"$results/$name.tsv" || true
  complaints "$out/console.log" >"$out/complaints"
  [ $status = 0 ] || echo "test-kernels: $name: the guest ended with status $status (125: not at all)" >&2
  echo "test-kernels: $name: done after ${SECONDS} s"
}

# A guest takes one CPU: as many at a time as there are.
run_kernels() {
  local name
  set -m # a group of processes each, which a signal ends
  trap 'kill -TERM -- $(jobs -p | sed s/^/-/); wait; exit 130' INT TERM
  for name in "${names[@]}"; do
    [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
    run_kernel "$name" </dev/null &
  done
  wait
}

count() {
  grep -c "^$1	" "$results/$2.tsv" || true
}

# One line a kernel, then what was not passed.
summarize() {
  local name bad=0 planned passed failed skipped complained
  planned=$(wc -l <"$plan")
  for name in "${names[@]}"; do
    passed=$(count pass "$name") failed=$(count fail "$name") skipped=$(count skip "$name")
    complained=$(wc -l <"$results/$name/complaints")
    printf 'kernel %-8s %-22s %s passed, %s failed, %s skipped, %s not run, %s complaints of the kernel\n' "$name" \
      "$(sed -n 2p "$build/kernels/$name/complete")" "$passed" "$failed" "$skipped" \
      $((planned - passed - failed - skipped)) "$complained"
    awk -F '\t' '$1 != "pass" { printf "  %s %s %s: %s\n", $1, $2, $3, $5 }' "$results/$name.tsv"
    [ "$complained" = 0 ] || sed 's/^/  console: /' "$results/$name/complaints"
    [ "$failed" = 0 ] && [ "$complained" = 0 ] && [ $((passed + skipped)) = "$planned" ] || bad=1
  done
  return $bad
}

"$kernels_dir/fetch.sh" "$build/kernels" "${names[@]}"
mkdir -p "$results"
plan=$results/plan
make_plan >"$plan"
[ -s "$plan" ] || die "no test fits '$tests'"
echo "test-kernels: $(wc -l <"$plan") cases on each of: ${names[*]}"
run_kernels
bad=0
summarize | tee "$results/summary.txt" || bad=1
exit $bad
