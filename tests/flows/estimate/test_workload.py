"""Planning: counts by hand, and the published size of a large run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig, Network
from flows.estimate import workload
from flows.estimate.counts import count_images
from flows.estimate.workload import Plan
from tests.support.fabricate import preset_file


@pytest.fixture
def tiny(tmp_path: Path) -> RunConfig:
    """Return the tiny config."""
    return load_run(str(preset_file(tmp_path)))


def test_counts_follow_from_the_config(tiny: RunConfig) -> None:
    plan = workload.plan_run(tiny)
    assert (plan.images, plan.shards, plan.batches) == (6, 1, 2)
    assert plan.image_iterations == 6 * 4
    assert plan.views == 6 * 2 * 2  # images x views x (distilled, random real)
    assert plan.students == 2 * 3
    assert plan.student_images == 6 * 6 * 2
    assert workload.shards_by_stage(tiny) == {
        "ingest": None,
        "squeeze": 1,
        "statistics": 0,
        "recover": 2,
        "relabel": 2,
        "posttrain": 6,
        "validate": None,
    }


@pytest.mark.parametrize(("images", "shards"), [(10_000, 0), (10_001, 12), (50_000, 30)])
def test_students_are_validated_in_shards_only_where_the_test_split_does_not_fit_one(
    tiny: RunConfig, images: int, shards: int
) -> None:
    assert workload.shards_by_stage(tiny, test_images=images)["validate"] == shards


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ({"format": "patterns", "num_classes": 7}, 7),
        ({"format": "imagefolder", "path": "/nowhere"}, None),
        ({"format": "imagefolder", "path": "s3://bucket/prefix"}, None),
    ],
)
def test_the_test_split_is_counted_only_where_it_lies_on_this_machine(
    tiny: RunConfig, data: dict[str, Any], images: int | None
) -> None:
    config = tiny.model_copy(update={"data": tiny.data.model_copy(update=data)})
    assert count_images(config).test == images


def test_online_labels_cost_no_bytes(tmp_path: Path) -> None:
    config = load_run(str(preset_file(tmp_path)), ["relabel.scheme=online"])
    plan = workload.plan_run(config)
    assert (plan.label_bytes, plan.label_shards) == (0, 0)


def test_without_the_baseline_there_is_one_image_set(tmp_path: Path) -> None:
    config = load_run(str(preset_file(tmp_path)), ["posttrain.sets=[distilled]"])
    assert workload.plan_run(config).views == 6 * 2


@pytest.fixture
def large(tmp_path: Path) -> Plan:
    """Return the plan of ImageNet-21K at 20 images per class, 2,000 steps."""
    changes = ["data.num_classes=10450", "data.side=224", "ipc=20", "recover.steps=2000"]
    shape = ["recover.batch_size=100", "squeeze.model={name: resnet18}"]
    return workload.plan_run(load_run(str(preset_file(tmp_path)), [*changes, *shape]))


def test_the_cost_of_a_large_run_follows_from_its_counts(large: Plan) -> None:
    assert large.images == 209_000
    assert large.shards == 105 * 2
    assert large.image_iterations == 418_000_000
    assert large.scheme == "features"


@pytest.mark.parametrize("name", get_args(Network))
def test_feature_widths_are_those_of_the_networks(name: Network) -> None:
    from distill_core.models.build import skeleton, split_head

    width = 4 if name.startswith(("resnet18_small", "resnet18_maxpool", "convnet")) else None
    for model in (ModelConfig(name=name), ModelConfig(name=name, width=width)):
        assert workload.feature_width(model) == split_head(skeleton(model, 10))[1].in_features
