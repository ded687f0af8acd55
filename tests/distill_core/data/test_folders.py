"""Folders: what is listed, what is passed over with a notice, and what is refused."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from distill_core.data.files.errors import reading
from distill_core.data.files.local import Listing, LocalFiles
from distill_core.data.files.remote import LISTINGS, RemoteFolder
from distill_core.data.ingest import ingest
from distill_core.data.readers.formats import open_reader
from distill_core.errors import DataError, StorageError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, encoded, image_folder, picture, png

TRAIN = [*(f"train/cat/{n}.png" for n in range(3)), *(f"train/dog/{n}.png" for n in (10, 11, 12))]


def listed(folder: Path, split: Any = "train") -> list[str]:
    """Return the addresses of the records of a split."""
    reader = open_reader(data_config(folder))
    parts, classes = reader.parts(split), reader.classes()
    records = [record for part in parts for record in reader.records(part, classes)]
    assert sum(part.count for part in parts) == len(records)
    return [record.uri for record in records]


def notices(folder: Path, split: Any = "train") -> list[str]:
    return open_reader(data_config(folder)).notices(split)


# --- files that are no images ---


def test_files_that_are_no_images_by_name_are_ignored_and_counted(
    folder: Path, store: Store
) -> None:
    first = ingest(data_config(folder), store)
    for name in ("Thumbs.db", "cat_boxes.txt", "sub/README", "desktop.ini"):
        (folder / "train" / "cat" / name).parent.mkdir(exist_ok=True)
        (folder / "train" / "cat" / name).write_text("not an image")
    heard: list[str] = []
    assert ingest(data_config(folder), store, notice=heard.append) == first
    assert heard == [
        "train split: train/cat/Thumbs.db is ignored, because its name is not that of an image, "
        "and 3 more like it."
    ]


def test_an_image_beside_the_class_folders_is_ignored_and_counted(folder: Path) -> None:
    (folder / "train" / "lost.png").write_bytes(png(3))
    (folder / "train" / "labels.csv").write_text("cat,dog")
    assert listed(folder) == TRAIN
    assert notices(folder) == ["train/lost.png is ignored, because it lies in no class folder."]


@pytest.mark.parametrize("ending", [".jfif", ".JFIF", ".jpe", ".JPEG", ".pgm"])
def test_every_usual_ending_of_an_image_is_read(folder: Path, ending: str) -> None:
    kind = "PPM" if ending == ".pgm" else "JPEG"
    (folder / "train" / "cat" / f"9{ending}").write_bytes(encoded(picture(9).convert("L"), kind))
    assert f"train/cat/9{ending}" in listed(folder)
    assert notices(folder) == []


def test_damage_is_all_that_max_bad_fraction_allows(folder: Path, store: Store) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("cats")
    (folder / "train" / "cat" / "9.png").write_bytes(b"cats")
    with pytest.raises(DataError, match=r"1 of 7 files cannot be used.*cat/9\.png"):
        ingest(data_config(folder), store)
    index = ingest(data_config(folder, max_bad_fraction=1 / 7), store)
    assert index.train.num_rows == 7


# --- what cannot be read ---


@pytest.mark.parametrize("place", ["train", "train/dog", "train/dog/deep", "test"])
def test_a_folder_that_cannot_be_read_is_named_and_never_left_out(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (folder / "train" / "dog" / "deep").mkdir()
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == folder / place:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=f"{place}: cannot be read .*permission") as error:
        ingest(data_config(folder), store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["nothing", "9.png"], ids=["dangling", "itself"])
def test_a_link_that_leads_nowhere_is_one_bad_image(
    folder: Path, store: Store, target: str
) -> None:
    (folder / "train" / "cat" / "9.png").symlink_to(target)
    with pytest.raises(DataError, match=r"1 of 7 files cannot be used.*cat/9\.png: .*nowhere"):
        ingest(data_config(folder), store)
    index = ingest(data_config(folder, max_bad_fraction=0.2), store)
    assert len(index.readable("train")) == 6
    assert index.train.num_rows == 7


def test_a_pipe_or_a_socket_is_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cat" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as line:
        here = os.getcwd()
        os.chdir(folder / "train" / "cat")  # the path of a socket has at most 107 bytes
        try:
            line.bind("socket.png")
        finally:
            os.chdir(here)
        assert listed(folder) == TRAIN


# --- links to folders ---


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "deep/.."])
def test_a_link_to_a_folder_that_contains_it_is_not_followed(folder: Path, target: str) -> None:
    (folder / "train" / "cat" / "deep").mkdir()
    (folder / "train" / "cat" / "loop").symlink_to(target)
    assert listed(folder) == TRAIN
    assert notices(folder) == [
        "train/cat/loop is not followed, because its folder is listed elsewhere."
    ]


def test_two_links_to_each_other_end(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / "train" / "cat" / name).symlink_to(".")
    for number in range(12):  # without a memory, 2 to the power of 12 ways through them
        deep = folder / "train" / "dog" / f"deep{number:02d}"
        deep.mkdir()
        if number:
            for name in ("left", "right"):
                (deep / name).symlink_to(f"../deep{number - 1:02d}")
    (folder / "train" / "dog" / "deep00" / "9.png").write_bytes(png(9))
    assert listed(folder) == sorted([*TRAIN, "train/dog/deep00/9.png"])
    assert "and 1 more like it" not in notices(folder)[0]
    assert "more like it" in notices(folder)[0]


@pytest.mark.parametrize("target", [".", "..", "../train"])
def test_a_link_to_the_split_is_no_class(folder: Path, target: str) -> None:
    (folder / "train" / "again").symlink_to(target)
    assert open_reader(data_config(folder)).classes() == ("cat", "dog")
    assert listed(folder) == TRAIN


def test_a_class_folder_that_is_a_link_may_hold_a_link_to_the_folder_above(
    tmp_path: Path,
) -> None:
    real = image_folder(tmp_path / "real")
    subset = tmp_path / "subset"
    (subset / "train").mkdir(parents=True)
    (subset / "train" / "cat").symlink_to(real / "train" / "cat")
    (real / "train" / "cat" / "up").symlink_to("..")
    assert listed(subset) == TRAIN[:3]


def test_one_folder_may_be_two_classes_but_counts_once_in_each(folder: Path) -> None:
    (folder / "train" / "kitten").symlink_to("cat")
    (folder / "train" / "cat" / "sub").mkdir()
    (folder / "train" / "cat" / "sub" / "9.png").write_bytes(png(9))
    (folder / "train" / "cat" / "a_link").symlink_to("sub")
    found = listed(folder)
    assert found.count("train/cat/sub/9.png") == found.count("train/kitten/sub/9.png") == 1
    assert len(found) == 6 + 3 + 2


def test_each_of_many_folders_is_looked_at_a_few_times_however_deep_the_dataset_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path.joinpath(*"abcdefghij")
    for name in range(40):
        (top / str(name)).mkdir(parents=True)
        (top / str(name) / "1.png").write_bytes(b"")
    stat, calls = os.stat, list[object]()

    def counted(path: object, **options: object) -> os.stat_result:
        calls.append(path)
        return stat(path, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", counted)
    listings = dict(LocalFiles(str(top), reading).by_folder(str(top)))
    assert len(listings) == 41
    assert len(calls) < 40 * 3 + 2 * len(top.parts)


# --- buckets ---


def test_prefixes_of_a_bucket_are_listed_a_few_at_a_time_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, names = fsspec.filesystem("memory"), [f"class {number:02d}" for number in range(20)]
    monkeypatch.setattr(files, "async_impl", True)  # as those of buckets, which threads may share
    root = f"/{uuid4().hex}"
    files.pipe({f"{root}/train/{name}/{name}.png": b"1" for name in names})
    files.pipe(f"{root}/train/lost.png", b"1")
    # No listing ends before as many have begun as may be under way at the same time.
    together, begun = threading.Barrier(LISTINGS), list[str]()

    class Counted(RemoteFolder):
        def below(self, path: str, name: str) -> Listing:
            begun.append(name)
            if len(begun) <= LISTINGS:
                together.wait(10)
            return super().below(path, name)

    found = [
        (name, listing.paths) for name, listing in Counted("x", files, root).by_folder("train")
    ]
    assert found[:-1] == [(name, [f"train/{name}/{name}.png"]) for name in names]
    assert found[-1] == ("", ["train/lost.png"])
    assert sorted(begun) == names


def test_a_file_system_that_threads_may_not_share_lists_in_one_thread() -> None:
    """That of FTP, e.g., has one connection, on which answers of two requests would mix."""
    files, root = fsspec.filesystem("memory"), f"/{uuid4().hex}"
    files.pipe({f"{root}/train/{number}/1.png": b"1" for number in range(20)})
    threads = set[int]()

    class Noted(RemoteFolder):
        def below(self, path: str, name: str) -> Listing:
            threads.add(threading.get_ident())
            return super().below(path, name)

    assert len(list(Noted("x", files, root).by_folder("train"))) == 21
    assert len(threads) == 1


def test_a_prefix_that_cannot_be_listed_is_the_error_of_its_place() -> None:
    files, root = fsspec.filesystem("memory"), f"/{uuid4().hex}"
    files.pipe({f"{root}/train/{name}/1.png": b"1" for name in ("a", "b", "c")})

    class Broken(RemoteFolder):
        def below(self, path: str, name: str) -> Listing:
            if name == "b":
                raise StorageError("b is refused")
            return super().below(path, name)

    listings = Broken("x", files, root).by_folder("train")
    assert next(listings)[0] == "a"
    with pytest.raises(StorageError, match="b is refused"):
        next(listings)
