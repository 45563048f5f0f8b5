#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the container image of Sidetrack without a container engine.

    build.py --bin build/bin --out build/image       writes sidetrack-VERSION.oci.tar and sidetrack-VERSION.spdx.json
    build.py --bin build/bin --rootfs DIR            only the folder that becomes the image (what the Containerfile copies)

The image holds our programs, stripped, the shared libraries that ldd names (files of Debian packages, whose versions and
licences are recorded), /etc/passwd, and a bill of materials. The same sources, compiler and packages give the same bytes, in whatever folder (make test-reproducible).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import closure  # noqa: E402
import oci  # noqa: E402
import sbom  # noqa: E402

PROGRAMS = ("sidetrack-agent", "sidetrack-engine", "sidetrack-cni", "sidetrackctl", "sidetrack-probe")
LIMIT = 60_000_000
LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
ETC = {
    "passwd": "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
BUILD_PACKAGES = Path(__file__).resolve().parents[1] / "scripts/packages.txt"


def fail(message: str) -> "NoReturn":  # noqa: F821
    print(f"build.py: {message}", file=sys.stderr)
    sys.exit(1)


def place_programs(folder: Path, root: Path) -> list[Path]:
    placed = []
    for name in PROGRAMS:
        source = folder / name
        if not source.exists():
            fail(f"{source} is missing: cmake --build {folder.parent} --target {name}")
        target = root / "usr/bin" / name
        # The linker's build-id is a hash of the debug information, too, which names the folder of the build.
        subprocess.run(["strip", "--strip-all", "--remove-section=.note.gnu.build-id", "-o", str(target), str(source)], check=True)
        target.chmod(0o755)
        placed.append(target)
    return placed


def place_libraries(programs: list[Path], root: Path) -> list[closure.Package]:
    libraries = sorted({library for program in programs for library in closure.libraries(program)})
    for library in libraries:
        name = f"usr/lib64/{LOADER}" if library.name == LOADER else f"{LIBRARY_FOLDER}/{library.name}"
        shutil.copyfile(library.resolve(), root / name)
        (root / name).chmod(0o755)
    packages = sorted({closure.package_of(library) for library in libraries})
    for package in packages:
        licence = Path("/usr/share/doc", package.name, "copyright")
        target = root / "usr/share/doc" / package.name / "copyright"
        target.parent.mkdir(parents=True)
        shutil.copyfile(licence, target)
    return packages


def build_packages() -> list[closure.Package]:
    """What the programs were compiled with, as far as it is installed from packages; the static plugin holds parts of it."""
    names = [line.split()[1] for line in BUILD_PACKAGES.read_text().splitlines() if line.startswith("build\t")]
    packages = []
    for name in [*names, "libc6-dev", "libstdc++-12-dev"]:
        shown = subprocess.run(["dpkg-query", "-W", "-f=${Version}\t${source:Package}", name],
                               capture_output=True, text=True, check=False)
        if shown.returncode == 0 and shown.stdout.count("\t") == 1:
            version, source = shown.stdout.split("\t")
            packages.append(closure.Package(name, version, source))
    return packages


def make_rootfs(folder: Path, root: Path, version: str) -> str:
    """Fills `root` and returns the bill of materials."""
    os.umask(0o022)
    for name in ("etc/sidetrack", "run", "sys/fs", "tmp", "usr/bin", "usr/lib64", "usr/share/sidetrack", "var/lib/sidetrack",
                 LIBRARY_FOLDER):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    programs = place_programs(folder, root)
    packages = place_libraries(programs, root)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    document = sbom.document(version, root, programs, packages, build_packages(), epoch)
    (root / "usr/share/sidetrack/sbom.spdx.json").write_text(document)
    for directory, _, _ in os.walk(root):
        if Path(directory) != root / "tmp":
            os.chmod(directory, 0o755)
    return document


def labels(version: str, revision: str) -> dict[str, str]:
    prefix = "org.opencontainers.image."
    found = {
        prefix + "title": "Sidetrack", prefix + "version": version, prefix + "licenses": sbom.OWN_LICENCE,
        prefix + "description": "Node agent, engine, CNI plugin and CLI of Sidetrack",
    }
    return found | ({prefix + "revision": revision} if revision else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of the built programs")
    parser.add_argument("--out", type=Path, help="folder for the archive and its bill of materials")
    parser.add_argument("--rootfs", type=Path, help="only make this folder, which must not exist")
    parser.add_argument("--name", default="sidetrack.io/sidetrack", help="name of the image, without tag")
    parser.add_argument("--tag", help="default: the version")
    parser.add_argument("--revision", default="", help="commit that the programs were built from")
    options = parser.parse_args()
    if (options.out is None) == (options.rootfs is None):
        parser.error("one of --out and --rootfs is meant")
    shown = subprocess.run([options.bin / "sidetrackctl", "--version"], capture_output=True, text=True, check=True).stdout
    version = shown.split()[-1]
    if options.rootfs is not None:
        options.rootfs.mkdir(parents=True)
        make_rootfs(options.bin, options.rootfs, version)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    archive = options.out / f"sidetrack-{version}.oci.tar"
    name = f"{options.name}:{options.tag or version}"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "rootfs")
        root.mkdir()
        document = make_rootfs(options.bin, root, version)
        # The agent and the engine have to be root: they load programs and enter namespaces. The chart says who runs as what.
        config = {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/usr/bin/sidetrack-agent"], "WorkingDir": "/"}
        digest = oci.write(archive, name, root, config, labels(version, options.revision))
    (options.out / f"sidetrack-{version}.spdx.json").write_text(document)
    size = archive.stat().st_size
    print(f"image: {name}\n  archive   {archive} ({size / 1e6:.1f} MB)\n  manifest  {digest}\n  SBOM      "
          f"{options.out}/sidetrack-{version}.spdx.json")
    if size > LIMIT:
        fail(f"the archive has {size} bytes, more than {LIMIT}")


main()
