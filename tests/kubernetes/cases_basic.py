# SPDX-License-Identifier: Apache-2.0
"""Install, and what pods see: redirect, exclusion, passthrough, live flip, probes, DNS, the API server, `helm test`."""

import json
import re
import struct
import subprocess
import sys
import time

import workloads
from cluster import (BIN_DIR, BRIDGE, CONF_DIR, DAEMON_SET, HOME, IMAGE, NAMESPACE, NODE_IP, RELEASE, ROOT, address, agent_is_ready,
                     apply, counters, ctl, curl, enrolled, explained, flow_of, get, inside, kubectl, label, main_conflist, ready, run, state_of,
                     traffic_of)
from tap import Failed, Suite, expect, until
from workloads import SERVER_NAME, SERVICE, SHOP

CLIENT, SERVER = f"{SHOP}/client", f"{SERVICE}:80"
METADATA = "169.254.169.254"  # where clouds tell a machine about itself
CONFLIST = CONF_DIR / "10-main.conflist"


def values() -> list[str]:
    """The chart's defaults but for where this cluster keeps things."""
    settings = {"image.repository": IMAGE, "image.tag": "1", "cni.confDir": CONF_DIR, "cni.binDir": BIN_DIR}
    return [word for key, value in settings.items() for word in ("--set-string", f"{key}={value}")]


def client_address(answer: str) -> str:
    found = re.search(r" client=(\S+) ", answer)
    expect(found is not None, f"answered '{answer}'")
    return found.group(1)


def decided(pod: str, url: str, reason: str) -> str:
    """One connection, which the kernel must count for that reason; the server must see the pod's own address. Its address."""
    namespace = pod.split("/")[0]
    before = counters(namespace).get(reason, 0)
    client = client_address(curl(pod, url))
    expect(client.rsplit(":", 1)[0] == address(pod), f"the server saw {client}, the pod is {address(pod)}")
    until(5, f"a connection counted as {reason}", lambda: counters(namespace).get(reason, 0) == before + 1)
    return client


def dns_query(name: str) -> bytes:
    """A question for the IPv4 addresses of a name, as it is sent by TCP (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    message = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">2H", 1, 1)
    return struct.pack(">H", len(message)) + message


def octal(data: bytes) -> str:
    """For printf of a shell."""
    return "".join(f"\\{byte:03o}" for byte in data)


def add(suite: Suite) -> None:
    @suite.case("workloads-before")
    def _() -> str:
        for name in (SHOP, "legacy"):
            workloads.namespace(name)
        workloads.server(SHOP, "server", SERVICE, replicas=2)
        workloads.client(SHOP)
        workloads.client("legacy")
        ready(SHOP, "pod", "-l", "app=server")
        until(20, "the Service to answer", lambda: "client=" in curl(CLIENT, f"http://{SERVER}/", check=False))
        return f"shop/client, legacy/client and 2 servers run before Sidetrack is installed: {curl(CLIENT, f'http://{SERVER}/').strip()}"

    @suite.case("server-side-check-of-the-chart")
    def _() -> str:
        kubectl("create", "namespace", NAMESPACE, "--dry-run=client", "-o", "name")
        workloads.namespace(NAMESPACE)
        kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
        presets = sorted((ROOT / "helm/sidetrack/presets").glob("*.yaml"))
        sets = ([], ["--set", "privileged=true"], ["--set", "networkPolicy.enabled=true,dashboard.enabled=true,resourceQuota.enabled=true"])
        for more in [[*values(), *switches] for switches in sets] + [["-f", preset] for preset in presets]:
            text = run("helm", "template", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, "--no-hooks", "--kube-version", "1.34.4", *more)
            kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
        return f"the API server accepts {len(sets)} renderings and the presets {[preset.stem for preset in presets]} with strict validation"

    @suite.case("no-rights-no-readiness")
    def _() -> str:
        run("helm", "install", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, *values(), "--set", "rbac.create=false")
        until(60, "the agent to say why it is not ready", lambda: "403" in json.dumps(ctl("status")["problems"]))
        status = ctl("status")
        expect(status["agent"]["state"] == "starting" and not agent_is_ready(), f"{status['agent']}, ready: {agent_is_ready()}")
        expect("sidetrack-cni" not in CONFLIST.read_text(), "the plugin is chained before pods are known")
        run("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "2m", timeout=130)
        until(120, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE)["items"])
        return f"without RBAC the agent starts, says {status['problems'][0]['reason'][:60]}... and is not ready"

    @suite.case("install")
    def _() -> str:
        begin = time.monotonic()
        notes = run("helm", "install", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, *values(), "--wait", "--timeout", "3m", timeout=200)
        took = time.monotonic() - begin
        next_command = f"kubectl -n {NAMESPACE} rollout status daemonset/{DAEMON_SET}"
        expect(next_command in notes, f"the notes do not name '{next_command}'")
        kubectl("rollout", "status", "-n", NAMESPACE, f"daemonset/{DAEMON_SET}", "--timeout=60s")
        until(10, "the agent to be ready", agent_is_ready)
        contexts = [one["securityContext"] for one in get("daemonset", "-n", NAMESPACE, DAEMON_SET)["spec"]["template"]["spec"]["containers"]]
        expect(not any(one["privileged"] for one in contexts), "the containers are privileged")
        return f"ready after {took:.1f} s without privileged; {contexts[0]['capabilities']['add']}"

    @suite.case("second-release")
    def _() -> str:
        first = f"release {RELEASE} in namespace {NAMESPACE}"
        for name, namespace in (("other", NAMESPACE), (RELEASE, SHOP)):
            command = ["helm", "install", name, ROOT / "helm/sidetrack", "-n", namespace, *values()]
            try:
                run(*command)
            except Failed as refused:
                expect(first in str(refused), f"it does not name {first}: {refused}")
            else:
                raise Failed(f"{' '.join(map(str, command))} was not refused")
        found = [one["metadata"]["name"] for one in get("daemonsets", "-A", "-l", "app.kubernetes.io/name=sidetrack")["items"]]
        expect(found == [DAEMON_SET], f"there are {found}")
        run("helm", "upgrade", RELEASE, ROOT / "helm/sidetrack", "-n", NAMESPACE, *values(), "--dry-run=server")
        return f"refused beside {first}, whose upgrade is not"

    @suite.case("rights-of-the-agent")
    def _() -> str:
        account = f"--as=system:serviceaccount:{NAMESPACE}:{DAEMON_SET}"

        def may(*what: str) -> bool:
            return kubectl("auth", "can-i", *what, "--all-namespaces", account, check=False).strip() == "yes"
        granted = [("list", "pods"), ("watch", "services"), ("watch", "endpointslices.discovery.k8s.io"), ("create", "events")]
        refused = [("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods"), ("patch", "pods"), ("delete", "pods"),
                   ("update", "pods/status"), ("create", "pods/exec"), ("patch", "nodes"), ("patch", "namespaces"), ("list", "daemonsets.apps")]
        expect(all(may(*what) for what in granted), f"not granted: {[what for what in granted if not may(*what)]}")
        expect(not any(may(*what) for what in refused), f"granted: {[what for what in refused if may(*what)]}")
        return f"{len(granted)} of its rights are there, {len(refused)} others are not"

    @suite.case("programs-are-attached")
    def _() -> str:
        programs = ctl("status")["programs"]
        missing = [one["name"] for one in programs if not one["attached"]]
        expect(bool(programs) and not missing, f"not attached: {missing}")
        doctor = kubectl("exec", "-n", NAMESPACE, f"daemonset/{DAEMON_SET}", "-c", "agent", "--", "sidetrackctl", "doctor", "-o", "json", check=False)
        errors = [one["what"] for one in json.loads(doctor)["findings"] if one["severity"] == "error"]
        expect(not errors, f"doctor: {errors}")
        return f"{len(programs)} programs, doctor in the agent's container finds no error"

    @suite.case("conflist-is-chained")
    def _() -> str:
        plugins = until_chained()
        main = json.loads(main_conflist())["plugins"]
        expect(plugins[:-1] == main, f"the other plugins are not as they were: {plugins}")
        expect((BIN_DIR / "sidetrack-cni").exists(), "the plugin's binary is not there")
        return f"{' + '.join(one['type'] for one in plugins)}"

    @suite.case("unlabelled-is-left-alone")
    def _() -> str:
        decided("legacy/client", f"http://{SERVER}/", "not_enrolled")
        return "legacy/client: direct, not_enrolled"

    @suite.case("passthrough")
    def _() -> str:
        label(SHOP, "passthrough")
        enrolled(CLIENT, "passthrough")
        begin = time.time()
        client = decided(CLIENT, f"http://{SERVER}/", "passthrough")
        flow = flow_of(CLIENT, SERVER, begin)
        expect(flow["source"] == client, f"the server saw {client}, the flow is {flow}")
        expect((flow["verdict"], flow["path"]) == ("direct", "direct"), f"the flow is {flow}")
        return f"a pod that was there before the agent; flow {client} -> {flow['destination']}, path {flow['path']}"

    @suite.case("live-flip-to-redirect")
    def _() -> str:
        restarts = get("pod", "-n", SHOP, "client")["metadata"]["uid"]
        begin = time.monotonic()
        label(SHOP, "redirect")
        until(10, "explain to say redirected", lambda: explained(CLIENT, SERVER) == "redirected", pause=0.02)
        took = time.monotonic() - begin
        expect(took < 1, f"{took:.2f} s from `kubectl label` to the kernel")
        asked = time.time()
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        flow = flow_of(CLIENT, SERVER, asked)
        expect(flow["path"] in ("engine", "handoff") and flow["destination"] == SERVER, f"the flow is {flow}")
        expect(get("pod", "-n", SHOP, "client")["metadata"]["uid"] == restarts, "the pod was replaced")
        return f"{took * 1000:.0f} ms from `kubectl label` to the kernel; flow {flow['source']} -> {SERVER} -> {flow['endpoint']}, path {flow['path']}"

    @suite.case("both-endpoints-are-used")
    def _() -> str:
        answers = {curl(CLIENT, f"http://{SERVER}/").split()[0] for _ in range(20)}
        expect(len(answers) == 2, f"20 connections reached {answers}")
        return f"20 redirected connections by ClusterIP reached {sorted(answers)}"

    @suite.case("pod-address")
    def _() -> str:
        server = get("pods", "-n", SHOP, "-l", "app=server")["items"][0]["status"]["podIP"]
        decided(CLIENT, f"http://{server}:8080/", "redirected")
        return f"{server}:8080 redirected"

    @suite.case("exclusion")
    def _() -> str:
        kubectl("annotate", "namespace", SHOP, "sidetrack.io/exclude-outbound-ports=8500", "--overwrite")
        until(10, "explain to say excluded_port", lambda: explained(CLIENT, f"{SERVICE}:8500") == "excluded_port")
        decided(CLIENT, f"http://{SERVICE}:8500/", "excluded_port")
        decided(CLIENT, f"http://{SERVER}/", "redirected")
        return "port 8500 direct by the namespace's annotation, port 80 redirected"

    @suite.case("pod-label-beats-namespace")
    def _() -> str:
        workloads.client(SHOP, "aside", labels="{sidetrack.io/mode: passthrough}")
        enrolled(f"{SHOP}/aside", "passthrough")
        decided(f"{SHOP}/aside", f"http://{SERVER}/", "passthrough")
        kubectl("delete", "pod", "-n", SHOP, "aside", "--wait=false")
        return "passthrough in a namespace of redirect"

    @suite.case("host-network-never")
    def _() -> str:
        apply(workloads.pod(SHOP, "on-host", workloads.IDLE, host_network=True))
        ready(SHOP, "pod/on-host")
        until(10, "the pod to be known", lambda: state_of(f"{SHOP}/on-host")[0] == "skipped")
        reason = next(row["reason"] for row in ctl("pods", "-n", SHOP)["pods"] if row["pod"] == "on-host")
        before = counters(SHOP)
        answer = curl(f"{SHOP}/on-host", f"http://{SERVER}/")
        expect("client=" in answer, answer)
        expect(counters(SHOP) == before, f"its connection was counted: {before}, then {counters(SHOP)}")
        kubectl("delete", "pod", "-n", SHOP, "on-host", "--wait=false")
        return f"skipped: {reason}; its connection was none of its namespace's"

    @suite.case("dns")
    def _() -> str:
        decided(CLIENT, f"http://{SERVER_NAME}/", "redirected")
        answer = inside(CLIENT, "nslookup", SERVER_NAME)
        expect(SERVICE in answer, answer)
        before = counters(SHOP).get("redirected", 0)
        answer = inside(CLIENT, "sh", "-c", f"printf '{octal(dns_query(SERVER_NAME))}' | nc -w 5 {NODE_IP} 53 | od -An -v -tu1")
        expect(SERVICE.replace(".", " ") in " ".join(answer.split()), f"by TCP: {answer}")
        until(5, "the question by TCP to be counted", lambda: counters(SHOP).get("redirected", 0) == before + 1)
        return f"{SERVER_NAME} resolved, by UDP and by TCP (redirected), and asked by its name from an enrolled pod"

    @suite.case("instance-metadata")
    def _() -> str:
        run("ip", "addr", "add", f"{METADATA}/32", "dev", BRIDGE)
        try:
            with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", METADATA, "80", "--directory", "/sys/class/net"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
                try:
                    until(10, "the server to answer", lambda: "HTTP" in run("curl", "-sSI", f"http://{METADATA}/", check=False))
                    before = counters(SHOP).get("local_destination", 0)
                    answer = inside(CLIENT, "curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", f"http://{METADATA}/")
                    expect(answer.split() == ["200", METADATA], answer)
                    until(5, "it to be counted", lambda: counters(SHOP).get("local_destination", 0) == before + 1)
                finally:
                    server.terminate()
        finally:
            run("ip", "addr", "del", f"{METADATA}/32", "dev", BRIDGE)
        return f"an enrolled pod reaches {METADATA} directly (local_destination)"

    @suite.case("api-server-from-a-pod")
    def _() -> str:
        folder = "/var/run/secrets/kubernetes.io/serviceaccount"
        answer = inside(CLIENT, "sh", "-c", f"curl -sS -m 10 --cacert {folder}/ca.crt -H \"Authorization: Bearer $(cat {folder}/token)\" "
                        "https://kubernetes.default.svc.cluster.local/version")
        expect("gitVersion" in answer, answer)
        return f"an enrolled pod asks the API server: {json.loads(answer)['gitVersion']}"

    @suite.case("kubelet-probes")
    def _() -> str:
        probe = "{{{}, periodSeconds: 1, failureThreshold: 2}}"
        more = ("livenessProbe: " + probe.format("tcpSocket: {port: 8080}") + "\n      readinessProbe: "
                + probe.format("httpGet: {path: /, port: 8080}") + "\n      startupProbe: " + probe.format("exec: {command: [test, -e, /www]}"))
        apply(workloads.pod(SHOP, "probed", ["httpd", "-f", "-p", "8080", "-h", "/www"], more=more))
        time.sleep(12)  # the probes have to go on for a while: this is what is tested
        status = get("pod", "-n", SHOP, "probed")["status"]["containerStatuses"][0]
        # A folder without index.html: 404 fails the readiness probe, which shows that probes are real.
        expect(not status["ready"] and status["restartCount"] == 0, f"{status}")
        inside(f"{SHOP}/probed", "sh", "-c", "echo hello > /www/index.html")
        took = until(15, "the pod to become ready", lambda: get("pod", "-n", SHOP, "probed")["status"]["containerStatuses"][0]["ready"])
        expect(state_of(f"{SHOP}/probed")[0] == "enrolled", "the pod is not enrolled")
        kubectl("delete", "pod", "-n", SHOP, "probed", "--wait=false")
        return f"http, tcp and exec probes of an enrolled pod: unready at 404, no restart in 12 s, ready {took:.1f} s after the page was there"

    @suite.case("open-connections-live-through-flips")
    def _() -> str:
        pod = workloads.traffic(SHOP, "steady", f"{SERVICE} 80", workers=2, pause_ms=50, held=4)
        enrolled(pod, "redirect")
        before = traffic_of(pod)
        for mode in ("passthrough", "redirect", "", "redirect"):
            label(SHOP, mode)
            until(10, f"mode '{mode}'", lambda wanted=mode: explained(pod, SERVER) == {"redirect": "redirected", "": "not_enrolled"}.get(wanted, wanted))
        until(10, "requests on all of its connections", lambda: traffic_of(pod).since(before).held >= 4)
        change = traffic_of(pod).since(before)
        kubectl("delete", "pod", "-n", SHOP, "steady")
        expect(change.connect_failed + change.answer_failed + change.held_broken == 0, f"{change}")
        return f"4 flips: {change.asked} connections and {change.held} requests on 4 open ones, none failed"

    @suite.case("helm-test")
    def _() -> str:
        # A namespace of its name that somebody else has made is none of its business.
        theirs = f"{DAEMON_SET}-test"
        kubectl("create", "namespace", theirs)
        uid = get("namespace", theirs)["metadata"]["uid"]
        refused = run("bash", "-c", f"exec helm test {RELEASE} -n {NAMESPACE} --timeout 3m 2>&1", check=False, timeout=200)
        expect(f'namespaces "{theirs}" already exists' in refused, refused)
        there = get("namespace", theirs)
        expect(there["metadata"]["uid"] == uid and there["status"]["phase"] == "Active", f"it was deleted: {there}")
        kubectl("delete", "namespace", theirs)
        # What the clients print is on helm's standard error.
        text = run("bash", "-c", f"exec helm test {RELEASE} -n {NAMESPACE} --timeout 3m 2>&1", check=False, timeout=200)
        phases = re.findall(r"Phase:\s+(\w+)", text)
        expect(bool(phases) and set(phases) == {"Succeeded"}, text)
        expect("sidetrack-test" not in kubectl("get", "namespaces", "--field-selector=status.phase=Active", "-o", "name"), "its namespace stays")
        lines = re.findall(r"ok +\w+ .*", text)
        expect(len(lines) == 3, text)
        return f"{len(phases)} objects, phases {sorted(set(phases))}, its namespace is gone; {' / '.join(lines)}"


def until_chained() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []

    def look() -> bool:
        files = sorted(file for file in CONF_DIR.iterdir() if file.suffix in (".conf", ".conflist", ".json"))
        expect(bool(files), "no configuration at all")
        found[:] = json.loads(files[0].read_text()).get("plugins", [])
        expect(bool(found) and found[-1]["type"] == "sidetrack-cni", f"{files[0]} ends with {found[-1]['type'] if found else 'nothing'}")
        return True
    until(20, "the plugin to be chained", look)
    return found
