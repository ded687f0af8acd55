"""`--if-changed`: a listing of the source decides whether a version is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_core.config.schema import RunConfig
from distill_core.errors import DataError
from flows.runs.last_version import FILE, unchanged
from tasks.run import Run
from tests.support.datasets import png
from tests.support.noted_reads import note_reads
from tests.support.places import objects
from tests.support.series import (
    CLASSES,
    ONE_SHARD,
    Series,
    change_class,
    fabricated,
    small,
    write_class,
)
from tests.support.sources import Writer, hugging_face, synset_tars

ONE_SET = "posttrain.sets=[distilled]"
REAL = ("recover.init=real", ONE_SET)


def looked(series: Series, config: RunConfig) -> Run | None:
    """Look at the source, and check that nothing is written."""
    before = objects(series.store)
    found = unchanged(config, series.store, series="small", policy="keep")
    assert objects(series.store) == before
    return found


def test_an_unchanged_folder_is_listed_and_nothing_of_it_is_read(
    series: Series, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(root, *REAL)
    assert looked(series, config) is None  # no version yet
    first, seen = series(config).run, note_reads(monkeypatch)
    assert (looked(series, config), seen) == (first, [])
    assert looked(series, small(root, *REAL, "ipc=2")) is None


def test_any_change_of_either_split_is_a_change(series: Series, root: Path) -> None:
    config = small(root, *REAL)
    first = series(config).run
    train, test = root / "train" / "cat", root / "test" / "cat" / "0.png"
    changes: tuple[Callable[[], object], ...] = (
        lambda: test.write_bytes(png(99_999)),
        lambda: (train / "0.png").rename(train / "8.png"),
    )
    for change in changes:
        change()
        assert looked(series, config) is None
        assert series(config).changed
        assert looked(series, config) is not None
    assert looked(series, config) != first


def test_a_file_that_is_written_again_is_read_once_and_nothing_is_recomputed(
    series: Series, root: Path
) -> None:
    config = small(root, *REAL)
    first = series(config).run
    again = root / "train" / "cat" / "1.png"
    again.write_bytes(again.read_bytes())
    assert looked(series, config) is None
    outcome = series(config)
    assert (outcome.run, outcome.changed, series.ran) == (first, False, [])
    assert looked(series, config) == first
    write_class(root, "cat", seed=5)
    assert looked(series, config) is None


def test_a_change_without_effect_is_compared_once(series: Series, root: Path) -> None:
    config = small(root, ONE_SET)  # from noise, with the teacher kept
    first = series(config).run
    change_class(root, "cat")
    assert looked(series, config) is None
    assert series(config).unused is not None
    assert looked(series, config) == first
    assert unchanged(config, series.store, series="small", policy="fine_tune") is None
    first.store.put(first.path(FILE), b"{}")  # damaged: compared again
    assert looked(series, config) is None


def test_an_incomplete_version_is_finished_first(series: Series, root: Path) -> None:
    config = small(root, *REAL)
    series(config, complete=series.upto("squeeze", "recover"))
    assert looked(series, config) is None
    finished = series(config).run
    assert {stage for stage, _ in series.ran} == {"relabel", "posttrain"}
    assert (finished.name, looked(series, config)) == ("small-v0001", finished)
    change_class(root, "cat")
    series(config, complete=series.upto("squeeze"))
    assert looked(series, config) is None
    assert series(config).run.name == "small-v0002"


def test_a_class_without_training_images_is_refused_as_by_redistill(
    series: Series, root: Path
) -> None:
    config = small(root, *ONE_SHARD)
    series(config, complete=fabricated)
    shutil.rmtree(root / "train" / "dog")
    with pytest.raises(DataError) as refused:
        unchanged(config, series.store, series="small", policy="keep")
    with pytest.raises(DataError) as also:
        series(config)
    assert str(refused.value) in str(also.value)


def test_a_folder_that_is_divided_by_a_rule_is_listed(series: Series, root: Path) -> None:
    config = small(root, *ONE_SHARD, "data.split=fraction:0.4")
    first = series(config, complete=fabricated).run
    assert looked(series, config) == first
    (root / "train" / "dog" / "2.png").unlink()
    assert looked(series, config) is None


@pytest.mark.parametrize("write", [synset_tars, hugging_face], ids=["tars", "parquet"])
def test_archives_and_tables_are_compared_by_size_and_time(
    series: Series, tmp_path: Path, write: Writer
) -> None:
    images = {
        split: {wnid: {f"{n}.png": png(9 * seed + n) for n in range(2)} for wnid in CLASSES}
        for seed, split in enumerate(("train", "test"))
    }
    (root := tmp_path / "source").joinpath("train").mkdir(parents=True)
    settings = [f"data.{key}={value}" for key, value in write(images, root).items()]
    config = small(root, *ONE_SHARD, *settings, "data.num_classes=4")
    first = series(config, complete=fabricated).run
    assert looked(series, config) == first
    write(images | {"test": {**images["test"], "cat": {"0.png": png(777)}}}, root)
    assert looked(series, config) is None
