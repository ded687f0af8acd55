"""The preset of every method, shrunk, runs through every stage and trains a student of each set."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.load import load_run, preset_names, validate_run
from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from tasks.run import create_run
from tests.support.pipeline import execute, manifest
from tests.support.shrunk import shrunk

BESIDE = ("fadrm-cifar100", "fadrm-plus-tiny", "lpld-tiny", "lpqld-in1k", "wmdd-tiny")
PRESETS = [*(name for name in preset_names() if name.endswith("-cifar10")), *BESIDE]


def smallest(preset: str) -> RunConfig:
    """Return the shrunk preset on generated images, with labels stored as in the preset."""
    tree, relabel = shrunk(preset).model_dump(mode="json"), load_run(preset).relabel
    tree["data"] |= {"name": "patterns", "format": "patterns", "path": None}
    tree["precision"] = "float32"
    tree["squeeze"]["training"] |= {"epochs": 1, "batch_size": 8}
    tree["relabel"] |= {"scheme": relabel.scheme, "topk": relabel.topk and 2}
    return validate_run(tree, where=preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_runs_from_its_teachers_to_its_students(preset: str, tmp_path: Path) -> None:
    run = create_run(smallest(preset), Store(str(tmp_path / "store")))
    execute(run)
    assert len(manifest(run, "squeeze").entries) == 1 + len(run.config.squeeze.pool)
    assert len(manifest(run, "posttrain").entries) == len(run.config.posttrain.sets)
    assert not manifest(run, "posttrain").missing
