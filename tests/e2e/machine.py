# SPDX-License-Identifier: Apache-2.0
"""What tests of whole programs ask of the machine that they run on."""

import os
import subprocess
import sys
import time
import unittest
from pathlib import Path

SKIPPED = 77
PATIENCE = 20  # seconds


def cgroup2_root() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    return Path("/nonexistent")


def bpf_works() -> bool:
    tried = subprocess.run(["bpftool", "prog", "list"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return os.geteuid() == 0 and cgroup2_root().is_dir() and tried.returncode == 0


def eventually(holds) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run_tests():
    """The tests of the program that was started, or why they cannot run; ends the program."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if not bpf_works():
        print("SKIPPED: needs root, BPF and cgroup2")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1], verbosity=2)
