# SPDX-License-Identifier: Apache-2.0
"""Pairs for the bounds near 1: short measurements of some paths in turn, each round on connections of its own.

The clients of a round are started a round ahead and keep their connections until it is their turn: a fast path is armed by then, and no
measurement waits for it.
"""

import json
import os
import subprocess
from pathlib import Path

from bench_lab import Lab
from competitors import PORTS, Path_

WARMUP_S = 0.1
RESUME_S = 0.25  # not counted: what has waited for its turn is slower at first, and not every proxy by as much


def cpu_seconds(pid: int) -> float:
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def load_command(program: Path, path: Path_, workload: str, connections: int, cpus: set[int], seconds: float, warmup: float) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, sorted(cpus))), str(program), workload, path.target, str(path.port), str(PORTS),
            str(connections), str(seconds), str(warmup)]


def bind_server(path: Path_, cpus: set[int]) -> None:
    for thread in Path(f"/proc/{path.server}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


class HeldClient:
    """A load generator that has warmed up and waits. Close it."""

    def __init__(self, lab: Lab, program: Path, path: Path_, workload: str, connections: int, cpus: tuple[set[int], set[int]]) -> None:
        self.lab, self.path, self.cpus = lab, path, cpus
        self.opened = 0
        bind_server(path, cpus[1])
        self.process = lab.start("load", path.cgroup, path.client, *load_command(program, path, workload, connections, cpus[0], 0, WARMUP_S),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.path.name}: {self.lab.log('load')}")
        return json.loads(line)

    def measure(self, seconds: float) -> dict:
        bind_server(self.path, self.cpus[1])
        before = sum(cpu_seconds(pid) for pid in self.path.proxies)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.answer()
        spent = sum(cpu_seconds(pid) for pid in self.path.proxies) - before
        if answer["errors"]:
            raise RuntimeError(f"{self.path.name}: {answer['errors']} requests failed")
        self.opened = answer["opened"]
        return {"requests": answer["requests"], "requests_all": answer["requests"], "seconds": answer["seconds"],
                "p50_us": answer["p50_us"], "proxy_cpu_s": spent}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.lab.processes.remove(self.process)


def measure_in_turn(hold, rounds: int, seconds: float) -> tuple[list[dict], dict[str, int]]:
    """`hold(round)`: the clients of a round. A round before the first only warms. Rows, and how many connections each path has opened."""
    rows: list[dict] = []
    opened: dict[str, int] = {}
    waiting = hold(-1)
    for number in range(-1, rounds):
        clients, waiting = waiting, hold(number + 1) if number + 1 < rounds else []
        for client in clients if number % 2 == 0 else reversed(clients):
            client.measure(RESUME_S)
            row = client.measure(seconds)
            if number >= 0:
                rows.append({"path": client.path.name, "round": number, **row})
        for client in clients:
            client.close()
            opened[client.path.name] = opened.get(client.path.name, 0) + client.opened
    return rows, opened
