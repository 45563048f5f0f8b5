#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The chart without a cluster: lint, rendering over a matrix of values, its schema, its documentation. Needs helm."""

import json
import re
import sys
import unittest
from typing import Any

import yaml

import chart

SKIPPED = 77

# A line each: name, values. Together they turn every switch of the chart at least once.
MATRIX: list[tuple[str, dict[str, Any]]] = [
    ("defaults", {}),
    ("privileged", {"privileged": True}),
    ("external engine", {"agent": {"engine": "external=10.0.0.1:15001"}}),
    ("no engine", {"agent": {"engine": "none"}}),
    ("lists", {"agent": {"excludeOutboundPorts": "8500,8600-8700", "excludeOutboundCidrs": "10.9.0.0/16,[fd00::/8]:443",
                         "includeOutboundPorts": "80", "includeOutboundCidrs": "10.0.0.0/8", "compat": ["istio", "kuma"]}}),
    ("more options", {"agent": {"extraOptions": {"fast-path-window": "512KiB"}, "extraEnv": [{"name": "TZ", "value": "UTC"}]},
                      "engine": {"threads": 2, "extraEnv": [{"name": "TZ", "value": "UTC"}]}}),
    ("no plugin", {"cni": {"enabled": False}}),
    ("strict plugin", {"cni": {"onAgentDown": "deny", "denyFor": "10m", "timeout": "5s", "logFile": "/var/log/mesh.log", "statusChecksAgent": True}}),
    ("own paths", {"hostPaths": {"state": "/run/mesh", "cache": "/var/lib/mesh", "pinFolder": "mesh", "mountPropagation": "HostToContainer"}}),
    ("digest", {"image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "pull"}]}),
    ("API server named", {"kubernetes": {"apiServerHost": "10.0.0.1", "apiServerPort": 6443}}),
    ("placement", {"nodeSelector": {"pool": "mesh"}, "tolerations": [], "priorityClassName": "high",
                   "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                       {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]}}},
                   "podLabels": {"team": "net"}, "podAnnotations": {"note": "x"}}),
    ("old updates", {"updateStrategy": {"type": "OnDelete"}, "terminationGracePeriodSeconds": 120}),
    ("SELinux", {"seLinuxOptions": {"type": "spc_t"}, "seccompProfile": {"type": "Unconfined"}}),
    ("given accounts", {"serviceAccount": {"create": False, "name": "mesh"}, "rbac": {"create": False}}),
    ("account annotations", {"serviceAccount": {"annotations": {"a": "b"}}}),
    ("monitoring", {"podMonitor": {"enabled": True, "labels": {"a": "b"}}, "dashboard": {"enabled": True},
                    "alerts": {"enabled": True, "labels": {"a": "b"}}, "agent": {"httpAddress": "0.0.0.0"}}),
    ("IPv6 addresses", {"agent": {"httpAddress": "::"}, "engine": {"httpAddress": "::1"}}),
    ("network policy", {"networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {}}]}}),
    ("closed network policy", {"networkPolicy": {"enabled": True}}),
    ("quota", {"resourceQuota": {"enabled": True}}),
    ("names", {"fullnameOverride": "mesh-node", "test": {"namespace": "mesh-try"}, "global": {"anything": 1}}),
    ("short name", {"nameOverride": "node"}),
]
MATRIX += [(file.stem, yaml.safe_load(file.read_text())) for file in sorted((chart.CHART / "presets").glob("*.yaml"))]

VERSIONS = ("1.25.0", "1.29.4", "1.30.0", "1.34.4")
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "Namespace"}


def workloads(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Name and pod spec of everything that makes pods."""
    found = [(one["metadata"]["name"], one["spec"]["template"]["spec"]) for one in objects if one["kind"] in ("DaemonSet", "Deployment")]
    return found + [(one["metadata"]["name"], one["spec"]) for one in objects if one["kind"] == "Pod"]


class Rendering(unittest.TestCase):
    def each(self):
        for name, values in MATRIX:
            with self.subTest(name):
                yield chart.rendered(values)

    def test_lint_has_no_findings(self):
        result = chart.helm("lint", "--strict", "--quiet", str(chart.CHART))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_objects_are_whole_and_in_a_namespace(self):
        for objects in self.each():
            for one in objects:
                self.assertTrue(one["apiVersion"] and one["kind"] and one["metadata"]["name"], one)
                self.assertEqual("namespace" in one["metadata"], one["kind"] not in CLUSTER_WIDE, one["metadata"])

    def test_what_is_the_clusters_has_one_name_so_that_a_second_release_is_refused(self):
        for objects in self.each():
            names = {one["metadata"]["name"] for one in objects if one["kind"] in CLUSTER_WIDE - {"Namespace"}}
            self.assertLessEqual(names, {"sidetrack"})

    def test_names_are_unique(self):
        for objects in self.each():
            names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
            self.assertEqual(len(names), len(set(names)))

    def test_the_namespace_of_the_test_has_no_dots(self):
        self.assertEqual(chart.find(chart.rendered({"fullnameOverride": "mesh.a"}), "Namespace")["metadata"]["name"], "mesh-a-test")

    def test_helm_test_deletes_no_namespace_that_it_has_not_made(self):
        annotations = chart.find(chart.rendered({}), "Namespace")["metadata"]["annotations"]
        self.assertEqual(annotations["helm.sh/hook-delete-policy"], "hook-succeeded")

    def test_every_mount_has_its_volume(self):
        for objects in self.each():
            for name, spec in workloads(objects):
                volumes = {volume["name"] for volume in spec.get("volumes", [])}
                mounted = {mount["name"] for one in spec["containers"] for mount in one.get("volumeMounts", [])}
                self.assertEqual(volumes, mounted, name)

    def test_selectors_match_their_pods(self):
        for objects in self.each():
            for one in objects:
                if one["kind"] in ("DaemonSet", "Deployment"):
                    selector = one["spec"]["selector"]["matchLabels"]
                    self.assertLessEqual(selector.items(), one["spec"]["template"]["metadata"]["labels"].items())

    def test_the_account_of_the_bindings_is_the_pods_own(self):
        for objects in self.each():
            account = chart.find(objects, "DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"]
            for one in objects:
                if one["kind"].endswith("Binding"):
                    self.assertEqual([subject["name"] for subject in one["subjects"]], [account])

    def test_a_pod_of_an_upgrade_fits_beside_the_old_one(self):
        for objects in self.each():
            spec = chart.find(objects, "DaemonSet")["spec"]["template"]["spec"]
            self.assertEqual([one["name"] for one in spec["containers"] if "ports" in one], [])

    def test_every_supported_version_renders(self):
        for version in VERSIONS:
            with self.subTest(version):
                daemon_set = chart.find(chart.rendered({}, "--kube-version", version), "DaemonSet")["spec"]["template"]
                context = daemon_set["spec"]["containers"][0]["securityContext"]
                annotation = "container.apparmor.security.beta.kubernetes.io/agent"
                self.assertNotEqual("appArmorProfile" in context, annotation in daemon_set["metadata"]["annotations"])

    def test_older_versions_are_refused(self):
        self.assertIn("1.25", chart.template({}, "--kube-version", "1.24.0").stderr)


class Privileges(unittest.TestCase):
    def test_defaults_are_named_capabilities(self):
        for container in chart.find(chart.rendered({}), "DaemonSet")["spec"]["template"]["spec"]["containers"]:
            context = container["securityContext"]
            self.assertFalse(context["privileged"])
            self.assertEqual(context["capabilities"]["drop"], ["ALL"])
            self.assertTrue(context["readOnlyRootFilesystem"])
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})

    def test_the_switch_makes_both_containers_privileged(self):
        spec = chart.find(chart.rendered({"privileged": True}), "DaemonSet")["spec"]["template"]["spec"]
        self.assertEqual([one["securityContext"]["privileged"] for one in spec["containers"]], [True, True])

    def test_rights_are_these_and_no_other(self):
        for values in ({}, {"agent": {"engine": "none"}}, {"privileged": True}, {"cni": {"enabled": False}}):
            objects = chart.rendered(values)
            self.assertEqual(chart.find(objects, "ClusterRole")["rules"], [
                {"apiGroups": [""], "resources": ["namespaces", "pods", "services", "nodes"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}])
            self.assertEqual(chart.find(objects, "Role")["rules"], [
                {"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["mesh-sidetrack"], "verbs": ["get", "list", "watch"]}])
            for kind, name in (("ClusterRole", "sidetrack"), ("Role", "mesh-sidetrack")):
                binding = chart.find(objects, f"{kind}Binding")
                self.assertEqual(binding["roleRef"], {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
                self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": "mesh-sidetrack", "namespace": chart.NAMESPACE}])

    def test_only_the_agent_has_a_token(self):
        spec = chart.find(chart.rendered({}), "DaemonSet")["spec"]["template"]["spec"]
        with_token = [one["name"] for one in spec["containers"] if any(m["name"] == "token" for m in one["volumeMounts"])]
        self.assertEqual((with_token, spec["automountServiceAccountToken"]), (["agent"], False))


class Pods(unittest.TestCase):
    """What the DaemonSet's pods are, where they run and how they are watched."""

    def spec(self, values: dict[str, Any] | None = None) -> dict[str, Any]:
        return chart.find(chart.rendered(values or {}), "DaemonSet")["spec"]["template"]["spec"]

    def test_a_release_is_these_objects(self):
        kinds = [one["kind"] for one in chart.rendered({}) if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
        self.assertEqual(sorted(kinds), ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "Role", "RoleBinding", "ServiceAccount"])

    def test_they_run_on_linux_amd64_whatever_is_selected(self):
        always = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        self.assertEqual(self.spec()["nodeSelector"], always)
        self.assertEqual(self.spec({"nodeSelector": {"pool": "mesh"}})["nodeSelector"], {**always, "pool": "mesh"})
        self.assertEqual(self.spec({"nodeSelector": {**always, "pool": "mesh"}})["nodeSelector"], {**always, "pool": "mesh"})

    def test_they_run_on_tainted_nodes_and_before_others(self):
        self.assertEqual(self.spec()["tolerations"], [{"operator": "Exists"}])
        self.assertEqual(self.spec()["priorityClassName"], "system-node-critical")
        own = [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}]
        changed = self.spec({"tolerations": own, "priorityClassName": "high"})
        self.assertEqual((changed["tolerations"], changed["priorityClassName"]), (own, "high"))
        self.assertNotIn("tolerations", self.spec({"tolerations": []}))

    def test_each_container_has_its_probes(self):
        agent, engine = self.spec()["containers"]
        # What hangs is not drained: an agent's connections are the engine's.
        for container, port, hangs in ((agent, 15880, {"terminationGracePeriodSeconds": 5}), (engine, 15881, {})):
            alive = {"host": "127.0.0.1", "port": port, "path": "/healthz"}
            self.assertEqual(container["startupProbe"], {"httpGet": alive, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 120})
            self.assertEqual(container["livenessProbe"],
                             {"httpGet": alive, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 6, **hangs})
        ready = {"host": "127.0.0.1", "port": 15880, "path": "/readyz"}
        self.assertEqual(agent["readinessProbe"], {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 3})
        # An engine has no such page: whether one takes connections is sidetrack_engine_up.
        self.assertNotIn("readinessProbe", engine)

    def test_the_agent_leaves_its_node_before_it_ends(self):
        for values in ({}, {"cni": {"enabled": False}}):
            agent = self.spec(values)["containers"][0]
            self.assertEqual(agent["lifecycle"]["preStop"]["exec"]["command"],
                             ["/usr/bin/sidetrack-agent", "leave", "--config=/etc/sidetrack/agent.conf"])
            self.assertIn({"name": "config", "mountPath": "/etc/sidetrack", "readOnly": True}, agent["volumeMounts"])

    def test_probes_follow_address_port_and_patience(self):
        agent, engine = self.spec({"agent": {"httpAddress": "0.0.0.0", "httpPort": 9000}, "engine": {"httpAddress": "::1", "httpPort": 9001},
                                   "probes": {"periodSeconds": 7, "timeoutSeconds": 2, "failureThreshold": 9, "startupSeconds": 33}})["containers"]
        self.assertEqual(agent["readinessProbe"]["httpGet"], {"host": "127.0.0.1", "port": 9000, "path": "/readyz"})
        self.assertEqual(engine["livenessProbe"]["httpGet"], {"host": "::1", "port": 9001, "path": "/healthz"})
        for container in (agent, engine):
            self.assertEqual([container["livenessProbe"][key] for key in ("periodSeconds", "timeoutSeconds", "failureThreshold")], [7, 2, 9])
            self.assertEqual(container["startupProbe"]["failureThreshold"], 33)

    def test_what_ends_a_container_is_shown_by_its_pod(self):
        for values in ({}, {"privileged": True}):
            self.assertEqual({one["terminationMessagePolicy"] for one in self.spec(values)["containers"]}, {"FallbackToLogsOnError"})

    def test_each_container_has_its_resources(self):
        values = chart.default_values()
        for container, key in zip(self.spec()["containers"], ("agent", "engine"), strict=True):
            self.assertEqual((container["name"], container["resources"]), (key, values[key]["resources"]))
            self.assertEqual(set(container["resources"]["requests"]), {"cpu", "memory"})
            self.assertIn("memory", container["resources"]["limits"])
            # A throttled agent would keep pods waiting, a throttled engine their connections.
            self.assertNotIn("cpu", container["resources"]["limits"])
        own = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
        changed = self.spec({"engine": {"resources": own}})["containers"][1]["resources"]
        self.assertEqual((changed["requests"]["cpu"], changed["limits"]["memory"]), ("1", "1Gi"))


class Upgrades(unittest.TestCase):
    def test_grace_period_is_longer_than_the_drain(self):
        values = chart.default_values()
        drain = int(values["engine"]["drain"].removesuffix("s"))
        self.assertGreater(values["terminationGracePeriodSeconds"], drain + 10)
        self.assertGreater(values["terminationGracePeriodSeconds"], 20)  # of `sidetrack-agent leave`

    def test_the_new_pod_comes_before_the_old_one_goes(self):
        spec = chart.find(chart.rendered({}), "DaemonSet")["spec"]
        self.assertEqual(spec["updateStrategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        self.assertIn("--standby", spec["template"]["spec"]["containers"][0]["args"])

    def test_the_plugins_keys_are_the_agents_options(self):
        def options(cni: dict[str, Any]) -> dict[str, str]:
            lines = chart.options_of_agent(chart.rendered({"cni": cni}))
            return {key.removeprefix("cni-"): value for key, value in lines.items() if key.startswith("cni-")}
        folders = {"conf-dir": "/etc/cni/net.d", "bin-dir": "/opt/cni/bin", "binary": "/usr/bin/sidetrack-cni"}
        self.assertEqual(options({}), {**folders, "on-agent-down": "allow", "deny-for": "1h", "timeout": "2s", "status-checks-agent": "off"})
        self.assertEqual(options({"onAgentDown": "deny", "denyFor": "0s", "timeout": "500ms", "logFile": "/var/log/x", "statusChecksAgent": True}),
                         {**folders, "on-agent-down": "deny", "deny-for": "0s", "timeout": "500ms", "log-file": "/var/log/x", "status-checks-agent": "on"})

    def test_a_large_number_is_not_written_with_an_exponent(self):
        spec = chart.find(chart.rendered({"terminationGracePeriodSeconds": 1000000}), "DaemonSet")["spec"]["template"]["spec"]
        self.assertEqual(spec["terminationGracePeriodSeconds"], 1000000)
        self.assertIsInstance(spec["terminationGracePeriodSeconds"], int)

    def test_a_changed_option_makes_new_pods(self):
        def annotations(values: dict[str, Any]) -> dict[str, str]:
            return chart.find(chart.rendered(values), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]
        self.assertNotEqual(annotations({}), annotations({"agent": {"logLevel": "debug"}}))


class Checks(unittest.TestCase):
    """What would fail after the installation, or never finish, is refused before it, with the key that has to change."""

    # The values, what the refusal says, and more of the command line.
    REFUSED: list[tuple[Any, ...]] = [
        ({"agent": {"excludeOutboundPorts": "443,8700-8600"}}, "agent.excludeOutboundPorts: '8700-8600'"),
        ({"agent": {"includeOutboundPorts": "65536"}}, "agent.includeOutboundPorts: '65536'"),
        ({"agent": {"excludeOutboundPorts": 65536}}, "agent.excludeOutboundPorts: '65536'"),
        ({"agent": {"listenerPorts": "16000-15900"}}, "agent.listenerPorts: '16000-15900'"),
        ({"agent": {"excludeOutboundCidrs": "10.0.0.0/8,10.0.0.0/99"}}, "agent.excludeOutboundCidrs: '10.0.0.0/99'"),
        ({"agent": {"excludeOutboundCidrs": "10.0.0.256"}}, "'10.0.0.256'"),
        ({"agent": {"includeOutboundCidrs": "fd00::/129"}}, "agent.includeOutboundCidrs: 'fd00::/129'"),
        ({"agent": {"excludeOutboundCidrs": "10.0.0.0/8:90-80"}}, "agent.excludeOutboundCidrs: '90-80'"),
        ({"agent": {"excludeOutboundCidrs": "[fd00::/8]:0"}}, "agent.excludeOutboundCidrs: '0'"),
        ({"agent": {"excludeOutboundCidrs": "10.0.0.1,,10.0.0.2"}}, "agent.excludeOutboundCidrs: ''"),
        ({"agent": {"engine": "external=foo bar"}}, "agent.engine: 'foo bar'"),
        ({"agent": {"engine": "external=10.0.0.1"}}, "agent.engine: '10.0.0.1': ADDR:PORT"),
        ({"agent": {"engine": "external=10.0.0.1:70000"}}, "agent.engine: '70000'"),
        ({"agent": {"engine": "external=127.0.0.1:15001"}}, "loopback"),
        ({"agent": {"httpPort": 15881}}, "agent.httpPort and engine.httpPort are both 15881"),
        ({"engine": {"drain": "60s"}}, "engine.drain 60s"),
        ({"engine": {"drain": "2m"}, "terminationGracePeriodSeconds": 119}, "engine.drain 2m"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 0}}}, "maxUnavailable"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": "0%"}}}, "maxUnavailable"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": None}}}, "maxUnavailable"),
        ({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}, "maxSurge"),
        ({"updateStrategy": {"rollingUpdate": {"maxUnavailable": None}}}, "maxSurge"),
        ({"agent": {"extraOptions": {"http": "off"}}}, "http"),
        ({"agent": {"extraOptions": {"fastpath": "off"}}}, "fastpath"),
        ({"podMonitor": {"enabled": True}}, "agent.httpAddress 127.0.0.1"),
        ({"test": {"namespace": chart.NAMESPACE}}, f"test.namespace: '{chart.NAMESPACE}'"),
        ({"fullnameOverride": "a"}, "test.namespace: 'a-test'", "--namespace", "a-test"),
        ({"podMonitor": {"enabled": True}, "agent": {"httpAddress": "[0::1]"}}, "agent.httpAddress [0::1]"),
    ]
    ACCEPTED: list[dict[str, Any]] = [
        {"agent": {"excludeOutboundPorts": 8500}},
        {"agent": {"excludeOutboundCidrs": "10.0.0.0/8:443, [fd00::/8]:8000-8100,10.1.2.3,::/0,::ffff:10.0.0.1"}},
        {"agent": {"engine": "external=10.0.0.1:15001,[fd00::1]:15001"}},
        {"agent": {"httpPort": 15881, "engine": "none"}},
        {"engine": {"drain": "2m"}, "terminationGracePeriodSeconds": 121},
        {"engine": {"drain": "1h"}, "terminationGracePeriodSeconds": 3601},
        {"podMonitor": {"enabled": True}, "agent": {"httpAddress": "::"}},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}}},
        {"podLabels": {"example.com/Team_a.b": "Net_1.2-a", "b" * 63: "c" * 63, "empty": ""}, "podMonitor": {"interval": "010s"}},
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}},
        {"agent": {"resources": {"requests": {"cpu": "100m", "memory": "1e9"}, "limits": {"cpu": 0.1, "memory": "954Mi"}}}},
        {"agent": {"resources": {"requests": {"cpu": 1, "memory": "1G"}, "limits": {"cpu": "1000m", "memory": "1Gi"}}}},
        {"agent": {"resources": {"requests": {"cpu": ".5", "memory": "1000M"}, "limits": {"cpu": "500000u", "memory": "1E"}}}},
        {"agent": {"resources": {"requests": {"memory": "98304Ki"}, "limits": {"memory": "262144Ki"}}}},
        {"agent": {"resources": {"limits": {"memory": None, "hugepages-2Mi": "4Mi"}}}, "engine": {"resources": {"limits": None}}},
        {"cni": {"logFile": "/etc/cni/net.d.log"}},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": None, "maxUnavailable": None}}},
    ]

    def test_what_would_fail_later_is_refused(self):
        for values, says, *more in self.REFUSED:
            with self.subTest(values):
                result = chart.template(values, *more)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(says, result.stderr)

    def test_what_works_is_not(self):
        for values in self.ACCEPTED:
            with self.subTest(values):
                self.assertEqual(chart.template(values).stderr, "")

    def test_a_port_may_be_a_number(self):
        self.assertEqual(chart.options_of_agent(chart.rendered(self.ACCEPTED[0]))["exclude-outbound-ports"], "8500")

    def test_a_list_of_blanks_is_none_and_one_of_lines_is_one_line(self):
        self.assertNotIn("include-outbound-ports", chart.options_of_agent(chart.rendered({"agent": {"includeOutboundPorts": " \n"}})))
        lists = {"includeOutboundPorts": "80,\n443\n", "includeOutboundCidrs": "10.0.0.0/8,\n  fd00::/8\n"}
        options = chart.options_of_agent(chart.rendered({"agent": lists}))
        self.assertEqual([options[f"include-outbound-{kind}"] for kind in ("ports", "cidrs")], ["80,443", "10.0.0.0/8,fd00::/8"])

    def test_further_options_are_those_that_the_chart_does_not_set(self):
        table = (chart.ROOT / "docs/configuration.md").read_text().split("## sidetrack-engine")[0]
        options = set(re.findall(r"^\| .*?`--([a-z-]+)`", table, re.MULTILINE)) | set(re.findall(r"^\| `[^|]*, `--([a-z-]+)`", table, re.MULTILINE))
        lists = {f"{what}-outbound-{kind}" for what in ("exclude", "include") for kind in ("ports", "cidrs")}
        objects = chart.rendered({"agent": {"compat": ["istio"]}, "cni": {"logFile": "off"}})
        ours = set(chart.options_of_agent(objects)) | lists
        ours |= {one.removeprefix("--").split("=")[0] for one in chart.find(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["args"]}
        not_of_run_in_a_pod = {"objects", "kubeconfig", "drain", "keep-conflist"}
        more = set(chart.schema()["properties"]["agent"]["properties"]["extraOptions"]["properties"])
        self.assertEqual(more, options - ours - not_of_run_in_a_pod)


class Monitoring(unittest.TestCase):
    def address(self, container: str, pod_ip: str, values=None) -> str | None:
        """What Prometheus makes of the PodMonitor's relabelings; none: no target."""
        values = values or {"agent": {"httpAddress": "0.0.0.0"}, "engine": {"httpAddress": "0.0.0.0"}}
        monitor = chart.find(chart.rendered({**values, "podMonitor": {"enabled": True}}), "PodMonitor")
        labels = {"__meta_kubernetes_pod_container_name": container, "__meta_kubernetes_pod_ip": pod_ip}
        for rule in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]:
            text = ";".join(labels.get(one, "") for one in rule["sourceLabels"])
            found = re.fullmatch(rule.get("regex", "(.*)"), text)
            if rule["action"] == "keep" and not found:
                return None
            if rule["action"] == "replace" and found:
                labels[rule["targetLabel"]] = found.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
        return labels.get("__address__")

    def test_an_engine_on_loopback_is_no_target_beside_an_agent_that_is_not(self):
        values = {"agent": {"httpAddress": "0.0.0.0"}}
        self.assertEqual(self.address("agent", "192.0.2.1", values), "192.0.2.1:15880")
        self.assertIsNone(self.address("engine", "192.0.2.1", values))
        values["engine"] = {"httpAddress": "0.0.0.0"}
        self.assertEqual(self.address("engine", "192.0.2.1", values), "192.0.2.1:15881")

    def test_agent_and_engine_are_scraped_each_at_its_port(self):
        self.assertEqual(self.address("agent", "192.0.2.1"), "192.0.2.1:15880")
        self.assertEqual(self.address("engine", "192.0.2.1"), "192.0.2.1:15881")
        self.assertEqual(self.address("agent", "2001:db8::1"), "[2001:db8::1]:15880")
        self.assertEqual(self.address("engine", "2001:db8::1"), "[2001:db8::1]:15881")
        self.assertIsNone(self.address("", "192.0.2.1"))


class Policy(unittest.TestCase):
    """Who may connect to the pods by the NetworkPolicy."""

    def spec(self, policy: dict[str, Any], **values: Any) -> dict[str, Any]:
        return chart.find(chart.rendered({**values, "networkPolicy": {"enabled": True, **policy}}), "NetworkPolicy")["spec"]

    def test_it_is_for_the_pods_of_the_daemonset(self):
        objects = chart.rendered({"networkPolicy": {"enabled": True}})
        policy, daemon_set = chart.find(objects, "NetworkPolicy"), chart.find(objects, "DaemonSet")
        self.assertEqual(policy["spec"]["podSelector"], daemon_set["spec"]["selector"])
        self.assertEqual(policy["metadata"]["namespace"], daemon_set["metadata"]["namespace"])

    def test_nobody_may_connect_by_default(self):
        spec = self.spec({})
        self.assertEqual((spec["policyTypes"], spec["ingress"]), (["Ingress"], []))

    def test_the_given_peers_may_read_the_metrics_of_agent_and_engine_and_nothing_else(self):
        peers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}, "podSelector": {"matchLabels": {"app": "prometheus"}}},
                 {"ipBlock": {"cidr": "192.0.2.0/24"}}]
        for ports, values in (([15880, 15881], {}), ([9000, 9001], {"agent": {"httpPort": 9000}, "engine": {"httpPort": 9001}})):
            spec = self.spec({"metricsFrom": peers}, **values)
            self.assertEqual(spec["policyTypes"], ["Ingress"])
            self.assertEqual(spec["ingress"], [{"from": peers, "ports": [{"protocol": "TCP", "port": port} for port in ports]}])


class Schema(unittest.TestCase):
    def test_unknown_keys_are_refused_everywhere(self):
        for path, node in chart.schema_objects(chart.schema()):
            with self.subTest(".".join(path) or "the top"):
                self.assertIs(node["additionalProperties"], False)
                result = chart.template(chart.nested(path, {"noSuchKey": 1}))
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("noSuchKey", result.stderr)

    def test_wrong_values_are_refused(self):
        for values in ({"agent": {"httpPort": 0}}, {"agent": {"engine": "sidecar"}}, {"cni": {"confDir": "etc/cni"}},
                       {"cni": {"timeout": "49ms"}}, {"cni": {"timeout": "61s"}}, {"cni": {"timeout": 2}}, {"cni": {"logFile": "cni.log"}},
                       {"engine": {"drain": "30"}}, {"image": {"digest": "sha256:0"}}, {"agent": {"compat": ["consul"]}},
                       {"privileged": "yes"}, {"tolerations": [{"opeator": "Exists"}]}):
            with self.subTest(values):
                self.assertNotEqual(chart.template(values).returncode, 0)

    def test_null_is_refused_with_its_key_or_means_empty(self):
        # Whose absence means something to Kubernetes.
        optional = {"agent.resources", "engine.resources", "tolerations", "dashboard.labels", "updateStrategy.rollingUpdate"}
        required, empty = set(), {}

        def walk(values: dict[str, Any], node: dict[str, Any], path: tuple[str, ...]) -> None:
            for key, child in node["properties"].items():
                name = ".".join((*path, key))
                if key in node.get("required", []):
                    required.add(name)
                elif name not in optional:
                    self.assertIn(values[key], ("", [], {}), f"{name} is not required")
                if "properties" in child and key not in chart.WHOLE_OBJECTS and name not in optional:
                    walk(values[key], child, (*path, key))
                elif name not in required:
                    top = empty.setdefault(path[0], {}) if path else empty
                    top[key] = None
        walk(chart.default_values(), chart.schema(), ())
        for name in ("agent", "agent.httpAddress", "engine.drain", "agent.capabilities", "cni.statusChecksAgent", "podMonitor"):
            *path, key = name.split(".")
            with self.subTest(name):
                self.assertIn(f"at '{'/' if path else ''}{'/'.join(path)}': missing property '{key}'", chart.template(chart.nested((*path, key), None)).stderr)
        with self.subTest(empty):
            more = {"podMonitor": {"enabled": True}, "dashboard": {"enabled": True}, "alerts": {"enabled": True}, "networkPolicy": {"enabled": True},
                    "agent": {"httpAddress": "0.0.0.0"}}
            result = chart.template({**empty, **{key: {**empty.get(key, {}), **values} for key, values in more.items()}})
            self.assertEqual(result.stderr, "")

    def test_it_has_every_value_and_no_other(self):
        def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
            self.assertEqual(set(values), set(node["properties"]), path or "the top")
            for key, child in node["properties"].items():
                if "properties" in child and key not in chart.WHOLE_OBJECTS:
                    compare(values[key], child, f"{path}{key}.")
        compare(chart.default_values(), chart.schema(), "")


class Documentation(unittest.TestCase):
    def test_every_key_is_documented_and_every_documented_key_exists(self):
        text = (chart.ROOT / "docs/helm.md").read_text()
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        documented = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
        existing = set(chart.leaves(chart.default_values(), chart.schema()))
        self.assertEqual(existing - documented, set(), "keys of values.yaml without a row in docs/helm.md")
        self.assertEqual(documented - existing, set(), "rows of docs/helm.md without a key in values.yaml")

    def test_lines_of_the_configuration_name_the_keys_they_come_from(self):
        keys = set(chart.leaves(chart.default_values(), chart.schema()))
        for _, values in MATRIX:
            text = next(one["data"]["agent.conf"] for one in chart.rendered(values) if "agent.conf" in one.get("data", {}))
            for line in text.splitlines():
                if line != "cni-binary = /usr/bin/sidetrack-cni":
                    named = set(line.split(" # ")[1].split(", "))
                    self.assertLessEqual(named, keys, line)

    def test_options_in_the_configuration_are_the_agents(self):
        text = (chart.ROOT / "docs/configuration.md").read_text()
        documented = set(re.findall(r"`--([a-z-]+)`", text))
        options = set()
        for _, values in MATRIX:
            options |= set(chart.options_of_agent(chart.rendered(values)))
        self.assertEqual(options - documented, set())

    def test_every_metric_of_the_engine_is_documented(self):
        names = set(re.findall(r'"(sidetrack_engine_[a-z_]+)"', (chart.ROOT / "engine/metrics.cpp").read_text()))
        documented = set(re.findall(r"`(sidetrack_engine_[a-z_]+)`", (chart.ROOT / "docs/metrics.md").read_text()))
        self.assertGreater(len(names), 10)
        self.assertEqual(names - documented, set())

    def test_dashboard_and_alerts_use_metrics_that_exist(self):
        documented = set(re.findall(r"`((?:sidetrack|process)_[a-z_]+)`", (chart.ROOT / "docs/metrics.md").read_text()))
        dashboard = json.loads((chart.CHART / "dashboards/sidetrack.json").read_text())
        texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        texts += [one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
        rules = yaml.safe_load((chart.CHART / "alerts/rules.yaml").read_text())
        texts += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
        used = {re.sub(r"_(bucket|sum|count)$", "", name) for text in texts for name in re.findall(r"\b(?:sidetrack|process)_[a-z_]+", text)}
        self.assertGreater(len(used), 10)
        self.assertEqual(used - documented, set())


if __name__ == "__main__":
    if chart.find_helm() is None:
        print("skipped: no helm here: tests/kubernetes/build.sh helm makes one")
        sys.exit(SKIPPED)
    unittest.main(verbosity=1)
