"""Re-distillation by a deployment: a new version if the dataset changed, and no run otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_core.storage.store import Store
from flows.status.status import run_status
from tasks.series import versions_of
from tests.support.pipeline import TINY
from tests.support.prefect_server import Operator
from tests.support.series import BLOCKS, change_class, dataset, write_class
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


def redistil(
    operator: Operator,
    root: Path,
    *,
    init: str = "real",
    series: str = "scheduled",
    if_changed: bool = False,
) -> dict[str, Any]:
    """Run the deployment once more; return the flow run when it has ended."""
    data = ("data.format=imagefolder", f"data.path={root}", "data.num_classes=4", "data.side=8")
    students = ("posttrain.sets=[distilled]",)
    asked = operator.ask(
        "redistill",
        preset="digits-demo",
        overrides=[*TINY, *BLOCKS, "ipc=1", *students, f"recover.init={init}", *data],
        series=series,
        if_changed=if_changed,
        execution={"local": True},
    )
    assert asked.status_code == 201, asked.text
    operator.end_of(asked.json()["id"])
    found: dict[str, Any] = operator.server.get(f"/flow_runs/{asked.json()['id']}")
    return found


def names(store: Path, series: str = "scheduled") -> list[str]:
    return [run.name for run in versions_of(Store(str(store)), series)]


def test_a_version_is_made_when_the_data_changed_and_only_then(
    operator: Operator, store: Path, root: Path
) -> None:
    state = redistil(operator, root)["state"]
    assert (state["type"], names(store)) == ("COMPLETED", ["scheduled-v0001"]), state
    idle = redistil(operator, root, if_changed=True)
    assert (idle["state"]["type"], names(store)) == ("COMPLETED", ["scheduled-v0001"]), idle
    assert "neither the source nor the settings have changed" in idle["state"]["message"]
    tasks = {"flow_runs": {"id": {"any_": [idle["id"]]}}}
    assert operator.server.post("/task_runs/filter", tasks) == []
    change_class(root, "cat")
    state = redistil(operator, root, if_changed=True)["state"]
    assert (state["type"], names(store)) == ("COMPLETED", ["scheduled-v0001", "scheduled-v0002"])
    last = versions_of(Store(str(store)), "scheduled")[-1]
    assert run_status(last).complete
    assert last.store.exists(last.path("diff.md"))


def test_a_change_without_effect_makes_no_version_and_is_logged(
    operator: Operator, store: Path, root: Path
) -> None:
    noise = {"init": "gaussian", "series": "noisy"}
    redistil(operator, root, **noise)
    change_class(root, "bee")
    again = redistil(operator, root, **noise)
    assert again["state"]["type"] == "COMPLETED", again["state"]
    assert names(store, "noisy") == ["noisy-v0001"]
    wanted = {"logs": {"flow_run_id": {"any_": [again["id"]]}}}

    def logged() -> bool:
        lines = operator.server.post("/logs/filter", wanted)
        return any("noisy-v0001 stays the current version" in line["message"] for line in lines)

    wait_until(logged, "the line in the log")


def test_a_class_unknown_to_a_kept_teacher_fails_the_flow_with_the_reason(
    operator: Operator, store: Path, root: Path
) -> None:
    redistil(operator, root)
    before = names(store)
    write_class(root, "bat", seed=7)
    state = redistil(operator, root)["state"]
    assert (state["type"], "class 'bat' is new" in state["message"]) == ("FAILED", True)
    assert names(store) == before
