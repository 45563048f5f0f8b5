# SPDX-License-Identifier: Apache-2.0
"""What is compared: Sidetrack with its own engine, Sidetrack with HAProxy as the node's engine, HAProxy and Envoy as sidecars
behind iptables, and no mesh at all. All of them run at once; only the one that is measured has traffic."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import sidecars
from bench_lab import Lab, run, wait_until

PORTS = 8  # of each server


def namespace(name: str, mode: str | None, annotations: dict | None = None) -> dict:
    labels = {"sidetrack.io/mode": mode} if mode else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels, "annotations": annotations or {}}}


def pod(lab: Lab, namespace_name: str, name: str, address: str) -> dict:
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace_name, "annotations": {"sidetrack.io/netns": lab.netns_path(name)}},
        "spec": {"nodeName": "bench"}, "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


class Agent:
    """One Sidetrack on a cgroup of its own: agent, objects, and the embedded engine unless `external` names a proxy."""

    def __init__(self, lab: Lab, binaries: Path, name: str, http_port: int, external: str | None = None, fast: bool = False) -> None:
        self.lab, self.binaries, self.name = lab, binaries, name
        self.folder = lab.folder / name
        for part in ("objects", "state", "cache"):
            (self.folder / part).mkdir(parents=True)
        lab.cgroup(f"{name}/engine")
        self.options = ["--state-dir", self.folder / "state", "--pin-dir", lab.folder / "bpf" / name,
                        "--cache-dir", self.folder / "cache", "--cgroup", lab.cgroups / name]
        self.arguments = [binaries / "sidetrack-agent", "run", "--node", "bench", "--objects", self.folder / "objects",
                          *self.options, "--engine-cgroup", lab.cgroups / name / "engine",
                          "--engine", f"external={external}" if external else "embedded", "--http", f"127.0.0.1:{http_port}", "--fast-path", "auto" if fast else "off", "--fast-path-probation", "0s"]
        self.external = external
        self.fast = fast
        self.engine_pid = 0

    def put(self, file: str, objects: list[dict]) -> None:
        (self.folder / "objects" / f"{file}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def start(self) -> None:
        self.lab.start(f"{self.name}-agent", f"{self.name}/agent", "node", *self.arguments)
        wait_until("the agent", lambda: (self.ctl("status") or {}).get("fast_path") == ("on" if self.fast else "off"))
        if not self.external:
            engine = self.lab.start(f"{self.name}-engine", f"{self.name}/engine", "node", self.binaries / "sidetrack-engine", "run",
                                    "--state-dir", self.folder / "state", "--http", "off")
            self.engine_pid = engine.pid

    def ctl(self, *command: str) -> dict | list | None:
        try:
            return json.loads(run(str(self.binaries / "sidetrackctl"), "--state-dir", str(self.folder / "state"), *command, "-o", "json"))
        except (RuntimeError, ValueError):
            return None

    def wait_for(self, pod_name: str, destination: str, reason: str) -> None:
        def is_so() -> bool:
            answer = self.ctl("explain", pod_name, destination)
            return isinstance(answer, dict) and answer.get("reason") == reason
        wait_until(f"{pod_name} to {destination}: {reason}; log: {self.lab.log(self.name + '-agent')}", is_so)

    def reasons(self) -> dict[str, int]:
        """Decided connections by reason, over all namespaces, from the kernel."""
        totals: dict[str, int] = {}

        def collect(value) -> None:
            if isinstance(value, dict):
                for reason, count in (value.get("connections") or {}).items() if isinstance(value.get("connections"), dict) else ():
                    totals[reason] = totals.get(reason, 0) + count
                value = list(value.values())
            if isinstance(value, list):
                for item in value:
                    collect(item)
        collect(self.ctl("counters"))
        return totals

    def bytes_by_path(self) -> dict[str, int]:
        """Payload of closed connections, both directions."""
        totals: dict[str, int] = {}
        for row in self.ctl("counters")["counters"]:
            for field_name in ("bytes_out", "bytes_in"):
                for path, count in (row.get(field_name) or {}).items():
                    totals[path] = totals.get(path, 0) + count
        return totals

    def uninstall(self) -> None:
        run(str(self.binaries / "sidetrack-agent"), "uninstall", *map(str, self.options), "--drain", "0s")


@dataclass
class Path_:
    """One way from a client pod to a server pod."""
    name: str
    title: str
    client: str  # netns
    cgroup: str
    target: str
    port: int
    server: int  # pid
    proxies: list[int] = field(default_factory=list)  # pids whose CPU and memory count
    agent: Agent | None = None
    reason: str = "redirected"  # that the agent must say of every connection
    fast: bool = False  # it skips TCP once it is adopted
    only: tuple[tuple[str, int], ...] = ()  # workloads and connections; none: all of them


def build_go_server(programs: Path) -> Path | None:
    """None: no Go here, which is told."""
    if not shutil.which("go"):
        print("bench: no server of Go: go is not installed", file=sys.stderr)
        return None
    program = programs / "go_server"
    run("go", "build", "-o", str(program), str(Path(__file__).with_name("server.go")))
    return program


class Competitors:
    def __init__(self, lab: Lab, binaries: Path, programs: Path) -> None:
        self.lab, self.binaries, self.programs = lab, binaries, programs
        self.agents: list[Agent] = []
        self.paths: dict[str, Path_] = {}
        self.pods: dict[str, str] = {}
        self.servers: dict[str, int] = {}  # pids

    def open(self) -> None:
        names = ["server", "off", "excluded", "excludedcidr", "passthrough", "client", "external", "fastserver", "fast", "handoff",
                 "passedserver", "fastexternal", "haproxy-client", "haproxy-server", "envoy-client", "envoy-server"]
        self.pods = {name: self.lab.add_pod(name, 10 + index) for index, name in enumerate(names)}
        self.start_servers()
        self.start_mesh()
        self.start_node_proxy("haproxy", "ext", "external", 15881, 15001, 8200, fast=False)
        self.start_node_proxy("haproxyfast", "extfast", "fastexternal", 15883, 15002, 8300, fast=True)
        self.start_fast()
        self.start_go()
        self.start_sidecars()

    def serve(self, name: str, cgroup: str, netns: str, port: int, program: Path | None = None) -> None:
        process = self.lab.start(name, cgroup, netns, program or self.programs / "st_bench_server", self.pods[netns], str(port), str(PORTS),
                                 stdout=subprocess.PIPE, text=True)
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{name}: {self.lab.log(name)}")
        self.servers[name] = process.pid

    def start_servers(self) -> None:
        self.serve("server-plain", "plain", "server", 8000)
        self.serve("server-mesh", "mesh/pods", "server", 8100)
        self.serve("server-external", "ext/pods", "server", 8200)
        self.serve("server-fastexternal", "extfast/pods", "server", 8300)
        self.serve("server-fast", "fast/pods", "fastserver", 8400)
        self.serve("server-passed", "mesh/pods", "passedserver", 8600)
        self.paths["direct"] = Path_("direct", "direct, no mesh", "client", "plain", self.pods["server"], 8000,
                                     self.servers["server-plain"])

    def start_mesh(self) -> None:
        agent = Agent(self.lab, self.binaries, "mesh", 15880)
        ports = {"sidetrack.io/exclude-outbound-ports": "7000-7099,8500,9000-9100"}
        cidrs = {"sidetrack.io/exclude-outbound-cidrs": "10.99.0.0/16,10.244.9.0/24,172.16.0.0/12"}
        agent.put("namespaces", [namespace("off", None), namespace("excluded", "redirect", ports),
                                 namespace("excludedcidr", "redirect", cidrs), namespace("passthrough", "passthrough"),
                                 namespace("client", "redirect")])
        agent.put("pods", [pod(self.lab, name, name, self.pods[name])
                           for name in ("off", "excluded", "excludedcidr", "passthrough", "client")] +
                          [pod(self.lab, "passthrough", "passedserver", self.pods["passedserver"])])
        agent.start()
        self.agents.append(agent)
        server = self.pods["server"]
        for name, reason in (("excluded", "excluded_port"), ("excludedcidr", "excluded_cidr"), ("passthrough", "passthrough"),
                             ("off", "not_enrolled")):
            agent.wait_for(f"{name}/{name}", f"{server}:7000", reason)
        agent.wait_for("client/client", f"{server}:8100", "redirected")
        self.paths["sidetrack"] = Path_("sidetrack", "Sidetrack, embedded engine", "client", "mesh/pods", server, 8100,
                                        self.servers["server-mesh"], [agent.engine_pid], agent)
        # What "fast path, pod to pod" is without the fast path.
        self.paths["passed"] = Path_("passed", "passed through, no fast path", "passthrough", "mesh/pods", self.pods["passedserver"], 8600,
                                     self.servers["server-passed"], [], agent, "passthrough", only=(("crr", 16),))

    def start_node_proxy(self, path: str, agent_name: str, pod_name: str, http: int, listen: int, server_port: int, fast: bool) -> None:
        agent = Agent(self.lab, self.binaries, agent_name, http, external=f"10.244.9.1:{listen}", fast=fast)
        agent.put("objects", [namespace(pod_name, "redirect"), pod(self.lab, pod_name, pod_name, self.pods[pod_name])])
        agent.start()
        self.agents.append(agent)
        pid = sidecars.HAPROXY.start(self.lab, f"haproxy-{agent_name}", "node", f"{agent_name}/engine", f"10.244.9.1:{listen}")
        server = self.pods["server"]
        agent.wait_for(f"{pod_name}/{pod_name}", f"{server}:{server_port}", "redirected")
        self.paths[path] = Path_(path, "Sidetrack, HAProxy on the node" + (", fast path" if fast else ""), pod_name, f"{agent_name}/pods",
                                 server, server_port, self.servers[f"server-{pod_name}"], [pid], agent, fast=fast)

    def start_fast(self) -> None:
        agent = Agent(self.lab, self.binaries, "fast", 15882, fast=True)
        redirected = pod(self.lab, "shop", "handoff", self.pods["handoff"])
        redirected["metadata"]["labels"] = {"sidetrack.io/mode": "redirect"}
        agent.put("objects", [namespace("shop", "passthrough"), redirected,
                              *(pod(self.lab, "shop", name, self.pods[name]) for name in ("fast", "fastserver"))])
        agent.start()
        self.agents.append(agent)
        server, pid = self.pods["fastserver"], self.servers["server-fast"]
        agent.wait_for("shop/fast", f"{server}:8400", "passthrough")
        agent.wait_for("shop/handoff", f"{server}:8400", "redirected")
        self.paths["fast"] = Path_("fast", "fast path, pod to pod", "fast", "fast/pods", server, 8400, pid, [], agent, "passthrough", True)
        self.paths["handoff"] = Path_("handoff", "fast path, embedded engine", "handoff", "fast/pods", server, 8400, pid,
                                      [agent.engine_pid], agent, fast=True)
        # The far end is in no mesh, so the engine stays between them.
        agent.wait_for("shop/handoff", f"{self.pods['server']}:8000", "redirected")
        self.paths["relayed"] = Path_("relayed", "fast path, embedded engine, no handoff", "handoff", "fast/pods", self.pods["server"], 8000,
                                      self.servers["server-plain"], [agent.engine_pid], agent, fast=True)

    def start_go(self) -> None:
        program = build_go_server(self.programs)
        if not program:
            return
        self.serve("go-plain", "plain", "server", 8500, program)
        self.serve("go-fast", "fast/pods", "fastserver", 8500, program)
        for name, title, like, server in (("godirect", "direct, no mesh, Go server", "direct", "go-plain"),
                                          ("gofast", "fast path, pod to pod, Go server", "fast", "go-fast"),
                                          ("gohandoff", "fast path, embedded engine, Go server", "handoff", "go-fast")):
            self.paths[name] = replace(self.paths[like], name=name, title=title, port=8500, server=self.servers[server],
                                       only=(("keepalive", 1), ("keepalive", 64)))

    def start_sidecars(self) -> None:
        envoy = sidecars.find_envoy(self.programs / "envoy")
        for letter, kind in (("x", sidecars.HAPROXY), *([("e", sidecars.envoy_kind(envoy))] if envoy else [])):
            client, server = f"{kind.name}-client", f"{kind.name}-server"
            self.serve(f"server-{kind.name}", "plain", server, 8000)
            near = kind.start(self.lab, client, client, "plain", sidecars.OUTBOUND)
            far = kind.start(self.lab, server, server, "plain", sidecars.INBOUND)
            sidecars.capture(self.lab, client, server)
            self.paths[f"{letter}1"] = Path_(f"{letter}1", f"iptables, 1 sidecar ({kind.title})", client, "plain", self.pods["server"], 8000,
                                             self.servers["server-plain"], [near])
            self.paths[f"{letter}2"] = Path_(f"{letter}2", f"iptables, 2 sidecars ({kind.title})", client, "plain", self.pods[server], 8000,
                                             self.servers[f"server-{kind.name}"], [near, far])

    def close(self) -> None:
        self.lab.stop_all()
        for agent in self.agents:
            try:
                agent.uninstall()
            except RuntimeError as error:
                print(f"bench: uninstall {agent.name}: {error}")
