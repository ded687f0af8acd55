from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|_USER$")
REQUIRED = re.compile(r"\$\{[A-Z0-9_]+:\?see deploy/README\.md\}")
PUBLIC = {"POSTGRES_USER"}  # a name, not a secret


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def environments(services: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for service in services.values():
        yield from service.get("environment", {}).items()


def test_no_credential_stands_in_the_file(services: dict[str, Any]) -> None:
    secrets = [(k, v) for k, v in environments(services) if SECRET.search(k) and k not in PUBLIC]
    assert {name for name, _ in secrets} >= {"RAY_AUTH_TOKEN", "FSSPEC_S3_SECRET"}
    for name, value in secrets:
        assert REQUIRED.fullmatch(value), f"{name} has to come from the environment"
    urls = [v for _, v in environments(services) if "@" in v]
    assert all(REQUIRED.search(url) for url in urls)


def test_every_variable_that_is_required_is_explained() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    explained = (DEPLOY / "README.md").read_text()
    for name in re.findall(r"\$\{([A-Z0-9_]+)", text):
        assert name in explained, f"deploy/README.md does not mention {name}"


def test_what_waits_for_a_healthy_service_finds_a_health_check(services: dict[str, Any]) -> None:
    waits = [
        (other, how["condition"])
        for service in services.values()
        for other, how in service.get("depends_on", {}).items()
    ]
    assert waits
    for other, condition in waits:
        assert condition != "service_healthy" or "healthcheck" in services[other]


def test_ray_nodes_agree_and_have_shared_memory(services: dict[str, Any]) -> None:
    nodes = {name: s for name, s in services.items() if name.startswith("ray-")}
    assert set(nodes) == {"ray-head", "ray-worker", "ray-gpu-worker"}
    for node in nodes.values():
        assert node["image"] == services["prefect"]["image"]
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["shm_size"]
        assert node["volumes"] == nodes["ray-head"]["volumes"]


def test_pages_are_for_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_copies_only_what_exists_and_what_the_build_may_see() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    seen = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert names == set(seen)
    assert all((ROOT / name).exists() for name in names)
