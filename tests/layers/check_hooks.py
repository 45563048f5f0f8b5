#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_hooks.py ROOT: every program of bpf/*.bpf.c stands in one row of bpf/README.md, with its section; exit 1 if not.

A row's first cell names programs, its second sections. A section that several programs share stands there once.
"""

import pathlib
import re
import sys

PROGRAM = re.compile(r'^SEC\("([^"]+)"\)\n(?:int (?:BPF_PROG\()?(\w+))', re.MULTILINE)


def programs_of(root: pathlib.Path) -> dict[str, str]:
    found = {}
    for file in sorted((root / "bpf").glob("*.bpf.c")):
        found.update({name: section for section, name in PROGRAM.findall(file.read_text(encoding="utf-8"))})
    return found


def rows_of(root: pathlib.Path) -> list[tuple[list[str], list[str]]]:
    rows = []
    for line in (root / "bpf/README.md").read_text(encoding="utf-8").splitlines():
        cells = line.split("|")
        if len(cells) > 3 and "`st_" in cells[1]:
            rows.append((re.findall(r"`(\w+)`", cells[1]), re.findall(r"`([^`]+)`", cells[2])))
    return rows


def check(root: pathlib.Path) -> list[str]:
    programs, rows = programs_of(root), rows_of(root)
    findings = []
    for name, section in programs.items():
        places = [sections for names, sections in rows if name in names]
        if len(places) != 1:
            findings.append(f"{name}: in {len(places)} rows of bpf/README.md")
        elif section not in places[0]:
            findings.append(f"{name}: its section is {section}, bpf/README.md says {', '.join(places[0])}")
    for names, sections in rows:
        findings += [f"{name}: in bpf/README.md, but no program" for name in names if name not in programs]
        used = {programs.get(name) for name in names}
        findings += [f"{section}: in bpf/README.md, but of none of {', '.join(names)}" for section in sections if section not in used]
    return findings if programs else ["no program found"]


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    findings = check(pathlib.Path(sys.argv[1]))
    print("\n".join(findings + [f"hooks: {len(findings)} findings"]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
