"""A dataset from its address alone: its splits, its facts, and one clear line where it is none."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from distill_core.config.recommended.facts import Machine, Shapes
from distill_core.config.recommended.sizes import View
from distill_core.data.detection import sample
from distill_core.data.detection.recommend import recommend
from distill_core.data.detection.source import find_source, name_of
from distill_core.data.readers.formats import open_reader
from distill_core.errors import ConfigError, DataError
from tests.support.datasets import encoded, image_folder, picture, png, write_parquet
from tests.support.sources import LAYOUTS, Images, tar_bytes, write

LAPTOP = Machine("cpu", 8 * 2**30)
IMAGES: Images = {
    "train": {n: {f"{n}_{k}.png": png(k) for k in range(4)} for n in ("n0", "n1")},
    "test": {n: {f"v{n}.png": png(9)} for n in ("n0", "n1")},
}


def pictures(root: Path, **classes: int) -> Path:
    """Write a folder of images for each class, side by side, and return the folder above them."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png(number))
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_by_its_address(layout: str, tmp_path: Path) -> None:
    written = LAYOUTS[layout](IMAGES, tmp_path)
    source = find_source(str(tmp_path), {})
    assert source.config.format == written["format"]
    assert source.facts.classes == ("n0", "n1")
    assert source.facts.images == 8  # archives that are read to their end are counted
    assert "split" not in source.facts.data
    run = recommend(str(tmp_path), [], LAPTOP).config
    assert sorted(open_reader(run.data).classes("test")) == ["n0", "n1"]


def test_folders_of_classes_side_by_side_are_one_split_that_a_rule_divides(tmp_path: Path) -> None:
    source = find_source(str(pictures(tmp_path, cat=5, dog=3)), {})
    assert source.facts.data == {
        "path": str(tmp_path),
        "format": "imagefolder",
        "train": ".",
        "split": "fraction:0.2",
    }
    assert (source.facts.images, source.facts.smallest) == (8, 3)
    (part,) = open_reader(source.config).parts("train")
    assert part.files == ("cat", "dog")
    names = [r.name for r in open_reader(source.config).records(part, ("cat", "dog"))]
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "0.png", "1.png", "2.png"]


def test_the_same_images_have_the_same_names_and_classes_with_and_without_a_split_folder(
    tmp_path: Path,
) -> None:
    above = pictures(tmp_path / "pictures", cat=2, dog=2)
    below = pictures(tmp_path / "other" / "train", cat=2, dog=2).parent
    found = [find_source(str(folder), {}).config for folder in (above, below)]
    assert [config.train for config in found] == [".", "train"]
    records = [
        [(r.label, r.name, r.data) for p in reader.parts("train") for r in reader.records(p, names)]
        for reader in map(open_reader, found)
        if (names := reader.classes())
    ]
    assert records[0] == records[1]


def test_a_bucket_is_found_like_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "flowers", rose=3, tulip=3)
    memory = fsspec.filesystem("memory")
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        memory.pipe_file(f"/bucket/{path.relative_to(tmp_path)}", path.read_bytes())
    try:
        local = recommend(str(tmp_path / "flowers"), [], LAPTOP).config
        remote = recommend("memory://bucket/flowers/", [], LAPTOP).config
        with pytest.raises(DataError, match=r"memory://bucket/nowhere: no such file or folder"):
            find_source("memory://bucket/nowhere", {})
    finally:
        memory.rm("/bucket", recursive=True)
    assert remote.data.path == "memory://bucket/flowers"
    same = {"path": local.data.path}
    assert remote.model_copy(update={"data": remote.data.model_copy(update=same)}) == local


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_file_is_a_dataset(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "test" / "note.txt", b"another dataset")
    names = ("cat", "dog")
    if kind == "tar":
        members = [(f"flowers/{name}/{n}.png", png(n)) for name in names for n in range(5)]
        write(tmp_path / "flowers.tar", tar_bytes(members))
    else:
        rows = [(png(n), n % 2) for n in range(10)]
        write_parquet(tmp_path / "flowers.parquet", rows, names=names)
    source = find_source(str(tmp_path / f"flowers.{kind}"), {})
    assert (source.facts.name, source.facts.classes) == ("flowers", names)
    assert source.facts.data["split"] == "fraction:0.2"
    assert source.facts.images == 10


@pytest.mark.parametrize("folder", ["", "data"])
def test_parquet_files_of_one_set_are_a_dataset(folder: str, tmp_path: Path) -> None:
    for part in range(2):
        path = tmp_path / folder / f"flowers-0000{part}-of-00002.parquet"
        write_parquet(path, [(png(n), n % 2) for n in range(5)], names=("cat", "dog"))
    facts = find_source(str(tmp_path), {}).facts
    assert facts.data["train"] == f"{folder}/flowers".lstrip("/")
    assert (facts.images, facts.data["split"]) == (10, "fraction:0.2")
    write_parquet(tmp_path / folder / "birds.parquet", [(png(0), 0)], names=("cat", "dog"))
    with pytest.raises(DataError, match="found no images"):
        find_source(str(tmp_path), {})


def test_webdataset_shards_of_one_set_are_a_dataset(tmp_path: Path) -> None:
    for part in range(2):
        members = [(f"{n}.{kind}", data) for n in range(4) for kind, data in sample_of(n)]
        write(tmp_path / f"shard-{part}.tar", tar_bytes(members))
    facts = find_source(str(tmp_path), {}).facts
    assert (facts.data["format"], facts.data["train"], facts.images) == ("webdataset", ".", 8)


def sample_of(number: int) -> list[tuple[str, bytes]]:
    """Return the image and the label of a sample."""
    return [("png", png(number)), ("cls", str(number % 2).encode())]


def test_the_archive_of_a_training_split_has_its_test_split_beside_it(tmp_path: Path) -> None:
    LAYOUTS["tar of tars"](IMAGES, tmp_path)
    source = find_source(str(tmp_path / "train.tar"), {})
    assert (source.facts.data["train"], source.facts.data["test"]) == ("train.tar", "test")


def test_an_unlabelled_test_split_is_passed_over_for_one_with_labels(tmp_path: Path) -> None:
    rows = [(png(n), n % 2) for n in range(10)]
    for name, found in (("train", rows), ("test", [(png(0), -1)] * 3), ("validation", rows[:4])):
        write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", found, names=("a", "b"))
    assert find_source(str(tmp_path), {}).facts.data["test"] == "validation"
    with pytest.raises(DataError, match="unlabelled"):
        find_source(str(tmp_path), {"data.test": "test"})


def test_settings_that_name_a_split_are_obeyed(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    given = {"data.split": "per_class:1", "data.train": "train", "ipc": 2}
    source = find_source(str(folder), given)
    assert (source.facts.data["split"], source.facts.images) == ("per_class:1", 6)
    (folder / "test").rename(folder / "holdout")
    assert find_source(str(folder), {"data.test": "holdout"}).facts.data["test"] == "holdout"
    with pytest.raises(DataError, match="no images under this name"):
        find_source(str(folder), {"data.test": "nowhere"})


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/Flowers 102", "flowers-102"),
        ("/data/Blüten & Äpfel/", "bluten-apfel"),
        ("s3://bucket/prefix/ILSVRC2012_img_train.tar", "ilsvrc2012_img_train"),
        ("/data/花", "images"),
        ("/data/con", "con-images"),
        ("/data/rded-tiny", "rded-tiny-images"),
        ("/data/winter21_whole.tar.gz", "winter21_whole"),
        ("/", "images"),
        ("/data/" + 200 * "x", 80 * "x"),
    ],
)
def test_the_name_is_that_of_the_folder_as_configs_allow_it(address: str, name: str) -> None:
    assert name_of(address) == name


def test_an_unchanged_folder_gives_the_same_config_and_a_changed_one_another(
    tmp_path: Path,
) -> None:
    folder = pictures(tmp_path / "a", cat=6, dog=6)
    link = tmp_path / "link"
    link.symlink_to(folder)
    first, again = (recommend(str(folder), [], LAPTOP).config for _ in range(2))
    assert first == again == recommend(f"{folder}/../a/", [], LAPTOP).config
    assert recommend(str(link), [], LAPTOP).config.data.path == str(link)
    (folder / "cat" / "0.png").write_bytes(png(99))
    assert recommend(str(folder), [], LAPTOP).config.data.mean != first.data.mean


def test_mean_and_std_are_those_of_the_images_at_the_chosen_side(tmp_path: Path) -> None:
    for name, value in (("dark", 51), ("light", 204)):
        data = encoded(Image.fromarray(np.full((40, 40, 3), value, np.uint8)))
        for number in range(2):
            write(tmp_path / name / f"{number}.png", data)
    pixels = find_source(str(tmp_path), {}).pixels(View(16, None))
    assert pixels.images == 4
    assert pixels.mean == pytest.approx((0.5, 0.5, 0.5))
    assert pixels.std == pytest.approx((0.3, 0.3, 0.3))


def test_grey_and_mixed_and_damaged_images_give_a_config(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30))
    for name in ("a b", "ü"):
        write(tmp_path / name / "ä 1.png", encoded(grey))
        write(tmp_path / name / "2.jpg", encoded(picture(1, (300, 200)), "JPEG"))
        write(tmp_path / name / "3.png", encoded(picture(2, (31, 29))))
        write(tmp_path / name / "broken.jpg", encoded(picture(3, (90, 60)), "JPEG")[:700])
        write(tmp_path / name / "empty.png", b"")
        write(tmp_path / name / "page.png", b"<html>")
    recommendation = recommend(str(tmp_path), [], LAPTOP)
    assert recommendation.config.data.num_classes == 2
    assert recommendation.source.facts.classes == ("a b", "ü")
    assert min(recommendation.config.data.std) > 0


def test_large_images_are_sampled_up_to_a_number_of_bytes_and_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        for number in range(8):
            write(tmp_path / name / f"{number}.png", encoded(picture(number, (90, 50))))
    monkeypatch.setattr(sample, "DECODED", 8 * 90 * 50)
    source = find_source(str(tmp_path), {})
    assert source.pixels(View(16, None)).images == 8
    assert source.facts.shapes == Shapes(50, 90)
    monkeypatch.setattr(sample, "BYTES", 16 * 40_000)  # three images of 13 kB
    assert len(find_source(str(tmp_path), {}).images) in (2, 3)
    monkeypatch.setattr(sample, "BYTES", 16)
    assert len(find_source(str(tmp_path), {}).images) == 1


def test_archives_that_are_not_read_to_their_end_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        members = [(f"{n}.png", encoded(picture(n, (90, 50)))) for n in range(20)]
        write(tmp_path / "train" / f"{name}.tar", tar_bytes(members))
    monkeypatch.setattr(sample, "IMAGES", 10)
    facts = find_source(str(tmp_path), {}).facts
    assert not facts.counted
    assert facts.images == pytest.approx(40, rel=0.05)


def test_images_that_are_all_alike_have_a_standard_deviation(tmp_path: Path) -> None:
    for name in ("a0", "a1", "b0", "b1"):
        write(tmp_path / name[0] / f"{name}.png", encoded(Image.new("RGB", (20, 20))))
    assert recommend(str(tmp_path), [], LAPTOP).config.data.std == (0.05, 0.05, 0.05)


def empty(root: Path) -> Path:
    return root


def one_class(root: Path) -> Path:
    return pictures(root / "pets", cat=3).parent / "pets"


def a_folder_around(root: Path) -> Path:
    return pictures(root / "photos", cat=2, dog=2).parent


def flat(root: Path) -> Path:
    write(root / "1.jpg", png(1))
    write(root / "notes" / "a.txt", b"text")
    return root


def without_images(root: Path) -> Path:
    write(root / "cat" / "a.txt", b"text")
    write(root / "dog" / "b.txt", b"text")
    return root


def a_picture(root: Path) -> Path:
    write(root / "1.jpg", png(1))
    return root / "1.jpg"


def splits_in_one_archive(root: Path) -> Path:
    members = [(f"{split}/cat/{n}.png", png(n)) for split in ("train", "test") for n in (0, 1)]
    write(root / "all.tar", tar_bytes(members))
    return root / "all.tar"


def a_zip(root: Path) -> Path:
    write(root / "images.zip", b"PK\x03\x04")
    return root / "images.zip"


def compressed(root: Path) -> Path:
    write(root / "images.tar.zst", b"zst")
    return root / "images.tar.zst"


def an_empty_class(root: Path) -> Path:
    (root / "empty").mkdir()
    return pictures(root, cat=2, dog=2)


def one_each(root: Path) -> Path:
    return pictures(root, cat=1, dog=1)


def no_pictures(root: Path) -> Path:
    for name in ("a", "b"):
        write(root / name / "1.png", b"<html>")
        write(root / name / "2.png", b"")
    return root


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty, "found no images; expected a folder of images for each class"),
        (one_class, r"only one class, 'cat'; expected two or more"),
        (a_folder_around, r"only one class, 'photos'.* are the classes, use .*/photos\."),
        (flat, "1 images, but no folders of classes with images. Put the images of each class"),
        (without_images, "found no images; .* there are cat, dog. Check the path."),
        (a_picture, r"1\.jpg: a file, expected a folder, a \.tar or \.parquet file"),
        (a_zip, r"images\.zip: a file, expected a folder, a \.tar"),
        (compressed, r"images\.tar\.zst: compressed in a way .*Decompress"),
        (splits_in_one_archive, "are test and train, which are splits, not classes"),
        (an_empty_class, r"no image of class 'empty' \(one of 1 such classes out of 3\)"),
        (one_each, "one image of each class; expected two or more"),
        (no_pictures, "none of 2 images that were tried can be opened"),
    ],
)
def test_what_is_no_dataset_is_refused_in_one_line(
    make: object, words: str, tmp_path: Path
) -> None:
    address = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words) as error:
        recommend(str(address), [], LAPTOP)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    "address",
    [
        "nowhere",
        "no\0where/x",
        "s3://",
        "c:\\data",
        "x" * 2_000,
        "/",
        "memory://no",
        "memory://a.tar",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        recommend(f"{tmp_path}/{address}" if address == "nowhere" else address, [], LAPTOP)
    assert str(error.value).count("\n") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path, cat=2, dog=2) / "dog"
    folder.chmod(0)
    try:
        with pytest.raises(Exception, match=r"dog.* cannot be read"):
            recommend(str(tmp_path), [], LAPTOP)
    finally:
        folder.chmod(0o755)
