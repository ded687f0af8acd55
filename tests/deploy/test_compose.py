"""The Compose file: its schema, profiles, credentials, confinement, and what it depends on."""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.deployment import (
    DEPLOY,
    FROM_ENVIRONMENT,
    OURS,
    SECRET,
    TELEMETRY,
    read,
    services,
)
from tests.support.policies import COLLECTOR, DRIVER, READER, statements
from tests.support.real_data import data_folder

ALWAYS = {"postgres", "prefect", "ray-head", "ray-worker", "serve"}
PROFILES = {"store": {"store", "bucket"}, "gpu": {"ray-gpu-worker"}, "gc": {"gc"}}
NODES = ("ray-gpu-worker", "ray-head", "ray-worker", "serve")
IMAGE = re.compile(r"[a-z0-9./-]+:\d[\w.-]*")  # pinned to a version
BUILT_HERE = "${DISTILL_IMAGE:-distill:local}"
OPTIONAL = re.compile(r"\$\{[A-Z0-9_]+:-\}")  # of a profile, which checks it when it starts
README = "compose/README.md"


def environment(name: str) -> dict[str, Any]:
    found: dict[str, Any] = services()[name].get("environment", {})
    return found


def is_one_shot(service: dict[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def schema() -> dict[str, Any]:
    """Return the schema of the Compose specification, where it is present."""
    file = data_folder("schemas") / "compose-spec.json.gz"
    found: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return found


def errors(tree: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema()).iter_errors(tree)]


def test_the_file_follows_the_specification() -> None:
    assert errors(yaml.safe_load(read("compose.yaml"))) == []


Change = Callable[[dict[str, Any]], Any]
BAD: dict[str, Change] = {
    "a misspelled key": lambda s: s["serve"].update(enviroment={}),
    "a misspelled condition": lambda s: s["serve"]["depends_on"]["prefect"].update(condition="up"),
    "a profile that is no list": lambda s: s["store"].update(profiles="store"),
    "a port that is a mapping of words": lambda s: s["prefect"].update(ports=[{"from": 4200}]),
    "a health check without a list": lambda s: s["prefect"]["healthcheck"].update(test=4),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_bad_copy_is_caught_by_the_specification(change: Change) -> None:
    tree = copy.deepcopy(yaml.safe_load(read("compose.yaml")))
    change(tree["services"])
    assert errors(tree)


def test_the_profiles_add_a_store_gpus_and_a_collection() -> None:
    found: dict[str, set[str]] = {}
    for name, service in services().items():
        for profile in service.get("profiles", ["always"]):
            found.setdefault(profile, set()).add(name)
    assert found == {"always": ALWAYS, **PROFILES}


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
            # What another profile leaves out must not stop the others from starting.
            shared = set(every[other].get("profiles", [])) <= set(service.get("profiles", []))
            assert wait.get("required", True) is shared


@pytest.mark.parametrize("name", sorted(services()))
def test_every_credential_comes_from_the_environment(name: str) -> None:
    secrets = {key: value for key, value in environment(name).items() if SECRET.search(key)}
    assert secrets
    for key, value in secrets.items():
        from_outside = FROM_ENVIRONMENT.search(value) or OPTIONAL.fullmatch(value)
        is_name = key == "AWS_ACCESS_KEY_ID"
        assert from_outside or is_name, f"{name}: {key} is not from the environment"


def test_no_container_but_that_of_the_bucket_is_an_administrator_of_the_store() -> None:
    holders = {name for name in services() if "ADMIN_SECRET" in str(environment(name))}
    assert holders == {"store", "bucket"}
    assert {name for name in services() if "COLLECTOR_SECRET" in str(environment(name))} == {
        "store",
        "gc",
    }
    for name in NODES:
        assert environment(name)["AWS_SECRET_ACCESS_KEY"].startswith("${DRIVER_SECRET:?")


def test_nothing_of_the_store_but_s3_is_reachable_by_other_containers() -> None:
    command = services()["store"]["command"]
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(command)
    assert "ports" not in services()["store"]


def test_ports_are_bound_to_the_loopback() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", NODES)
def test_a_ray_node_requires_a_token_and_its_object_store_fits_shared_memory(name: str) -> None:
    service = services()[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    (size,) = re.findall(r"--object-store-memory=(\d+)", " ".join(service["command"]))
    assert int(size) < int(service["shm_size"].removesuffix("gb")) * 10**9


@pytest.mark.parametrize("name", ["ray-head", "serve"])
def test_no_worker_is_placed_on_a_node_that_drives(name: str) -> None:
    words = set(" ".join(services()[name]["command"]).split())
    assert {"--num-cpus=0", "--num-gpus=0"} <= words


def test_triggers_are_taken_for_the_store_of_the_file() -> None:
    command = " ".join(services()["serve"]["command"])
    assert 'distill serve --store "s3://$$BUCKET/$$PREFIX" --ray-address ray-head:6379' in command
    for name, key in (("serve", "BUCKET"), ("bucket", "BUCKET"), ("store", "PREFIX")):
        assert environment(name)[key].startswith(f"${{{key}:-")


def test_all_services_of_ours_use_one_image_in_which_telemetry_is_off() -> None:
    images = {service["image"] for key, service in services().items() if key in OURS}
    assert images == {BUILT_HERE}
    names = {switch.partition("=")[0] for switch in TELEMETRY}
    assert not any(names & environment(name).keys() for name in services())


def test_every_image_of_others_is_a_version_that_was_known_to_exist() -> None:
    listed = dict(re.findall(r"^\| `([^`]+)` \| (\d{4}-\d\d-\d\d) \|", read(README), re.MULTILINE))
    used = {service["image"] for service in services().values()} - {BUILT_HERE}
    assert used == listed.keys()
    assert all(IMAGE.fullmatch(image) for image in used)


def test_the_store_is_a_version_that_arbitrates() -> None:
    major, minor = services()["store"]["image"].rpartition(":")[2].split(".")
    assert (int(major), int(minor)) >= (4, 18)


def test_a_read_only_container_can_write_where_ray_prefect_and_caches_do() -> None:
    for name in OURS:
        mounts = dict(mount.split(":", 1) for mount in services()[name]["tmpfs"])
        assert mounts == {"/tmp": "exec,mode=1777", "/home/distill": "mode=0700,uid=1000,gid=1000"}
    assert environment("prefect")["PREFECT_UI_STATIC_DIRECTORY"].startswith("/tmp/")


@pytest.mark.parametrize("name", sorted(services()))
def test_every_service_is_confined(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert name in OURS or service["user"] not in ("root", "0")
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()


def test_every_variable_is_explained_and_every_explained_one_is_used() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", read("compose.yaml")))
    rows = [row for row in read(README).splitlines() if row.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row.split("|")[1])}
    assert used == explained


SECRETS = {
    f"{name}_SECRET": f"{name.lower()}0123456789abcdef"
    for name in ("ADMIN", "DRIVER", "READER", "COLLECTOR")
}


def start_store(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the script that starts the store, with a program that prints what it got."""
    return subprocess.run(
        [
            "sh",
            DEPLOY / "compose" / "store.sh",
            "sh",
            "-c",
            'env; echo "$@"',
            "sh",
            "server",
            "-s3",
        ],
        env={
            "PATH": os.environ["PATH"],
            "POLICIES": str(DEPLOY / "s3"),
            "IDENTITIES": str(folder / "identities.json"),
            "BUCKET": "my.bucket",
            "PREFIX": "team/runs",
            **SECRETS,
            **changes,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_identities_of_the_store_have_the_policies_of_their_roles(tmp_path: Path) -> None:
    started = start_store(tmp_path)
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == "server -s3"
    assert not any(secret in started.stdout for secret in SECRETS.values())
    file = tmp_path / "identities.json"
    assert file.stat().st_mode & 0o777 == 0o600
    tree = json.loads(file.read_text())
    policies = {each["name"]: json.loads(each["content"]) for each in tree["policies"]}
    expected = {"driver": DRIVER, "reader": READER, "collector": COLLECTOR}
    assert {name: policy["Statement"] for name, policy in policies.items()} == {
        name: statements(policy, bucket="my.bucket", prefix="team/runs")
        for name, policy in expected.items()
    }
    identities = {each["name"]: each for each in tree["identities"]}
    assert identities.pop("distill-admin")["actions"] == ["Admin"]
    assert identities.keys() == {f"distill-{name}" for name in expected}
    for name in expected:
        identity = identities[f"distill-{name}"]
        assert identity["policyNames"] == [name]
        assert "actions" not in identity
        (keys,) = identity["credentials"]
        assert keys["secretKey"] == SECRETS[f"{name.upper()}_SECRET"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("READER_SECRET", ""),
        ("READER_SECRET", "short"),
        ("DRIVER_SECRET", 'quoted"0123456789abcdef'),
        ("BUCKET", "Bucket|s"),
        ("BUCKET", ""),
        ("PREFIX", "a&b"),
        ("POLICIES", "/absent"),
    ],
)
def test_the_store_does_not_start_with_a_bad_setting(name: str, value: str, tmp_path: Path) -> None:
    started = start_store(tmp_path, **{name: value})
    assert started.returncode != 0
    assert name in started.stderr or value in started.stderr
    assert "server -s3" not in started.stdout
