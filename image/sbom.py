# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of an image, SPDX 2.3 as JSON. The same content gives the same document."""

import datetime
import hashlib
import json
import re
from pathlib import Path

from closure import Package

OWN_LICENCE = "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"


def _id(*words: str) -> str:
    return "SPDXRef-" + "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word) for word in words)


def _debian(package: Package) -> dict[str, object]:
    return {
        "SPDXID": _id("Package", package.name), "name": package.name, "versionInfo": package.version,
        "supplier": "Organization: Debian", "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
        "sourceInfo": f"built from the Debian source package {package.source}",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": f"pkg:deb/debian/{package.name}@{package.version}?arch=amd64"}],
    }


def _file(root: Path, path: Path) -> dict[str, object]:
    name = "/" + str(path.relative_to(root))
    data = path.read_bytes()
    return {
        "SPDXID": _id("File", name), "fileName": "." + name, "licenseConcluded": OWN_LICENCE,
        "licenseInfoInFiles": ["NOASSERTION"], "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": kind, "checksumValue": hashlib.new(kind.lower(), data).hexdigest()}
                      for kind in ("SHA1", "SHA256")],
    }


def document(version: str, root: Path, programs: list[Path], run: list[Package], build: list[Package], epoch: int) -> str:
    """`programs`: ours, below `root`; `run`: packages whose files are in the image; `build`: what it was built with."""
    own = {
        "SPDXID": _id("Package", "sidetrack"), "name": "sidetrack", "versionInfo": version,
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": OWN_LICENCE,
        "licenseDeclared": OWN_LICENCE, "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER",
    }
    files = [_file(root, path) for path in sorted(programs)]
    links = [("SPDXRef-DOCUMENT", "DESCRIBES", own["SPDXID"])]
    links += [(own["SPDXID"], "CONTAINS", file["SPDXID"]) for file in files]
    links += [(own["SPDXID"], "CONTAINS", _id("Package", package.name)) for package in run]
    links += [(_id("Package", package.name), "BUILD_DEPENDENCY_OF", own["SPDXID"]) for package in build]
    content = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"sidetrack-{version}",
        "packages": [own] + [_debian(package) for package in sorted({*run, *build})], "files": files,
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in links],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["documentNamespace"] = f"https://sidetrack.io/spdx/sidetrack-{version}-{digest[:16]}"
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    content["creationInfo"] = {"created": created, "creators": ["Tool: image/build.py"]}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
