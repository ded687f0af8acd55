"""The same images in every layout are the same images of the same classes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distill_core.config.data import DataConfig
from distill_core.data.detection.resolve import resolve_data
from distill_core.data.ingest import ingest
from distill_core.data.readers.compression import is_compressed
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Address, Split
from distill_core.data.real_images import RealImages
from distill_core.storage.digest import sha256
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.real_data import tiny_imagenet_50
from tests.support.sources import LAYOUTS, Images, tar_bytes, write

Facts = tuple[tuple[str, ...], dict[Split, list[tuple[int, str, str]]]]


def facts(config: DataConfig, *, fetched: int = 1) -> Facts:
    """Return the classes by id, and class, name and hash of every image of each split.

    Args:
        config: of the dataset.
        fetched: one in so many images is read again by its address.
    """
    reader = open_reader(config)
    classes, images = reader.classes(), dict[Split, list[tuple[int, str, str]]]()
    splits: tuple[Split, Split] = ("train", "test")
    for split in splits:
        records = [r for part in reader.parts(split) for r in reader.records(part, classes)]
        assert [record.problem for record in records] == [""] * len(records)
        some = [r for r in records[::-fetched] if not is_compressed(r.uri)]  # see `test_packs`
        addresses = [Address(r.uri, r.offset, len(r.data)) for r in some]
        assert open_reader(config).fetch(addresses) == [r.data for r in some]
        images[split] = sorted((r.label, r.name, sha256(r.data)) for r in records)
    assert set(reader.classes("test")) <= set(classes)
    return classes, images


def expected(images: Images) -> Facts:
    """Return the same of images that are not written yet."""
    wnids = sorted(images["train"])
    splits: tuple[Split, Split] = ("train", "test")
    return tuple(wnids), {
        split: sorted(
            (wnids.index(wnid), name, sha256(data))
            for wnid, files in images[split].items()
            for name, data in files.items()
        )
        for split in splits
    }


def made(counts: dict[str, int]) -> Images:
    """Return images of classes with some images to train on and one to test on."""
    numbers = iter(range(10_000))
    train = {w: {f"{w}_{n}.png": png(next(numbers)) for n in range(c)} for w, c in counts.items()}
    test = {w: {f"val_{n}.png": png(next(numbers))} for n, w in enumerate(counts)}
    return {"train": train, "test": test}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_real_images_has_the_same_classes_and_contents(
    layout: str, tmp_path: Path
) -> None:
    images = tiny_imagenet_50(classes=5, train=20, test=5)
    config = data_config(tmp_path, num_classes=5, **LAYOUTS[layout](images, tmp_path))
    assert facts(config) == expected(images)
    found = resolve_data(data_config(tmp_path, format="auto", num_classes=0))
    assert facts(found) == expected(images)
    assert found.num_classes == 5


@pytest.fixture(scope="module")
def fifty_classes() -> tuple[Images, Facts]:
    """Return all images of 50 classes, and their facts."""
    images = tiny_imagenet_50()
    return images, expected(images)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_has_every_layout_of_fifty_classes(
    layout: str, tmp_path: Path, fifty_classes: tuple[Images, Facts]
) -> None:
    images, known = fifty_classes
    assert sum(map(len, images["train"].values())) == 25_000
    config = data_config(tmp_path, num_classes=50, **LAYOUTS[layout](images, tmp_path))
    assert facts(config, fetched=50) == known


def test_every_layout_is_ingested_with_the_same_fingerprints(tmp_path: Path, store: Store) -> None:
    images, found = made({"n1": 3, "n0": 2}), set()
    for number, writer in enumerate(LAYOUTS.values()):
        folder = tmp_path / f"data-{number}"
        config = data_config(folder, **writer(images, folder))
        index = ingest(config, store)
        found.add((tuple(index.fingerprints.items()), index.test_fingerprint, index.class_hash))
        assert len(RealImages(config, index, "train").resident()) == 5
    assert len(found) == 1


# --- dirt ---


DIRT = ("Thumbs.db", "n_boxes.txt", ".DS_Store", ".ipynb_checkpoints/a.png", "._0.png", "README")


def soil(root: Path, dirt: list[str]) -> None:
    """Put files that are no images, and empty folders, into folders and tar files of images."""
    for folder in {path.parent for path in root.rglob("*.png")}:
        for name in dirt:
            write(folder / name, b"dirt")
        (folder / "empty" / "nothing").mkdir(parents=True)
    for path in root.rglob("*.tar"):
        with tarfile.open(path) as archive:
            files = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
        path.write_bytes(tar_bytes([*((name, b"dirt") for name in dirt), *files]))


@settings(max_examples=12, deadline=None)
@given(
    counts=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9 _\u00e4-]{0,6}[a-z]", fullmatch=True),
        st.integers(1, 4),
        min_size=2,
        max_size=5,
    ),
    dirt=st.lists(st.sampled_from(DIRT), unique=True),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_random_trees_with_dirt_in_them_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int], dirt: list[str], layout: str
) -> None:
    assume("development kit" not in layout or " " not in "".join(counts))  # it separates columns
    root, images = tmp_path_factory.mktemp("tree"), made(counts)
    changes = LAYOUTS[layout](images, root)
    soil(root, dirt)
    assert facts(data_config(root, num_classes=len(counts), **changes)) == expected(images)
    found = resolve_data(data_config(root, format="auto", num_classes=0))
    assert facts(found) == expected(images)
