from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import DEPLOY, FROM_ENVIRONMENT, OURS, read, services

TELEMETRY = (
    "DO_NOT_TRACK=1",
    "PREFECT_SERVER_ANALYTICS_ENABLED=false",
    "RAY_USAGE_STATS_ENABLED=0",
)
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|_KEY|ROOT_USER|CONNECTION_URL")


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


def test_no_file_holds_a_literal_credential() -> None:
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        text = FROM_ENVIRONMENT.sub("", path.read_text(encoding="utf-8"))
        assert not re.search(r"://[^/\s:@]*:[^/\s@]+@", text), f"{path.name}: a password in a URL"
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN", text), f"{path.name}: a key"


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


@pytest.mark.parametrize("switch", TELEMETRY)
def test_telemetry_is_off_in_the_image_that_all_services_of_ours_use(switch: str) -> None:
    assert switch in read("Dockerfile")
    name = switch.partition("=")[0]
    images = {service["image"] for key, service in services().items() if key in OURS}
    assert len(images) == 1
    assert not any(name in service["environment"] for service in services().values())


def test_the_image_installs_hashed_requirements_and_is_not_root() -> None:
    lines = read("Dockerfile").splitlines()
    first, second = (line for line in lines if line.startswith("RUN pip install"))
    assert "--require-hashes -r requirements.lock" in first
    assert {"--no-deps", "--no-build-isolation"} <= set(second.split())
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["distill"]


def test_what_the_image_copies_is_sent_to_the_build_and_exists() -> None:
    lines = read("Dockerfile.dockerignore").splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [line for line in read("Dockerfile").splitlines() if line.startswith("COPY ")]
    copied = {name for line in copies for name in line.split()[1:-1]}
    assert copied == sent
    assert all((DEPLOY.parent / name).exists() for name in copied)


def test_every_variable_of_the_compose_file_is_explained() -> None:
    for name in sorted(set(re.findall(r"\$\{([A-Z0-9_]+)", read("compose.yaml")))):
        assert f"`{name}`" in read("README.md"), f"deploy/README.md does not explain {name}"


def test_the_ray_job_keeps_the_head_free_of_workers_and_its_secrets_outside() -> None:
    job = yaml.safe_load(read("kuberay/rayjob.yaml"))
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for container in (c for pod in pods for c in pod["template"]["spec"]["containers"]):
        assert container["envFrom"] == [{"secretRef": {"name": "distill-store"}}]
        assert not any(SECRET.search(each["name"]) for each in container.get("env", ()))


def test_the_ray_job_requires_the_installed_version_of_ray() -> None:
    version = yaml.safe_load(read("kuberay/rayjob.yaml"))["spec"]["rayClusterSpec"]["rayVersion"]
    lock = (DEPLOY.parent / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(rf"^ray\[?.*=={re.escape(version)}", lock, re.MULTILINE)
