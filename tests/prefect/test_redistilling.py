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

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


def redistil(operator: Operator, root: Path, *, policy: str = "keep") -> dict[str, Any]:
    """Run the deployment once more; return how the flow run ended."""
    data = ("data.format=imagefolder", f"data.path={root}", "data.num_classes=4", "data.side=8")
    asked = operator.ask(
        "redistill",
        preset="digits-demo",
        overrides=[*TINY, *BLOCKS, "ipc=1", "posttrain.sets=[distilled]", *data],
        series="scheduled",
        policy=policy,
        execution={"local": True},
    )
    assert asked.status_code == 201, asked.text
    return operator.end_of(asked.json()["id"])


def names(store: Path) -> list[str]:
    return [run.name for run in versions_of(Store(str(store)), "scheduled")]


def test_a_version_is_made_when_the_data_changed_and_only_then(
    operator: Operator, store: Path, root: Path
) -> None:
    for expected in (["scheduled-v0001"], ["scheduled-v0001"]):
        state = redistil(operator, root)
        assert (state["type"], names(store)) == ("COMPLETED", expected), state
    change_class(root, "cat")
    state = redistil(operator, root)
    assert (state["type"], names(store)) == ("COMPLETED", ["scheduled-v0001", "scheduled-v0002"])
    last = versions_of(Store(str(store)), "scheduled")[-1]
    assert run_status(last).complete
    assert last.store.exists(last.path("diff.md"))


def test_a_class_unknown_to_a_kept_teacher_fails_the_flow_with_the_reason(
    operator: Operator, store: Path, root: Path
) -> None:
    redistil(operator, root)
    before = names(store)
    write_class(root, "bat", seed=7)
    state = redistil(operator, root)
    assert (state["type"], "class 'bat' is new" in state["message"]) == ("FAILED", True)
    assert names(store) == before
