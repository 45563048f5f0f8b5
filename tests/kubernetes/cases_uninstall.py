# SPDX-License-Identifier: Apache-2.0
"""Uninstall leaves the node as it was found."""

import json
import os
import signal
import time

import workloads
from cases_basic import CLIENT, CONFLIST, SERVER, decided, until_chained, values
from cases_faults import TILL
from cases_pods import refusal
from cases_restarts import MANIFEST, STATIC
from cluster import (BIN, BIN_DIR, CACHE_DIR, CONF_DIR, DAEMON_SET, NAMESPACE, PIN_DIR, RELEASE, ROOT, STATE_DIR, agent_is_ready, agent_pods, apply,
                     cgroup2_root, enrolled, get, kernel_objects, kubectl, main_conflist, processes, ready, run)
from tap import Suite, expect, until
from workloads import SERVICE, SHOP

LIST = CACHE_DIR / "enrolled-namespaces"


def folder(path: object) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}


def expect_as_found() -> None:
    expect(not processes("sidetrack-agent") + processes("sidetrack-engine"), "processes are left")
    conf, plugins = folder(CONF_DIR), sorted(folder(BIN_DIR))
    expect(conf == {CONFLIST.name: main_conflist().encode()}, f"the configuration is not as it was found: {conf}")
    expect(plugins == ["bridge", "host-local", "loopback", "portmap"], f"plugins are not as they were found: {plugins}")
    expect(not PIN_DIR.exists(), f"pins are left: {list(PIN_DIR.rglob('*')) if PIN_DIR.exists() else ''}")
    until(10, "our programs to be off the root cgroup", lambda: " st_" not in run("bpftool", "cgroup", "show", cgroup2_root()))
    until(10, "our programs, maps and links to be gone", lambda: not kernel_objects())
    left = [str(path) for where in (STATE_DIR, CACHE_DIR) if where.exists() for path in where.iterdir()]
    expect(not left, f"files are left: {left}")


def answered(pod: str) -> None:
    namespace, name = pod.split("/")
    answer = kubectl("exec", "-n", namespace, name, "--", "curl", "-sS", "-m", "10", f"http://{SERVICE}/")
    expect("client=" in answer, answer)


def keep_from_starting() -> None:
    """The agent's container ends at each start, by an option that it refuses."""
    kubectl("patch", "daemonset", "-n", NAMESPACE, DAEMON_SET, "--type=json", "-p", json.dumps([
        {"op": "replace", "path": "/spec/updateStrategy/rollingUpdate", "value": {"maxSurge": 0, "maxUnavailable": 1}},
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--log-level=none"}]))

    def fails() -> bool:
        states = [one for pod in agent_pods() for one in pod["status"].get("containerStatuses", []) if one["name"] == "agent"]
        return len(states) == 1 and states[0]["restartCount"] > 0 and "waiting" in states[0]["state"]
    until(180, "the agent to fail again and again", fails)


def until_refused(pod: str) -> str:
    until(60, f"{pod} to be refused", lambda: "onAgentDown: deny" in refusal(pod))
    return refusal(pod)


def add(suite: Suite) -> None:
    @suite.case("uninstall")
    def _() -> str:
        run("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m", timeout=200)
        took = until(120, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE)["items"])
        expect_as_found()
        return f"pods gone {took:.1f} s after helm; conflist byte for byte, no plugin, no pins, none of our programs, maps and links, no files"

    @suite.case("uninstall-while-the-agent-hangs", slow=True)
    def _() -> str:
        # deny: what is left behind would keep pods from starting
        run("helm", "install", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, *values(), "--set", "cni.onAgentDown=deny", "--wait", "--timeout", "3m",
            timeout=200)
        until(60, "the agent to be ready", agent_is_ready)
        until_chained()
        enrolled(CLIENT, "redirect")
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        os.kill(processes("sidetrack-agent")[0], signal.SIGSTOP)
        run("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m", timeout=200)
        until(180, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE)["items"])
        expect(PIN_DIR.exists(), "the pins are gone: nothing hung")
        expect(folder(CONF_DIR) == {CONFLIST.name: main_conflist().encode()}, f"the configuration is not as it was found: {folder(CONF_DIR)}")
        begin = time.monotonic()
        answered(workloads.client(SHOP, "left"))
        kubectl("delete", "pod", "-n", SHOP, "left", "--timeout=30s")
        took = time.monotonic() - begin
        answered(CLIENT)
        run(BIN / "sidetrack-agent", "uninstall", "--cni-conf-dir", CONF_DIR, "--cni-bin-dir", BIN_DIR, "--drain", "1s")
        expect_as_found()
        return f"onAgentDown: deny; the conflist is as it was; a pod started, connected and was deleted in {took:.1f} s, one from before connects; `sidetrack-agent uninstall` took back the rest"

    @suite.case("uninstall-while-the-agent-cannot-start", slow=True)
    def _() -> str:
        run("helm", "install", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, *values(), "--set", "cni.onAgentDown=deny,cni.denyFor=1m", "--wait",
            "--timeout", "3m", timeout=200)
        until(60, "the agent to be ready", agent_is_ready)
        until_chained()
        enrolled(CLIENT, "redirect")
        until(60, "the namespace to be listed", lambda: SHOP in LIST.read_text().split())
        keep_from_starting()
        run("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m", timeout=200)
        until(180, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE)["items"])
        expect(CONFLIST.read_text() != main_conflist() and LIST.exists(), "the node was cleared: there is nothing that could refuse pods")
        LIST.touch()  # as if it had ended just now, however long the above took
        begin = time.monotonic()
        apply(workloads.pod(SHOP, "patient", workloads.IDLE))
        message = until_refused(f"{SHOP}/patient")
        ready(SHOP, "pod/patient", seconds=240)
        took = time.monotonic() - begin
        expect(took > 55, f"it started after {took:.1f} s: deny did not hold for its minute")
        answered(f"{SHOP}/patient")
        noted = [line for line in (CACHE_DIR / "cni.log").read_text().splitlines() if f"pod {SHOP}/patient starts before it is enrolled" in line]
        for part in ("no agent has been there for", "sidetrack-agent uninstall"):
            expect(len(noted) == 1 and part in noted[0], f"'{part}' is not in {noted}")
        run(BIN / "sidetrack-agent", "uninstall", "--cni-conf-dir", CONF_DIR, "--cni-bin-dir", BIN_DIR, "--drain", "1s")
        expect_as_found()
        kubectl("delete", "pod", "-n", SHOP, "patient", "--timeout=30s")
        return f"cni.denyFor: 1m; a pod was refused ({message}), and started {took:.1f} s after the agent was there last; `sidetrack-agent uninstall` took back the rest"

    @suite.case("pods-after-uninstall")
    def _() -> str:
        pod = workloads.client(SHOP, "after")
        answered(pod)
        MANIFEST.unlink(missing_ok=True)
        kubectl("wait", "-n", SHOP, "--for=delete", f"pod/{STATIC}", "--timeout=60s", timeout=70)
        kubectl("delete", "namespace", SHOP, TILL, "legacy", "--ignore-not-found", "--timeout=120s", timeout=130)
        return f"{pod} started, got an answer, and pods from before were deleted"
