#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From the raw rounds in bench.json to a table for people, to the tables of docs/benchmarks.md and to a plot.

report.py BENCH_JSON              prints the table
report.py BENCH_JSON --docs FILE  replaces what stands between the two markers in FILE, and writes the plot and the raw results beside it
"""

import json
import shutil
import sys
from pathlib import Path

from bench_stats import interval_of_median, judge_interval, judge_pairs, judge_rounds, median, spread

CONNECT_BOUNDS = {"control": None, "off": 1.02, "excluded port": 1.03, "excluded CIDR": 1.03, "passthrough": 1.03}
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
COLOURS = {"direct": "#7f7f7f", "sidetrack": "#1f77b4", "haproxy": "#ff7f0e", "x1": "#2ca02c", "x2": "#d62728", "haproxyfast": "#ffbb78",
           "fast": "#9467bd", "handoff": "#17becf", "relayed": "#aec7e8", "e1": "#bcbd22", "e2": "#8c564b", "godirect": "#c7c7c7",
           "gofast": "#c5b0d5", "gohandoff": "#9edae5"}


def workload_title(workload: str, connections: int) -> str:
    names = {"keepalive": "keep-alive", "crr": "connection per request", "bulk": "writes of 128 KiB"}
    return f"{names[workload]}, c={connections}"


def workloads(result: dict) -> list[tuple[str, int]]:
    seen = dict.fromkeys((row["workload"], row["connections"]) for row in [*result.get("load", []), *result.get("paired", [])])
    return list(seen)


def rows_of(result: dict, path: str, workload: str, connections: int, part: str = "load") -> list[dict]:
    rows = [row for row in result.get(part, []) if (row["path"], row["workload"], row["connections"]) == (path, workload, connections)]
    return sorted(rows, key=lambda row: row["round"])


def rate(row: dict) -> float:
    return row["requests"] / row["seconds"]


def cpu_per_100k(row: dict) -> float:
    return row["proxy_cpu_s"] / row["requests_all"] * 1e5


def all_cpu_per_100k(row: dict) -> float:
    return (row["proxy_cpu_s"] + row["server_cpu_s"] + row["client_cpu_s"]) / row["requests_all"] * 1e5


def ratios(result: dict, over: str, workload: str, connections: int, value, of: str = "sidetrack", part: str = "load") -> list[float]:
    """Per round: how many times better `of` is than `over`, by a value of which more is better."""
    pairs = zip(rows_of(result, of, workload, connections, part), rows_of(result, over, workload, connections, part))
    return [value(mine) / value(other) for mine, other in pairs if value(other)]


def part_for(bound: float) -> str:
    """Bounds near 1 are judged on pairs, factors on rounds."""
    return "paired" if 0.9 <= bound <= 1.1 else "load"


VERDICT_HEAD = ["ratio", "between", "of", "bound", "verdict"]


def verdict(values: list[float], relation: str, bound: float, part: str) -> list[str]:
    if part == "paired":
        low, high = interval_of_median(values)
        return [f"{median(values):.3f}", f"{low:.3f}-{high:.3f}", f"{len(values)} pairs, 95 %", f"{relation} {bound}",
                judge_pairs(values, relation, bound)]
    return [f"{median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}", f"{len(values)} rounds, all", f"{relation} {bound}",
            judge_rounds(values, relation, bound)]


def shown(values: list[float], digits: int = 0) -> str:
    if not values:
        return "-"
    s = spread(values)
    return f"{s['median']:,.{digits}f} ({s['min']:,.{digits}f}-{s['max']:,.{digits}f})"


def connect_table(result: dict) -> tuple[list[str], list[list[str]]]:
    head = ["pod", "ns per connection without / with", "ratio of time", "95 % interval", "ratio of CPU", "95 % interval", "pairs", "bound", "verdict"]
    table = []
    for mode, bound in CONNECT_BOUNDS.items():
        pairs = [pair for row in result["connect"] if row["mode"] == mode for pair in row["pairs"]]
        if not pairs:
            continue
        wall = [pair["wall_b"] / pair["wall_a"] for pair in pairs]
        cpu = [pair["cpu_b"] / pair["cpu_a"] for pair in pairs]
        low, high = interval_of_median(wall)
        cpu_low, cpu_high = interval_of_median(cpu)
        without, having = (median([pair[side] for pair in pairs]) for side in ("wall_a", "wall_b"))
        table.append([mode, f"{without:,.0f} / {having:,.0f}", f"{median(wall):.4f}", f"{low:.4f}-{high:.4f}", f"{median(cpu):.4f}",
                      f"{cpu_low:.4f}-{cpu_high:.4f}", str(len(pairs)), f"<= {bound}" if bound else "-",
                      judge_interval(low, high, "<=", bound) if bound else f"what the method is off by: {abs(median(wall) - 1):.2%}"])
    return head, table


def load_table(result: dict, workload: str, connections: int) -> tuple[list[str], list[list[str]]]:
    what = {"keepalive": "requests/s", "crr": "connections/s", "bulk": "writes/s"}[workload]
    head = ["path", what, "p50 us", "p99 us", "proxy CPU s per 10^5", "with client and server", f"Sidetrack's {what} over it, per round"]
    table = []
    for path, title in result["titles"].items():
        rows = rows_of(result, path, workload, connections)
        if not rows:
            continue
        cpu = [cpu_per_100k(row) for row in rows if row["proxy_cpu_s"]]
        over = "" if path == "sidetrack" else shown(ratios(result, path, workload, connections, rate), 2)
        table.append([title, shown([rate(row) for row in rows]), shown([row["p50_us"] for row in rows], 1),
                      shown([row["p99_us"] for row in rows], 1), shown(cpu, 2),
                      shown([all_cpu_per_100k(row) for row in rows], 2), over])
    return head, table


def memory_table(result: dict) -> tuple[list[str], list[list[str]]]:
    head = ["path", "idle connections", "RSS before, KiB", "RSS with them, KiB", "bytes per connection"]
    table = []
    for path in dict.fromkeys(row["path"] for row in result["memory"]):
        rows = [row for row in result["memory"] if row["path"] == path]
        table.append([result["titles"][path], str(rows[0]["connections"]), shown([row["rss_before"] / 1024 for row in rows]),
                      shown([row["rss_after"] / 1024 for row in rows]), shown([row["bytes_per_connection"] for row in rows])])
    return head, table


def verdict_table(result: dict) -> tuple[list[str], list[list[str]]]:
    """Every bound of the redirect: times better."""
    table = []

    def add(over: str, what: str, value, workload: str, connections: int, bound: float) -> None:
        values = ratios(result, over, workload, connections, value, part=part_for(bound))
        relation = ">" if bound == 1 else ">="  # "ahead" is more than level
        if values:
            table.append([result["titles"][over].removeprefix("Sidetrack, "), f"{what}: {workload_title(workload, connections)}",
                          *verdict(values, relation, bound, part_for(bound))])

    for workload, connections in workloads(result):
        if workload == "bulk":
            continue
        measures = {"connections/s" if workload == "crr" else "requests/s": rate, "p50": lambda row: 1 / row["p50_us"],
                    "CPU per request": lambda row: 1 / cpu_per_100k(row)}
        for name, value in measures.items():
            add("haproxy", name, value, workload, connections, 1)
    for path, bound in (("x1", 1.4), ("x2", 2.0), ("e1", 1.4), ("e2", 2.0)):
        for workload, connections in workloads(result):
            if workload == "keepalive":
                add(path, "requests/s", rate, workload, connections, bound)
    if result.get("memory"):
        per = {path: [row["bytes_per_connection"] for row in result["memory"] if row["path"] == path] for path in ("sidetrack", "haproxy")}
        times = [other / max(mine, 1) for mine, other in zip(per["sidetrack"], per["haproxy"])]
        table.append(["HAProxy on the node", "memory per idle connection", *verdict(times, ">", 1, "memory")])  # no noise in it
    return ["Sidetrack's engine against", "in", *VERDICT_HEAD], table


def fast_table(result: dict) -> tuple[list[str], list[list[str]]]:
    """The bounds of the fast path."""
    table = []

    def add(of: str, over: str, workload: str, connections: int, what: str, value, bound: float) -> None:
        part = part_for(bound)
        values = ratios(result, over, workload, connections, value, of, part)
        if not values:
            return
        share = [row["past_tcp"] for row in rows_of(result, of, workload, connections, part)]
        table.append([result["titles"][of], result["titles"][over], f"{what}: {workload_title(workload, connections)}",
                      *verdict(values, "<=" if what == "p50" else ">=", bound, part), f"{median(share):.0%}"])

    def p50(row: dict) -> float:
        return row["p50_us"]

    add("fast", "direct", "keepalive", 64, "requests/s", rate, 1.3)
    add("fast", "direct", "keepalive", 1, "p50", p50, 0.85)
    add("gofast", "godirect", "keepalive", 64, "requests/s", rate, 1.3)
    add("gofast", "godirect", "keepalive", 1, "p50", p50, 0.85)
    add("fast", "direct", "bulk", 1, "writes/s", rate, 2.5)
    add("gohandoff", "gofast", "keepalive", 64, "requests/s", rate, 0.95)
    for connections in (1, 16, 64):
        add("handoff", "fast", "keepalive", connections, "requests/s", rate, 0.95)
        add("handoff", "sidetrack", "keepalive", connections, "requests/s", rate, 1)
        add("relayed", "sidetrack", "keepalive", connections, "requests/s", rate, 1)
        add("handoff", "haproxyfast", "keepalive", connections, "requests/s", rate, 1)
        add("haproxyfast", "haproxy", "keepalive", connections, "requests/s", rate, 1)
        for one, two in (("x1", "x2"), ("e1", "e2")):
            add("handoff", one, "keepalive", connections, "requests/s", rate, 2)
            add("handoff", two, "keepalive", connections, "requests/s", rate, 4)
    add("fast", "passed", "crr", 16, "connections/s", rate, 0.98)
    add("handoff", "sidetrack", "crr", 16, "connections/s", rate, 0.98)
    return ["path", "against", "in", *VERDICT_HEAD, "bytes past TCP"], table


def sections(result: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    found = []
    if result.get("connect"):
        found.append(("Connect cost, against no agent", *connect_table(result)))
    if result.get("load") or result.get("paired"):
        found.append(("Bounds of the redirect", *verdict_table(result)))
        found.append(("Bounds of the fast path", *fast_table(result)))
    if result.get("load"):
        found += [(workload_title(*key)[0].upper() + workload_title(*key)[1:], *load_table(result, *key)) for key in workloads(result)]
    if result.get("memory"):
        found.append(("Memory per idle connection", *memory_table(result)))
    return found


def description(result: dict) -> str:
    machine = result["machine"]
    return (f"{machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}, commit {machine['commit']}, HAProxy "
            f"{machine['haproxy']}, {machine['date']}{', quick run' if result['quick'] else ''}; the run took {result['seconds']:.0f} s. "
            f"Other programs used {result['busy_before']:.0%} of the machine just before it and {result['busy_after']:.0%} just after.")


def text(result: dict) -> str:
    lines = [description(result)]
    for title, head, table in sections(result):
        widths = [max(len(row[i]) for row in [head, *table]) for i in range(len(head))]
        lines += ["", f"== {title}"]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *table]]
    return "\n".join(lines)


def markdown(result: dict) -> str:
    lines = [description(result), "", "![requests and connections per second](benchmarks.svg)", "",
             "Raw results: [benchmarks.json](benchmarks.json). Medians over rounds, in brackets minimum and maximum."]
    for title, head, table in sections(result):
        lines += ["", f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") or " " for cell in row) + " |" for row in table]
    return "\n".join(lines)


def svg(result: dict) -> str:
    """Bars of the median rate by workload and path, with a line from minimum to maximum."""
    keys, titles = workloads(result) if result.get("load") else [], result.get("titles", {})
    bar, gap, left, width, top = 16, 26, 270, 500, 30
    bars = {key: {path: rows_of(result, path, *key) for path in titles if rows_of(result, path, *key)} for key in keys}
    height = top + sum(len(of_key) * bar + gap for of_key in bars.values()) + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 190}" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="100%" height="100%" fill="white"/><text x="8" y="18">requests/s, connections/s, writes/s: median of rounds, '
             f'line = minimum to maximum ({result["machine"]["cpu"]}, {result["machine"]["cores"]} cores)</text>']
    y = top
    for key in keys:
        rates = {path: [rate(row) for row in rows] for path, rows in bars[key].items()}
        scale = width / max(max(values) for values in rates.values())
        y += gap
        parts.append(f'<text x="8" y="{y - 6}" font-weight="bold">{workload_title(*key)}</text>')
        for path, values in rates.items():
            s, middle = spread(values), y + bar / 2
            parts.append(f'<text x="{left - 6}" y="{middle + 4}" text-anchor="end">{titles[path]}</text>'
                         f'<rect x="{left}" y="{y + 1}" width="{s["median"] * scale:.1f}" height="{bar - 3}" fill="{COLOURS[path]}"/>'
                         f'<path d="M{left + s["min"] * scale:.1f} {middle} H{left + s["max"] * scale:.1f}" stroke="black"/>'
                         f'<text x="{left + s["max"] * scale + 5:.1f}" y="{middle + 4}">{s["median"]:,.0f}</text>')
            y += bar
    return "\n".join([*parts, "</svg>"]) + "\n"


def update_docs(source: Path, result: dict, page: Path) -> None:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page}: no markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(result)}\n{END}{after}")
    page.with_name("benchmarks.svg").write_text(svg(result))
    shutil.copyfile(source, page.with_name("benchmarks.json"))


def main() -> None:
    if len(sys.argv) not in (2, 4) or (len(sys.argv) == 4 and sys.argv[2] != "--docs"):
        raise SystemExit(__doc__)
    source = Path(sys.argv[1])
    result = json.loads(source.read_text())
    if len(sys.argv) == 2:
        print(text(result))
    else:
        update_docs(source, result, Path(sys.argv[3]))


if __name__ == "__main__":
    main()
