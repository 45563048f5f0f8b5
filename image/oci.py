# SPDX-License-Identifier: Apache-2.0
"""Writes an OCI image archive from a folder: the same folder gives the same bytes.

Standard library only; no container engine, no registry. Owners are root, times are zero, entries are sorted.
Load an archive with `ctr -n k8s.io images import FILE`, `podman load -i FILE` or `skopeo copy oci-archive:FILE ...`.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

_TYPE = "application/vnd.oci.image."
_EPOCH = "1970-01-01T00:00:00Z"


def _entries(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        found += [Path(folder, name) for name in folders + files]
    return sorted(found)


def layer(root: Path) -> bytes:
    """The folder as an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _entries(root):
            info = archive.gettarinfo(path, str(path.relative_to(root)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "root", "root"
            if info.isreg() or info.islnk():
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class _Blobs(dict[str, bytes]):
    def put(self, data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        self[digest] = data
        return {"mediaType": _TYPE + kind, "digest": "sha256:" + digest, "size": len(data)}


def _packed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as packed:
        packed.write(data)
    return buffer.getvalue()


def write(out: Path, name: str, root: Path, config: dict[str, object], labels: dict[str, str] | None = None) -> str:
    """Writes the archive and returns the digest of its manifest.

    `name` is a full reference with a tag; `config` has the keys of the image specification (Env, Entrypoint, User ...).
    """
    labels = labels or {}
    blobs = _Blobs()
    plain = layer(root)
    layers = [blobs.put(_packed(plain), "layer.v1.tar+gzip")]
    image = {
        "architecture": "amd64", "os": "linux", "created": _EPOCH,
        "config": {**config, **({"Labels": labels} if labels else {})},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
        "history": [{"created": _EPOCH, "created_by": "image/oci.py"}],
    }
    manifest = {
        "schemaVersion": 2, "mediaType": _TYPE + "manifest.v1+json", "layers": layers,
        "config": blobs.put(_json(image), "config.v1+json"), **({"annotations": labels} if labels else {}),
    }
    entry = blobs.put(_json(manifest), "manifest.v1+json")
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    entry["annotations"] = {
        "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]}
    index = {"schemaVersion": 2, "mediaType": _TYPE + "index.v1+json", "manifests": [entry]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {"blobs/sha256/" + digest: blobs[digest] for digest in sorted(blobs)}
    temporary = out.with_name(out.name + ".new")
    with tarfile.open(temporary, "w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    temporary.replace(out)
    return str(entry["digest"])
