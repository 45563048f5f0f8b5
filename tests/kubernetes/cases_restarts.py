# SPDX-License-Identifier: Apache-2.0
"""What starts again: a container, a pod's sandbox, containerd and kubelet; pods that no API server made."""

import os
import signal
from pathlib import Path

import workloads
from cases_basic import SERVER, decided
from cases_pods import each_row_has_its_pod, uid_of
from cluster import HERE, NODE, STATE, address, agent_is_ready, ctl, enrolled, get, inside, kubectl, processes, ready, run, state_of
from tap import Suite, expect, until
from workloads import SHOP

STATIC = f"still-{NODE}"
MANIFEST = STATE / "manifests/still.json"  # node.sh: start_kubelet


def container_of(pod: str) -> dict[str, object]:
    namespace, name = pod.split("/")
    return get("pod", "-n", namespace, name)["status"]["containerStatuses"][0]


def pause_of(pod: str) -> int:
    """The process that holds the pod's network namespace."""
    uid = uid_of(pod)
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == b"/pause\0" and f"/pod{uid}/" in (entry / "cgroup").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    expect(len(found) == 1, f"{len(found)} pause processes of {pod}")
    return found[0]


def add(suite: Suite) -> None:
    @suite.case("container-and-sandbox-start-again")
    def _() -> str:
        pod = workloads.client(SHOP, "again")
        enrolled(pod, "redirect")
        first, old = container_of(pod)["restartCount"], address(pod)
        inside(pod, "kill", "1", check=False)  # the shell may end with its container
        until(30, "the container to start again", lambda: container_of(pod)["restartCount"] > first and container_of(pod)["ready"])
        decided(pod, f"http://{SERVER}/", "redirected")
        expect(address(pod) == old, "it has another address")
        pause = pause_of(pod)
        os.kill(pause, signal.SIGKILL)
        until(60, "another sandbox", lambda: address(pod) != old and container_of(pod)["ready"])
        enrolled(pod, "redirect")
        decided(pod, f"http://{SERVER}/", "redirected")
        each_row_has_its_pod()
        new = address(pod)
        kubectl("delete", "pod", "-n", SHOP, "again", "--timeout=60s")
        return f"redirected after its container started again in {old}, and with its new sandbox in {new}; each row has its pod"

    @suite.case("containerd-and-kubelet-start-again")
    def _() -> str:
        run("bash", "-c", f". {HERE}/common.sh; . {HERE}/node.sh; stop kubelet; stop containerd; start_containerd; start_kubelet", timeout=120)
        until(60, "kubelet to know its pods", lambda: inside(f"{SHOP}/client", "echo", "well"))
        decided(f"{SHOP}/client", f"http://{SERVER}/", "redirected")
        pod = workloads.client(SHOP, "later")
        enrolled(pod, "redirect")
        decided(pod, f"http://{SERVER}/", "redirected")
        kubectl("delete", "pod", "-n", SHOP, "later", "--timeout=60s")
        each_row_has_its_pod()
        until(60, "the agent to be ready", agent_is_ready)
        return "a pod from before and one from after are redirected; each row has its pod"

    @suite.case("static-pod")
    def _() -> str:
        MANIFEST.write_text(workloads.static_pod(SHOP, "still"))
        until(60, "its mirror", lambda: kubectl("get", "pod", "-n", SHOP, STATIC, "--ignore-not-found"))
        ready(SHOP, f"pod/{STATIC}")
        pod = f"{SHOP}/{STATIC}"
        enrolled(pod, "redirect")
        decided(pod, f"http://{SERVER}/", "redirected")
        return f"{pod} of {MANIFEST.name} is enrolled and redirected; it stays for the reboot"

    @suite.case("hung-agent-is-started-again", slow=True)
    def _() -> str:
        agent = processes("sidetrack-agent")[0]
        os.kill(agent, signal.SIGSTOP)
        took = until(150, "kubelet to start another", lambda: processes("sidetrack-agent") not in ([], [agent]))
        until(60, "it to be ready", agent_is_ready)
        expect(state_of(f"{SHOP}/client") == ("enrolled", "redirect") and not ctl("status")["pods"]["drift"], f"{ctl('status')['pods']}")
        decided(f"{SHOP}/client", f"http://{SERVER}/", "redirected")
        return f"killed by its liveness probe, another one after {took:.0f} s"
