"""Confinement of the image and of the pods: pinned images, restricted containers."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.deployment import DEPLOY, read

PINNED = re.compile(
    r"[\w./:-]+@(sha256:([0-9a-f]{64}|DIGEST)|\$\{[A-Z]+_DIGEST\}|\$\{[A-Z]+_DIGEST:\?[^}]+\})"
)


def test_every_image_is_pinned_by_its_digest() -> None:
    """What is not known here has to be given: without a digest, a build or a start fails."""
    images = [container["image"] for pod in pods() for container in containers(pod)]
    lines = read("Dockerfile").splitlines()
    images += [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(images) >= 4
    assert [image for image in images if not PINNED.fullmatch(image)] == []
    defaults = [line for line in lines if line.startswith("ARG ") and "DIGEST" in line]
    assert defaults == ["ARG PYTHON_DIGEST"]


def pods() -> list[dict[str, Any]]:
    """Return the spec of every pod in every manifest, at any depth."""
    manifests = [
        tree
        for path in sorted(DEPLOY.rglob("*.yaml"))
        for tree in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    found: list[dict[str, Any]] = []

    def search(tree: Any) -> None:
        if isinstance(tree, dict):
            if isinstance(tree.get("containers"), list):
                found.append(tree)
            for value in tree.values():
                search(value)
        elif isinstance(tree, list):
            for value in tree:
                search(value)

    search(manifests)
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def test_every_pod_meets_the_restricted_standard_of_kubernetes() -> None:
    names = {container["name"] for pod in pods() for container in containers(pod)}
    assert names == {"ray-job-submitter", "ray-head", "ray-worker"}
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == user_of_the_image()
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            confined = container["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert not confined.get("privileged")
            assert container["resources"]["limits"]["memory"]


def test_a_read_only_container_can_write_where_ray_prefect_and_caches_do() -> None:
    for pod in pods():
        empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        for container in containers(pod):
            writable = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in empty}
            assert {"/tmp", "/home/distill"} <= writable


def user_of_the_image() -> int:
    """Return the id of the user that the image makes and uses."""
    return int(re.findall(r"useradd .*--uid (\d+) distill", read("Dockerfile"))[0])
