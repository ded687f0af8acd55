"""Rules for the manifests of deploy/k8s beyond schemas: pins, confinement, secrets, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.support import kuberay
from tests.support.deployment import read

Manifest = dict[str, Any]

CUSTOM = ("RayCluster", "RayJob")
PINNED = re.compile(r"[\w./-]+(:[\w.-]+)?@sha256:([0-9a-f]{64}|DIGEST)")
USER = 1000  # of deploy/Dockerfile
HOST = {"hostNetwork", "hostPID", "hostIPC"}
UNITS = {"Gi": 2**30, "Mi": 2**20}


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Yield every pod that manifests make, as a manifest of a pod."""
    for manifest in manifests:
        if manifest["kind"] in CUSTOM:
            yield from kuberay.pods(manifest)
        elif manifest["kind"] == "CronJob":
            template = manifest["spec"]["jobTemplate"]["spec"]["template"]
            metadata = {"name": "pod", **template.get("metadata", {})}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"],
            }


def documented_secrets() -> dict[str, set[str]]:
    """Return the keys of each secret that deploy/k8s/README.md tells people to make."""
    commands = re.findall(
        r"kubectl .*create secret generic (\S+)((?:[^\n]*\\\n)*[^\n]*)", read("k8s/README.md")
    )
    return {name: set(re.findall(r"--from-literal=(\w[\w-]*)=", rest)) for name, rest in commands}


def secret_problems(manifests: list[Manifest]) -> list[str]:
    """Return the references to secrets that nobody makes, and clusters without a token."""
    known = documented_secrets()
    found = []
    for tree in _dicts(manifests):
        if "secretKeyRef" in tree:
            reference = tree["secretKeyRef"]
            if reference.get("key") not in known.get(reference.get("name"), ()):
                found.append(f"no secret has {reference}")
        if "secretRef" in tree and tree["secretRef"].get("name") not in known:
            found.append(f"no secret is {tree['secretRef']}")
        if "headGroupSpec" in tree:
            auth = tree.get("authOptions", {})
            if auth.get("mode") != "token" or "auth_token" not in known.get(
                auth.get("secretName"), ()
            ):
                found.append(f"no token by {auth}")
    return found


def pod_problems(pod: Manifest) -> list[str]:
    """Return where a pod does not meet the restricted standard, or has no pinned image or limit."""
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    wanted = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER}
    found = [f"{key} is {context.get(key)}" for key in wanted if context.get(key) != wanted[key]]
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("no seccomp profile")
    found += [f"the pod has {key}" for key in HOST & spec.keys()]
    found += ["a volume of the host" for each in spec.get("volumes", ()) if "hostPath" in each]
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        found += [f"{container['name']}: {each}" for each in _container_problems(container, spec)]
    return found


def _container_problems(container: Manifest, spec: Manifest) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may become privileged"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "a root file system that can be written"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if not PINNED.fullmatch(str(container.get("image"))):
        yield f"the image {container.get('image')} has no digest"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "no limit of memory"
    empty = {volume["name"] for volume in spec.get("volumes", ()) if "emptyDir" in volume}
    mounts = container.get("volumeMounts", ())
    if not {"/tmp", "/home/distill"} <= {m["mountPath"] for m in mounts if m["name"] in empty}:
        yield "cannot write to /tmp and its home"


def size_problems(manifest: Manifest) -> list[str]:
    """Return the groups of a RayCluster or a RayJob whose object store leaves /dev/shm."""
    found = []
    for group in kuberay.groups(manifest["spec"].get("rayClusterSpec", manifest["spec"])):
        spec = group["template"]["spec"]
        memory = [v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if v["name"] == "shm"]
        store = int(group["rayStartParams"].get("object-store-memory", 2**63))
        if not memory or store >= in_bytes(memory[0]):
            found.append(f"an object store of {store} bytes in {memory} of shared memory")
    return found


def in_bytes(quantity: str) -> int:
    """Return a quantity of Kubernetes in bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def _dicts(tree: Any) -> Iterator[Manifest]:
    if isinstance(tree, dict):
        yield tree
    for value in (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    ):
        yield from _dicts(value)
