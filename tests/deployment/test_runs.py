"""Runs of a deployment on a Ray cluster: requested, scheduled, refused, cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from distill_core.storage.store import Store
from flows.orchestration.deployments import NAMES
from flows.status.status import run_status
from tasks.run import open_run
from tasks.series import versions_of
from tests.support.live_deployment import Deployment
from tests.support.pipeline import TINY
from tests.support.prefect_server import processes_of
from tests.support.series import BLOCKS, change_class, dataset
from tests.support.waiting import wait_until

SMALL = (*TINY, 'posttrain.sets=["distilled"]')
LONG = (*SMALL, "ipc=8", "recover.steps=400")
SCHEDULE = "weekly"


def post(deployment: Deployment, flow: str, parameters: dict[str, Any]) -> httpx.Response:
    """Request a run by HTTP alone, as a service of somebody else does."""
    server = deployment.server
    auth = ("distill", server.password)
    name = f"{server.url}/deployments/name/{flow}/{NAMES[flow]}"
    found = httpx.get(name, auth=auth, timeout=60).raise_for_status().json()
    path = f"{server.url}/deployments/{found['id']}/create_flow_run"
    return httpx.post(path, json={"parameters": parameters}, auth=auth, timeout=60)


@pytest.mark.parametrize(
    ("flow", "wrong"),
    [
        ("distill", {"preset": "no-such-preset"}),
        ("distill", {"preset": "digits-demo", "execution": {"workers": 0}}),
        ("resume", {}),
    ],
)
def test_the_server_refuses_wrong_parameters_and_makes_no_flow_run(
    deployment: Deployment, flow: str, wrong: dict[str, Any]
) -> None:
    count = deployment.server.post("/flow_runs/count", {})
    answer = post(deployment, flow, wrong)
    assert (answer.status_code, "Validation failed" in answer.text) == (409, True), answer.text
    assert deployment.server.post("/flow_runs/count", {}) == count


def test_the_second_of_two_requested_runs_waits_and_finds_its_shards_made(
    deployment: Deployment,
) -> None:
    operator, ray = deployment.operator, deployment.ray
    parameters = {"preset": "digits-demo", "overrides": [*SMALL], "run": "by-http"}
    answer = post(deployment, "distill", parameters | {"execution": deployment.execution})
    assert answer.status_code == 201, answer.text
    first = answer.json()["id"]
    wait_until(lambda: operator.state(first)["type"] == "RUNNING", "the first run")
    second = operator.trigger("digits-demo", *SMALL, "--name", "by-command")
    wait_until(ray.actors, "the actors of the first run")
    waiting = wait_until(lambda: _waits(operator.state(second)), "the second run to wait")
    assert waiting["name"] == "AwaitingConcurrencySlot"

    assert operator.end_of(first)["type"] == "COMPLETED"
    made = {kind: deployment.markers(kind) for kind in ("squeeze", "recover", "relabel")}
    assert all(made.values())
    assert operator.end_of(second)["type"] == "COMPLETED"
    assert {kind: deployment.markers(kind) for kind in made} == made
    begin, finish = (operator.server.get(f"/flow_runs/{run}") for run in (second, first))
    assert begin["start_time"] >= finish["end_time"]
    for name in ("by-http", "by-command"):
        assert run_status(open_run(Store(str(deployment.store)), name)).complete


def _waits(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return a state of a run that a worker has taken but that may not start yet."""
    return state if state["name"] in ("AwaitingConcurrencySlot", "Running") else None


def test_a_change_of_the_source_makes_a_version_and_no_change_makes_none(
    deployment: Deployment, tmp_path: Path
) -> None:
    operator, root = deployment.operator, dataset(tmp_path)
    data = (f"data.path={root}", "data.format=imagefolder", "data.num_classes=4", "data.side=8")
    parameters = {
        "preset": "digits-demo",
        "overrides": [*SMALL, *BLOCKS, "ipc=1", "recover.init=real", *data],
        "series": "source",
        "if_changed": True,
        "execution": {"local": True},
    }

    def look() -> tuple[str, str, list[str]]:
        """Look at the source once, as its owner would after each delivery."""
        answer = post(deployment, "redistill", parameters)
        assert answer.status_code == 201, answer.text
        state = operator.end_of(answer.json()["id"])
        versions = versions_of(Store(str(deployment.store)), "source")
        return state["type"], state["message"] or "", [run.name for run in versions]

    assert look() == ("COMPLETED", "", ["source-v0001"])
    kind, message, names = look()
    assert (kind, names) == ("COMPLETED", ["source-v0001"])
    assert "neither the source nor the settings have changed" in message
    change_class(root, "cat")
    assert look() == ("COMPLETED", "", ["source-v0001", "source-v0002"])


@pytest.fixture(scope="module")
def schedule(deployment: Deployment) -> Iterator[str]:
    """Redistil every minute while the tests of this module run; return the schedule's name."""
    # Without the cluster, whose CPUs belong to the run that is cancelled meanwhile.
    times = ("--cron", "* * * * *", "--name", SCHEDULE, "--local")
    deployment.operator.distill("schedule", "digits-demo", *SMALL, *times)
    yield SCHEDULE
    deployment.operator.distill("schedule", "remove", SCHEDULE)


def test_a_cancelled_run_leaves_no_process_on_the_cluster(
    deployment: Deployment, schedule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, ray, before = deployment.operator, deployment.ray, deployment.markers()
    run = operator.trigger("digits-demo", *LONG, "--name", "cancelled")
    wait_until(lambda: deployment.markers() > before, "a shard")
    mine = processes_of(run)
    actors = ray.actors()
    assert mine
    assert actors
    start = time.monotonic()
    operator.cancel(run)
    wait_until(lambda: not any(p.is_running() for p in actors), "the end of its actors")
    with capsys.disabled():
        print(f" actors gone {time.monotonic() - start:.1f} s after the request ", end="")
    wait_until(lambda: not processes_of(run), "the end of its driver")
    assert operator.end_of(run)["type"] == "CANCELLED"
    assert all(node.poll() is None for node in ray.nodes)


def test_a_schedule_makes_a_version_without_being_asked(
    deployment: Deployment, schedule: str
) -> None:
    def ended() -> dict[str, Any] | None:
        wanted = {
            "deployments": {"name": {"any_": [NAMES["redistill"]]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return next(iter(deployment.server.post("/flow_runs/filter", wanted)), None)

    run = wait_until(ended, "the end of a scheduled run")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert (run["name"], run["created_by"]["type"]) == (schedule, "SCHEDULE")
    (version, *_) = versions_of(Store(str(deployment.store)), SCHEDULE)
    assert run_status(version).complete
