#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""image_test.py BIN: the image that image/build.py makes of the programs in BIN."""

import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import string
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "image"))
import closure  # noqa: E402
import oci  # noqa: E402

BIN = Path()
SKIPPED = 77
PROGRAMS = {"sidetrack-agent", "sidetrack-engine", "sidetrack-cni", "sidetrackctl", "sidetrack-probe"}
LIMIT = 60_000_000


def build(folder: Path) -> tuple[Path, Path]:
    """Archive and bill of materials."""
    subprocess.run([sys.executable, "-B", str(ROOT / "image/build.py"), "--bin", str(BIN), "--out", str(folder)],
                   check=True, stdout=subprocess.DEVNULL)
    (archive,), (document,) = folder.glob("*.oci.tar"), folder.glob("*.spdx.json")
    return archive, document


class Stage:
    """The last stage of a Containerfile, as the image specification has it; the commands of the stage before."""

    def __init__(self, file: Path, values: dict[str, str]):
        self.base, self.copies, self.commands_of_build = "", [], []
        self.config = {}
        known = {}
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        for instruction in filter(None, "\n".join(lines).replace("\\\n", " ").splitlines()):
            word, rest = instruction.split(maxsplit=1)
            if word == "FROM":
                self.base, self.copies, self.config, known = rest.split()[0], [], {}, {}
            elif word == "ARG":
                known[rest] = values.get(rest, "")
            elif word == "RUN":
                self.commands_of_build += [command.strip() for command in rest.split("&&")]
            elif word == "COPY":
                self.copies.append(rest)
            elif word == "ENV":
                self.config.setdefault("Env", []).append(rest)
            elif word == "WORKDIR":
                self.config["WorkingDir"] = rest
            elif word == "ENTRYPOINT":
                self.config["Entrypoint"] = json.loads(rest)
            elif word == "LABEL":
                pairs = (one.split("=", 1) for one in shlex.split(rest))
                self.config.setdefault("Labels", {}).update({key: string.Template(value).substitute(known) for key, value in pairs})
            else:
                raise AssertionError(f"{file}: {word} is not known here")


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Path(tempfile.mkdtemp(prefix="sidetrack-image-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch)
        (cls.scratch / "first").mkdir()
        cls.archive, cls.document = build(cls.scratch / "first")
        with tarfile.open(cls.archive) as archive:
            cls.files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
        cls.index = json.loads(cls.files["index.json"])
        cls.manifest = json.loads(cls.blob(cls.index["manifests"][0]))
        cls.config = json.loads(cls.blob(cls.manifest["config"]))
        cls.root = cls.scratch / "root"
        cls.layer = gzip.decompress(cls.blob(cls.manifest["layers"][0]))
        with tarfile.open(fileobj=io.BytesIO(cls.layer)) as layer:
            cls.entries = layer.getmembers()
            layer.extractall(cls.root)

    @classmethod
    def blob(cls, descriptor):
        return cls.files["blobs/" + descriptor["digest"].replace(":", "/")]

    def inside(self, *command):
        """Runs a program with the image's files as its root and nothing else of this machine."""
        def enter():
            os.chroot(self.root)
            os.chdir("/")
        return subprocess.run(command, preexec_fn=enter, env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False)

    def test_every_digest_and_size_is_right(self):
        for descriptor in (self.index["manifests"][0], self.manifest["config"], *self.manifest["layers"]):
            data = self.blob(descriptor)
            self.assertEqual(descriptor["digest"], "sha256:" + hashlib.sha256(data).hexdigest())
            self.assertEqual(descriptor["size"], len(data))
        self.assertEqual(self.config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(self.layer).hexdigest()])

    def test_it_is_for_linux_amd64_and_labelled(self):
        self.assertEqual((self.config["os"], self.config["architecture"]), ("linux", "amd64"))
        labels = self.config["config"]["Labels"]
        version = subprocess.run([BIN / "sidetrackctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        self.assertEqual(labels["org.opencontainers.image.version"], version)
        self.assertTrue({"org.opencontainers.image.title", "org.opencontainers.image.licenses"} <= labels.keys())

    def test_a_second_build_has_the_same_bytes(self):
        # Another folder, other times and another umask.
        copy = self.scratch / "bin"
        shutil.copytree(BIN, copy, ignore=lambda _, names: [name for name in names if name not in PROGRAMS])
        for file in copy.iterdir():
            os.utime(file, (1, 1))
        (self.scratch / "second").mkdir()
        before = os.umask(0o077)
        try:
            subprocess.run([sys.executable, "-B", str(ROOT / "image/build.py"), "--bin", str(copy), "--out", str(self.scratch / "second")],
                           check=True, stdout=subprocess.DEVNULL)
        finally:
            os.umask(before)
        second = self.scratch / "second"
        self.assertEqual(self.archive.read_bytes(), (second / self.archive.name).read_bytes())
        self.assertEqual(self.document.read_bytes(), (second / self.document.name).read_bytes())

    def test_it_is_small(self):
        self.assertLess(self.archive.stat().st_size, LIMIT)

    def test_every_program_runs_in_it(self):
        for program in sorted(PROGRAMS):
            with self.subTest(program):
                result = self.inside(f"/usr/bin/{program}", "--version")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn(program, result.stdout)

    def test_names_are_resolved_in_it(self):
        (self.root / "etc/hosts").write_text("127.0.0.7 seven\n")
        result = self.inside("/usr/bin/sidetrack-probe", "check", "--namespace=a", "--pod=b", "--patience=0",
                             "--admin-socket=/none.sock", "--expect=redirected=seven:1")
        self.assertIn("connect to 127.0.0.7:1", result.stdout)

    def test_the_plugin_needs_no_library(self):
        self.assertEqual(closure.libraries(self.root / "usr/bin/sidetrack-cni"), [])
        self.assertNotEqual(closure.libraries(self.root / "usr/bin/sidetrackctl"), [])

    def test_files_belong_to_root_and_only_tmp_is_for_all(self):
        for entry in self.entries:
            self.assertEqual((entry.uid, entry.gid, entry.mtime), (0, 0, 0), entry.name)
            self.assertFalse(entry.mode & 0o6000, entry.name)
            if entry.mode & 0o002 and not entry.issym():
                self.assertEqual(entry.name, "tmp")

    def test_it_has_an_ordinary_user(self):
        self.assertIn("nonroot:x:65532:65532:", (self.root / "etc/passwd").read_text())

    def test_the_bill_of_materials_names_every_library(self):
        inside = (self.root / "usr/share/sidetrack/sbom.spdx.json").read_text()
        self.assertEqual(inside, self.document.read_text())
        document = json.loads(inside)
        self.assertEqual(document["spdxVersion"], "SPDX-2.3")
        packages = {one["name"]: one["versionInfo"] for one in document["packages"]}
        for library in (self.root / "usr/lib/x86_64-linux-gnu").iterdir():
            owners = [name for name in packages if (self.root / "usr/share/doc" / name / "copyright").exists() and self.owns(name, library.name)]
            self.assertEqual(len(owners), 1, library.name)
        identities = {one["SPDXID"] for one in document["packages"] + document["files"]} | {"SPDXRef-DOCUMENT"}
        for link in document["relationships"]:
            self.assertLessEqual({link["spdxElementId"], link["relatedSpdxElement"]}, identities)
        for file in document["files"]:
            data = (self.root / file["fileName"]).read_bytes()
            self.assertIn({"algorithm": "SHA256", "checksumValue": hashlib.sha256(data).hexdigest()}, file["checksums"])

    @staticmethod
    def owns(package, library):
        files = subprocess.run(["dpkg-query", "-L", f"{package}:amd64"], capture_output=True, text=True, check=False).stdout
        return f"/{library}\n" in files

    def test_the_containerfile_has_the_same_configuration(self):
        revision = "0" * 40
        labels = self.config["config"]["Labels"] | {"org.opencontainers.image.revision": revision}
        stage = Stage(ROOT / "image/Containerfile", {"VERSION": labels["org.opencontainers.image.version"], "REVISION": revision})
        self.assertEqual(stage.base, "scratch")
        self.assertEqual(stage.config, self.config["config"] | {"Labels": labels})

    def test_the_containerfile_copies_what_the_script_makes(self):
        stage = Stage(ROOT / "image/Containerfile", {})
        self.assertEqual(stage.copies, ["--from=build /rootfs /"])
        made = [shlex.split(command) for command in stage.commands_of_build if "image/build.py" in command]
        self.assertEqual(len(made), 1)
        script, arguments = made[0][2], made[0][3:]
        places = {"build/bin": str(BIN), "/rootfs": str(self.scratch / "rootfs")}
        subprocess.run([sys.executable, "-B", str(ROOT / script), *(places.get(one, one) for one in arguments)], check=True)
        with tarfile.open(fileobj=io.BytesIO(oci.layer(self.scratch / "rootfs"))) as layer:
            self.assertEqual([self.essence(layer, one) for one in layer], self.essences_of_layer())

    def essences_of_layer(self):
        with tarfile.open(fileobj=io.BytesIO(self.layer)) as layer:
            return [self.essence(layer, one) for one in layer]

    @staticmethod
    def essence(archive, entry):
        content = hashlib.sha256(archive.extractfile(entry).read()).hexdigest() if entry.isreg() else entry.linkname
        return entry.name, entry.type, oct(entry.mode), content

    def test_no_path_of_the_build_is_in_it(self):
        for program in PROGRAMS:
            data = (self.root / "usr/bin" / program).read_bytes()
            for folder in (ROOT, BIN.parent):
                self.assertNotIn(str(folder).encode() + b"/", data, program)
            # Nor a hash of one.
            self.assertNotIn(b".note.gnu.build-id", data, program)


if __name__ == "__main__":
    BIN = Path(sys.argv.pop(1)).resolve()
    if os.geteuid() != 0:
        print("skipped: needs root: the programs are run in a chroot")
        sys.exit(SKIPPED)
    unittest.main()
