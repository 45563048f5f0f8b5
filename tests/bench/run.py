#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: measures side by side, in rounds, and writes build/bench/bench.json, bench.svg and a table.

run.py BUILD_FOLDER [OUTPUT_FOLDER]. Environment: BENCH_QUICK=1 (three minutes, for a look), BENCH_ONLY=connect|memory|paired|load, KEEP_LOGS=1.
Exit code 0 unless something failed technically: bounds are reported, not enforced.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import report
from bench_lab import Lab, run
from competitors import PORTS, Competitors, Path_
from held import HeldClient, bind_server, cpu_seconds, load_command, measure_in_turn

QUICK = os.environ.get("BENCH_QUICK", "") not in ("", "0")
WORKLOADS = (("keepalive", 1), ("keepalive", 16), ("keepalive", 64), ("crr", 16), ("bulk", 1))
# What bounds near 1 compare, measured in pairs beside it.
PAIRED = (("keepalive", 1, ("sidetrack", "haproxy", "haproxyfast", "fast", "handoff", "relayed")),
          ("keepalive", 16, ("sidetrack", "haproxy", "haproxyfast", "fast", "handoff", "relayed")),
          ("keepalive", 64, ("sidetrack", "haproxy", "haproxyfast", "fast", "handoff", "relayed", "gofast", "gohandoff")),
          ("crr", 16, ("haproxy", "sidetrack", "handoff", "passed", "fast")))
WARMUP_S = {True: 1.8, False: 0.1}  # a fast path arms one second after it was adopted
# mode, its pod (None: no agent on either side), the first of its two ports
CONNECT_MODES = (("control", None, 7000), ("off", "off", 7010), ("excluded port", "excluded", 7020),
                 ("excluded CIDR", "excludedcidr", 7030), ("passthrough", "passthrough", 7040))


def plan() -> dict:
    if QUICK:
        return {"connect_rounds": 2, "pairs": 13, "slice_ms": 50, "load_rounds": 2, "load_s": 0.8, "paired_rounds": 6, "paired_s": 0.2,
                "idle": 2000}
    return {"connect_rounds": 4, "pairs": 50, "slice_ms": 60, "load_rounds": 4, "load_s": 1.8, "paired_rounds": 40, "paired_s": 0.6,
            "idle": 4000}


def machine(root: Path) -> dict:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "commit": commit.stdout.strip(),
            "haproxy": run("haproxy", "-v").split()[2], "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def busy_share(seconds: float = 1.0) -> float:
    """Which part of the machine others use now."""
    def read() -> list[int]:
        return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    before = read()
    time.sleep(seconds)
    spent = [after - earlier for earlier, after in zip(before, read())]
    return 1 - (spent[3] + spent[4]) / max(sum(spent), 1)


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} is gone")


class Bench:
    def __init__(self, competitors: Competitors) -> None:
        self.all = competitors
        self.lab = competitors.lab
        self.load_program = competitors.programs / "st_bench_load"
        self.plan = plan()

    def connect_cost(self) -> list[dict]:
        results = []
        for round_number in range(self.plan["connect_rounds"]):
            for mode, pod_name, port in CONNECT_MODES:
                say(f"connect cost, round {round_number + 1}: {mode}")
                cgroups = [self.lab.cgroup("plain"), self.lab.cgroup("mesh/pods" if pod_name else "plain2")]
                swapped = round_number % 2 == 1
                answer = self.lab.ask(
                    "connect", "plain", pod_name or "off", self.all.programs / "st_bench_connect", self.all.pods["server"], str(port),
                    str(self.plan["pairs"]), str(self.plan["slice_ms"]), str(round_number // 2 % (os.cpu_count() or 1)),
                    self.lab.netns_path("server"), *(reversed(cgroups) if swapped else cgroups))
                pairs = [swap_sides(pair) for pair in answer["pairs"]] if swapped else answer["pairs"]
                results.append({"mode": mode, "round": round_number, "pairs": pairs})
        return results

    def load(self) -> list[dict]:
        results = []
        for round_number in range(self.plan["load_rounds"]):
            for workload, connections in WORKLOADS:
                say(f"load, round {round_number + 1}: {workload} c={connections}")
                order = [path for path in self.all.paths.values() if not path.only or (workload, connections) in path.only]
                for path in order if round_number % 2 == 0 else reversed(order):
                    measured = self.measure(path, workload, connections, place(workload, connections, round_number))
                    results.append({"path": path.name, "workload": workload, "connections": connections, "round": round_number, **measured})
        return results

    def measure(self, path: Path_, workload: str, connections: int, cpus: tuple[set[int], set[int]]) -> dict:
        reasons = path.agent.reasons() if path.agent else {}
        past = path.agent.bytes_by_path() if path.agent else {}
        pids = [path.server, *path.proxies]
        cpu = [cpu_seconds(pid) for pid in pids]
        bind_server(path, cpus[1])
        answer = self.lab.ask("load", path.cgroup, path.client, *load_command(
            self.load_program, path, workload, connections, cpus[0], self.plan["load_s"], WARMUP_S[path.fast and workload != "crr"]))
        server, *proxies = [cpu_seconds(pid) - before for pid, before in zip(pids, cpu)]
        answer.update(proxy_cpu_s=sum(proxies), server_cpu_s=server)
        if answer["errors"]:
            raise RuntimeError(f"{path.name} {workload} c={connections}: {answer['errors']} requests failed")
        if path.agent:
            check_reasons(path, answer["opened"], reasons, path.agent.reasons())
            answer["past_tcp"] = share_past_tcp(past, path.agent.bytes_by_path())
        return answer

    def paired(self) -> list[dict]:
        results = []
        for workload, connections, names in PAIRED:
            say(f"pairs: {workload} c={connections}, {self.plan['paired_rounds']} rounds")
            paths = [self.all.paths[name] for name in names if name in self.all.paths]

            def hold(number: int) -> list[HeldClient]:
                return [HeldClient(self.lab, self.load_program, path, workload, connections, place(workload, connections, number)) for path in paths]

            before = {path.name: (path.agent.reasons(), path.agent.bytes_by_path()) for path in paths}
            rows, opened = measure_in_turn(hold, self.plan["paired_rounds"], self.plan["paired_s"])
            for path in paths:
                reasons, past = before[path.name]
                check_reasons(path, opened[path.name], reasons, path.agent.reasons())
                # Of all paths of its agent: pod to pod and through the engine share one.
                share = share_past_tcp(past, path.agent.bytes_by_path())
                results += [{"workload": workload, "connections": connections, "past_tcp": share, **row} for row in rows if row["path"] == path.name]
        return results

    def memory(self) -> list[dict]:
        results = []
        for name in ("sidetrack", "haproxy"):
            say(f"memory: {name}, {self.plan['idle']} idle connections")
            results.append({"path": name, **self.idle_memory(self.all.paths[name])})
        return results

    def idle_memory(self, path: Path_) -> dict:
        count = self.plan["idle"]
        # What a first connection brings to life (threads' arenas, buffers) is no cost of each.
        self.lab.ask("load", path.cgroup, path.client, self.load_program, "keepalive", path.target, str(path.port), str(PORTS), "64", "0.2", "0")
        time.sleep(0.5)
        before = sum(resident_bytes(pid) for pid in path.proxies)
        holder = self.lab.start("idle", path.cgroup, path.client, self.load_program, "idle", path.target, str(path.port), str(PORTS),
                                str(count), "0", "0", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = holder.stdout.readline()
        if not line:
            raise RuntimeError(f"idle connections: {self.lab.log('idle')}")
        time.sleep(1)
        after = sum(resident_bytes(pid) for pid in path.proxies)
        holder.stdin.close()
        holder.wait(30)
        self.lab.processes.remove(holder)
        return {"connections": count, "rss_before": before, "rss_after": after, "bytes_per_connection": (after - before) / count}


def place(workload: str, connections: int, round_number: int) -> tuple[set[int], set[int]]:
    """The CPUs of client and server. One request after the other has one thread at work at a time, and where the scheduler happened to leave the
    three of them (it does not move them again) decides more than what they do: all paths get the same place, together or apart."""
    everywhere = os.sched_getaffinity(0)
    if workload != "keepalive" or connections != 1 or len(everywhere) < 2:
        return everywhere, everywhere
    first, second = sorted(everywhere)[:2]
    return {first}, {first} if round_number % 2 == 0 else {second}


def swap_sides(pair: dict) -> dict:
    """Which side has the first listener, and the port, must not decide: every other round they change places."""
    return {**pair, "wall_a": pair["wall_b"], "wall_b": pair["wall_a"], "cpu_a": pair["cpu_b"], "cpu_b": pair["cpu_a"]}


def share_past_tcp(before: dict[str, int], after: dict[str, int]) -> float:
    """Of the bytes of the connections that closed meanwhile, warm-up included."""
    grown = {path: after[path] - before.get(path, 0) for path in after}
    return (grown.get("fast", 0) + grown.get("handoff", 0)) / max(sum(grown.values()), 1)


def check_reasons(path: Path_, opened: int, before: dict[str, int], after: dict[str, int]) -> None:
    """A connection that went direct (its ports used up, the engine late) would be counted as the proxy's speed."""
    grown = {reason: after.get(reason, 0) - before.get(reason, 0) for reason in after}
    expected = grown.get(path.reason, 0)
    others = {reason: count for reason, count in grown.items()
              if count and reason in ("port_budget", "engine_down", "engine_full", "internal_error")}
    if expected < opened or others:
        raise RuntimeError(f"{path.name}: of {opened} connections {expected} were {path.reason}; others: {others}")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure_all(bench: Bench) -> dict:
    only = os.environ.get("BENCH_ONLY", "")
    # Memory comes before the load: a heap that has grown once takes new connections for nothing.
    parts = {"connect": bench.connect_cost, "memory": bench.memory, "paired": bench.paired, "load": bench.load}
    return {name: part() for name, part in parts.items() if not only or only == name}


def main() -> int:
    if os.geteuid() != 0:
        say("needs root: it makes network namespaces and attaches BPF programs")
        return 2
    root = Path(__file__).resolve().parents[2]
    build = Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve()
    output = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else build / "bench"
    output.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    started = time.monotonic()
    result = {"format": 1, "quick": QUICK, "machine": machine(root), "plan": plan(),
              "titles": {}, "busy_before": busy_share()}
    lab = Lab()
    competitors = Competitors(lab, build / "bin", build / "bench")
    try:
        lab.open()
        competitors.open()
        result["titles"] = {path.name: path.title for path in competitors.paths.values()}
        result.update(measure_all(Bench(competitors)))
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        say(f"failed: {error}")
        return 1
    finally:
        competitors.close()
        lab.close()
    result["busy_after"] = busy_share()
    result["seconds"] = round(time.monotonic() - started, 1)
    (output / "bench.json").write_text(json.dumps(result) + "\n")
    (output / "bench.svg").write_text(report.svg(result))
    print(report.text(result))
    say(f"{result['seconds']} s; raw results {output}/bench.json, plot {output}/bench.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
