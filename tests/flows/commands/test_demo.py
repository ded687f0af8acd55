"""The demo of an ImageNet-1K teacher, small: two classes, few pixels and steps, no dataset."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.data.index_files import open_index
from distill_core.errors import ConfigError
from distill_core.label_spaces.lists import class_ids
from distill_core.storage.label_shards import decode_labels
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.commands import demos
from flows.estimate.workload import plan_run, shards_by_stage
from flows.reports import recognised
from flows.runs.pipeline import complete_run
from flows.status.status import run_status
from tasks.execution import Execution
from tasks.run import Run, create_run
from tasks.stages.inputs import dataset_of
from tests.support.pipeline import manifest

TENCH, SPRINGER = "n01440764", "n02102040"
SMALL = (
    f"data.keep=[{SPRINGER}, {TENCH}]",
    "data.side=64",
    "recover.steps=4",
    "recover.roll.pixels=4",
    "relabel.views=2",
    "threads=1",
)


def config(*overrides: str) -> RunConfig:
    return load_run(demos.IMAGENET, (*SMALL, *overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a complete run of the demo."""
    store = Store(str(tmp_path_factory.mktemp("demo")))
    run = create_run(config(), store)
    complete_run(run, Execution(store=store.url, local=True))
    return run


def test_a_run_without_a_dataset_ends_with_images_labels_and_a_report(run: Run) -> None:
    assert run_status(run).complete
    index = open_index(run.store, dataset_of(run))
    assert index.class_names == class_ids("imagenet-1k")
    assert [c.wnid for c in index.classes if not c.removed] == [TENCH, SPRINGER]
    assert (index.train.num_rows, index.test.num_rows) == (0, 0)
    names = [str(status.stage) for status in run_status(run).stages]
    assert names == ["ingest", "squeeze", "recover", "relabel"]
    (teacher,) = manifest(run, "squeeze").entries
    marker = ShardStore(run.store, "squeeze").marker(teacher.key)
    assert marker is not None
    assert marker.summary["accuracy"] is None


def test_soft_labels_have_every_class_of_the_label_space(run: Run) -> None:
    (entry,) = manifest(run, "relabel").entries
    shard_store = ShardStore(run.store, "relabel")
    marker = shard_store.marker(entry.key)
    assert marker is not None
    rows = decode_labels(shard_store.load(marker, "parquet"))
    assert rows.values is not None
    assert rows.values.shape[-1] == 1000


def test_the_table_and_the_picture_show_every_image(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    images = recognised.distilled_images(run)
    assert [(image.label, image.wnid) for image, _ in images] == [(0, TENCH), (217, SPRINGER)]
    demos.print_recognition(run)
    printed = capsys.readouterr().out
    for name in ("efficientnet_lite0 (teacher)", "efficientnet_lite1", "efficientnet_lite2"):
        assert re.search(rf"{re.escape(name)} +│ [0-2] of 2 +│ [0-2] of 2 +│ [01]\.\d\d ", printed)
    assert f"images: {run.store.uri(run.path(recognised.PICTURE))}" in printed
    with Image.open(io.BytesIO(run.store.read(run.path(recognised.PICTURE)))) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (recognised.SIDE + recognised.CAPTION, 2 * recognised.SIDE + 8, 3)
    left = Image.fromarray(images[0][1].transpose(1, 2, 0)).resize((160, 160), 1)
    assert np.array_equal(shown[:160, :160], np.asarray(left))


def test_the_opening_states_what_is_left_out() -> None:
    text = "\n".join(demos.imagenet_opening(load_run(demos.IMAGENET)))
    for words in ("10 classes", "no real image is read", "Post-training is left out", "150 steps"):
        assert words in text


def test_the_plan_counts_the_classes_that_are_kept() -> None:
    plan = plan_run(load_run(demos.IMAGENET))
    assert (plan.images, plan.shards, plan.students) == (10, 1, 0)
    assert shards_by_stage(load_run(demos.IMAGENET))["recover"] == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recover.init=real", "recover.init = real needs real images"),
        ("posttrain.students=[{name: resnet18}]", "posttrain.students needs real images"),
        ("squeeze.checkpoint=null", "set checkpoint"),
        ("data.label_space=null", "format=classes requires label_space"),
        ("data.format=imagefolder", "keep is allowed with format=classes only"),
    ],
)
def test_settings_that_need_images_are_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(override)


def test_a_class_that_the_list_does_not_have_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    run = create_run(config("data.keep=[n00000000]"), store)
    with pytest.raises(ConfigError, match="'n00000000' is no class of imagenet-1k"):
        complete_run(run, Execution(store=store.url, local=True))
