# SPDX-License-Identifier: Apache-2.0
"""What objects say: mistakes, annotations and signs of other meshes, our own namespace."""

import workloads
from cases_basic import CLIENT, SERVER, decided, until_chained, values
from cases_pods import helm
from cluster import NAMESPACE, RELEASE, ROOT, ctl, enrolled, event_of, get, kubectl, label
from tap import Suite, expect, until
from workloads import SHOP

GARBAGE = "80,no-port"
LONG = ",".join(["8500"] * 20_000) + ",no-port"  # 100 KB, and once more in what kubectl notes of it


def row(pod: str) -> dict[str, object]:
    namespace, name = pod.split("/")
    return next((one for one in ctl("pods", "-n", namespace)["pods"] if one["pod"] == name), {})


def left_out(pod: str, reason: str, seconds: float = 30) -> None:
    until(seconds, f"{pod} to be left out: {reason}", lambda: (row(pod).get("state"), row(pod).get("reason")) == ("skipped", reason))


def add(suite: Suite) -> None:
    @suite.case("a-mistake-captures-nothing-that-was-to-be-excluded")
    def _() -> str:
        key = "sidetrack.io/exclude-outbound-ports"
        typo = workloads.client(SHOP, "typo", annotations=f'{{{key}: "{GARBAGE}"}}')
        long = workloads.client(SHOP, "long", annotations=f'{{{key}: "{LONG}"}}')
        for pod in (typo, long):
            enrolled(pod, "passthrough")
            decided(pod, f"http://{SERVER}/", "passthrough")
        message = event_of(typo, "SidetrackPolicyInvalid")
        expect(key in message and "no-port" in message, message)
        event_of(long, "SidetrackPolicyInvalid")
        named = [one for one in ctl("status")["problems"] if one["object"] == f"Pod/{typo}"]
        expect(len(named) == 1 and named[0]["key"] == key and named[0]["value"] == GARBAGE, f"{ctl('status')['problems']}")
        others = get("events", "-A")["items"]
        blamed = {one["involvedObject"]["name"] for one in others if one["reason"] == "SidetrackPolicyInvalid"}
        expect(blamed == {"typo", "long"}, f"Events blame {blamed}")
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        kubectl("label", "pod", "-n", SHOP, "typo", "sidetrack.io/mode=redirekt")
        kubectl("annotate", "pod", "-n", SHOP, "typo", f"{key}-")
        until(10, "the other mistake to be named", lambda: any(one["value"] == "redirekt" for one in ctl("status")["problems"]))
        enrolled(typo, "passthrough")
        kubectl("label", "pod", "-n", SHOP, "typo", "sidetrack.io/mode-")
        enrolled(typo, "redirect")
        kubectl("delete", "pod", "-n", SHOP, "typo", "long", "--timeout=60s")
        until(20, "no problem to be left", lambda: not [one for one in ctl("status")["problems"] if one["object"].startswith(f"Pod/{SHOP}")])
        return f"passthrough; Event: {message}"

    @suite.case("pods-of-other-meshes")
    def _() -> str:
        signs = {"istio": ("{}", '{sidecar.istio.io/status: "{}"}', "has_sidecar"), "linkerd": ("{}", "{linkerd.io/proxy-version: edge}", "has_sidecar"),
                 "kuma": ("{}", '{kuma.io/sidecar-injected: "true"}', "has_sidecar"),
                 "ambient": ("{istio.io/dataplane-mode: ambient}", "{}", "other_mesh")}
        for name, (labels, annotations, reason) in signs.items():
            pod = workloads.client(SHOP, name, labels=labels, annotations=annotations)
            left_out(pod, reason)
            decided(pod, f"http://{SERVER}/", "not_enrolled")
        # By name, as their injectors call it.
        native = 'resources: {}\n    - {name: istio-proxy, image: "%s", command: [sh, -c, "sleep 1000000"]}' % workloads.TOOLS
        left_out(workloads.client(SHOP, "by-name", more=native), "has_sidecar")
        kubectl("delete", "pod", "-n", SHOP, *signs, "by-name", "--timeout=60s")
        return f"left alone: {', '.join(f'{name} ({one[2]})' for name, one in signs.items())}, a container istio-proxy"

    @suite.case("annotations-of-other-meshes")
    def _() -> str:
        keys = {"istio": "traffic.sidecar.istio.io/excludeOutboundPorts", "linkerd": "config.linkerd.io/skip-outbound-ports",
                "kuma": "traffic.kuma.io/exclude-outbound-ports"}
        for name, key in keys.items():
            pod = workloads.client(SHOP, f"from-{name}", annotations=f'{{{key}: "80"}}')
            enrolled(pod, "redirect")
            decided(pod, f"http://{SERVER}/", "redirected")  # the default honours none
        helm("upgrade", RELEASE, ROOT / "helm/sidetrack", *values(), "--set", "agent.compat={istio,linkerd,kuma}")
        for name, key in keys.items():
            pod = f"{SHOP}/from-{name}"
            until(30, f"{key} to be honoured", lambda one=pod: ctl("explain", one, SERVER)["reason"] == "excluded_port")
            decided(pod, f"http://{SERVER}/", "excluded_port")
            expect(ctl("explain", pod, SERVER)["rule"]["key"] == key, f"{ctl('explain', pod, SERVER)}")
        helm("rollback", RELEASE, "1")
        until_chained()
        for name in keys:
            until(30, "the default to be back", lambda one=name: ctl("explain", f"{SHOP}/from-{one}", SERVER)["reason"] == "redirected")
        kubectl("delete", "pod", "-n", SHOP, *(f"from-{name}" for name in keys), "--timeout=60s")
        return f"with --compat {', '.join(keys)}: port 80 excluded by {', '.join(keys.values())}; without: redirected"

    @suite.case("own-namespace-never")
    def _() -> str:
        label(NAMESPACE, "redirect")
        workloads.client(NAMESPACE, "free")
        left_out(f"{NAMESPACE}/free", "own_namespace")
        kubectl("delete", "pod", "-n", NAMESPACE, "free", "--timeout=60s")
        label(NAMESPACE, "")
        return f"{NAMESPACE}, labelled redirect: skipped, own_namespace"
