# SPDX-License-Identifier: Apache-2.0
"""Starts in bulk, and what fails: engine and agent killed, upgrade and rollback under load, a reboot."""

import hashlib
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import workloads
from cases_basic import CLIENT, CONFLIST, SERVER, decided, until_chained, values
from cases_pods import each_row_has_its_pod
from cases_restarts import STATIC
from cluster import (BIN, DAEMON_SET, HERE, HOME, IMAGE, NAMESPACE, OTHER_BIN, PIN_DIR, RELEASE, ROOT, STATE_DIR, agent_is_ready, agent_pods,
                     apply, counters, ctl, ctr, curl, enrolled, event_of, explained, get, kernel_objects, kubectl, label, main_conflist, processes,
                     run, state_of, traffic_of, undisturbed, version_of)
from tap import Failed, Suite, expect, until
from workloads import SERVICE, SHOP

RUSH, PODS, BATCH = "rush", 200, 20
TILL = "till"  # traffic, apart from the connections that cases count
KILLS, UPGRADE_PODS = 20, 40
FIGHT_SECONDS = 30
LATE_SECONDS = 60
AGENT_PORT = 15880  # the chart's default


def load(name: str, **options: int) -> str:
    """Traffic that runs, made if it is not there."""
    workloads.namespace(TILL, "redirect")
    pod = workloads.traffic(TILL, name, f"{SERVICE} 80", **options)
    enrolled(pod, "redirect")
    return pod


def fetch(path: str) -> tuple[int, str]:
    """Status and body, as kubelet's probe and Prometheus get them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{AGENT_PORT}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def cni_adds() -> tuple[int, int]:
    """Questions that the plugin asked this agent, and how many of them took more than 50 ms."""
    text = fetch("/metrics")[1]
    name = "sidetrack_cni_request_duration_seconds"
    fast, all_of_them = (int(re.search(rf'^{name}_bucket{{le="{bound}"}} (\d+)$', text, re.MULTILINE).group(1)) for bound in ("0.05", r"\+Inf"))
    return all_of_them, all_of_them - fast


def kill(name: str) -> int:
    found = processes(name)
    expect(len(found) == 1, f"{len(found)} processes of {name}: {found}")
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def build_of_the_agent() -> str:
    return hashlib.sha256(Path(f"/proc/{processes('sidetrack-agent')[0]}/exe").read_bytes()).hexdigest()


def talks_to_both_versions() -> str:
    """The agent's version: what each sidetrackctl gets from it is the same, and doctor of another version says so."""
    tools = [BIN, Path(OTHER_BIN)] if OTHER_BIN else [BIN]
    version = ctl("status")["agent"]["version"]
    for programs in tools:
        own = version_of(programs)
        seen = ctl("status", programs=programs)["agent"]["version"]
        expect(seen == version, f"sidetrackctl {own} says of the agent's version: {seen}")
        told = ctl("explain", CLIENT, SERVER, programs=programs)["reason"]
        expect(told == "redirected", f"sidetrackctl {own} says of a connection: {told}")
        said = run(programs / "sidetrackctl", "doctor", check=False)
        hint = f"the agent is version {version}, this sidetrackctl {own}"
        expect((hint in said) == (own != version), f"doctor of sidetrackctl {own}: {said}")
    return version


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def frozen(name: str) -> Iterator[None]:
    """A part of the cluster (tests/kubernetes/common.sh: start) that neither answers nor ends connections."""
    pid = int((HOME / f"run/{name}.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def grown(namespace: str, before: dict[str, int]) -> dict[str, int]:
    """What the kernel counted since, but for the engine's own connections, which are made from the pods' namespaces."""
    return {reason: count - before.get(reason, 0) for reason, count in counters(namespace).items()
            if count != before.get(reason, 0) and reason != "engine_socket"}


@contextmanager
def none_escapes() -> Iterator[None]:
    """The traffic that runs meanwhile is redirected, all of it: failing open would hide what failed."""
    before = counters(TILL)
    yield
    escaped = {reason: count for reason, count in grown(TILL, before).items() if reason != "redirected"}
    expect(not escaped, f"not redirected: {escaped}")


def start_rush(pods: int, batch: int) -> dict[str, int]:
    """Starts pods whose first system call is connect(), `batch` at a time; what the kernel had counted before."""
    workloads.namespace(RUSH, "redirect")
    until(10, "the namespace to be known", lambda: state_of(CLIENT)[0] == "enrolled")
    before = counters(RUSH)
    kubectl("delete", "job", "-n", RUSH, "first", "--ignore-not-found")
    apply(JOB.format(pods=pods, batch=batch))
    return before


def end_rush(pods: int, before: dict[str, int]) -> None:
    """Waits until all have ended; each must have been redirected."""
    kubectl("wait", "-n", RUSH, "--for=condition=Complete", "job/first", "--timeout=900s", timeout=910)
    seen = grown(RUSH, before)
    expect(seen == {"redirected": pods}, f"of {pods} pods the kernel counted {seen}")


def names_of(namespace: str) -> list[str]:
    """NAMESPACE/NAME of its pods that go on."""
    return [f"{namespace}/{one['metadata']['name']}" for one in get("pods", "-n", namespace)["items"]
            if "deletionTimestamp" not in one["metadata"]]


def another(name: str, than: int) -> bool:
    found = processes(name)
    return len(found) == 1 and found[0] != than


def add(suite: Suite) -> None:
    @suite.case("first-system-call-is-connect", slow=True)
    def _() -> str:
        adds_before, begin = cni_adds(), time.monotonic()
        end_rush(PODS, start_rush(PODS, BATCH))
        took = time.monotonic() - begin
        each_row_has_its_pod(seconds=60)
        adds, slow = cni_adds()
        expect(adds - adds_before[0] >= PODS, f"the plugin asked {adds - adds_before[0]} times for {PODS} pods")
        flows = [flow["path"] for flow in ctl("flows", "-n", RUSH, "--since", "15m")["flows"]]
        expect(len(flows) >= PODS and "direct" not in flows, f"{len(flows)} flows, of which {flows.count('direct')} direct")
        kubectl("delete", "namespace", RUSH, "--timeout=180s", timeout=190)
        return (f"{PODS} pods in {took:.0f} s, {BATCH} at a time: the kernel counted {PODS} redirected, {flows.count('engine')} flows through the engine, "
                f"{slow - adds_before[1]} of {adds - adds_before[0]} questions of the plugin took more than 50 ms")

    @suite.case("engine-killed-under-load")
    def _() -> str:
        pod = load("load")
        before = counters(TILL)
        with undisturbed(pod, answers=False) as said:
            old = kill("sidetrack-engine")
            back = until(60, "another engine", lambda: another("sidetrack-engine", old))
            until(30, "redirection to be back", lambda: explained(pod, SERVER) == "redirected")
        direct = counters(TILL).get("engine_down", 0) - before.get("engine_down", 0)
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        return f"{said[0]}; {direct} went direct (engine_down); another engine after {back:.1f} s"

    @suite.case("agent-killed-under-load", slow=True)
    def _() -> str:
        pod = load("load")
        with none_escapes(), undisturbed(pod) as said:
            for number in range(KILLS):
                old = kill("sidetrack-agent")
                until(60, f"another agent after kill {number + 1}", lambda gone=old: another("sidetrack-agent", gone))
                until(60, f"the agent to answer after kill {number + 1}", lambda: explained(CLIENT, SERVER) == "redirected")
        until(60, "the agent to be ready", agent_is_ready)
        return f"{KILLS} times kill -9: {said[0]}"

    @suite.case("agent-restarts-without-api-server")
    def _() -> str:
        pod = load("load")
        before = traffic_of(pod)
        with frozen("kube-apiserver"):
            expect(fetch("/readyz")[0] == 200, "an agent that runs is not ready without the API server")
            old = kill("sidetrack-agent")
            until(60, "another agent", lambda: another("sidetrack-agent", old))
            took = until(60, "it to work from what is on its disk", lambda: ctl("status")["agent"]["state"] == "ready")
            expect(explained(CLIENT, SERVER) == "redirected", "shop/client is not redirected")
            engine = kill("sidetrack-engine")
            until(60, "another engine", lambda: another("sidetrack-engine", engine))
            until(30, "redirection by the new engine", lambda: explained(CLIENT, SERVER) == "redirected")
        until(60, "the API server to be back", agent_is_ready)
        change = traffic_of(pod).since(before)
        expect(change.connect_failed == 0 and change.asked > 0, f"{change}")
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        return f"ready {took:.1f} s after the new agent, from disk; a new engine registered; {change.asked} connections, 0 failed connects"

    @suite.case("conflist-fight", slow=True)
    def _() -> str:
        agent, begin, writes = processes("sidetrack-agent")[0], time.monotonic(), 0
        before = cpu_seconds(agent)
        while time.monotonic() - begin < FIGHT_SECONDS:
            CONFLIST.with_name(".rewritten").write_text(main_conflist())
            CONFLIST.with_name(".rewritten").rename(CONFLIST)
            writes += 1
            while time.monotonic() < begin + writes:  # once a second: this is what is tested
                json.loads(CONFLIST.read_text())
                time.sleep(0.02)
        used = cpu_seconds(agent) - before
        until_chained()
        events = [one for one in get("events", "-n", "default")["items"] if one["reason"].startswith("Sidetrack")]
        named = [one["message"] for one in events if CONFLIST.name in one["message"]]
        expect(len(named) == 1, f"{len(named)} Events name {CONFLIST.name}: {events}")
        writer = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        expect(named[0].startswith(f"{writer} keeps rewriting "), f"the Event does not name {writer}: {named[0]}")
        expect(used < 0.1 * FIGHT_SECONDS, f"the agent used {used:.1f} s of CPU in {FIGHT_SECONDS} s")
        return f"{writes} rewrites in {FIGHT_SECONDS} s: {used:.2f} s of CPU, one Event: {named[0]}"

    @suite.case("a-pod-starts-while-the-agent-is-dead")
    def _() -> str:
        agent = processes("sidetrack-agent")[0]
        os.kill(agent, signal.SIGSTOP)  # hangs: nobody answers the plugin, nobody restarts it at once
        try:
            begin = time.monotonic()
            workloads.client(SHOP, "orphan")
            took = time.monotonic() - begin
            answer = curl(f"{SHOP}/orphan", f"http://{SERVER}/")
            time.sleep(2)  # it runs for a while before it is captured: this is what is told of
        finally:
            os.kill(agent, signal.SIGCONT)
        expect("client=" in answer, answer)
        later = enrolled(f"{SHOP}/orphan", "redirect", 60)
        decided(f"{SHOP}/orphan", f"http://{SERVER}/", "redirected")
        message = event_of(f"{SHOP}/orphan", "SidetrackCapturedLate")
        kubectl("delete", "pod", "-n", SHOP, "orphan", "--wait=false")
        return f"ready after {took:.1f} s with a hung agent (onAgentDown: allow), enrolled {later:.1f} s after it went on; Event: {message}"

    @suite.case("upgrade-and-rollback-under-load")
    def _() -> str:
        if not OTHER_BIN:
            ctr("images", "tag", "--force", f"{IMAGE}:1", f"{IMAGE}:2")
        builds = [build_of_the_agent()]
        pod = load("upgrade", held_requests=50)
        kubectl("delete", "pod", "-n", TILL, "load", "--wait=false", "--ignore-not-found")
        old, versions = agent_pods()[0]["metadata"]["uid"], [talks_to_both_versions()]
        times, rush = [], start_rush(UPGRADE_PODS, 4)
        with none_escapes(), undisturbed(pod) as said:
            for command in (["upgrade", RELEASE, ROOT / "helm/sidetrack", *values(), "--set-string", "image.tag=2"], ["rollback", RELEASE, "1"]):
                begin = time.monotonic()
                run("helm", *command, "-n", NAMESPACE, "--wait", "--timeout", "5m", timeout=320)
                kubectl("rollout", "status", "-n", NAMESPACE, f"daemonset/{DAEMON_SET}", "--timeout=180s", timeout=190)
                until(120, "the old pod to go", agent_is_ready)
                until(30, "the new agent to have taken over", lambda: ctl("status")["agent"]["state"] == "ready")
                times.append(time.monotonic() - begin)
                expect(agent_pods()[0]["metadata"]["uid"] != old, "the pod is still the old one")
                old = agent_pods()[0]["metadata"]["uid"]
                builds.append(build_of_the_agent())
                until_chained()
                decided(CLIENT, f"http://{SERVER}/", "redirected")
                versions.append(talks_to_both_versions())
        end_rush(UPGRADE_PODS, rush)
        kubectl("delete", "namespace", RUSH, "--timeout=180s", timeout=190)
        kubectl("delete", "pod", "-n", TILL, "upgrade", "--wait=false")
        expect(builds[2] == builds[0] and (builds[1] != builds[0]) == bool(OTHER_BIN),
               f"the agent before, after the upgrade and after the rollback: {builds}")
        wanted = [version_of(BIN), version_of(Path(OTHER_BIN) if OTHER_BIN else BIN), version_of(BIN)]
        expect(versions == wanted, f"the agent was {versions}, not {wanted}")
        return (f"upgrade {times[0]:.0f} s, rollback {times[1]:.0f} s, the agent was {', '.join(versions)}{'' if OTHER_BIN else ' (no other build)'}: "
                f"{said[0]}; {UPGRADE_PODS} pods that started meanwhile were redirected")

    @suite.case("privileged", slow=True)
    def _() -> str:
        for command in (["upgrade", RELEASE, ROOT / "helm/sidetrack", *values(), "--set", "privileged=true"], ["rollback", RELEASE]):
            run("helm", *command, "-n", NAMESPACE, "--wait", "--timeout", "5m", timeout=320)
            kubectl("rollout", "status", "-n", NAMESPACE, f"daemonset/{DAEMON_SET}", "--timeout=180s", timeout=190)
            until(120, "the old pod to go", agent_is_ready)
            contexts = [one["securityContext"] for one in agent_pods()[0]["spec"]["containers"]]
            expect(all(one["privileged"] == (command[0] == "upgrade") for one in contexts), f"{contexts}")
            until(30, "the agent to be ready", lambda: ctl("status")["agent"]["state"] == "ready")
            decided(CLIENT, f"http://{SERVER}/", "redirected")
        return "privileged: true and back, redirected both times"

    @suite.case("reboot-with-a-late-agent", slow=True)
    def _() -> str:
        image = get("daemonset", "-n", NAMESPACE, DAEMON_SET)["spec"]["template"]["spec"]["containers"][0]["image"]
        ctr("images", "tag", "--force", image, "sidetrack.test/kept:1")
        for name in [one for one in ctr("images", "list", "-q").split() if one.startswith(f"{IMAGE}:")]:
            ctr("images", "rm", name)
        run(HERE / "reboot.sh", timeout=180)
        begin = time.monotonic()
        expect(not PIN_DIR.exists() and not STATE_DIR.exists(), "pins or state were left")
        until(10, "programs, maps and links to be gone with their pins", lambda: not kernel_objects())
        until(90, "the pods to run again", lambda: "client=" in curl(CLIENT, f"http://{SERVER}/", check=False))
        expect(not processes("sidetrack-agent"), "an agent runs without its image")
        started = time.monotonic() - begin
        time.sleep(max(0.0, LATE_SECONDS - started))  # the agent is to be late: this is what is tested
        ctr("images", "tag", "--force", "sidetrack.test/kept:1", image)
        kubectl("delete", "pod", "-n", NAMESPACE, "--all", "--wait=false")  # its pull backs off by now
        until(120, "the agent to be ready", agent_is_ready)
        waited = time.monotonic() - begin
        until_chained()
        wanted = {name for namespace in (SHOP, TILL) for name in names_of(namespace)}
        expect(f"{SHOP}/{STATIC}" in wanted, f"no static pod among {wanted}")

        def all_known() -> bool:
            states = {f"{row['namespace']}/{row['pod']}": (row["state"], row["reason"]) for row in ctl("pods")["pods"]}
            missing = {pod: states.get(pod) for pod in wanted if states.get(pod, ("", ""))[0] != "enrolled"}
            expect(not missing, f"{missing}")
            return True
        until(30, "every pod to be enrolled", all_known)
        for pod in (CLIENT, f"{SHOP}/{STATIC}"):
            decided(pod, f"http://{SERVER}/", "redirected")
        messages = [event_of(pod, "SidetrackCapturedLate") for pod in sorted(wanted)]
        return (f"pods ran and connected after {started:.0f} s, the agent after {waited:.0f} s; {len(wanted)} pods are enrolled, the static one too, "
                f"each with an Event, the plugin is chained again: {messages[0]}")


JOB = f"""
apiVersion: batch/v1
kind: Job
metadata: {{{{name: first, namespace: {RUSH}}}}}
spec:
  completions: {{pods}}
  parallelism: {{batch}}
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: first
          image: {workloads.TOOLS}
          command: [/bin/first_connect, {SERVICE}, "80"]
"""
