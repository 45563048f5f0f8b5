#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""demo_test.py BIN: `make demo` with the programs in BIN: what it says, how long it takes, and that nothing of it stays,
neither after its end nor after Ctrl-C. Root, BPF; one demo runs on a machine at a time, so it waits for another one."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from machine import PATIENCE, cgroup2_root, eventually, run_tests

ROOT = Path(__file__).resolve().parents[2]
BIN = ""
NAME = "sidetrack-demo"  # scripts/demo-lab.sh: the start of every name that the demo gives
LOCK = Path(f"/run/{NAME}.lock")
LIMIT = 60  # seconds
SHOWN = ["passed through", "label changed live", "pod address", "IPv6", "excluded port", "unlabelled pod", "no netfilter rules",
         "engine killed", "engine back", "agent killed", "uninstalled"]


def processes_of(session: int) -> list[str]:
    """Those that the demo started, by its session and by what their command lines name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        state, *_, of_session = stat[stat.rindex(")") + 2:].split()[:4]
        if state != "Z" and (int(of_session) == session or f"/tmp/{NAME}." in words):
            found.append(f"{folder.name}: {words}")
    return found


def programs() -> set[int]:
    """Ids of the BPF programs attached below the demo's cgroup."""
    tree = subprocess.run(["bpftool", "-j", "cgroup", "tree", str(cgroup2_root() / NAME)], capture_output=True, text=True,
                          check=False)
    cgroups = json.loads(tree.stdout or "[]")
    return {program["id"] for cgroup in cgroups for program in cgroup.get("programs", [])}


def is_loaded(program: int) -> bool:
    shown = subprocess.run(["bpftool", "prog", "show", "id", str(program)], capture_output=True, check=False)
    return shown.returncode == 0


class Demo:
    """One run, as from a terminal: a session and a process group of its own."""

    def __init__(self, first_in_path: str = ""):
        self.output = ""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["make", "--no-print-directory", "demo"], cwd=ROOT,
            env={**os.environ, "SIDETRACK_BIN": BIN, "PATH": f"{first_in_path}:{os.environ['PATH']}".lstrip(":")},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # Who starts this test may ignore it; a shell could not trap it then.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.output += line

    def wait(self) -> int:
        """The exit status; -9 and everything of it killed if that took too long."""
        try:
            self.process.wait(timeout=2 * LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.reader.join(timeout=PATIENCE)
        self.process.stdout.close()
        return self.process.returncode

    def press_control_c(self):
        os.killpg(self.process.pid, signal.SIGINT)


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.assertTrue(eventually(lambda: not LOCK.exists() and not (cgroup2_root() / NAME).exists()),
                        f"another demo runs, or was killed with -9: {LOCK}, {cgroup2_root() / NAME}")

    def expect_nothing_left(self, demo: Demo, loaded: set[int]):
        self.assertEqual([path.name for path in Path("/run/netns").glob(f"{NAME}*")], [], "network namespaces")
        self.assertFalse((cgroup2_root() / NAME).exists(), "cgroup")
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if NAME in line]
        self.assertEqual(mounts, [])
        self.assertEqual(list(Path("/tmp").glob(f"{NAME}.*")), [], "folders, with the pins' file system")
        self.assertFalse(LOCK.exists())
        self.assertTrue(eventually(lambda: not processes_of(demo.process.pid)), processes_of(demo.process.pid))
        # The kernel frees a program some milliseconds after its last link.
        self.assertTrue(eventually(lambda: not any(map(is_loaded, loaded))), f"BPF programs {loaded} are loaded")

    def test_shows_everything_within_a_minute(self):
        demo = Demo()
        loaded = set()
        while demo.process.poll() is None and time.monotonic() < demo.started + 2 * LIMIT:
            loaded |= programs()
            time.sleep(0.2)
        status = demo.wait()
        took = time.monotonic() - demo.started
        self.assertEqual(status, 0, demo.output)
        self.assertEqual(demo.output.splitlines()[-1], f"demo: {len(SHOWN)} shown ({', '.join(SHOWN)}), 0 failed", demo.output)
        self.assertNotIn("<- wrong", demo.output)
        self.assertEqual(demo.output.count("records in flows   0 (left fully alone)\n"), 2, demo.output)
        self.assertLess(took, LIMIT)
        self.assertTrue(loaded, "no BPF program was seen")
        self.expect_nothing_left(demo, loaded)
        print(f"the demo took {took:.1f} s")

    def test_what_could_not_be_looked_at_is_counted_and_named(self):
        with tempfile.TemporaryDirectory() as folder:
            no_nft = Path(folder) / "nft"
            no_nft.write_text("#!/bin/sh\nexit 127\n")
            no_nft.chmod(0o755)
            demo = Demo(folder)
            self.assertEqual(demo.wait(), 2, demo.output)  # make's word for a recipe that failed
        name = "no netfilter rules"
        shown = [what for what in SHOWN if what != name]
        self.assertIn(f"\ndemo: {len(shown)} shown ({', '.join(shown)}), 1 failed ({name})\n", demo.output)
        self.expect_nothing_left(demo, set())

    def test_control_c_leaves_nothing(self):
        for moment in ("A node of three pods", "Namespace shop is labelled", "Port 8500 is excluded", "The agent is killed"):
            with self.subTest(moment):
                demo = Demo()
                self.assertTrue(eventually(lambda: moment in demo.output or demo.process.poll() is not None), demo.output)
                loaded = programs()
                demo.press_control_c()
                status = demo.wait()
                self.assertEqual(status, -signal.SIGINT, demo.output)  # make waits for the recipe, then ends as it was told
                self.assertIsNone(re.search(r"^demo: \d+ shown", demo.output, re.MULTILINE), "it came to its end")
                self.assertTrue(loaded or "three pods" in moment, "no BPF program was seen")
                self.expect_nothing_left(demo, loaded)


if __name__ == "__main__":
    BIN = os.path.abspath(sys.argv[1])
    run_tests()
