#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_layers.py ROOT: reports every #include that breaks a rule of rules.py; exit 1 if there is one.

An include in quotes that stands next to its file ("maps.h" in bpf/) is the folder's own.
check_layers.py --self-test: proves on made-up files that violations are found.
"""

import pathlib
import re
import sys
import tempfile

from rules import ROOMS, Room

SOURCES = {".h", ".c", ".cpp", ".def"}
FOLDERS = ("include", "bpf", "agent", "engine", "cni")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path: str) -> Room | None:
    prefixes = [prefix for prefix in ROOMS if path.startswith(prefix)]
    return ROOMS[max(prefixes, key=len)] if prefixes else None


def broken_rule(root: pathlib.Path, path: str, room: Room, quote: str, target: str) -> str | None:
    if target.startswith(("tests/", "docs/", "helm/")):
        return "nothing depends on tests/, docs/ or helm/"
    if any(re.fullmatch(pattern, target) for pattern in room.forbidden):
        return "forbidden here"
    if quote == '"':
        beside = (root / path).parent / target
        if beside.is_file() and ".." not in target:
            return None
        return None if target.startswith(room.project) else f"not one of {', '.join(room.project) or 'none'}"
    if any(re.fullmatch(pattern, target) for pattern in room.system):
        return None
    return f"<> includes allowed here: {', '.join(room.system) or 'none'}"


def check(root: pathlib.Path) -> tuple[int, list[str]]:
    files, findings = 0, []
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            path = file.relative_to(root).as_posix()
            room = room_of(path)
            if file.suffix not in SOURCES or room is None:
                continue
            files += 1
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                match = INCLUDE.match(line)
                why = match and broken_rule(root, path, room, match[1], match[2])
                if why:
                    findings.append(f"{path}:{number}: includes {match[2]}: {why}")
    return files, findings


# file -> (include line, is it a violation)
SAMPLES = {
    "include/sidetrack/abi/types.h": ("#include <linux/bpf.h>", True),
    "include/sidetrack/abi/good.h": ("#include <linux/types.h>", False),
    "include/sidetrack/decide.h": ("#include <stdio.h>", True),
    "bpf/connect.bpf.c": ('#include "agent/policy/policy.h"', True),
    "bpf/good.bpf.c": ("#include <bpf/bpf_helpers.h>", False),
    "agent/policy/policy.cpp": ("#include <sys/stat.h>", True),
    "agent/policy/services.cpp": ('#include "agent/kube/source.h"', True),
    "agent/policy/good.cpp": ('#include "agent/kube/model.h"', False),
    "agent/policy/libbpf.cpp": ("#include <bpf/libbpf.h>", True),
    "agent/kube/files.cpp": ('#include "agent/policy/policy.h"', True),
    "agent/ctl/doctor.cpp": ("#include <bpf/bpf.h>", True),
    "agent/dataplane/good.cpp": ("#include <bpf/libbpf.h>", False),
    "agent/reconcile/lab.cpp": ('#include "tests/lab/lab.h"', True),
    "engine/relay.cpp": ('#include "agent/kube/model.h"', True),
    "engine/good.cpp": ('#include "sidetrack/wire/engine.h"', False),
}


def self_test() -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, (line, _) in SAMPLES.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(line + "\n", encoding="utf-8")
        found = {finding.split(":")[0] for finding in check(root)[1]}
    expected = {path for path, (_, violation) in SAMPLES.items() if violation}
    for path in sorted(found ^ expected):
        print(f"{path}: {SAMPLES[path][0]}: {'not found' if path in expected else 'wrongly found'}")
    print(f"layers self-test: {len(SAMPLES)} samples, {len(expected)} violations, {len(found & expected)} found")
    return 1 if found != expected else 0


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == "--self-test":
        return self_test()
    files, findings = check(pathlib.Path(sys.argv[1]))
    print("\n".join(findings))
    print(f"layers: {files} files, {len(findings)} violations")
    return 1 if findings or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
