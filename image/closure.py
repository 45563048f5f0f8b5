# SPDX-License-Identifier: Apache-2.0
"""Which shared libraries a program needs, from ldd, and which Debian package each comes from, from dpkg."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Package:
    name: str
    version: str
    source: str


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def libraries(program: Path) -> list[Path]:
    """Paths as the loader finds them; nothing for a static program."""
    result = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in result.stderr + result.stdout or "statically linked" in result.stdout:
        return []
    missing = re.findall(r"(\S+) => not found", result.stdout)
    if result.returncode != 0 or missing:
        raise RuntimeError(f"ldd {program}: {', '.join(missing) or result.stderr.strip()} not found")
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", result.stdout)]


def package_of(path: Path) -> Package:
    """The package that has this file; /lib and /usr/lib are one folder in Debian 12, dpkg knows a file by one of them."""
    real = path.resolve()
    for candidate in (path, real, Path(str(real).removeprefix("/usr")), Path("/usr" + str(path))):
        found = subprocess.run(["dpkg-query", "-S", str(candidate)], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            name = found.stdout.split(":", 1)[0].split(",")[0]
            version, source = _run("dpkg-query", "-W", "-f=${Version}\t${source:Package}", f"{name}:amd64").split("\t")
            return Package(name, version, source)
    raise RuntimeError(f"{path} is in no Debian package: an image is made of packages and of our own programs only")
