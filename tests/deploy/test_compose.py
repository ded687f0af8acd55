"""The Compose file: health checks, dependencies, credentials, and confined containers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.deployment import (
    FROM_ENVIRONMENT,
    OURS,
    SECRET,
    TELEMETRY,
    read,
    services,
)

PINNED = re.compile(r"[\w./:-]+@\$\{[A-Z]+_DIGEST:\?[^}]+\}")
BUILT_HERE = "distill:local"


def is_one_shot(service: dict[str, Any]) -> bool:
    return bool(service["restart"] == "no")


@pytest.mark.parametrize("name", sorted(services()))
def test_a_service_has_a_health_check_or_runs_once(name: str) -> None:
    service = services()[name]
    assert is_one_shot(service) or service["restart"] == "unless-stopped"
    assert ("healthcheck" in service) is not is_one_shot(service)


def test_services_depend_only_on_conditions_that_can_be_met() -> None:
    every = services()
    for service in every.values():
        for other, wait in service.get("depends_on", {}).items():
            once = "service_completed_successfully"
            assert wait["condition"] == (once if is_one_shot(every[other]) else "service_healthy")


@pytest.mark.parametrize("name", sorted(services()))
def test_every_credential_comes_from_the_environment(name: str) -> None:
    secrets = {k: v for k, v in services()[name]["environment"].items() if SECRET.search(k)}
    assert secrets
    for key, value in secrets.items():
        assert FROM_ENVIRONMENT.search(value), f"{name}: {key} is not from the environment"


def test_ports_are_bound_to_the_loopback() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "ray-gpu-worker"])
def test_a_ray_node_requires_a_token_and_its_object_store_fits_shared_memory(name: str) -> None:
    service = services()[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    sizes = [a for a in service["command"] if a.startswith("--object-store-memory=")]
    assert int(sizes[0].partition("=")[2]) < int(service["shm_size"].removesuffix("gb")) * 10**9


def test_the_ray_head_runs_no_work() -> None:
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(services()["ray-head"]["command"])


def test_all_services_of_ours_use_one_image_in_which_telemetry_is_off() -> None:
    images = {service["image"] for key, service in services().items() if key in OURS}
    assert images == {BUILT_HERE}
    names = {switch.partition("=")[0] for switch in TELEMETRY}
    assert not any(names & service["environment"].keys() for service in services().values())


def test_every_image_is_pinned_by_its_digest() -> None:
    """What is not known here has to be given: without a digest, a build or a start fails."""
    for service in services().values():
        if service["image"] == BUILT_HERE:
            assert FROM_ENVIRONMENT.fullmatch(service["build"]["args"]["PYTHON_DIGEST"])
        else:
            assert PINNED.fullmatch(service["image"])


def test_a_read_only_container_can_write_where_ray_prefect_and_caches_do() -> None:
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


def test_every_variable_of_the_compose_file_is_explained() -> None:
    for name in sorted(set(re.findall(r"\$\{([A-Z0-9_]+)", read("compose.yaml")))):
        assert f"`{name}`" in read("README.md"), f"deploy/README.md does not explain {name}"
