#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""values_test.py BIN: what the chart takes for its values, the programs in BIN take, too, and what they refuse, it refuses. Needs helm."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import chart

SKIPPED = 77
BIN = Path()
NOWHERE = "/no/such/cgroup"

# Values of one key each that helm refuses, as the program would.
CIDRS = ["10.0.0.256", "10.0.0", "010.0.0.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8:0", "10.0.0.0/8:90-80", "10.0. 0.0/8", "10.0.0.1,,10.0.0.2", ",",
         "1:2:3:4", "1::2::3", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "12345::", ":::", "::1.2.3", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:6::1.2.3.4", "1::2:3:4:5:6:7:8", "::1%lo", "fd00::/129",
         "fd00::/8:443", "[fd00::/8", "[fd00::/8]:", "[fd00::/8]:65536", "[10.0.0.0/8]:80", "localhost"]
PORTS = ["0", "65536", "443,,80", "443,", "443-", "-443", "8700-8600", "80 90", "http", 65536, 1000000, -1]
ENDPOINTS = ["", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:1-2", "fd00::1:15001", "[10.0.0.1]:15001", "[1:2:3:4]:15001", "envoy:15001",
             "10.0.0.1:1,10.0.0.2:1", "[fd00::1]:1,[fd00::2]:1", "10.0.0.1:1,,[fd00::1]:1",
             "127.0.0.1:1", "169.254.1.1:1", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[::]:1", "[::1]:1", "[0:0::0001]:1", "[FE80::1]:1",
             "[febf::1]:1", "[ff02::1]:1", "[::ffff:127.0.0.1]:1", "[::ffff:7f00:1]:1"]
ADDRESSES = ["", "foo", "localhost", "1:2:3:4", "[::1", "::1]", "10.0.0.256", "10.0.0.1:80", "10.0.0.1/8"]
BAD: dict[str, list[Any]] = {
    "agent.engine": ["sidecar", "", *(f"external={one}" for one in ENDPOINTS)],
    "agent.excludeOutboundPorts": PORTS, "agent.includeOutboundPorts": PORTS[:5],
    "agent.excludeOutboundCidrs": CIDRS, "agent.includeOutboundCidrs": CIDRS[:5],
    "agent.compat": [["consul"]],
    "agent.fastPath": ["on"],
    "agent.listenerPorts": ["", "16000-15900", "0-10", "1-65536", "15900-", "a-b", "15900-15902", "1-100,200-300"],
    "agent.listenersPerPod": [0, 9],
    "agent.httpAddress": ADDRESSES, "engine.httpAddress": [*ADDRESSES, "[10.0.0.1]"],
    "agent.httpPort": [65536], "engine.httpPort": [0, 65536],
    "agent.logLevel": ["trace"], "engine.logLevel": ["trace"],
    "agent.logFormat": ["xml"], "engine.logFormat": ["xml"],
    "agent.extraOptions.fast-path-window": ["", "1024", "15KiB", "65537KiB", "65MiB", "1GiB", "KiB"],
    "agent.extraOptions.fast-path-round-trips": [0, 1001, "0", "1001", "a", 1.5],
    "agent.extraOptions.fast-path-probation": ["", "30", "1h", "1000001s", "-1s"],
    "agent.extraOptions.fast-path-loopback": ["yes", True],
    "agent.extraOptions.fast-path-sentinel": ["kprobe", False],
    "agent.extraEnv": [[{"name": "SIDETRACK_FAST_PATH_WINDOW", "value": "1"}]],
    "engine.extraEnv": [[{"name": "SIDETRACK_THREADS", "value": "0"}]],
    "engine.drain": ["", "30", "1d", "-1s", "s", "1.5s"],
    "engine.threads": [-1, 257],
    "engine.buffer": ["", "4095", "3KiB", "65MiB", "67108865", "1GiB", "KiB", "99999999999999999999"],
    "cni.onAgentDown": ["maybe"],
    "cni.denyFor": ["", "0", "3600", "1s", "59s", "1000001s", "525601m", "8761h", "1d", "500ms", "-1s", "1h30m"],
    "cni.timeout": ["", "2", "49ms", "60001ms", "61s", "2m", "1h"],
    "cni.logFile": ["cni.log"],
    "hostPaths.state": ["run/sidetrack", "/" + "s" * 95],
    "hostPaths.cache": ["var/lib/sidetrack"],
    "hostPaths.bpf": ["sys/fs/bpf", "/"],
}
# As above, where it takes more than one key.
BAD_TOGETHER: list[tuple[str, dict[str, Any]]] = [
    ("agent.listenerPorts", {"agent": {"listenerPorts": "15900-15906", "listenersPerPod": 8}}),
    ("hostPaths.bpf", {"hostPaths": {"bpf": "/sys/fs", "pinFolder": "bpf"}}),
    ("engine.drain", {"engine": {"drain": "1000001s"}, "terminationGracePeriodSeconds": 2000000}),
    ("agent.extraOptions", {"agent": {"extraOptions": {"fastpath": "off"}}}),
]
# Of no program's options: what the pod's other parts, or its pages' readers, would refuse.
BAD_ELSEWHERE: dict[str, list[Any]] = {
    "agent.excludeOutboundPorts": [0, "80\n90"],
    "podMonitor.enabled": [True],
    "kubernetes.apiServerHost": ["https://10.0.0.1", "10.0.0.1:6443", "api server"],
    "kubernetes.apiServerPort": ["0", 0, "65536", 65536, "https"],
    "agent.capabilities": [["CAP_BPF"], ["BPFS"], ["bpf"]], "engine.capabilities": [["CAP_SYS_ADMIN"]],
    "agent.extraEnv": [[{"name": "NODE_NAME", "value": "a"}], [{"name": "POD_NAMESPACE", "value": "a"}],
                       [{"name": "KUBERNETES_SERVICE_HOST", "value": "a"}], [{"name": "KUBERNETES_SERVICE_PORT", "value": "1"}], [{"name": "a=b"}]],
    "agent.extraOptions.cgroup": ["kubepods", "/a b"], "agent.extraOptions.engine-cgroup": ["/a#b"],
    "cni.confDir": ["etc/cni", "/etc/cni/", "/etc/cni#1", "/etc/cni:1", "/etc/../cni", "/etc/cni d", "/usr", "/opt/cni/bin",
                    "/var/run/secrets/kubernetes.io/serviceaccount"], "cni.binDir": ["/usr/bin", "/", "/etc/cni/net.d"],
    "cni.denyFor": [0, 3600, False],
    "cni.logFile": ["/var/log/a\nb", False, "/etc/cni/net.d/00.conf", "/etc/cni/net.d", "/opt/cni/bin"],
    "hostPaths.cgroup": ["sys/fs/cgroup", "/sys/fs/bpf"], "hostPaths.cache": ["/run/sidetrack", "/etc/cni/net.d", "/etc/cni/net.d/cache"],
    "hostPaths.state": ["/sys/fs/bpf", "/sys/fs/bpf/run", "/opt/cni/bin/run"],
    "hostPaths.pinFolder": ["a.b", "a/b", ""],
    "image.repository": ["", "Sidetrack", "sidetrack:1", "sidetrack@sha256:0", "https://a/b", "a//b", "a b"],
    "image.tag": ["-1", ".1", "a b"], "image.digest": ["sha256:0"],
    "fullnameOverride": ["a..b", "a.", "A"], "nameOverride": ["-a"], "serviceAccount.name": ["a..b"], "priorityClassName": ["High"],
    "imagePullSecrets": [[{"name": ""}], [{"name": "A"}]],
    "test.namespace": ["a.b", "A", "default", "kube-system", "kube-public"],
    "agent.resources": [{"limits": {"memory": "1"}}, {"requests": {"memory": "1Gi"}}, {"requests": {"memory": "64 Mi"}}, {"limits": {"memory": "64mi"}},
                        {"requests": {"cpu": "101m"}, "limits": {"cpu": 0.1}}, {"requests": {"memory": "1e9"}, "limits": {"memory": "953Mi"}}, {"limits": {"memory": -1}},
                        {"requests": {"memory": "1048576Ki"}}, {"limits": {"memory": "98303Ki"}}],
    "engine.resources": [{"limits": {"memory": "63Mi"}}],
    "updateStrategy.rollingUpdate": [{"maxSurge": "101%"}, {"maxSurge": 0, "maxUnavailable": "200%"}],
    "seccompProfile": [{"type": "Localhost"}, {"type": "Localhost", "localhostProfile": ""}, {"localhostProfile": "a"}], "appArmorProfile": [{"type": "Localhost"}],
    "podMonitor.interval": ["0s", "00m", "30"],
    "podLabels": [{"app.kubernetes.io/name": "a"}, {"helm.sh/chart": "a"}, {"a b": "c"}, {"a": "b c"}, {"a": "-b"}, {"a": "b" * 64}, {"A/b": "c"}, {"/a": "b"}], "nodeSelector": [{"kubernetes.io/os": "windows"}, {"kubernetes.io/arch": "arm64"}, {"pool": "a b"}],
    "podAnnotations": [{"sidetrack.io/config-hash": "a"}], "podMonitor.labels": [{"helm.sh/chart": "a"}],
}
# Borders, and ways to write, that both take.
GOOD: dict[str, list[Any]] = {
    "agent.engine": ["none", "external=10.0.0.1:1", "external=[fd00::1]:65535,10.0.0.1:1", "external=223.255.255.255:1", "external=[fec0::1]:1",
                     "external=[::2]:1"],
    "agent.excludeOutboundPorts": ["", "1", "65535", "1-65535", "080", " 80 ,443 , 8000-8000 ", "80,\n443\n", " \n", 1, 65535],
    "agent.includeOutboundPorts": ["80\n,443\n"], "agent.includeOutboundCidrs": ["10.0.0.0/8,\n  fd00::/8\n"],
    "agent.excludeOutboundCidrs": [
        "", "0.0.0.0/0", "255.255.255.255/32:1-65535", "10.0.0.0/8\n", "10.0.0.0/8,\n10.1.0.0/16\n", "10.1.2.3 , fd00::/8", "::/0", "::", "::1/128", "1::", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
        "1::3:4:5:6:7:8", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5::1.2.3.4", "::1.2.3.4", "::ffff:10.0.0.1", "FD00::A/8", "[fd00::/8]",
        "[fd00::/8]:443,[::1]:1-65535,10.0.0.0/8:443"],
    "agent.compat": [["istio", "linkerd", "kuma"]],
    "agent.fastPath": ["uncharged", "off"],
    "agent.listenerPorts": ["1-65535", "15900-15903", "65532-65535"],
    "agent.listenersPerPod": [1, 8],
    "agent.httpAddress": ["0.0.0.0", "::", "[::]", "::1", "[::1]", "10.1.2.3", "::ffff:127.0.0.1"],
    "engine.httpAddress": ["0.0.0.0", "::", "[::]", "::1", "[::1]", "127.1.2.3", "::ffff:127.0.0.1"],
    "agent.httpPort": [1, 65535], "engine.httpPort": [1, 65535],
    "agent.logLevel": ["error", "debug"], "engine.logLevel": ["warn"], "agent.logFormat": ["json"], "engine.logFormat": ["json"],
    "agent.extraOptions.fast-path-window": ["16KiB", "65536KiB", "64MiB"],
    "agent.extraOptions.fast-path-round-trips": [1, 1000, "1", "1000"],
    "agent.extraOptions.fast-path-probation": ["0s", "1000000m", "500ms"],
    "agent.extraOptions.fast-path-loopback": ["on"],
    "agent.extraOptions.fast-path-sentinel": ["fentry", "tracepoint", "off"],
    "agent.extraEnv": [[{"name": "TZ", "value": "UTC"}]], "engine.extraEnv": [[{"name": "TZ", "value": "UTC"}]],
    "engine.drain": ["0s", "59999ms", "59s"],
    "engine.threads": [1, 256],
    "engine.buffer": ["4096", "4096B", "4KiB", "67108864", "65536KiB", "64MiB"],
    "cni.onAgentDown": ["deny"],
    "cni.denyFor": ["0s", "0h", "60s", "1m", "1000000s", "525600m", "8760h"],
    "cni.timeout": ["50ms", "60000ms", "60s", "1m"],
    "cni.logFile": ["off", "/var/log/a.log"],
    "cni.confDir": ["/etc/cni..d/.net", "/run/multus/cni"], "cni.binDir": ["/usr/lib/cni"],
    "hostPaths.state": ["/" + "s" * 94, "/run/a-b_c.d"],
    "hostPaths.cache": ["/srv/side,track"],
    "hostPaths.bpf": ["/bpf", "/sys/fs/bpf/deeper"],
}


def values_of(key: str, value: Any) -> dict[str, Any]:
    return chart.nested(tuple(key.split(".")), value)


class Values(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Path(tempfile.mkdtemp(prefix="sidetrack-values-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch)
        # The chart without what refuses values: what the programs would be given then.
        cls.trusting = cls.scratch / "chart"
        shutil.copytree(chart.CHART, cls.trusting)
        (cls.trusting / "values.schema.json").unlink()
        checks = cls.trusting / "templates/_checks.tpl"
        checks.write_text(re.sub(r'({{- define "sidetrack.checks" -}}).*?({{- end -}})', r"\1\2", checks.read_text(), count=1, flags=re.DOTALL))
        # An engine that takes its options finds its port in use, and goes on.
        taken = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        cls.addClassCleanup(taken.close)
        cls.taken = taken.getsockname()[1]

    def refusal(self, values: dict[str, Any], folder: Path) -> str | None:
        """What the programs say against the values as the chart of that folder gives them; none: nothing."""
        values = {**values, "engine": {"httpPort": self.taken, **values.get("engine", {})}}
        objects = chart.rendered(values, "--no-hooks", chart_folder=folder)
        config = self.scratch / "agent.conf"
        config.write_text(re.sub(r"^(cni-(?:conf|bin)-dir = )(/\S+)", self.with_folder,
                                 chart.find(objects, "ConfigMap", "mesh-sidetrack")["data"]["agent.conf"], flags=re.MULTILINE))
        containers = chart.find(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
        command, environment = self.command_of(containers[0])
        agent = subprocess.run([*command, "--cgroup", NOWHERE], env=environment, capture_output=True, text=True, check=False)
        # It looks for its cgroup when its options are read.
        if f"--cgroup {NOWHERE}" not in agent.stderr:
            return agent.stderr
        return next(filter(None, map(self.refusal_of_engine, containers[1:])), None)

    def with_folder(self, setting: re.Match[str]) -> str:
        """The same folder, where it exists: an agent refuses to start without."""
        folder = self.scratch / ("host" + setting[2])
        folder.mkdir(parents=True, exist_ok=True)
        return setting[1] + str(folder)

    def command_of(self, container: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        environment = {"NODE_NAME": "node", "POD_NAMESPACE": chart.NAMESPACE, "KUBERNETES_SERVICE_HOST": "192.0.2.1"}
        environment |= {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], one) for one in container["args"]]
        arguments = [one.replace("/etc/sidetrack/agent.conf", str(self.scratch / "agent.conf")) for one in arguments]
        return [str(BIN / Path(container["command"][0]).name), *arguments], environment

    def refusal_of_engine(self, container: dict[str, Any]) -> str | None:
        command, environment = self.command_of(container)
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as engine:
            said = ""
            for line in engine.stderr:
                said += line
                if re.search(r"\b(started|http_busy)\b", line):
                    engine.terminate()
                    return None
            return said

    def expect_refused(self, key: str, values: dict[str, Any]) -> None:
        result = chart.template(values)
        self.assertNotEqual(result.returncode, 0, "helm takes it")
        # A template names it as it is written, the schema as a path.
        said = result.stderr.replace("/", ".")
        self.assertIn(key.replace("/", "."), said)

    def test_what_a_program_refuses_is_refused_with_its_key(self):
        rows = [(key, values_of(key, value)) for key, bad in BAD.items() for value in bad] + BAD_TOGETHER
        for key, values in rows:
            with self.subTest(values):
                self.expect_refused(key, values)
                self.assertIsNotNone(self.refusal(values, self.trusting), "the program takes it")

    def test_what_is_wrong_for_others_is_refused_with_its_key(self):
        for key, bad in BAD_ELSEWHERE.items():
            for value in bad:
                with self.subTest(key, value=value):
                    self.expect_refused(key, values_of(key, value))

    def test_what_the_chart_takes_the_programs_take(self):
        for key, good in {"global": [{}], **GOOD}.items():
            for value in good:
                with self.subTest(key, value=value):
                    self.assertIsNone(self.refusal(values_of(key, value), chart.CHART))

    def test_a_refusal_of_the_agent_names_the_key(self):
        self.assertRegex(self.refusal(values_of("agent.logLevel", "trace"), self.trusting) or "", r"agent\.conf:\d+ # agent\.logLevel\)")

    def test_options_that_the_chart_sets_are_not_set_twice(self):
        for option in chart.options_of_agent(chart.rendered({})):
            with self.subTest(option):
                self.expect_refused("agent.extraOptions", {"agent": {"extraOptions": {option: "a"}}})

    def test_every_key_that_reaches_a_program_is_tried(self):
        keys = {key for key in chart.leaves(chart.default_values(), chart.schema()) if key.split(".")[0] in ("agent", "engine", "cni", "hostPaths", "kubernetes")}
        options = {f"agent.extraOptions.{one}" for one in chart.schema()["properties"]["agent"]["properties"]["extraOptions"]["properties"]}
        tried = set(BAD) | set(BAD_ELSEWHERE)
        # Of the schema's own types, or Kubernetes': no program reads them as text.
        others = {"agent.resources", "engine.resources", "cni.enabled", "cni.statusChecksAgent", "hostPaths.mountPropagation", "agent.extraOptions"}
        self.assertEqual((keys | options) - tried - others, set())

    def test_capabilities_are_those_of_linux(self):
        header = Path("/usr/include/linux/capability.h")
        if not header.exists():
            self.skipTest(f"{header} is missing")
        names = re.findall(r"#define CAP_(\w+)\s+\d+$", header.read_text(), re.MULTILINE)
        known = chart.schema()["properties"]["agent"]["properties"]["capabilities"]["items"]["enum"]
        self.assertLessEqual(set(names), set(known))


if __name__ == "__main__":
    BIN = Path(sys.argv.pop(1)).resolve()
    if chart.find_helm() is None:
        print("skipped: no helm here: tests/kubernetes/build.sh helm makes one")
        sys.exit(SKIPPED)
    unittest.main(verbosity=1)
