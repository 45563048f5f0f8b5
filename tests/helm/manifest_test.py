#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where each value of the chart goes to: key, value, place in the manifests, what is there then. Needs helm."""

import functools
import sys
import unittest
from typing import Any, NamedTuple

import yaml

import chart

SKIPPED = 77
NAME = "mesh-sidetrack"
DIGEST = "sha256:" + "0" * 64

# A place: kind and name of an object, then the way into it (see `at`).
Place = tuple[str | int, ...]
DAEMON_SET = ("DaemonSet", NAME, "spec")
POD_METADATA = (*DAEMON_SET, "template", "metadata")
POD = (*DAEMON_SET, "template", "spec")
AGENT, ENGINE = (*POD, "containers", "agent"), (*POD, "containers", "engine")
CONTEXT = "securityContext"
CONF = ("ConfigMap", NAME, "data", "agent.conf")
# What `helm test` makes.
CLIENT_POD = ("Pod", "redirected", "spec")
CLIENT = (*CLIENT_POD, "containers", "client")
SERVER = ("Deployment", "server", "spec", "template", "spec", "containers", "server")
ALL_CONTAINERS = (AGENT, ENGINE, SERVER, CLIENT)

REACHED = {"agent": {"httpAddress": "0.0.0.0"}}
MONITORED = {**REACHED, "podMonitor": {"enabled": True}}


class Row(NamedTuple):
    key: str
    value: Any
    place: Place
    expected: Any
    given: dict[str, Any] = {}  # other values, without which the place is not there


def each(key: str, value: Any, places: dict[Place, Any], given: dict[str, Any] | None = None) -> list[Row]:
    return [Row(key, value, place, expected, given or {}) for place, expected in places.items()]


def everywhere(key: str, value: Any, containers: tuple[Place, ...], field: str | tuple[str, ...], expected: Any,
               given: dict[str, Any] | None = None) -> list[Row]:
    way = (field,) if isinstance(field, str) else field
    return each(key, value, {(*container, *way): expected for container in containers}, given)


def option(key: str, value: Any, name: str, expected: Any = None) -> Row:
    """Of a key that is an option of the agent: a line of its configuration."""
    return Row(key, value, (*CONF, name), str(value) if expected is None else expected)


def argument(key: str, value: Any, name: str, expected: Any = None) -> Row:
    """Of a key that is an option of the engine."""
    return Row(key, value, (*ENGINE, "args", name), str(value) if expected is None else expected)


def folder(key: str, value: str, volume: str, containers: tuple[Place, ...] = (AGENT,)) -> list[Row]:
    """Of a folder of the node that the containers see at the same path."""
    mounts = {(*container, "volumeMounts", volume, "mountPath"): value for container in containers}
    return each(key, value, {(*POD, "volumes", volume, "hostPath", "path"): value, **mounts})


NAMES = [
    *each("nameOverride", "node", {("DaemonSet", "mesh-node", "metadata", "name"): "mesh-node",
                                   ("DaemonSet", "mesh-node", "spec", "selector", "matchLabels", "app.kubernetes.io/name"): "node"}),
    *each("fullnameOverride", "net", {("DaemonSet", "net", "metadata", "name"): "net", ("ConfigMap", "net", "data", "agent.conf", "daemonset"): "net",
                                      ("Role", "net", "rules", 0, "resourceNames"): ["net"]}),
    *everywhere("image.repository", "a.example/b", ALL_CONTAINERS, "image", "a.example/b:9", {"image": {"tag": "9"}}),
    *everywhere("image.tag", "9", ALL_CONTAINERS, "image", "sidetrack.io/sidetrack:9"),
    *everywhere("image.digest", DIGEST, ALL_CONTAINERS, "image", f"sidetrack.io/sidetrack@{DIGEST}", {"image": {"tag": "9"}}),
    *everywhere("image.pullPolicy", "Always", ALL_CONTAINERS, "imagePullPolicy", "Always"),
    # The pods of the test have them from their account.
    *each("imagePullSecrets", [{"name": "pull"}], {(*POD, "imagePullSecrets"): [{"name": "pull"}],
                                                   ("ServiceAccount", "probe", "imagePullSecrets"): [{"name": "pull"}]}),
    *each("test.namespace", "try", {("Namespace", "try", "metadata", "name"): "try", ("Deployment", "server", "metadata", "namespace"): "try",
                                    ("Service", "server", "metadata", "namespace"): "try", ("ServiceAccount", "probe", "metadata", "namespace"): "try",
                                    ("Pod", "redirected", "metadata", "namespace"): "try", ("Pod", "passed-through", "metadata", "namespace"): "try"}),
]
OF_AGENT = [
    option("agent.engine", "none", "engine"),
    Row("agent.engine", "none", ENGINE, None),
    option("agent.engine", "external=10.0.0.1:15001", "engine"),
    option("agent.excludeOutboundPorts", "8500,8600-8700", "exclude-outbound-ports"),
    option("agent.excludeOutboundCidrs", "10.9.0.0/16", "exclude-outbound-cidrs"),
    option("agent.includeOutboundPorts", 80, "include-outbound-ports"),
    option("agent.includeOutboundCidrs", "10.0.0.0/8,fd00::/8", "include-outbound-cidrs"),
    option("agent.compat", ["istio", "kuma"], "compat", "istio,kuma"),
    option("agent.fastPath", "off", "fast-path"),
    option("agent.listenerPorts", "16000-16099", "listener-ports"),
    option("agent.listenersPerPod", 2, "listeners-per-pod"),
    option("agent.httpAddress", "0.0.0.0", "http", "0.0.0.0:15880"),
    option("agent.httpAddress", "fd00::1", "http", "[fd00::1]:15880"),
    *everywhere("agent.httpAddress", "fd00::1", tuple((*AGENT, probe) for probe in ("startupProbe", "livenessProbe", "readinessProbe")),
                ("httpGet", "host"), "fd00::1"),
    option("agent.httpPort", 9000, "http", "127.0.0.1:9000"),
    *everywhere("agent.httpPort", 9000, tuple((*AGENT, probe) for probe in ("startupProbe", "livenessProbe", "readinessProbe")), ("httpGet", "port"), 9000),
    option("agent.logLevel", "debug", "log-level"),
    option("agent.logFormat", "json", "log-format"),
    option("agent.extraOptions", {"fast-path-window": "1MiB"}, "fast-path-window", "1MiB"),
    Row("agent.extraEnv", [{"name": "TZ", "value": "UTC"}], (*AGENT, "env", "TZ", "value"), "UTC"),
    Row("agent.capabilities", ["BPF", "KILL"], (*AGENT, CONTEXT, "capabilities"), {"drop": ["ALL"], "add": ["BPF", "KILL"]}),
    Row("agent.resources", {"limits": {"memory": "1Gi"}}, (*AGENT, "resources", "limits", "memory"), "1Gi"),
    Row("kubernetes.apiServerHost", "10.0.0.1", (*AGENT, "env", "KUBERNETES_SERVICE_HOST", "value"), "10.0.0.1"),
    Row("kubernetes.apiServerPort", 6443, (*AGENT, "env", "KUBERNETES_SERVICE_PORT", "value"), "6443"),
    *each("cni.enabled", False, {(*CONF, "cni-conf-dir"): None, (*POD, "volumes", "cni-conf"): None, (*POD, "volumes", "cni-bin"): None}),
    option("cni.confDir", "/etc/mesh.d", "cni-conf-dir"),
    *folder("cni.confDir", "/etc/mesh.d", "cni-conf"),
    option("cni.binDir", "/opt/mesh", "cni-bin-dir"),
    *folder("cni.binDir", "/opt/mesh", "cni-bin"),
    option("cni.onAgentDown", "deny", "cni-on-agent-down"),
    option("cni.denyFor", "10m", "cni-deny-for"),
    option("cni.timeout", "5s", "cni-timeout"),
    option("cni.logFile", "/var/log/mesh.log", "cni-log-file"),
    option("cni.statusChecksAgent", True, "cni-status-checks-agent", "on"),
]
OF_ENGINE = [
    argument("engine.drain", "10s", "--drain"),
    argument("engine.threads", 3, "--threads"),
    argument("engine.buffer", "64KiB", "--buffer"),
    argument("engine.httpAddress", "::1", "--http", "[::1]:15881"),
    *everywhere("engine.httpAddress", "::1", tuple((*ENGINE, probe) for probe in ("startupProbe", "livenessProbe")), ("httpGet", "host"), "::1"),
    argument("engine.httpPort", 9001, "--http", "127.0.0.1:9001"),
    *everywhere("engine.httpPort", 9001, tuple((*ENGINE, probe) for probe in ("startupProbe", "livenessProbe")), ("httpGet", "port"), 9001),
    argument("engine.logLevel", "debug", "--log-level"),
    argument("engine.logFormat", "json", "--log-format"),
    Row("engine.extraEnv", [{"name": "TZ", "value": "UTC"}], (*ENGINE, "env", "TZ", "value"), "UTC"),
    Row("engine.capabilities", ["SYS_ADMIN", "KILL"], (*ENGINE, CONTEXT, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN", "KILL"]}),
    Row("engine.resources", {"limits": {"memory": "1Gi"}}, (*ENGINE, "resources", "limits", "memory"), "1Gi"),
]
OF_NODE = [
    *folder("hostPaths.state", "/run/mesh", "state", (AGENT, ENGINE)),
    option("hostPaths.state", "/run/mesh", "state-dir"),
    argument("hostPaths.state", "/run/mesh", "--state-dir"),
    *each("hostPaths.state", "/run/mesh", {(*CLIENT, "command", "--admin-socket"): "/run/mesh/admin.sock",
                                           (*CLIENT, "volumeMounts", "state", "mountPath"): "/run/mesh",
                                           (*CLIENT_POD, "volumes", "state", "hostPath", "path"): "/run/mesh"}),
    *folder("hostPaths.cache", "/srv/mesh", "cache"),
    option("hostPaths.cache", "/srv/mesh", "cache-dir"),
    *folder("hostPaths.bpf", "/bpf", "bpf"),
    option("hostPaths.bpf", "/bpf", "pin-dir", "/bpf/sidetrack"),
    option("hostPaths.pinFolder", "mesh", "pin-dir", "/sys/fs/bpf/mesh"),
    # The containers see it where it always is.
    Row("hostPaths.cgroup", "/cgroup", (*POD, "volumes", "cgroup", "hostPath", "path"), "/cgroup"),
    *each("hostPaths.mountPropagation", "HostToContainer", {(*container, "volumeMounts", volume, "mountPropagation"): "HostToContainer" for container, volume
                                                            in ((AGENT, "bpf"), (AGENT, "cgroup"), (ENGINE, "cgroup"))}),
]
OF_PODS = [
    *everywhere("privileged", True, (AGENT, ENGINE), (CONTEXT, "privileged"), True),
    *everywhere("seLinuxOptions", {"type": "spc_t"}, (AGENT, ENGINE), (CONTEXT, "seLinuxOptions"), {"type": "spc_t"}),
    *everywhere("seLinuxOptions", {"type": "spc_t"}, (AGENT, ENGINE), (CONTEXT, "seLinuxOptions"), {"type": "spc_t"}, {"privileged": True}),
    *[row for key in ("seccompProfile", "appArmorProfile")
      for profile in ({"type": "Localhost", "localhostProfile": "a.json"}, {"type": "Unconfined" if key == "seccompProfile" else "RuntimeDefault"})
      for row in everywhere(key, profile, (AGENT, ENGINE), (CONTEXT, key), profile)],
    Row("priorityClassName", "high", (*POD, "priorityClassName"), "high"),
    Row("tolerations", [{"key": "a", "operator": "Exists"}], (*POD, "tolerations"), [{"key": "a", "operator": "Exists"}]),
    Row("nodeSelector", {"pool": "mesh"}, (*POD, "nodeSelector", "pool"), "mesh"),
    *[Row("affinity", affinity, (*POD, "affinity"), affinity) for affinity in (
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
        {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}})],
    Row("podLabels", {"team": "net"}, (*POD_METADATA, "labels", "team"), "net"),
    Row("podAnnotations", {"example.com/note": "x"}, (*POD_METADATA, "annotations", "example.com/note"), "x"),
    Row("updateStrategy.type", "OnDelete", (*DAEMON_SET, "updateStrategy", "type"), "OnDelete"),
    Row("updateStrategy.rollingUpdate.maxSurge", "10%", (*DAEMON_SET, "updateStrategy", "rollingUpdate", "maxSurge"), "10%"),
    # Beside the default of the other one it is refused, but for this type.
    Row("updateStrategy.rollingUpdate.maxUnavailable", 2, (*DAEMON_SET, "updateStrategy", "rollingUpdate", "maxUnavailable"), 2,
        {"updateStrategy": {"type": "OnDelete"}}),
    Row("terminationGracePeriodSeconds", 90, (*POD, "terminationGracePeriodSeconds"), 90),
    *each("probes.periodSeconds", 7, {(*AGENT, "livenessProbe", "periodSeconds"): 7, (*ENGINE, "livenessProbe", "periodSeconds"): 7,
                                      (*AGENT, "readinessProbe", "periodSeconds"): 7}),
    *each("probes.timeoutSeconds", 2, {(*container, probe, "timeoutSeconds"): 2 for container, probe in (
        (AGENT, "startupProbe"), (AGENT, "livenessProbe"), (AGENT, "readinessProbe"), (ENGINE, "startupProbe"), (ENGINE, "livenessProbe"))}),
    *everywhere("probes.failureThreshold", 9, (AGENT, ENGINE), ("livenessProbe", "failureThreshold"), 9),
    *everywhere("probes.startupSeconds", 33, (AGENT, ENGINE), ("startupProbe", "failureThreshold"), 33),
]
OTHERS = [
    Row("serviceAccount.create", False, (*POD, "serviceAccountName"), "default"),
    Row("serviceAccount.create", False, ("ServiceAccount", "own"), None, {"serviceAccount": {"name": "own"}}),
    *each("serviceAccount.name", "own", {("ServiceAccount", "own", "metadata", "name"): "own", (*POD, "serviceAccountName"): "own",
                                         ("ClusterRoleBinding", "sidetrack", "subjects", 0, "name"): "own",
                                         ("RoleBinding", NAME, "subjects", 0, "name"): "own"}),
    Row("serviceAccount.name", "own", (*POD, "serviceAccountName"), "own", {"serviceAccount": {"create": False}}),
    Row("serviceAccount.annotations", {"example.com/a": "b"}, ("ServiceAccount", NAME, "metadata", "annotations"), {"example.com/a": "b"}),
    *each("rbac.create", False, {("ClusterRole", "sidetrack"): None, ("ClusterRoleBinding", "sidetrack"): None,
                                 ("Role", NAME): None, ("RoleBinding", NAME): None}),
    Row("resourceQuota.enabled", True, ("ResourceQuota", NAME, "spec"),
        {"hard": {"pods": "1000"},
         "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]}}),
    Row("resourceQuota.pods", 7, ("ResourceQuota", NAME, "spec", "hard", "pods"), "7", {"resourceQuota": {"enabled": True}}),
    Row("priorityClassName", "high", ("ResourceQuota", NAME, "spec", "scopeSelector", "matchExpressions", 0, "values"), ["high"],
        {"resourceQuota": {"enabled": True}}),
    Row("podMonitor.enabled", True, ("PodMonitor", NAME, "spec", "selector", "matchLabels"),
        {"app.kubernetes.io/name": "sidetrack", "app.kubernetes.io/instance": "mesh"}, REACHED),
    Row("podMonitor.interval", "5s", ("PodMonitor", NAME, "spec", "podMetricsEndpoints", 0, "interval"), "5s", MONITORED),
    Row("podMonitor.labels", {"release": "a"}, ("PodMonitor", NAME, "metadata", "labels", "release"), "a", MONITORED),
    Row("dashboard.enabled", True, ("ConfigMap", f"{NAME}-dashboard", "metadata", "labels", "grafana_dashboard"), "1"),
    Row("dashboard.labels", {"folder": "a"}, ("ConfigMap", f"{NAME}-dashboard", "metadata", "labels", "folder"), "a", {"dashboard": {"enabled": True}}),
    Row("alerts.enabled", True, ("PrometheusRule", NAME, "spec"), yaml.safe_load((chart.CHART / "alerts/rules.yaml").read_text())),
    Row("alerts.labels", {"release": "a"}, ("PrometheusRule", NAME, "metadata", "labels", "release"), "a", {"alerts": {"enabled": True}}),
    Row("networkPolicy.enabled", True, ("NetworkPolicy", NAME, "spec", "policyTypes"), ["Ingress"]),
    Row("networkPolicy.metricsFrom", [{"namespaceSelector": {}}], ("NetworkPolicy", NAME, "spec", "ingress", 0, "from"), [{"namespaceSelector": {}}],
        {"networkPolicy": {"enabled": True}}),
]
ROWS = NAMES + OF_AGENT + OF_ENGINE + OF_NODE + OF_PODS + OTHERS
# Reaches no object.
NOT_USED = {"global"}

# The folders that the platforms document (docs/helm.md), and what else they need.
PRESETS: dict[str, tuple[str, str, dict[Place, Any]]] = {
    "k3s": ("/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/current/bin", {}),
    "gke": ("/etc/cni/net.d", "/home/kubernetes/bin", {("ResourceQuota", NAME, "metadata", "namespace"): chart.NAMESPACE}),
    "openshift": ("/var/run/multus/cni/net.d", "/var/lib/cni/bin",
                  {(*container, CONTEXT, "seLinuxOptions"): {"type": "spc_t"} for container in (AGENT, ENGINE)}),
    "microk8s": ("/var/snap/microk8s/current/args/cni-network", "/var/snap/microk8s/current/opt/cni/bin", {}),
}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(first[key], second[key]) for key in first.keys() & second.keys()}
    return {**first, **second, **both}


def step(node: Any, key: str | int) -> Any:
    """What `key` names in a mapping, in a list (also by its name, or of arguments --NAME=VALUE), or in the agent's configuration."""
    if isinstance(node, str):
        return chart.options_in(node).get(str(key))
    if isinstance(node, dict):
        return node.get(key)
    if isinstance(key, int):
        return node[key] if key < len(node) else None
    if node and isinstance(node[0], str):
        return dict(one.split("=", 1) for one in node if "=" in one).get(key)
    return next((one for one in node if one["name"] == key), None)


def at(objects: list[dict[str, Any]], place: Place) -> Any:
    """What is there; none where the way to it ends before."""
    kind, name, *way = place
    found = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    assert len(found) < 2, f"{len(found)} of {kind} {name}"
    return functools.reduce(lambda node, key: None if node is None else step(node, key), way, found[0] if found else None)


class Manifests(unittest.TestCase):
    def test_each_value_is_where_it_belongs(self):
        for row in ROWS:
            with self.subTest(row.key, place=row.place):
                values = merged(row.given, chart.nested(tuple(row.key.split(".")), row.value))
                self.assertEqual(at(chart.rendered(values), row.place), row.expected)

    def test_it_is_there_because_of_the_value(self):
        for row in ROWS:
            with self.subTest(row.key, place=row.place):
                self.assertNotEqual(at(chart.rendered(row.given), row.place), row.expected)

    def test_every_key_has_a_row_and_every_row_a_key(self):
        keys = set(chart.leaves(chart.default_values(), chart.schema()))
        self.assertEqual({row.key for row in ROWS} | NOT_USED, keys)

    def test_apparmor_of_older_versions_is_an_annotation(self):
        for profile, expected in (({}, "unconfined"), ({"type": "RuntimeDefault"}, "runtime/default"),
                                  ({"type": "Localhost", "localhostProfile": "a"}, "localhost/a")):
            for container in ("agent", "engine"):
                with self.subTest(profile, container=container):
                    objects = chart.rendered({"appArmorProfile": profile}, "--kube-version", "1.29.4")
                    self.assertEqual(at(objects, (*POD_METADATA, "annotations", f"container.apparmor.security.beta.kubernetes.io/{container}")), expected)
                    self.assertIsNone(at(objects, (*POD, "containers", container, CONTEXT, "appArmorProfile")))

    def test_each_preset_has_the_folders_of_its_platform(self):
        files = {file.stem: yaml.safe_load(file.read_text()) for file in (chart.CHART / "presets").glob("*.yaml")}
        self.assertEqual(set(files), set(PRESETS))
        for preset, (conf_dir, bin_dir, more) in PRESETS.items():
            rows = [*folder("", conf_dir, "cni-conf"), *folder("", bin_dir, "cni-bin"), option("", conf_dir, "cni-conf-dir"), option("", bin_dir, "cni-bin-dir"),
                    *each("", "", more)]
            for row in rows:
                with self.subTest(preset, place=row.place):
                    self.assertEqual(at(chart.rendered(files[preset]), row.place), row.expected)


if __name__ == "__main__":
    if chart.find_helm() is None:
        print("skipped: no helm here: tests/kubernetes/build.sh helm makes one")
        sys.exit(SKIPPED)
    unittest.main(verbosity=1)
