#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# lint.sh: checks the format of C and C++, shell scripts, YAML and the dependencies between folders; all findings, then exit 1.
# lint.sh --fix: formats C and C++ in place instead.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-packages.sh lint

# What BPF programs include is written in the kernel's style, as they are.
mapfile -t kernel_style < <(git ls-files 'bpf/*.[ch]' 'include/sidetrack/abi/*.h' include/sidetrack/{addr,choose,decide}.h)
mapfile -t google_style < <(git ls-files '*.h' '*.c' '*.cpp' |
  grep -vE '^(bpf/|include/sidetrack/abi/|include/sidetrack/(addr|choose|decide)\.h$)')
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
# The chart's templates are not YAML before they are rendered: tests/helm looks at what comes out.
mapfile -t yaml < <(git ls-files '*.yaml' '*.yml' ':!tests/fuzz' ':!helm/*/templates/*')

if [ "${1:-}" = --fix ]; then
  clang-format -i --style=file:.clang-format "${google_style[@]}"
  clang-format -i --style=file:bpf/.clang-format "${kernel_style[@]}"
  exit 0
fi

failed=0
step() {
  local name=$1
  shift
  if "$@"; then
    echo "lint: $name: fine"
  else
    echo "lint: $name: findings above" >&2
    failed=1
  fi
}

step "format" clang-format --dry-run --Werror --style=file:.clang-format "${google_style[@]}"
step "format, kernel style" clang-format --dry-run --Werror --style=file:bpf/.clang-format "${kernel_style[@]}"
step "shell scripts" shellcheck -x "${scripts[@]}"
[ ${#yaml[@]} -eq 0 ] || step "yaml" yamllint -s -d '{extends: default, rules: {line-length: {max: 120}}}' "${yaml[@]}"
step "layers" env PYTHONDONTWRITEBYTECODE=1 python3 tests/layers/check_layers.py .
exit $failed
