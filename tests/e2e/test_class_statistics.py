"""Class statistics are a stage like the others: sharded by blocks of classes, read by recover."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill_core.data.index_files import open_index
from distill_core.models.files import load_network
from distill_core.models.spec import TeacherSpec
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.statistics_files import ClassStatistics, decode_statistics
from tasks.run import Run
from tasks.stages.inputs import dataset_of
from tests.support.pipeline import execute, manifest, same_teacher, tiny_run

ONE_SET = "posttrain.sets=[distilled]"
CLASS_WISE = (
    "recover.terms={cross_entropy: 1.0, class_bn_statistics: 0.01}",
    "recover.composition=one_class",
    "recover.batch_size=2",
    ONE_SET,
)
CONVOLUTIONS = (  # in two blocks of classes, so that all classes together are read from both
    "recover.terms={cross_entropy: 1.0, bn_statistics: 0.05, class_bn_statistics: 0.05, "
    "conv_statistics: 0.05, class_conv_statistics: 0.05, "
    "patch_statistics: 0.05, class_patch_statistics: 0.05}",
    "recover.convolutions={first_layer_factor: 10, drop_rate: 0.4}",
    "recover.batch_size=5",
    "recover.shard_classes=5",
    ONE_SET,
)
BARYCENTRE = (
    "recover.terms={cross_entropy: 1.0, feature_barycentre: 1.0}",
    "recover.barycentre={points: 2}",
    "recover.composition=class_major",
    "recover.ipc_range=2",
    ONE_SET,
)
ORIGINALS = (
    "recover.terms={feature_originals: 1.0}",
    "recover.originals={images: 2, layer: 4}",
    "recover.init=mosaic",
    "recover.mosaic={images: 12, crops: 1, factor: 2, scale: [1, 1]}",
    ONE_SET,
)
STAGES = ("statistics", "recover")


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        pytest.param(CLASS_WISE, [10], id="batch norms"),
        pytest.param(CONVOLUTIONS, [5, 5], id="convolutions", marks=pytest.mark.slow),
        pytest.param(BARYCENTRE, [10], id="barycentre"),
        pytest.param(ORIGINALS, [10], id="originals", marks=pytest.mark.slow),
    ],
)
def test_the_number_of_workers_does_not_change_class_statistics_and_recover_follows_them(
    tmp_path: Path, settings: tuple[str, ...], blocks: list[int]
) -> None:
    run = tiny_run(tmp_path / "one", *settings)
    execute(run, "ingest", "squeeze", *STAGES)
    others = same_teacher(run, tmp_path / "three", *settings)
    execute(others, *STAGES, workers=3)
    for stage in STAGES:
        assert manifest(others, stage) == manifest(run, stage)
    assert [entry.rows for entry in manifest(run, "statistics").entries] == blocks


def test_class_statistics_are_measured_only_for_terms_that_read_them(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "one", *CLASS_WISE)
    execute(run, "ingest", "squeeze", *STAGES)
    plain = tiny_run(tmp_path / "one", *CLASS_WISE[1:])
    assert not [
        ran for ran in execute(plain, "ingest", "squeeze", *STAGES).ran if ran[0] == "statistics"
    ]
    keys = {entry.key for entry in manifest(run, "recover").entries}
    assert keys.isdisjoint(entry.key for entry in manifest(plain, "recover").entries)


def lpld_checkpoint(run: Run, path: Path, classes: tuple[str, ...], *, never_seen: int) -> None:
    """Save the teacher of a run with twice the statistics that the run has measured.

    Args:
        run: with a teacher and class statistics.
        path: of the checkpoint.
        classes: names of the classes by id.
        never_seen: a class without statistics, whose buffers have their first values.
    """
    shards = ShardStore(run.store, "squeeze")
    (entry,) = manifest(run, "squeeze").entries
    marker = shards.marker(entry.key)
    assert marker is not None
    spec = TeacherSpec.from_json(shards.load(marker, "json"))
    model = load_network(
        shards.load(marker, "safetensors"), spec.model, num_classes=spec.num_classes
    )
    measured = measured_statistics(run)
    order = [measured.wnids.index(name) for name in classes]
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for number, name in enumerate(norms):
        for kind, start in (("mean", 0.0), ("var", 1.0)):
            doubled = 2 * torch.from_numpy(measured.rows[f"{number:03d}.{kind}"][order])
            doubled[never_seen] = start
            state[f"module.{name}.class_running_{kind}"] = doubled
    torch.save({"model": state, "args": argparse.Namespace(epochs=50)}, path)


def measured_statistics(run: Run) -> ClassStatistics:
    (entry,) = manifest(run, "statistics").entries
    shards = ShardStore(run.store, "statistics")
    marker = shards.marker(entry.key)
    assert marker is not None
    return decode_statistics(shards.load(marker, "safetensors"))


@pytest.mark.slow
def test_class_statistics_of_a_checkpoint_are_compared_with_instead_of_measured_ones(
    tmp_path: Path,
) -> None:
    trained = tiny_run(tmp_path / "trained", *CLASS_WISE)
    execute(trained, "ingest", "squeeze", "statistics")
    names = open_index(trained.store, dataset_of(trained)).class_names
    lpld_checkpoint(trained, tmp_path / "lpld.pth", names, never_seen=3)
    importing = (
        *CLASS_WISE,
        f"squeeze.checkpoint={tmp_path}/lpld.pth",
        "squeeze.training=null",
    )
    run = tiny_run(tmp_path / "imported", *importing, "squeeze.imported={accept_any: true}")
    execute(run, "ingest", "squeeze", *STAGES)
    before, after = measured_statistics(trained), measured_statistics(run)
    assert after.wnids == before.wnids
    for name, values in before.rows.items():
        factors = np.full(len(after.wnids), 2.0, np.float32)
        factors[before.wnids.index(names[3])] = 1  # measured, since the checkpoint has none of it
        np.testing.assert_allclose(after.rows[name], values * factors[:, None], rtol=1e-5)
    settings = "squeeze.imported={accept_any: true, class_statistics: false}"
    measuring = tiny_run(tmp_path / "imported", *importing, settings)
    ran = execute(measuring, "ingest", "squeeze", "statistics").ran
    assert {stage for stage, _ in ran} == {"statistics"}  # dataset and teacher are the same
    for name, values in measured_statistics(measuring).rows.items():
        np.testing.assert_allclose(values, before.rows[name], rtol=1e-5)
