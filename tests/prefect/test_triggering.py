"""Runs triggered by command line and by form, and the refusal of invalid ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from distill_core.config.load import load_run
from distill_core.storage.store import Store
from flows.orchestration.deployments import COLLISION, FLOWS, NAMES
from tasks.run import open_run
from tests.support.pipeline import TINY
from tests.support.prefect_server import FILES, Operator, Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def trigger(operator: Operator, *arguments: str) -> str:
    """Trigger a tiny run on this machine, without Ray, and return the flow run's id."""
    return operator.trigger("digits-demo", *TINY, *arguments, "--local")


def test_a_triggered_run_completes_with_the_config_resolved_when_triggered(
    operator: Operator, store: Path
) -> None:
    run = trigger(operator, "--set", "recover.steps=5", "--name", "triggered")
    state = operator.end_of(run)
    assert state["type"] == "COMPLETED", state
    config = load_run("digits-demo", (*TINY, "recover.steps=5"))
    assert open_run(Store(str(store)), "triggered").config == config
    found = operator.server.get(f"/flow_runs/{run}")
    assert found["parameters"]["config"] == config.model_dump(mode="json")
    assert found["name"] == "triggered"
    assert "done" in operator.distill("status", "triggered", "--store", str(store))


def test_a_form_with_a_preset_and_overrides_is_resolved_by_the_flow(
    operator: Operator, store: Path
) -> None:
    asked = operator.ask(
        "distill",
        preset="digits-demo",
        overrides=[*TINY, "recover.steps=5"],
        run="triggered",  # the same config under the same name: the same run
        execution={"local": True},
    )
    assert asked.status_code == 201, asked.text
    assert operator.end_of(asked.json()["id"])["type"] == "COMPLETED"


def test_waiting_for_a_run_shows_its_progress_and_ends_as_the_run_does(
    operator: Operator, store: Path
) -> None:
    line = ("trigger", "digits-demo", *TINY, "--name", "waited", "--local", "--wait")
    out, shown = operator.output(*line, "recover.steps=5")
    assert "(waited) of distill/new-run" in out
    assert shown.splitlines()[-1] == "distill: waited: completed"
    assert "posttrain" in shown
    assert "waits" not in shown
    refused = operator.distill(*line, "recover.steps=6", code=2).splitlines()[-1]
    assert refused.startswith("distill: waited: failed: ")
    assert "the run exists with another config" in refused


@pytest.fixture(scope="module")
def idle(deployed: Operator, store: Path) -> tuple[str, ...]:
    """Deploy to a pool that no worker polls; return the options that choose it."""
    deployed.prefect("work-pool", "create", "idle", "--type", "process")
    entrypoint, file = "flows.orchestration.prefect_flow.distill", str(FILES / "prefect.yaml")
    where = ("--pool", "idle", "--prefect-file", file)
    deployed.prefect("deploy", entrypoint, "-n", "new-run-idle", *where)
    return ("--deployment", "idle", "--store", str(store))


def test_a_run_that_nobody_takes_is_warned_about_and_has_its_name_while_it_waits(
    deployed: Operator,
    idle: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("data.path=images/small", "squeeze.training=null", "squeeze.checkpoint=teacher.pth")
    out, warned = deployed.output("trigger", "digits-demo", *changes, *idle, "--json")
    run = deployed.server.get(f"/flow_runs/{json.loads(out)['id']}")
    config = run["parameters"]["config"]
    assert config["data"]["path"] == str(tmp_path / "images" / "small")
    assert config["squeeze"]["checkpoint"] == str(tmp_path / "teacher.pth")
    assert (run["state"]["type"], run["name"]) == ("SCHEDULED", json.loads(out)["name"])
    assert run["name"].startswith("digits-demo-")
    local, nobody = warned.splitlines()
    assert f"data.path = {tmp_path}/images/small, squeeze.checkpoint = {tmp_path}" in local
    assert "no worker polls the work pool idle. Run `prefect worker start --pool idle`" in nobody


def test_ctrl_c_ends_waiting_and_leaves_the_run_queued(
    deployed: Operator, idle: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "flows.cli", "trigger", "digits-demo", *idle, "--wait"]
    process = subprocess.Popen(
        [*command, "--name", "left"],
        env=deployed.server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    run = process.stdout.readline().split()[2]
    lines = iter(process.stderr.readline, "")
    assert any("left: scheduled" in line for line in lines)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert f"stopped waiting; the flow run {run} is not affected" in rest[-1]
    assert deployed.state(run)["type"] == "SCHEDULED"


def test_one_machine_serves_the_deployments_until_it_is_stopped(
    operator: Operator, store: Path
) -> None:
    command = [sys.executable, "-m", "flows.cli", "serve", "--deployment", "served", "--local"]
    environment = {**operator.server.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    process = subprocess.Popen([*command, "--store", str(store)], env=environment)
    try:
        wait_until(
            lambda: "new-version-served" in operator.deployments("redistill"), "the deployments"
        )
        weekly = ("--cron", "0 3 * * 0", "--deployment", "served")
        operator.distill("schedule", "digits-demo", *weekly)
        path = "/deployments/name/distill/new-run-served"
        wait_until(lambda: operator.server.get(path)["status"] == "READY", "the first poll")
        options = ("--name", "triggered", "--deployment", "served", "--local", "--json")
        line = ("trigger", "digits-demo", *TINY, "recover.steps=5", *options)
        run = json.loads(operator.distill(*line))
        assert run["problem"] is None
        assert operator.end_of(run["id"])["type"] == "COMPLETED"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0
    found = operator.server.get("/deployments/name/redistill/new-version-served")
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == COLLISION
    assert (found["paused"], found["schedules"][0]["active"]) == (False, True)


def test_another_config_under_the_same_name_is_refused(operator: Operator) -> None:
    state = operator.end_of(trigger(operator, "recover.steps=6", "--name", "triggered"))
    assert state["type"] == "FAILED"
    assert "the run exists with another config" in state["message"]


@pytest.mark.parametrize(
    ("flow", "wrong"),
    [
        ("distill", {"preset": "no-such-preset"}),
        ("distill", {"preset": "digits-demo", "store": "ftp://host/runs"}),
        ("distill", {"preset": "digits-demo", "store": "s3://"}),
        ("distill", {"preset": "digits-demo", "store": "s3://key:hush@bucket/runs"}),
        ("distill", {"preset": "digits-demo", "store": "s3://key:hu/sh@bucket/runs"}),
        ("distill", {"preset": "digits-demo", "store": "s3://bucket//runs"}),
        ("distill", {"preset": "digits-demo", "run": "../other"}),
        ("distill", {"preset": "digits-demo", "overrides": ["data.path=s3://key:hu/sh@b/x"]}),
        ("redistill", {"preset": "digits-demo", "series": "a\tb"}),
        ("distill", {"preset": "digits-demo", "shards": "five"}),
        ("distill", {"preset": "digits-demo", "overrides": ["ipc"]}),
        ("distill", {"preset": "digits-demo", "execution": {"workers": 0}}),
        ("distill", {"preset": "digits-demo", "execution": {"workerz": 1}}),
        ("distill", {"config": {"ipc": 1}}),
        ("resume", {}),
        ("redistill", {"preset": "digits-demo", "policy": "hope"}),
    ],
)
def test_the_server_refuses_an_invalid_form_without_a_flow_run(
    deployed: Operator, flow: str, wrong: dict[str, Any]
) -> None:
    answer = deployed.ask(flow, **wrong)
    assert answer.status_code == 409, answer.text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "digits-demo", "overrides": ["ipc=0"]}, "ipc = 0"),
        ({"preset": "digits-demo", "shards": "5-2"}, "runs backwards"),
        ({"preset": None}, "preset: missing"),
    ],
)
def test_the_flow_refuses_an_invalid_form_before_any_stage(
    operator: Operator, wrong: dict[str, Any], words: str
) -> None:
    asked = operator.ask("distill", **wrong)
    assert asked.status_code == 201, asked.text
    state = operator.end_of(asked.json()["id"])
    assert state["type"] == "FAILED"
    assert words in state["message"]
    assert (
        operator.server.post(
            "/task_runs/filter", {"flow_runs": {"id": {"any_": [asked.json()["id"]]}}}
        )
        == []
    )


def test_a_deployment_that_is_not_there_is_refused_with_a_hint(deployed: Operator) -> None:
    said = deployed.distill("trigger", "digits-demo", "--deployment", "nightly", code=2)
    assert "no deployment distill/new-run-nightly" in said
    assert "prefect.yaml" in said


def test_a_missing_password_gives_status_401_and_a_hint(server: Server, deployed: Operator) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/flows/count").status_code in (401, 405)
    body: dict[str, Any] = {}
    assert httpx.post(f"{server.url}/flows/filter", json=body).status_code == 401
    assert isinstance(server.post("/flows/filter", body), list)

    stranger = Operator(Server(server.home, port=server.port, password="wrong"))
    said = stranger.distill("trigger", "digits-demo", code=2)
    assert "PREFECT_API_AUTH_STRING" in said


def test_the_password_is_in_no_log_config_or_object(
    operator: Operator, server: Server, store: Path
) -> None:
    trail = [*server.home.glob("*.log"), *(path for path in store.rglob("*") if path.is_file())]
    assert (server.home / "worker.log").stat().st_size > 0
    assert not [path for path in trail if server.password.encode() in path.read_bytes()]
    assert server.password not in operator.prefect("config", "view", "--show-sources")
    logs = server.post("/logs/filter", {"limit": 200})
    assert logs
    assert server.password not in json.dumps(logs)
    assert server.password not in json.dumps(server.post("/artifacts/filter", {"limit": 200}))


def test_prefect_yaml_and_serve_define_the_same_deployments() -> None:
    tree = yaml.safe_load((FILES / "prefect.yaml").read_text())
    described = tree["deployments"]
    assert [one["entrypoint"] for one in described] == [
        f"flows.orchestration.prefect_flow.{f}" for f in FLOWS
    ]
    for one in described:
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": COLLISION}
    assert [one["name"] for one in described] == list(NAMES.values())
    assert len(set(NAMES.values())) == len(FLOWS)
