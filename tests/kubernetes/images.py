#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""images.py FOLDER: the images of the test cluster besides the product's own: pause, and tools with busybox and curl.

Made of this machine's packages, without a registry; what is there and newer than its sources is kept.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "image"))
import closure  # noqa: E402
import oci  # noqa: E402

PATH = "PATH=/usr/bin:/bin"
NAME_SERVICES = ("/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib/x86_64-linux-gnu/libnss_dns.so.2")


def compile_static(source: Path, to: Path, *options: str) -> None:
    subprocess.run(["gcc", "-Os", "-static", "-s", "-Wall", "-Wextra", *options, "-o", str(to), str(source)], check=True)


def place(root: Path, file: Path) -> None:
    target = root / str(file).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target, follow_symlinks=True)


def pause(root: Path) -> dict[str, object]:
    compile_static(HERE / "programs/pause.c", root / "pause")
    return {"Entrypoint": ["/pause"]}


def tools(root: Path) -> dict[str, object]:
    for folder in ("bin", "etc", "tmp", "usr/bin", "www"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    curl = Path("/usr/bin/curl")
    for file in (curl, *closure.libraries(curl), *map(Path, NAME_SERVICES)):
        place(root, file)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    compile_static(HERE / "programs/traffic.c", root / "bin/traffic", "-D_GNU_SOURCE", "-pthread")
    compile_static(HERE / "programs/first_connect.c", root / "bin/first_connect", "-nostdlib", "-fno-stack-protector")
    return {"Cmd": ["sh"], "Env": [PATH]}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in (pause, tools):
        out = folder / f"{make.__name__}.tar"
        sources = [Path(__file__), *(HERE / "programs").iterdir()]
        if out.exists() and out.stat().st_mtime > max(source.stat().st_mtime for source in sources):
            continue
        with tempfile.TemporaryDirectory() as root:
            config = make(Path(root))
            oci.write(out, f"sidetrack.test/{make.__name__}:1", Path(root), config)
        print(f"images.py: {out} {out.stat().st_size / 1e6:.1f} MB")


main()
