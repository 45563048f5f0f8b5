#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""readme_test.py BIN: README's block "By hand", word for word, with the programs in BIN: on a machine of its own as far as it can
tell (mounts, network, processes, cgroups), of which nothing stays. Root, BPF."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from machine import cgroup2_root, eventually, run_tests

README = Path(__file__).resolve().parents[2] / "README.md"
BIN = ""
LIMIT = 60  # seconds

# $1: a folder; $2: a cgroup; $3: the programs. The folders that the block writes to are this machine's alone. An agent wants the
# root of cgroup2 or to be told: it is told here, so that no other process meets its programs.
MACHINE = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs scratch "$1"
mkdir -p "$1/build/bin"
ln -s "$3"/* "$1/build/bin/"
rm "$1/build/bin/sidetrack-agent"
printf '#!/bin/sh\nexec "%s/sidetrack-agent" "$@" --cgroup "%s"\n' "$3" "$2" >"$1/build/bin/sidetrack-agent"
chmod +x "$1/build/bin/sidetrack-agent"
cp -a /etc "$1/etc"
rm -rf "$1/etc/sidetrack"
mount --bind "$1/etc" /etc
mount -t tmpfs run /run
mount -t tmpfs lib /var/lib
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
cd "$1"
printf "%s" "$BLOCK" >block.sh
status=0
timeout 40 bash -e block.sh || status=$?
tail -n 20 agent.log engine.log server.log >&2
echo "== answer"
cat answer.html || true
# The kernel's own two files of a bpffs aside.
echo "== left"
find /sys/fs/bpf /run/netns /etc/sidetrack /run/sidetrack -mindepth 1 ! -name '*.debug' 2>/dev/null || true
bpftool cgroup show "$2" | grep " st_" || true
exit $status
"""


def block_by_hand() -> str:
    found = re.search(r"By hand.*?```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, f"{README} has no such block"
    return found.group(1)


def remove(cgroup: Path) -> bool:
    """Whether it and all below is gone: processes that were killed leave their cgroups a moment later."""
    try:
        for folder in sorted(cgroup.glob("**/"), key=lambda path: len(path.parts), reverse=True):
            folder.rmdir()
    except OSError:
        return False
    return True


class ReadmeTest(unittest.TestCase):
    def run_block(self, block: str) -> subprocess.CompletedProcess:
        cgroup = cgroup2_root() / f"st-{os.getpid()}-readme"
        cgroup.mkdir()
        self.addCleanup(lambda: self.assertTrue(eventually(lambda: remove(cgroup)), f"{cgroup} stays"))
        with tempfile.TemporaryDirectory(prefix="st-readme-") as folder:
            return subprocess.run(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", MACHINE,
                 "bash", folder, str(cgroup), BIN],
                env={**os.environ, "BLOCK": block}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=LIMIT, preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())))

    def test_block_by_hand_does_what_it_says(self):
        done = self.run_block(block_by_hand())
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        shown, rest = done.stdout.split("== answer\n")
        answer, left = rest.split("== left\n")
        self.assertIn("shop/web -> 10.244.9.1:8000: redirected\n", shown)
        self.assertRegex(shown, r"shop/web .*10\.244\.9\.1:8000.* engine")
        self.assertIn("Directory listing", answer)
        self.assertEqual(left, "", said)


if __name__ == "__main__":
    BIN = os.path.abspath(sys.argv[1])
    run_tests()
