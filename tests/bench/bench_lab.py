# SPDX-License-Identifier: Apache-2.0
"""The benchmark's node and pods: network namespaces on a bridge, cgroups, programs in them; all of it goes away again.

Traffic stays inside the namespaces made here. The machine's own network namespace is not touched.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE_S = 60


def cgroup2_root() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    raise RuntimeError("no cgroup2 is mounted")


def run(*command: str, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def wait_until(what: str, condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"gave up waiting for {what}")
        time.sleep(0.05)


class Lab:
    """A node netns with a bridge, pods, a tree of cgroups, a folder with a bpffs. Close it."""

    def __init__(self) -> None:
        self.prefix = f"st-bench-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix + "."))
        self.cgroups = cgroup2_root() / self.prefix
        self.namespaces: list[str] = []
        self.processes: list[subprocess.Popen] = []
        self.mounted = False

    def open(self) -> None:
        self.cgroups.mkdir()
        (self.folder / "bpf").mkdir()
        run("mount", "-t", "bpf", "bpf", str(self.folder / "bpf"))
        self.mounted = True
        self.add_netns("node")
        for command in ("link add br0 type bridge", "addr add 10.244.9.1/24 dev br0", "link set br0 up"):
            self.ip("node", command)
        self.in_netns("node", "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def add_netns(self, name: str) -> None:
        run("ip", "netns", "add", f"{self.prefix}-{name}")
        self.namespaces.append(name)
        self.ip(name, "link set lo up")
        # Many connections a second need many local ports.
        self.in_netns(name, "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.core.somaxconn=4096")

    def add_pod(self, name: str, number: int) -> str:
        """Its address."""
        self.add_netns(name)
        veth = f"veth{number}"
        run("ip", "-n", self.netns("node"), "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", self.netns(name))
        self.ip("node", f"link set {veth} master br0 up")
        for command in (f"addr add 10.244.9.{number}/24 dev eth0", "link set eth0 up", "route add default via 10.244.9.1"):
            self.ip(name, command)
        return f"10.244.9.{number}"

    def netns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def netns_path(self, name: str) -> str:
        return f"/run/netns/{self.netns(name)}"

    def ip(self, name: str, command: str) -> None:
        run("ip", "-n", self.netns(name), *command.split())

    def in_netns(self, name: str, *command: str) -> str:
        return run("nsenter", f"--net={self.netns_path(name)}", *command)

    def cgroup(self, name: str) -> Path:
        path = self.cgroups / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def start(self, name: str, cgroup: str, netns: str, *command: str, **options) -> subprocess.Popen:
        """Starts a program in a cgroup and a netns; its pid is the program's own. `name`: of its log.

        All of them, on every path alike, run before what else the machine does: less noise where it is shared.
        """
        join = 'echo $$ >"$0/cgroup.procs" && exec nice -n -20 nsenter --net="$1" "${@:2}"'
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", join, str(self.cgroup(cgroup)), self.netns_path(netns), *map(str, command)],
                stderr=log, stdin=options.pop("stdin", subprocess.DEVNULL), stdout=options.pop("stdout", log), **options)
        self.processes.append(process)
        return process

    def ask(self, name: str, cgroup: str, netns: str, *command: str) -> dict:
        """Runs a program to its end: the JSON that it prints."""
        process = self.start(name, cgroup, netns, *command, stdout=subprocess.PIPE, text=True)
        output, _ = process.communicate()
        self.processes.remove(process)
        if process.returncode != 0:
            raise RuntimeError(f"{name} failed: {self.log(name)}")
        return json.loads(output)

    def stop(self, process: subprocess.Popen) -> None:
        if process in self.processes:
            self.processes.remove(process)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""

    def stop_all(self) -> None:
        for process in reversed(list(self.processes)):
            self.stop(process)

    def close(self) -> None:
        self.stop_all()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", self.netns(name)], capture_output=True, check=False)
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder / "bpf")], check=False)
        for path in sorted(self.cgroups.glob("**/"), reverse=True):
            for _ in range(100):
                try:
                    path.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)
        if not os.environ.get("KEEP_LOGS"):
            shutil.rmtree(self.folder, ignore_errors=True)
