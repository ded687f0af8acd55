"""Datasets that change while they are read: no shard holds other rows than its key is of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from distill_core.config.data import DataConfig
from distill_core.data.files.remote import RemoteFolder
from distill_core.data.folders import LocalFolder
from distill_core.data.ingest import IngestPlan, commit_part, ingest
from distill_core.data.parts.read import read_part
from distill_core.errors import ChangedDataError, DataError
from distill_core.storage.digest import sha256
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support import sources
from tests.support.datasets import data_config, png

IMAGES: sources.Images = {
    split: {
        wnid: {f"{wnid}{split}{n}.png": png(first + 10 * k + n) for n in range(3)}
        for k, wnid in enumerate("ab")
    }
    for split, first in (("train", 0), ("test", 50))
}


def written(layout: str, root: Path) -> DataConfig:
    """Write the images in a layout, and return its config."""
    return data_config(root, **getattr(sources, layout)(IMAGES, root))


def swap_image(root: Path) -> None:
    """Replace an image by another one of the same size and name."""
    path = next(path for path in sorted(root.rglob("*.png")) if b"atrain" in bytes(path))
    rewrite(path, b"x" * path.stat().st_size)


def rewrite(path: Path, data: bytes) -> None:
    """Write a file again; its time differs also where the clock of the file system is coarse."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))


def swap_archive(root: Path) -> None:
    """Replace every archive or table by itself, written later."""
    for path in root.rglob("*"):
        if path.suffix in (".tar", ".parquet"):
            path.write_bytes(path.read_bytes())


def edit_list(root: Path) -> None:
    """Give two images of the list each other's class."""
    path = next(p for p in root.rglob("*.txt") if "atest0" in p.read_text())
    text = path.read_text()
    first, second = "atest0", "btest0"
    path.write_text(text.replace(first, "?").replace(second, first).replace("?", second))


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("image_folders", swap_image),
        ("tiny_imagenet", swap_image),
        ("tiny_imagenet", edit_list),
        ("flat_validation", swap_image),
        ("synset_tars", swap_archive),
        ("tar_of_tars", swap_archive),
        ("webdataset", swap_archive),
        ("hugging_face", swap_archive),
    ],
)
def test_what_changed_since_it_was_planned_is_no_shard(
    layout: str, change: Callable[[Path], None], tmp_path: Path, store: Store
) -> None:
    plan = IngestPlan(written(layout, tmp_path))
    planned = plan.parts
    for each in planned:
        read_part(plan.config, each.part, each.classes)
    change(tmp_path)
    refused = []
    for each in planned:
        try:
            commit_part(plan, store, each)
        except ChangedDataError:
            refused.append(each.key)
    now = {each.key for each in IngestPlan(plan.config).parts}
    assert refused == [each.key for each in planned if each.key not in now]
    assert len(refused) > 0
    assert ShardStore(store, "ingest").done() == {e.key for e in planned} - set(refused)


def bucket() -> tuple[str, Any]:
    """Return the address of the images in a bucket in memory, and its file system."""
    url, files = f"memory://{uuid4().hex}", fsspec.filesystem("memory")
    for split, classes in IMAGES.items():
        for wnid, name, data in sources.items(classes):
            files.pipe(f"{url}/{split}/{wnid}/{name}", data)
    return url, files


def before_reading(
    monkeypatch: pytest.MonkeyPatch, folder: type, change: Callable[[], object]
) -> None:
    """Change a dataset after the listing of a worker, before it reads any image."""
    read = folder.read_listed  # type: ignore[attr-defined]

    def changed(self: object, files: object) -> object:
        change()
        return read(self, files)

    monkeypatch.setattr(folder, "read_listed", changed)


CHANGED = r"files of train/a, train/b changed while"


@pytest.mark.parametrize("change", ["swap", "touch", "delete"])
def test_a_file_that_is_changed_after_it_was_listed_ends_the_part(
    change: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = written("image_folders", tmp_path), tmp_path / "train" / "a" / "atrain1.png"
    changes = {
        "swap": lambda: swap_image(tmp_path),
        "touch": lambda: os.utime(path, ns=(7, 7)),
        "delete": path.unlink,
    }
    before_reading(monkeypatch, LocalFolder, changes[change])
    with pytest.raises(ChangedDataError, match=CHANGED):
        commit_part(plan := IngestPlan(config), store, plan.parts[0])
    assert ShardStore(store, "ingest").done() == frozenset()


def test_an_object_that_is_changed_after_it_was_listed_ends_the_part(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, files = bucket()
    place = f"{url}/train/a/atrain1.png"
    before_reading(monkeypatch, RemoteFolder, lambda: files.pipe(place, b"x"))
    with pytest.raises(ChangedDataError, match=CHANGED):
        ingest(data_config(url), store)
    assert ShardStore(store, "ingest").done() == frozenset()


def test_a_file_that_is_changed_while_its_part_is_read_ends_the_part(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first bytes are those that were planned, and its last ones are not."""
    config, path = written("image_folders", tmp_path), tmp_path / "train" / "a" / "atrain1.png"
    data, read = path.read_bytes(), os.read

    def changed(file: int, size: int) -> bytes:
        some = read(file, size)
        if some == data:
            rewrite(path, data[:-20] + bytes(20))
            some = some[:40]
        return some

    monkeypatch.setattr(os, "read", changed)
    with pytest.raises(ChangedDataError, match=CHANGED):
        ingest(config, store)
    assert ShardStore(store, "ingest").done() == frozenset()


def test_a_file_that_is_changed_after_it_was_read_is_in_the_shard_as_it_was_planned(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = written("image_folders", tmp_path), tmp_path / "train" / "a" / "atrain1.png"
    planned, read = sha256(path.read_bytes()), LocalFolder.read_listed

    def change_after(self: LocalFolder, files: Any) -> Any:
        found = read(self, files)
        rewrite(path, png(40))
        return found

    monkeypatch.setattr(LocalFolder, "read_listed", change_after)
    rows = read_part(config, (plan := IngestPlan(config)).parts[0].part, plan.names)
    digests = dict(
        zip(rows.table["name"].to_pylist(), rows.table["sha256"].to_pylist(), strict=True)
    )
    assert digests[path.name] == planned
    assert plan.parts[0].key not in {each.key for each in IngestPlan(config).parts}


def test_an_object_that_comes_back_has_its_own_row(store: Store) -> None:
    """In a bucket the version of an object is a hash of it, so a version can come back."""
    url, files = bucket()
    plan = IngestPlan(data_config(url))
    planned, place = plan.parts, f"{url}/train/a/atrain0.png"
    original = files.store[files._strip_protocol(place)]
    files.pipe(place, b"x" * len(IMAGES["train"]["a"]["atrain0.png"]))
    with pytest.raises(ChangedDataError):
        commit_part(plan, store, planned[0])
    files.store[files._strip_protocol(place)] = original
    assert ingest(plan.config, store).count_readable("train") == 6


def test_an_archive_whose_name_is_no_utf_8_is_an_error_that_names_it(
    tmp_path: Path, store: Store
) -> None:
    config = written("webdataset", tmp_path)
    first = min(tmp_path.glob("train-*.tar"))
    try:
        first.rename(tmp_path / "train-\udcff.tar")
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(DataError, match="the name of the file is not UTF-8"):
        ingest(config.model_copy(update={"train": "train-*.tar"}), store)
