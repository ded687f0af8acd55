"""What a deployment may do: policies of the store, pinned images, restricted containers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.support.deployment import DEPLOY, FROM_ENVIRONMENT, OURS, read, services

POLICIES = ("collector.json", "driver-and-workers.json", "reader.json")
OF_A_BUCKET = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}  # the others are of objects


def statements(policy: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(read(f"s3/{policy}"))["Statement"]
    return found


def actions(policy: str) -> set[str]:
    """Return everything a policy allows."""
    return {action for statement in statements(policy) for action in statement["Action"]}


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_allows_more_than_its_store(policy: str) -> None:
    for statement in statements(policy):
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        resources = statement["Resource"]
        listed = OF_A_BUCKET.intersection(statement["Action"])
        for resource in [resources] if isinstance(resources, str) else resources:
            if listed:
                assert resource == "arn:aws:s3:::BUCKET"
            else:
                assert resource.startswith("arn:aws:s3:::BUCKET/PREFIX/")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_lists_nothing_but_its_prefix(policy: str) -> None:
    lists = [s for s in statements(policy) if OF_A_BUCKET.intersection(s["Action"])]
    assert lists
    for statement in lists:
        if statement["Action"] == ["s3:ListBucketMultipartUploads"]:
            continue  # S3 has no condition for it; deploy/s3/README.md states what it shows
        assert statement["Action"] == ["s3:ListBucket"]
        prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
        assert prefixes == ["PREFIX", "PREFIX/*"]
    assert "no condition on the prefix" in read("s3/README.md")


def test_the_lifecycle_rule_is_limited_to_the_prefix() -> None:
    for rule in json.loads(read("s3/lifecycle.json"))["Rules"]:
        assert rule["Filter"] == {"Prefix": "PREFIX/"}


def test_only_the_collector_may_delete_markers() -> None:
    assert "s3:DeleteObject" not in actions("reader.json")
    writer = json.loads(read("s3/driver-and-workers.json"))["Statement"]
    deletes = next(s for s in writer if s["Action"] == ["s3:DeleteObject"])
    assert not any(resource.endswith(("/PREFIX/*", "_done/*")) for resource in deletes["Resource"])
    assert "s3:DeleteObject" in actions("collector.json")


PINNED = re.compile(
    r"[\w./:-]+@(sha256:([0-9a-f]{64}|DIGEST)|\$\{[A-Z]+_DIGEST\}|\$\{[A-Z]+_DIGEST:\?[^}]+\})"
)
BUILT_HERE = "distill:local"


def test_every_image_is_pinned_by_its_digest() -> None:
    """What is not known here has to be given: without a digest, a build or a start fails."""
    images = [service["image"] for service in services().values()]
    images += [container["image"] for pod in pods() for container in containers(pod)]
    lines = read("Dockerfile").splitlines()
    images += [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(images) >= 10
    assert [i for i in images if i != BUILT_HERE and not PINNED.fullmatch(i)] == []
    defaults = [line for line in lines if line.startswith("ARG ") and "DIGEST" in line]
    assert defaults == ["ARG PYTHON_DIGEST"]
    for service in services().values():
        if service["image"] == BUILT_HERE:
            assert FROM_ENVIRONMENT.fullmatch(service["build"]["args"]["PYTHON_DIGEST"])


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
    for service in services().values():
        if service.get("read_only"):
            assert service["tmpfs"] == ["/tmp", "/home/distill"]
    prefect = services()["prefect"]["environment"]
    assert prefect["PREFECT_UI_STATIC_DIRECTORY"].startswith("/tmp/")


@pytest.mark.parametrize("name", sorted(services()))
def test_every_service_is_confined(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert service.get("read_only", False) is (name in OURS)


def user_of_the_image() -> int:
    """Return the id of the user that the image makes and uses."""
    return int(re.findall(r"useradd .*--uid (\d+) distill", read("Dockerfile"))[0])
