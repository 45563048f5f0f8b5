# SPDX-License-Identifier: Apache-2.0
"""The fast path as it is shipped: its probation, kube-proxy's rules between the pods, containers of containerd."""

import workloads
from cluster import ctl, enrolled, kubectl, traffic_of
from tap import Suite, expect, until
from workloads import SERVICE, SHOP

PROBATION = 30  # seconds, the default
HELD = 4        # connections of each pod


def paths_of(pod: str) -> dict[str, int]:
    """Open connections of a pod to the Service by their path."""
    found: dict[str, int] = {}
    for flow in ctl("flows", "-n", SHOP)["flows"]:
        if flow["pod"] == pod.split("/")[1] and flow["destination"] == f"{SERVICE}:80" and not flow["close"]:
            key = flow["path"] + (f" ({flow['fast_path_reason']})" if flow.get("fast_path_reason") else "")
            found[key] = found.get(key, 0) + 1
    return found


def add(suite: Suite) -> None:
    @suite.case("connections-skip-tcp-by-a-service", slow=True)
    def _() -> str:
        wanted = {"through": ("{}", "redirect", {"handoff": HELD}), "directly": ("{sidetrack.io/mode: passthrough}", "passthrough", {"fast": HELD})}
        pods = {name: workloads.traffic(SHOP, name, f"{SERVICE} 80", workers=0, held=HELD, labels=labels)
                for name, (labels, _, _) in wanted.items()}
        took = {}
        for name, pod in pods.items():
            _, mode, paths = wanted[name]
            enrolled(pod, mode)

            def all_fast(pod: str = pod, paths: dict[str, int] = paths) -> bool:
                seen = paths_of(pod)
                expect(seen == paths, f"{seen}")
                return True
            took[name] = until(PROBATION + 15, f"all connections of {pod} to be {paths}", all_fast)
        before = {pod: traffic_of(pod) for pod in pods.values()}
        until(20, "requests to go on past TCP", lambda: all(traffic_of(pod).held > before[pod].held + 40 for pod in pods.values()))
        for pod in pods.values():
            said = traffic_of(pod)
            expect((said.held_broken, said.connect_failed) == (0, 0), f"{pod}: {said}")
        kubectl("delete", "pod", "-n", SHOP, *wanted, "--timeout=60s")
        return ", ".join(f"{name}: {HELD} connections {next(iter(paths))} after {took[name]:.0f} s" for name, (_, _, paths) in wanted.items())
