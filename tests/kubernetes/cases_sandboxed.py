# SPDX-License-Identifier: Apache-2.0
"""A pod of gVisor, whose sockets are its own kernel's: it is told of and otherwise left alone."""

import workloads
from cases_basic import CLIENT, SERVER, client_address
from cases_faults import cni_adds, kill
from cases_pods import each_row_has_its_pod
from cases_policy import left_out
from cluster import (HERE, address, agent_is_ready, apply, counters, ctl, curl, enrolled, event_of, explained, get, inside, kubectl, label,
                     processes, ready, run, state_of)
from tap import Suite, expect, until
from workloads import SHOP

SANDBOXED = "sandboxed"
RUNTIME_CLASS = "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: gvisor}\nhandler: runsc\n"
WEB = ["sh", "-c", "echo of gVisor > /www/index.html; exec httpd -f -p 8080 -h /www"]


def not_seen(pod: str) -> str:
    """A connection of the pod that the node's kernel knows nothing of. The server must see the pod's own address."""
    namespace = pod.split("/")[0]
    client = client_address(curl(pod, f"http://{SERVER}/"))
    expect(client.rsplit(":", 1)[0] == address(pod), f"the server saw {client}, the pod is {address(pod)}")
    expect(not counters(namespace), f"counted: {counters(namespace)}")
    flows = [flow for flow in ctl("flows", "--since", "5m")["flows"] if flow["source"] == client]
    expect(not flows, f"recorded: {flows}")
    return client


def states_until(pod: str, last: str) -> list[str]:
    """What the agent says of it from now on, each word once for as long as it holds."""
    seen = ["absent"]

    def look() -> bool:
        now = state_of(pod)[0]
        seen.extend([now] if now != seen[-1] else [])
        return now == last
    until(60, f"{pod} to be {last}", look, pause=0.02)
    return seen


def add(suite: Suite) -> None:
    @suite.case("sandboxed-runtime", slow=True)
    def _() -> str:
        run("nice", "-n", "10", HERE / "build.sh", "runsc", "containerd-shim-runsc-v1", timeout=1800)
        label(SHOP, "redirect")
        enrolled(CLIENT, "redirect")
        apply(RUNTIME_CLASS)
        workloads.namespace(SANDBOXED, "redirect")
        pod, adds = f"{SANDBOXED}/web", cni_adds()
        apply(workloads.pod(SANDBOXED, "web", WEB, runtime_class="gvisor"))
        states = states_until(pod, "skipped")
        expect("enrolled" not in states, f"it was {states}")
        ready(SANDBOXED, "pod/web")
        expect("gVisor" in inside(pod, "dmesg"), "its kernel is not gVisor's")
        asked, slow = (now - then for now, then in zip(cni_adds(), adds))
        expect(asked >= 1, "the plugin was not asked")
        left_out(pod, "sandboxed_runtime")
        told = event_of(pod, "SidetrackNotCaptured")
        expect("gvisor" in told and "sandboxed_runtime" in told, told)
        expect(explained(pod, SERVER) == "not_enrolled", f"explain says {explained(pod, SERVER)}")
        client = not_seen(pod)
        redirected = counters(SHOP).get("redirected", 0)
        expect("of gVisor" in curl(CLIENT, f"http://{address(pod)}:8080/"), "it does not answer")
        until(5, "the connection to it to be redirected", lambda: counters(SHOP).get("redirected", 0) > redirected)
        # Nobody tells another agent of its network namespace, where no interface has the pod's address any more.
        killed = kill("sidetrack-agent")
        until(60, "another agent", lambda: processes("sidetrack-agent") not in ([], [killed]) and agent_is_ready())
        left_out(pod, "sandboxed_runtime")
        not_seen(pod)
        expect(not ctl("status")["pods"]["drift"], f"{ctl('status')['pods']}")
        expect(get("pod", "-n", SANDBOXED, "web")["status"]["containerStatuses"][0]["restartCount"] == 0, "it started again")
        kubectl("delete", "pod", "-n", SANDBOXED, "web", "--timeout=60s")
        until(20, "it to be forgotten", lambda: state_of(pod)[0] == "absent")
        each_row_has_its_pod()
        kubectl("delete", "namespace", SANDBOXED, "--wait=false")
        kubectl("delete", "runtimeclass", "gvisor")
        return f"a pod of gVisor starts ({slow} of {asked} questions of the plugin took more than 50 ms), asks directly as {client} and answers a redirected client, the same with another agent; it was {', '.join(states)}; Event: {told}"
