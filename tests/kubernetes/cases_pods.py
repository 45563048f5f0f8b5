# SPDX-License-Identifier: Apache-2.0
"""Pods that follow one another, and pods that must not start while there is no agent."""

import ipaddress
import json

import workloads
from cases_basic import CLIENT, SERVER, decided, until_chained, values
from cluster import (CACHE_DIR, DAEMON_SET, IPAM_DIR, NAMESPACE, RELEASE, ROOT, address, agent_is_ready, apply, ctl, enrolled,
                     explained, get, kubectl, label, ready, run, state_of)
from tap import Suite, expect, until
from workloads import SHOP

LEGACY, SYSTEM = "legacy", "kube-system"

STATEFUL_SET = f"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {SHOP}}}
spec:
  serviceName: db
  updateStrategy: {{type: OnDelete}}
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata:
      labels: {{app: db}}
      annotations: {{annotations}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: "{workloads.TOOLS}", command: {json.dumps(workloads.IDLE)}}}]
"""


def give_again(ip: str) -> None:
    """The next pod gets this address, if it is free by then: host-local goes on behind the last one that it gave."""
    (IPAM_DIR / "last_reserved_ip.0").write_text(str(ipaddress.ip_address(ip) - 1))


def uid_of(pod: str) -> str:
    namespace, name = pod.split("/")
    return get("pod", "-n", namespace, name)["metadata"]["uid"]


def rows() -> int:
    """Network namespaces that the kernel knows."""
    return next(one["entries"] for one in ctl("status")["maps"] if one["map"] == "st_pods")


def each_row_has_its_pod(seconds: float = 20) -> None:
    """No row is left of a network namespace that has gone, and none is missing."""
    def look() -> bool:
        owners = {one["netns_cookie"] for one in ctl("pods")["pods"]} - {0}
        now = rows() - 1  # the node's own namespace has one
        expect(now == len(owners), f"{now} rows of {len(owners)} pods")
        return True
    until(seconds, "a row in the kernel for each pod that has a network namespace, and no other", look)


def refusal(pod: str) -> str:
    """What kubelet says of a pod that could not be started."""
    namespace, name = pod.split("/")
    events = get("events", "-n", namespace, "--field-selector", f"involvedObject.name={name},reason=FailedCreatePodSandBox")["items"]
    return events[-1]["message"] if events else ""


def send_agent_away() -> None:
    """Agent and engine end; their DaemonSet stays, so they leave the plugin where it is."""
    node_selector(json.dumps({"sidetrack.test/nowhere": "true"}))
    until(90, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sidetrack")["items"])


def node_selector(more: str) -> None:
    kubectl("patch", "daemonset", "-n", NAMESPACE, DAEMON_SET, "--type=merge", "-p", '{"spec":{"template":{"spec":{"nodeSelector":%s}}}}' % more)


def helm(*command: object) -> None:
    run("helm", *command, "-n", NAMESPACE, "--wait", "--timeout", "5m", timeout=320)
    kubectl("rollout", "status", "-n", NAMESPACE, f"daemonset/{DAEMON_SET}", "--timeout=180s", timeout=190)
    until(120, "one agent, ready", agent_is_ready)


def refused_and_started() -> str:
    """While there is no agent, and the plugin may refuse. What kubelet says of the refused pod."""
    apply(workloads.pod(SHOP, "refused", workloads.IDLE))
    until(60, "the pod to be refused", lambda: refusal(f"{SHOP}/refused"))
    for namespace in (LEGACY, SYSTEM, NAMESPACE):
        workloads.client(namespace, "free")
    kubectl("delete", "pod", "-n", SHOP, "leaving", "--timeout=60s")
    status = get("pod", "-n", SHOP, "refused")["status"]
    expect(status["phase"] == "Pending" and "podIP" not in status, f"it is {status}")
    message = refusal(f"{SHOP}/refused")
    for part in (f"pod {SHOP}/refused must not start before it is enrolled (onAgentDown: deny)", f"kubectl -n {NAMESPACE} get pods -o wide",
                 "sidetrackctl doctor"):
        expect(part in message, f"'{part}' is not in '{message}'")
    return message


def add(suite: Suite) -> None:
    @suite.case("same-name-and-address-another-pod")
    def _() -> str:
        pod = f"{SHOP}/db-0"
        apply(STATEFUL_SET.replace("{annotations}", '{sidetrack.io/exclude-outbound-ports: "80"}'))
        until(30, "the first one", lambda: kubectl("get", "pod", "-n", SHOP, "db-0", "--ignore-not-found"))
        ready(SHOP, "pod/db-0")
        enrolled(pod, "redirect")
        decided(pod, f"http://{SERVER}/", "excluded_port")
        uid, ip = uid_of(pod), address(pod)
        apply(STATEFUL_SET.replace("{annotations}", "{}"))
        give_again(ip)
        kubectl("delete", "pod", "-n", SHOP, "db-0")
        until(60, "another one", lambda: uid_of(pod) != uid)
        ready(SHOP, "pod/db-0")
        expect(address(pod) == ip, f"it has {address(pod)}, not {ip}")
        enrolled(pod, "redirect")
        decided(pod, f"http://{SERVER}/", "redirected")
        found = [row for row in ctl("pods", "-n", SHOP)["pods"] if row["pod"] == "db-0"]
        expect(len(found) == 1, f"{found}")
        each_row_has_its_pod()
        return f"{pod} {ip} came back with another uid and without its exclusion: redirected; one row, none of the old one's"

    @suite.case("an-enrolled-pods-address-for-another-pod")
    def _() -> str:
        ip = address(f"{SHOP}/db-0")
        give_again(ip)
        kubectl("delete", "statefulset", "-n", SHOP, "db", "--cascade=foreground", "--timeout=60s")
        heir = workloads.client(LEGACY, "heir")
        expect(address(heir) == ip, f"it has {address(heir)}, not {ip}")
        decided(heir, f"http://{SERVER}/", "not_enrolled")
        expect(state_of(f"{SHOP}/db-0")[0] == "absent", f"{SHOP}/db-0 is still known")
        each_row_has_its_pod()
        kubectl("delete", "pod", "-n", LEGACY, "heir", "--wait=false")
        return f"{heir} has {ip} of the enrolled {SHOP}/db-0 before it: direct, not_enrolled"

    @suite.case("deny-while-there-is-no-agent", slow=True)
    def _() -> str:
        helm("upgrade", RELEASE, ROOT / "helm/sidetrack", *values(), "--set", "cni.onAgentDown=deny")
        until(20, "the plugin to be told", lambda: until_chained()[-1].get("onAgentDown") == "deny")
        workloads.client(SHOP, "leaving")
        # As if somebody had labelled them: they start all the same.
        for namespace in (SYSTEM, NAMESPACE):
            label(namespace, "redirect")
        listed = CACHE_DIR / "enrolled-namespaces"
        until(10, "the list to have them all", lambda: {SHOP, SYSTEM, NAMESPACE} <= set(listed.read_text().split()))
        send_agent_away()
        try:
            message = refused_and_started()
        finally:
            node_selector('{"sidetrack.test/nowhere":null}')
        until(120, "the agent to be back", agent_is_ready)
        ready(SHOP, "pod/refused", seconds=120)
        enrolled(f"{SHOP}/refused", "redirect")
        decided(f"{SHOP}/refused", f"http://{SERVER}/", "redirected")
        for namespace in (SYSTEM, NAMESPACE):
            label(namespace, "")
        for namespace, name in ((SHOP, "refused"), (LEGACY, "free"), (SYSTEM, "free"), (NAMESPACE, "free")):
            kubectl("delete", "pod", "-n", namespace, name, "--wait=false")
        helm("rollback", RELEASE, "1")
        until(20, "the plugin to be told", lambda: until_chained()[-1].get("onAgentDown", "allow") == "allow")
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        return f"a pod was deleted, pods of {LEGACY}, {SYSTEM} and {NAMESPACE} started, the one of {SHOP} did later, redirected. It was told: {message}"
