# SPDX-License-Identifier: Apache-2.0
"""What the chart's tests share: running helm, reading what it renders, walking values and their schema."""

import copy
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/sidetrack"
NAMESPACE = "sidetrack-system"
# Values that are whole objects: Kubernetes' own, whose keys are documented there, and options of the agent.
WHOLE_OBJECTS = {"resources", "seccompProfile", "appArmorProfile", "seLinuxOptions", "affinity", "extraOptions"}


def find_helm() -> str | None:
    """helm of the test cluster (tests/kubernetes/build.sh), or the one on the PATH."""
    home = os.environ.get("ST_K8S_HOME", os.path.expanduser("~/.cache/sidetrack-k8s"))
    return shutil.which("helm", path=f"{home}/bin") or shutil.which("helm")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = find_helm()
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@functools.lru_cache(maxsize=None)
def _template(values: str, folder: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        return helm("template", "mesh", str(folder), "--namespace", NAMESPACE, "--values", file.name, *arguments)


def template(values: dict[str, Any], *arguments: str, chart_folder: Path = CHART) -> subprocess.CompletedProcess[str]:
    version = () if "--kube-version" in arguments else ("--kube-version", "1.34.4")
    return _template(yaml.safe_dump(values), chart_folder, (*arguments, *version))


@functools.lru_cache(maxsize=None)
def _documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def rendered(values: dict[str, Any], *arguments: str, chart_folder: Path = CHART) -> list[dict[str, Any]]:
    result = template(values, *arguments, chart_folder=chart_folder)
    if result.returncode != 0:
        raise AssertionError(f"helm template with {values}: {result.stderr}")
    return copy.deepcopy(_documents(result.stdout))


def find(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    found = [one for one in objects if one["kind"] == kind and (not name or one["metadata"]["name"] == name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def options_in(configuration: str) -> dict[str, str]:
    """What a configuration file of the agent says, without the comments."""
    return dict(line.split(" #")[0].split(" = ") for line in configuration.splitlines())


def options_of_agent(objects: list[dict[str, Any]]) -> dict[str, str]:
    return {option: value for one in objects if one["kind"] == "ConfigMap" for option, value in options_in(one["data"].get("agent.conf", "")).items()}


def default_values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def schema() -> dict[str, Any]:
    """With what its references mean in their places."""
    whole = json.loads((CHART / "values.schema.json").read_text())

    def resolved(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            return resolved(whole["definitions"][node["$ref"].removeprefix("#/definitions/")])
        if isinstance(node, dict):
            return {key: resolved(child) for key, child in node.items()}
        return node
    return resolved(whole)


def schema_objects(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every object of the schema that has keys of its own, with its path in the values."""
    if "properties" in node:
        yield path, node
        for key, child in node["properties"].items():
            yield from schema_objects(child, (*path, key))


def leaves(values: dict[str, Any], node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted paths of the values that a user sets: those whose schema has no keys of its own, and whole objects."""
    for key, child in node["properties"].items():
        if "properties" in child and key not in WHOLE_OBJECTS:
            yield from leaves(values[key], child, (*path, key))
        else:
            yield ".".join((*path, key))


def nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value
