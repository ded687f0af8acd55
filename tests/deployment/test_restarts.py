"""Services that are restarted in the middle of a run: it completes, and its record is right."""

from __future__ import annotations

from distill_core.storage.store import Store
from flows.status.status import run_status
from tasks.run import open_run
from tasks.stages.table import stages_of
from tests.support.live_deployment import Deployment
from tests.support.pipeline import TINY
from tests.support.waiting import wait_until

LONG = (*TINY, "ipc=8", 'posttrain.sets=["distilled"]')


def start(deployment: Deployment, name: str, steps: int) -> str:
    """Trigger a run and wait until it has committed a first shard; return its flow run."""
    before = deployment.markers()
    run = deployment.operator.trigger(
        "digits-demo", *LONG, f"recover.steps={steps}", "--name", name
    )
    wait_until(lambda: deployment.markers() > before, "a shard")
    return run


def assert_recorded(deployment: Deployment, run: str, name: str) -> None:
    """Check that a run is complete in the store, and completed once and in full in Prefect."""
    server = deployment.server
    state = deployment.operator.end_of(run)
    assert state["type"] == "COMPLETED", state["message"]
    opened = open_run(Store(str(deployment.store)), name)
    assert run_status(opened).complete
    record = server.get(f"/flow_runs/{run}")
    assert (record["name"], record["run_count"]) == (name, 1)
    stages = {*map(str, stages_of(opened.config)), "report"}
    tasks = {"flow_runs": {"id": {"any_": [run]}}}

    def states() -> dict[str, str]:
        found = server.post("/task_runs/filter", tasks)
        return {task["name"].rpartition("-")[0]: task["state_type"] for task in found}

    # Prefect writes them some time later, from events.
    wait_until(lambda: states() == dict.fromkeys(stages, "COMPLETED"), "the record of its stages")


def test_a_run_outlives_a_restart_of_the_database_the_server_and_the_worker(
    deployment: Deployment,
) -> None:
    run = start(deployment, "restarted", 300)
    deployment.kill_worker()
    deployment.server.kill()
    deployment.database.crash()
    before = deployment.markers()
    wait_until(lambda: deployment.markers() > before, "a shard without any of them")
    deployment.database.start()
    deployment.server.start()
    deployment.start_worker()
    assert_recorded(deployment, run, "restarted")


def test_a_run_that_ends_while_the_database_is_away_is_recorded_when_it_is_back(
    deployment: Deployment,
) -> None:
    run = start(deployment, "database-away", 100)
    deployment.database.crash()
    report = deployment.store / "runs" / "database-away" / "report" / "index.html"
    wait_until(report.exists, "the report")
    deployment.database.start()
    assert_recorded(deployment, run, "database-away")
