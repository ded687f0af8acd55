"""The part of kustomize that deploy/k8s uses, so that overlays are checked where kubectl is absent.

`tests/deploy/test_manifests.py` compares it with kubectl where kubectl is installed.
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "images",
    "patches",
    "replacements",
}


def render(folder: Path) -> list[Manifest]:
    """Return the manifests that `kubectl kustomize FOLDER` prints, in any order."""
    return _accumulate(folder, [])


def _accumulate(folder: Path, manifests: list[Manifest]) -> list[Manifest]:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert settings.keys() <= KNOWN, f"{folder}: not known here: {settings.keys() - KNOWN}"
    for name in settings.get("resources", ()):
        path = folder / name
        manifests += _accumulate(path, []) if path.is_dir() else read_all(path)
    for name in settings.get("components", ()):
        manifests = _accumulate(folder / name, manifests)
    for patch in settings.get("patches", ()):
        manifests = _patched(manifests, patch)
    for manifest in manifests:
        if "namespace" in settings and manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = settings["namespace"]
        for image in settings.get("images", ()):
            _set_image(manifest, image)
    for replacement in settings.get("replacements", ()):
        _replace(manifests, replacement)
    return manifests


def read_all(path: Path) -> list[Manifest]:
    """Return the manifests of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _is_selected(manifest: Manifest, target: Manifest) -> bool:
    name = target.get("name", ".*")
    same_kind = re.fullmatch(target["kind"], manifest["kind"])
    return bool(same_kind and re.fullmatch(name, manifest["metadata"]["name"]))


def _patched(manifests: list[Manifest], patch: Manifest) -> list[Manifest]:
    selected = [each for each in manifests if _is_selected(each, patch["target"])]
    operations = yaml.safe_load(patch["patch"])
    if isinstance(operations, dict):
        assert operations.get("$patch") == "delete", "not known here"
        return [each for each in manifests if each not in selected]
    for manifest in selected:
        for operation in operations:
            apply(manifest, operation)
    return manifests


def apply(manifest: Manifest, operation: Manifest) -> None:
    """Apply an operation of RFC 6902: add, replace or remove."""
    *parents, last = [
        part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
    ]
    tree: Any = manifest
    for part in parents:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    key = int(last) if isinstance(tree, list) and last != "-" else last
    if operation["op"] == "remove":
        del tree[key]
    elif operation["op"] == "add" and isinstance(tree, list):
        tree.insert(len(tree) if key == "-" else key, deepcopy(operation["value"]))
    else:
        assert operation["op"] == "add" or key in tree or isinstance(key, int), operation
        tree[key] = deepcopy(operation["value"])


def _set_image(tree: Any, image: Manifest) -> None:
    if isinstance(tree, dict):
        for container in tree.get("containers") or ():
            if isinstance(container, dict) and "image" in container:
                name = re.split(r"[@:]", container["image"])[0]
                if name == image["name"]:
                    container["image"] = f"{image['newName']}@{image['digest']}"
    for value in (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    ):
        _set_image(value, image)


def _replace(manifests: list[Manifest], replacement: Manifest) -> None:
    source = replacement["source"]
    (found,) = [each for each in manifests if _is_selected(each, source)]
    for target in replacement["targets"]:
        for manifest in manifests:
            if _is_selected(manifest, target["select"]):
                for path in target["fieldPaths"]:
                    where = "/" + path.replace(".", "/")
                    value = found[source["fieldPath"]]
                    apply(manifest, {"op": "add", "path": where, "value": value})
