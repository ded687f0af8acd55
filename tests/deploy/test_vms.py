"""The file for `ray up`, read as `ray up` reads it."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import SECRET, read

FILE = "vms/cluster.yaml"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read(FILE))
    return found


def prepared(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a config with the defaults of Ray, checked against its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found: dict[str, Any] = prepare_config(tree)
    validate_config(found)
    return found


def test_ray_accepts_the_file() -> None:
    found = prepared(config())
    (kind,) = found["available_node_types"].values()
    workers = len(config()["provider"]["worker_ips"])
    assert kind["min_workers"] == kind["max_workers"] == workers


BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a misspelled key": lambda tree: tree.update(maxworkers=4),
    "a command that is no list": lambda tree: tree.update(setup_commands="pip install"),
    "no provider": lambda tree: tree["provider"].pop("type"),
    "no machine for the head": lambda tree: tree["provider"].pop("head_ip"),
    "a setting of another provider": lambda tree: tree.update(available_node_type={}),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_bad_copy_is_caught(change: Callable[[dict[str, Any]], Any]) -> None:
    tree = copy.deepcopy(config())
    change(tree)
    with pytest.raises(Exception, match=r"\S"):
        prepared(tree)


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_command_is_one_of_a_shell(kind: str) -> None:
    assert config()[kind]
    for command in config()[kind]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_node_joins_with_the_token_of_its_environment_and_no_secret_is_in_the_file() -> None:
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = config()[kind]
        assert stop == "~/distill/venv/bin/ray stop"
        assert start.startswith(
            "set -a; . ~/distill/environment; set +a; ~/distill/venv/bin/ray start"
        )
    values = [line.partition("=")[0] for line in read(FILE).splitlines() if "=" in line]
    assert not any(SECRET.search(name) for name in values)
    assert not any(key for key in config()["auth"] if "password" in key)


def test_the_head_runs_no_work() -> None:
    head = config()["head_start_ray_commands"][-1]
    assert {"--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(head.split())


def test_what_is_installed_is_locked_by_hashes() -> None:
    environment, lock, package = config()["setup_commands"]
    assert "python3.11 -m venv" in environment
    assert "--no-deps --require-hashes -r ~/distill/source/requirements-runtime.lock" in lock
    assert "--no-deps" in package


@pytest.mark.parametrize("exists", [False, True])
def test_a_machine_without_an_environment_is_refused(exists: bool, tmp_path: Path) -> None:
    file = tmp_path / "distill" / "environment"
    file.parent.mkdir()
    if exists:
        file.write_text("RAY_AUTH_MODE=token\n")
    command = " && ".join(f"({each})" for each in config()["initialization_commands"])
    ended = subprocess.run(
        ["bash", "-c", command],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode == 0) is exists
    assert exists or "environment is missing, see deploy/vms/README.md" in ended.stderr
    assert not exists or file.stat().st_mode & 0o777 == 0o600
