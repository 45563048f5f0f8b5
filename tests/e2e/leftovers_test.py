#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""leftovers_test.py: scripts/remove-leftovers.sh takes what a killed test left, and nothing of a test that lives or of anybody else.
Root, cgroup2."""

import os
import subprocess
import unittest
from pathlib import Path

from machine import cgroup2_root, eventually, run_tests

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/remove-leftovers.sh"


def run(*command) -> None:
    subprocess.run([str(word) for word in command], check=True)


def mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


class Things:
    """A cgroup with a process in it, a netns, and a folder with a bpf file system, named as those of a test with this pid."""

    def __init__(self, test: unittest.TestCase, pid: int):
        self.name = f"st-{pid}-1-leftovers"
        self.cgroup, self.netns, self.folder = cgroup2_root() / self.name, Path("/run/netns") / self.name, Path("/tmp") / self.name
        test.addCleanup(self.remove)
        (self.cgroup / "agent").mkdir(parents=True)
        self.process = subprocess.Popen(["sleep", "600"])  # pylint: disable=consider-using-with
        (self.cgroup / "agent/cgroup.procs").write_text(str(self.process.pid))
        run("ip", "netns", "add", self.name)
        (self.folder / "bpf/sidetrack").mkdir(parents=True)
        run("mount", "-t", "bpf", "bpf", self.folder / "bpf")

    def all_there(self) -> bool:
        return (self.process.poll() is None and (self.cgroup / "agent").exists() and self.netns.exists()
                and mounted(self.folder / "bpf"))

    def none_there(self) -> bool:
        return not (self.process.poll() is None or self.cgroup.exists() or self.netns.exists() or self.folder.exists())

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        subprocess.run(["umount", self.folder / "bpf"], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "netns", "del", self.name], stderr=subprocess.DEVNULL, check=False)
        for path in (self.cgroup / "agent", self.cgroup, self.folder / "bpf/sidetrack", self.folder / "bpf", self.folder):
            if path.exists():
                eventually(lambda path=path: not any(path.glob("cgroup.procs")) or not (path / "cgroup.procs").read_text())
                path.rmdir()


def pid_of_nobody() -> int:
    ended = subprocess.Popen(["true"])  # pylint: disable=consider-using-with
    ended.wait()
    return ended.pid


class LeftoversTest(unittest.TestCase):
    def test_an_owner_that_nobody_has_waited_for_is_dead(self):
        ended = subprocess.Popen(["true"])  # pylint: disable=consider-using-with
        self.addCleanup(ended.wait)
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        things = Things(self, ended.pid)
        subprocess.run([SCRIPT], capture_output=True, check=True)
        self.assertTrue(things.none_there())

    def test_what_a_killed_test_left_goes_and_what_a_living_one_has_stays(self):
        dead, living = Things(self, pid_of_nobody()), Things(self, os.getpid())
        said = subprocess.run([SCRIPT], capture_output=True, text=True, check=True).stdout
        self.assertTrue(dead.none_there(), said)
        for path in (dead.cgroup, dead.netns, dead.folder / "bpf"):
            self.assertIn(f"remove-leftovers: removed {path}\n", said)
        self.assertTrue(living.all_there(), said)
        self.assertNotIn(living.name, said)

    def test_an_owner_in_a_pid_namespace_below_lives(self):
        pid = pid_of_nobody()
        counter = Path("/proc/sys/kernel/ns_last_pid")
        if not counter.exists():
            self.skipTest("a kernel without ns_last_pid: pids of a new namespace cannot be chosen")
        below = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sh", "-c",  # pylint: disable=consider-using-with
                                  f"echo {pid - 1} >{counter}; sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(below.communicate)
        self.addCleanup(below.kill)
        self.assertEqual(below.stdout.readline(), f"{pid}\n")
        things = Things(self, pid)
        subprocess.run([SCRIPT], capture_output=True, check=True)
        self.assertTrue(things.all_there())
        below.kill()
        self.assertTrue(eventually(lambda: subprocess.run([SCRIPT], capture_output=True, check=True) and things.none_there()))

    def test_a_name_like_ours_is_somebody_elses(self):
        name = f"st-{pid_of_nobody()}-vpn"
        self.addCleanup(subprocess.run, ["ip", "netns", "del", name], check=True)
        run("ip", "netns", "add", name)
        subprocess.run([SCRIPT], capture_output=True, check=True)
        self.assertTrue((Path("/run/netns") / name).exists())

    def test_a_folder_without_a_bpf_file_system_is_nobodys_business(self):
        things = Things(self, pid_of_nobody())
        run("umount", things.folder / "bpf")
        subprocess.run([SCRIPT], capture_output=True, check=True)
        self.assertTrue(things.folder.exists())
        self.assertFalse(things.netns.exists())


if __name__ == "__main__":
    run_tests()
