"""Classes with fewer real images than a run wants of each: said at ingestion and in every table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.commands.summary import outcome_json
from flows.reports import report, report_data
from flows.status.status import run_status
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run
from tasks.runs.run_stage import run_stage
from tasks.stages.names import StageId
from tests.support.datasets import encoded, picture
from tests.support.fault_runs import Watch
from tests.support.pipeline import execute, tiny_run

SIZES = {"cat": 3, "dog": 5}  # training images
IPC = 4  # so the baseline has 3 + 4 different images of 8


def dataset(folder: Path) -> tuple[str, ...]:
    """Write a dataset and return the overrides that name it."""
    for number, (name, count) in enumerate(SIZES.items()):
        for split, images in (("train", count), ("test", 2)):
            (folder / split / name).mkdir(parents=True)
            for n in range(images):
                image = encoded(picture(100 * number + 10 * n + len(split), (32, 32)))
                (folder / split / name / f"{n}.png").write_bytes(image)
    return ("data.format=imagefolder", f"data.path={folder}", "data.num_classes=2")


def small_run(folder: Path, *overrides: str) -> Run:
    """Register a tiny run on a dataset of two small classes."""
    own = dataset(folder / "data")
    return tiny_run(folder / "store", *own, "squeeze.training.batch_size=4", *overrides)


def noticed(run: Run) -> list[str]:
    """Return what ingestion notices."""
    watch, execution = Watch(), Execution(store=run.store.url, local=True)
    with PoolProvider(execution) as pools:
        run_stage(run, StageId("ingest"), execution=execution, observer=watch, pools=pools)
    return [text for stage, text in watch.notices if stage == "ingest"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((f"ipc={IPC}",), ["1 of 2 classes have fewer", "ipc = 4", "'cat', has 3", "the baseline"]),
        (("ipc=70",), ["2 of 2 classes have fewer", "ipc = 70", "'cat', has 3"]),
        (
            ("ipc=4", "recover.init=real", "posttrain.sets=[distilled]"),
            ["1 of 2 classes", "that the images start from repeat"],
        ),
    ],
)
def test_a_small_class_is_noticed_at_ingestion(
    tmp_path: Path, overrides: Sequence[str], words: list[str]
) -> None:
    (line,) = noticed(small_run(tmp_path, *overrides))
    assert [word for word in words if word not in line] == []
    assert "\n" not in line


@pytest.mark.parametrize("overrides", [("ipc=3",), ("ipc=4", "posttrain.sets=[distilled]")])
def test_enough_images_or_no_use_of_them_is_no_notice(
    tmp_path: Path, overrides: Sequence[str]
) -> None:
    assert noticed(small_run(tmp_path, *overrides)) == []


def test_too_few_test_images_for_an_imported_teacher_are_noticed_at_ingestion(
    tmp_path: Path,
) -> None:
    overrides = ("ipc=1", "squeeze.checkpoint=teacher.pth", "squeeze.training=null")
    (text,) = noticed(small_run(tmp_path / "imported", *overrides))
    assert "too few test images to judge the teacher: of 4, the largest class has 2" in text
    assert noticed(small_run(tmp_path / "trained", "ipc=1")) == []


def test_every_table_states_how_many_images_differ(tmp_path: Path) -> None:
    short = ("posttrain.epochs=1", "posttrain.evaluate_every=1", "posttrain.seeds=[0]")
    sets = "posttrain.sets=[distilled, random_real]"
    run = small_run(tmp_path, f"ipc={IPC}", "posttrain.batch_size=4", sets, *short)
    execute(run)
    data = report_data.gather(run)
    stated = {row.images_of: row.distinct for row in data.accuracy}
    assert stated == {"distilled": None, "random_real": (7, 8)}
    title = "random real images, soft labels; 7 of 8 differ"
    assert [cells[1] for cells in data.cells].count(title) == 1
    assert title in run.store.read(report.write_report(run)).decode()
    rows = json.loads(json.dumps(outcome_json(run, run_status(run))))["accuracy"]
    assert [row["distinct"] for row in rows] == [None, [7, 8]]
