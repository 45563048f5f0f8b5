# SPDX-License-Identifier: Apache-2.0
"""What the cases do with the cluster: kubectl, helm, sidetrackctl on the node, containerd, traffic in pods."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tap import Failed, expect, until

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = Path(os.environ.get("ST_K8S_HOME", os.path.expanduser("~/.cache/sidetrack-k8s")))
BIN = Path(os.environ.get("ST_K8S_PROGRAMS", ROOT / "build/bin"))
OTHER_BIN = os.environ.get("ST_K8S_OTHER_PROGRAMS", "")  # of another version, tag 2 of the image; empty: there is none
CONF_DIR, BIN_DIR = HOME / "cni/net.d", HOME / "cni/bin"
STATE_DIR, CACHE_DIR, PIN_DIR = Path("/run/sidetrack"), Path("/var/lib/sidetrack"), Path("/sys/fs/bpf/sidetrack")
NAMESPACE, RELEASE, DAEMON_SET = "sidetrack-system", "mesh", "mesh-sidetrack"
NODE, NODE_IP, BRIDGE = "sidetrack-node", "10.198.0.1", "stk8s0"  # common.sh
STATE = Path("/run/sidetrack-k8s")  # common.sh
IPAM_DIR = STATE / "ipam/sidetrack-k8s"  # node.sh: main_conflist
IMAGE = "sidetrack.test/sidetrack"
PROBE, TOOLS = "sidetrack.test/probe:1", "sidetrack.test/tools:1"
ENVIRONMENT = os.environ | {
    "KUBECONFIG": str(HOME / "etc/admin.kubeconfig"), "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"}


def run(*command: object, check: bool = True, text: str | None = None, timeout: float = 120) -> str:
    """Standard output. A failure says what was written to standard error."""
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, input=text, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words)}: no end within {timeout} s") from error
    if check and result.returncode != 0:
        raise Failed(f"{' '.join(words)}: exit {result.returncode}: {result.stderr.strip()} {result.stdout.strip()[-500:]}")
    return result.stdout


def kubectl(*arguments: object, **options: Any) -> str:
    return run("kubectl", *arguments, **options)


def get(*arguments: object) -> Any:
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def apply(manifest: str) -> None:
    kubectl("apply", "-f", "-", text=manifest)


def inside(pod: str, *command: object, **options: Any) -> str:
    """Runs a command in a pod NAMESPACE/NAME."""
    namespace, name = pod.split("/")
    return kubectl("exec", "-n", namespace, name, "--", *command, **options)


def curl(pod: str, url: str, check: bool = True) -> str:
    """What a server answered to this pod, on a connection of its own."""
    return inside(pod, "curl", "-sS", "-m", "10", url, check=check)


def ready(namespace: str, *what: object, seconds: int = 60) -> None:
    kubectl("wait", "-n", namespace, "--for=condition=Ready", *what, f"--timeout={seconds}s", timeout=seconds + 10)


def address(pod: str) -> str:
    namespace, name = pod.split("/")
    return get("pod", "-n", namespace, name)["status"]["podIP"]


def label(namespace: str, mode: str) -> None:
    """The rollout switch; an empty mode takes the label away."""
    kubectl("label", "namespace", namespace, f"sidetrack.io/mode={mode}" if mode else "sidetrack.io/mode-", "--overwrite")


# --- what the agent of the node says, by the socket on the node


def ctl(*arguments: object, programs: Path = BIN) -> Any:
    return json.loads(run(programs / "sidetrackctl", *arguments, "-o", "json"))


def version_of(programs: Path) -> str:
    return run(programs / "sidetrackctl", "--version").split()[-1]


def counters(namespace: str) -> dict[str, int]:
    rows = {row["namespace"]: row["connections"] for row in ctl("counters")["counters"]}
    return rows.get(namespace, {})


def state_of(pod: str) -> tuple[str, str]:
    """State and mode of a pod NAMESPACE/NAME; ("absent", "") if the agent does not know it."""
    namespace, name = pod.split("/")
    try:
        rows = ctl("pods", "-n", namespace)["pods"]
    except Failed:
        return "absent", ""
    return next(((row["state"], row["mode"]) for row in rows if row["pod"] == name), ("absent", ""))


def explained(pod: str, destination: str) -> str:
    return ctl("explain", pod, destination)["reason"]


def enrolled(pod: str, mode: str, seconds: float = 30) -> float:
    def check() -> bool:
        seen = state_of(pod)
        expect(seen == ("enrolled", mode), f"it is {seen[0]} as {seen[1]}")
        return True
    return until(seconds, f"{pod} to be enrolled as {mode}", check)


def event_of(pod: str, reason: str, seconds: float = 30) -> str:
    namespace, name = pod.split("/")
    found: list[str] = []

    def look() -> bool:
        found[:] = [one["message"] for one in get("events", "-n", namespace, "--field-selector", f"involvedObject.name={name}")["items"]
                    if one["reason"] == reason]
        return bool(found)
    until(seconds, f"an Event {reason} of {pod}", look)
    expect(len(found) == 1, f"{len(found)} Events: {found}")
    return found[0]


def flow_of(pod: str, destination: str, after: float) -> dict[str, Any]:
    """The record of this pod's connection to `destination` that began after that Unix time."""
    namespace, name = pod.split("/")
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [flow for flow in ctl("flows", "-n", namespace, "--since", "5m")["flows"]
                    if flow["pod"] == name and flow["destination"] == destination and flow["start"] > after]
        return bool(found)
    until(10, f"a flow record of {pod} to {destination}", look)
    expect(len(found) == 1, f"{len(found)} flow records: {found}")
    return found[0]


# --- processes and pods of ours


def agent_pods() -> list[dict[str, Any]]:
    return get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sidetrack")["items"]


def kernel_objects() -> set[tuple[str, int]]:
    """Programs, maps and links of ours that the kernel has, wherever they are attached or pinned."""
    found = {(kind, one["id"]) for kind in ("prog", "map") for one in json.loads(run("bpftool", "--json", kind, "show"))
             if str(one.get("name", "")).startswith("st_")}
    programs = {number for kind, number in found if kind == "prog"}
    return found | {("link", one["id"]) for one in json.loads(run("bpftool", "--json", "link", "show")) if one.get("prog_id") in programs}


def processes(name: str) -> list[int]:
    """Processes of the node that run this program of our image."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")[0]
                cgroup = (entry / "cgroup").read_text()
            except OSError:
                continue
            if command.decode(errors="replace") == f"/usr/bin/{name}" and "/kubepods/" in cgroup:
                found.append(int(entry.name))
    return sorted(found)


def agent_is_ready() -> bool:
    pods = agent_pods()
    return len(pods) == 1 and all(one["ready"] for one in pods[0]["status"].get("containerStatuses", [])) and bool(
        pods[0]["status"].get("containerStatuses"))


def main_conflist() -> str:
    """What the main CNI of this cluster wrote, and writes again at a reboot."""
    return run("bash", "-c", f". {HERE}/common.sh; . {HERE}/node.sh; main_conflist")


def cgroup2_root() -> str:
    return run("bash", "-c", f". {HERE}/common.sh; cgroup2_root").strip()


def ctr(*arguments: object, **options: Any) -> str:
    return run("ctr", "-a", STATE / "containerd.sock", "-n", "k8s.io", *arguments, **options)


# --- traffic


@dataclass
class Traffic:
    """Counters of tests/kubernetes/programs/traffic.c."""
    asked: int
    connect_failed: int
    answer_failed: int
    held: int
    held_broken: int
    last: str

    def since(self, earlier: "Traffic") -> "Traffic":
        return Traffic(self.asked - earlier.asked, self.connect_failed - earlier.connect_failed,
                       self.answer_failed - earlier.answer_failed, self.held - earlier.held,
                       self.held_broken - earlier.held_broken, self.last)


def traffic_of(pod: str) -> Traffic:
    namespace, name = pod.split("/")
    lines = kubectl("logs", "-n", namespace, name, "--tail=1").strip()
    match = re.fullmatch(r"asked=(\d+) connect_failed=(\d+) answer_failed=(\d+) held=(\d+) held_broken=(\d+) last=(.*)", lines)
    if match is None:
        raise Failed(f"{pod} says '{lines}'")
    return Traffic(*(int(number) for number in match.groups()[:5]), match.group(6))


@contextmanager
def undisturbed(pod: str, answers: bool = True) -> Iterator[list[str]]:
    """No connect() of this traffic may fail meanwhile, with `answers` no request either. Yields a list whose one line says
    afterwards what was counted."""
    before = traffic_of(pod)
    said: list[str] = []
    yield said
    begin = traffic_of(pod)
    until(10, "traffic to go on", lambda: traffic_of(pod).asked > begin.asked + 20)
    change = traffic_of(pod).since(before)
    said.append(f"{change.asked} connections, {change.connect_failed} failed connects, {change.answer_failed} without answer, "
                f"{change.held} requests on held connections of which {change.held_broken} broke")
    broken = change.connect_failed + (change.answer_failed + change.held_broken if answers else 0)
    expect(broken == 0, f"{said[0]}; last error: {change.last}")
