"""`data.format=auto`: one format, stated in three lines, or an error that lists the candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from distill_core.config.data import DataConfig
from distill_core.config.load import load_run
from distill_core.data.detection.candidates import candidates
from distill_core.data.detection.resolve import resolve_data, resolve_run
from distill_core.data.detection.survey import Tree
from distill_core.data.readers.formats import open_reader
from distill_core.errors import ConfigError, DataError
from tests.support.datasets import data_config, encoded, picture, png
from tests.support.sources import LAYOUTS, Images, image_folders, synset_tars, write

BIG = encoded(picture(1, (40, 30)))
IMAGES: Images = {
    "train": {"n1": {"n1_0.png": BIG, "n1_1.png": png(2)}, "n0": {"n0_0.png": BIG}},
    "test": {"n1": {"v_0.png": png(3)}, "n0": {"v_1.png": png(4)}},
}


def resolved(path: Path | str, **changes: Any) -> tuple[DataConfig, list[str]]:
    heard: list[str] = []
    settings = {"format": "auto", "num_classes": 0} | changes
    return resolve_data(data_config(path, **settings), notice=heard.append), heard


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_config_of_each_layout_is_found(layout: str, tmp_path: Path) -> None:
    written = LAYOUTS[layout](IMAGES, tmp_path)
    config, _ = resolved(tmp_path)
    expected = data_config(tmp_path, **written)
    assert config.format == expected.format
    assert config.num_classes == 2
    assert (config.test_format, config.test) == (expected.test_format, expected.test)
    assert (config.label_list, config.class_list) == (expected.label_list, expected.class_list)


def test_what_was_found_is_stated_in_three_lines(tmp_path: Path) -> None:
    image_folders(IMAGES, tmp_path)
    _, heard = resolved(tmp_path)
    assert heard == [
        "ImageFolder, 2 classes, 3 + 2 images, 30 px median.",
        "Train split: train (ImageFolder: train/n0 and 1 more folders). Test split: test "
        "(ImageFolder: test/n0 and 1 more folders).",
        "Classes: n0, n1.",
    ]


def test_archives_are_stated_as_such(tmp_path: Path) -> None:
    synset_tars(IMAGES, tmp_path)
    _, heard = resolved(tmp_path)
    counts = "(uncounted, in 2 archives) + (uncounted, in 2 archives) images"
    assert heard[0] == f"tar files of classes, 2 classes, {counts}, 30 px median."


def test_a_config_that_leaves_nothing_open_is_returned_as_it_is(tmp_path: Path) -> None:
    config = data_config(tmp_path / "nowhere")
    heard: list[str] = []
    assert resolve_data(config, notice=heard.append) is config
    assert heard == []


def test_the_split_of_the_config_decides_between_several(tmp_path: Path) -> None:
    image_folders(IMAGES, tmp_path)
    image_folders({"val": IMAGES["test"]}, tmp_path)
    assert resolved(tmp_path)[0].test == "test"
    assert resolved(tmp_path, test="val")[0].test == "val"


def test_several_ways_are_listed(tmp_path: Path) -> None:
    image_folders({"train": IMAGES["train"], "val": IMAGES["test"]}, tmp_path)
    image_folders({"validation": IMAGES["test"]}, tmp_path)
    with pytest.raises(ConfigError, match=r"in 2 ways: .*test = val .*; or .*test = validation"):
        resolved(tmp_path)


def test_folders_and_archives_of_one_split_are_ambiguous(tmp_path: Path) -> None:
    image_folders(IMAGES, tmp_path)
    synset_tars({"train": IMAGES["train"]}, tmp_path)
    with pytest.raises(ConfigError, match=r"ImageFolder: .*; or .*tar files of classes: "):
        resolved(tmp_path)


def test_a_missing_split_is_named_with_what_is_there(tmp_path: Path) -> None:
    image_folders({"train": IMAGES["train"]}, tmp_path)
    with pytest.raises(DataError, match=r"found no test split; expected .*val.*there are train\."):
        resolved(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"found no train split; .*there are no files"):
        resolved(tmp_path / "empty")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_was_named_is_not_replaced_by_another(tmp_path: Path, split: str) -> None:
    image_folders(IMAGES, tmp_path)
    there = r"no images under this name; there are test, train\."
    with pytest.raises(DataError, match=rf"data.{split} = 'holdout': {there} Set data.{split}"):
        resolved(tmp_path, **{split: "holdout"})
    (tmp_path / split).rename(tmp_path / "holdout")
    assert getattr(resolved(tmp_path, **{split: "holdout"})[0], split) == "holdout"


def test_a_flat_split_without_its_list_names_the_key(tmp_path: Path) -> None:
    LAYOUTS["flat validation"](IMAGES, tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(ConfigError, match=r"data\.label_list: missing"):
        resolved(tmp_path)


def test_the_path_may_be_an_archive(tmp_path: Path) -> None:
    LAYOUTS["tar of tars"](IMAGES, tmp_path)
    config, _ = resolved(tmp_path / "train.tar")
    assert (config.path, config.train) == (str(tmp_path), "train.tar")
    assert open_reader(config).classes() == ("n0", "n1")


def test_an_archive_of_an_unknown_compression_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "winter21_whole.tar.zst", b"zst")
    for path in (tmp_path, tmp_path / "winter21_whole.tar.zst"):
        with pytest.raises(DataError, match=r"winter21_whole\.tar\.zst: compressed in a way"):
            resolved(path)


def test_the_path_may_be_a_compressed_archive_that_a_rule_divides(tmp_path: Path) -> None:
    LAYOUTS["compressed tar of tars"](IMAGES, tmp_path)
    (tmp_path / "test.tar.gz").unlink()
    (tmp_path / "train.tar.gz").rename(tmp_path / "winter21_whole.tar.gz")
    config, _ = resolved(tmp_path / "winter21_whole.tar.gz", split="first:1")
    assert (config.format, config.train) == ("tars", "winter21_whole.tar.gz")
    assert open_reader(config).classes() == ("n0", "n1")


def test_a_bucket_is_resolved_alike(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for layout in ("tar of tars", "Tiny-ImageNet", "Hugging Face"):
        folder = tmp_path / layout
        LAYOUTS[layout](IMAGES, folder)
        for path in filter(Path.is_file, folder.rglob("*")):
            memory.pipe_file(f"/auto/{path.relative_to(folder)}", path.read_bytes())
        try:
            remote, local = resolved("memory://auto")[0], resolved(folder)[0]
            assert remote.model_copy(update={"path": local.path}) == local
        finally:
            memory.rm("/auto", recursive=True)


def test_a_run_is_resolved_and_validated_again(tmp_path: Path) -> None:
    image_folders(IMAGES, tmp_path)
    overrides = [f"data.path={tmp_path}", "data.num_classes=0", "ipc=1"]
    run = load_run("cda-cifar10-cpu", [*overrides, "data.format=auto"])
    named = load_run("cda-cifar10-cpu", [*overrides, "data.format=imagefolder"])
    assert resolve_run(run) == resolve_run(named)
    assert resolve_run(run).data.num_classes == 2
    with pytest.raises(ConfigError, match=r"data\.path: missing"):
        resolve_run(load_run("cda-cifar10-cpu", ["data.format=auto"]))


def test_auto_itself_has_no_reader(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.format=auto: has no reader"):
        open_reader(data_config(tmp_path, format="auto"))


def test_candidates_follow_from_names_alone() -> None:
    tree = Tree(
        folders={"": ["train", "val"], "train": ["n0"], "train/n0": [], "val": []},
        files={"": ["val.txt"], "train/n0": ["a.JPEG"], "val": ["v.JPEG"]},
    )
    (found,) = candidates(tree, "train", "test")
    assert found.formats == ("imagefolder", "flat")
    assert (found.test.name, found.lists) == ("val", {"label_list": "val.txt"})
    assert candidates(Tree(), "train", "test") == []


def test_a_dataset_without_a_test_split_is_found_with_a_rule_that_divides_it(
    tmp_path: Path,
) -> None:
    synset_tars({"train": IMAGES["train"]}, tmp_path)
    config, heard = resolved(tmp_path, split="fraction:0.5")
    assert (config.format, config.num_classes, config.test) == ("tars", 2, "test")
    assert heard[1].endswith("Test split: by the rule fraction:0.5.")
