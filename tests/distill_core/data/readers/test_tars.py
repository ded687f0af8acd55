"""Synset archives are read in place, in every arrangement that they come in."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from distill_core.data.ingest import ingest
from distill_core.data.readers import archive_images
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Address, Record
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.sources import (
    Images,
    Writer,
    synset_tars,
    tar_bytes,
    tar_of_folders,
    tar_of_tars,
    write,
)

IMAGES: Images = {
    "train": {
        "cat": {f"cat_{n}.png": png(n) for n in range(3)},
        "dog": {f"dog_{n}.png": png(10 + n) for n in range(3)},
    },
    "test": {"cat": {"cat_9.png": png(20)}, "dog": {"dog_9.png": png(30)}},
}


def everything(folder: Path | str, split: str = "train", **changes: object) -> list[Record]:
    reader = open_reader(data_config(folder, format="tars", **changes))
    parts = reader.parts(split)  # type: ignore[arg-type]
    assert len({part.name for part in parts}) == len(parts)
    return [record for part in parts for record in reader.records(part, reader.classes())]


def by_class(records: list[Record]) -> set[tuple[int, str, bytes]]:
    return {(record.label, record.name, record.data) for record in records}


EXPECTED = {
    (label, name, data)
    for label, wnid in enumerate(("cat", "dog"))
    for name, data in IMAGES["train"][wnid].items()
}


@pytest.mark.parametrize("writer", [synset_tars, tar_of_tars, tar_of_folders])
def test_each_arrangement_has_the_same_images(tmp_path: Path, writer: Writer) -> None:
    writer(IMAGES, tmp_path)
    records = everything(tmp_path)
    assert by_class(records) == EXPECTED
    reader = open_reader(data_config(tmp_path, format="tars"))
    assert reader.classes() == reader.classes("test") == ("cat", "dog")
    addresses = [Address(r.uri, r.offset, len(r.data)) for r in records[::-1]]
    assert reader.fetch(addresses) == [r.data for r in records[::-1]]


@pytest.mark.parametrize("writer", [synset_tars, tar_of_tars])
def test_ingestion_and_random_access_agree(tmp_path: Path, store: Store, writer: Writer) -> None:
    writer(IMAGES, tmp_path / "data")
    config = data_config(tmp_path / "data", format="tars")
    index = ingest(config, store)
    assert index.class_sizes("train") == {"cat": 3, "dog": 3}
    assert RealImages(config, index, "train").resident().shape == (6, 3, 8, 8)


@pytest.mark.parametrize(
    ("train", "found"),
    [
        (".", ["n0.tar", "n1.tar"]),
        ("*.tar", ["n0.tar", "n1.tar"]),
        ("n?.tar", ["n0.tar", "n1.tar"]),
        ("n1", ["n1.tar"]),
        ("sub", ["sub/n2.tar", "sub/n3.tar"]),
        ("s*/n3.tar", ["sub/n3.tar"]),
        ("{n0,sub/n2}.tar", ["n0.tar", "sub/n2.tar"]),
        ("n{0..1}.tar", ["n0.tar", "n1.tar"]),
        ("a [1]", ["a [1]/n4.tar"]),
    ],
)
def test_archives_are_found_by_folder_glob_and_braces(
    tmp_path: Path, train: str, found: list[str]
) -> None:
    for name in ("n0", "n1", "sub/n2", "sub/n3", "a [1]/n4"):
        write(tmp_path / f"{name}.tar", tar_bytes([("0.png", png(0))]))
    reader = open_reader(data_config(tmp_path, format="tars", train=train))
    assert [part.files[0] for part in reader.parts("train")] == found


def test_a_missing_one_of_those_in_braces_is_named(tmp_path: Path) -> None:
    synset_tars(IMAGES, tmp_path)
    with pytest.raises(DataError, match=r"train/eel\.tar: no such file, one of 1 .* the 3 in data"):
        everything(tmp_path, train="train/{cat,dog,eel}.tar")


def test_a_bucket_gives_the_same_records(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for writer in (synset_tars, tar_of_tars):
        folder = tmp_path / writer.__name__
        writer(IMAGES, folder)
        for path in filter(Path.is_file, folder.rglob("*")):
            memory.pipe_file(f"/tars/{path.relative_to(folder)}", path.read_bytes())
        try:
            local, remote = everything(folder), everything("memory://tars")
            assert remote == local
            reader = open_reader(data_config("memory://tars", format="tars"))
            addresses = [Address(r.uri, r.offset, len(r.data)) for r in local]
            assert reader.fetch(addresses) == [r.data for r in local]
        finally:
            memory.rm("/tars", recursive=True)


def test_an_archive_of_an_unknown_compression_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "train.tar.zst", b"zst")
    with pytest.raises(DataError, match=r"train\.tar\.zst: compressed in a way .*data\.train"):
        everything(tmp_path)
    write(tmp_path / "train.tar", gzip.compress(tar_bytes([("n0.tar", b"")])))
    with pytest.raises(DataError, match=r"train\.tar: compressed with gzip"):
        everything(tmp_path)


def test_no_archive_names_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train'; expected train\.tar.*data\.train"):
        everything(tmp_path)


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    synset_tars(IMAGES, tmp_path)
    write(tmp_path / "test" / "eel.tar", tar_bytes([("0.png", png(0))]))
    with pytest.raises(DataError, match=r"test/eel: a class that the training split"):
        open_reader(data_config(tmp_path, format="tars")).classes("test")


def test_members_that_are_no_images_are_ignored_and_counted(tmp_path: Path) -> None:
    synset_tars(IMAGES, tmp_path)
    dirt = [("Thumbs.db", b"x"), ("cat_boxes.txt", b"y"), ("._cat_0.png", b"z")]
    files = [*dirt, *IMAGES["train"]["cat"].items()]
    write(tmp_path / "train" / "cat.tar", tar_bytes(files))
    reader = open_reader(data_config(tmp_path, format="tars"))
    records = [r for part in reader.parts("train") for r in reader.records(part, ("cat", "dog"))]
    assert by_class(records) == EXPECTED
    assert reader.notices("train") == [
        "train/cat.tar/Thumbs.db is ignored, because its name is not that of an image, and 1 more "
        "like it."
    ]


def odd_members() -> bytes:
    """Return an archive with an image, and members that must not be read."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (
            ("a.png", tarfile.REGTYPE),
            ("a.png", tarfile.REGTYPE),
            ("../b.png", tarfile.REGTYPE),
            ("/c.png", tarfile.REGTYPE),
            ("d.png", tarfile.SYMTYPE),
            ("e.png", tarfile.LNKTYPE),
            ("f.png", tarfile.FIFOTYPE),
            ("g.png", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../../secret"
            data = png(0) if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_links_devices_and_names_outside_are_bad_images(tmp_path: Path, store: Store) -> None:
    synset_tars(IMAGES, tmp_path / "data")
    write(tmp_path / "data" / "train" / "cat.tar", odd_members())
    config = data_config(tmp_path / "data", format="tars")
    with pytest.raises(DataError, match=r"7 of 11 files cannot be used.*train/cat\.tar"):
        ingest(config, store)
    index = ingest(config.model_copy(update={"max_bad_fraction": 0.8}), store)
    reasons = index.train.filter(index.train["status"].to_numpy() == "bad")["reason"].to_pylist()
    assert len(reasons) == 7
    assert index.class_sizes("train") == {"cat": 1, "dog": 3}
    before = {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".png"}
    assert before == set()


def test_an_image_above_the_limit_is_bad_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synset_tars(IMAGES, tmp_path)
    monkeypatch.setattr(archive_images, "MAX_IMAGE", 10)
    records = everything(tmp_path)
    assert {record.data for record in records} == {b""}
    assert all("more than 10" in record.problem for record in records)


@pytest.mark.parametrize("writer", [synset_tars, tar_of_tars])
def test_a_truncated_archive_names_the_byte(tmp_path: Path, writer: Writer) -> None:
    writer(IMAGES, tmp_path)
    (path,) = tmp_path.glob("train*/dog.tar") if writer is synset_tars else [tmp_path / "train.tar"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 4])
    with pytest.raises(DataError, match=rf"{path.name}: truncated at byte {len(data) // 4}"):
        everything(tmp_path)


def test_a_corrupt_archive_in_an_archive_is_named(tmp_path: Path) -> None:
    inner = [(f"{n}.tar", tar_bytes([("0.png", png(0))])) for n in ("cat", "dog")]
    inner[1] = ("dog.tar", b"\xff" * len(inner[1][1]))
    write(tmp_path / "train.tar", tar_bytes(inner))
    with pytest.raises(DataError, match=r"train\.tar.*dog.*not a tar archive"):
        everything(tmp_path)


def test_an_archive_that_shrank_after_ingestion_is_named(tmp_path: Path) -> None:
    synset_tars(IMAGES, tmp_path)
    records = everything(tmp_path)
    path = tmp_path / "train" / "cat.tar"
    path.write_bytes(path.read_bytes()[:600])
    reader = open_reader(data_config(tmp_path, format="tars"))
    with pytest.raises(DataError, match=r"train/cat\.tar: is shorter than when it was ingested"):
        reader.fetch([Address(records[0].uri, records[0].offset, len(records[0].data))])


@pytest.mark.parametrize("writer", [synset_tars, tar_of_tars, tar_of_folders])
def test_a_readme_at_the_beginning_does_not_decide_the_arrangement(
    tmp_path: Path, writer: Writer
) -> None:
    writer(IMAGES, tmp_path)
    for path in tmp_path.rglob("*.tar"):
        with tarfile.open(path) as archive:
            files = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
        path.write_bytes(tar_bytes([("README", b"about"), *files]))
    assert by_class(everything(tmp_path)) == EXPECTED


def test_a_bucket_is_planned_from_headers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"cat_{n}.png": png(n) for n in range(60)}
    tar_of_tars({"train": {"cat": files, "dog": files}, "test": {"cat": files}}, tmp_path)
    memory, read = fsspec.filesystem("memory"), list[int]()
    for path in tmp_path.iterdir():
        memory.pipe_file(f"/planned/{path.name}", path.read_bytes())

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    def opened(path: str, mode: str, **options: object) -> io.BytesIO:
        assert options == {"cache_type": "none"}
        return Counted(memory.cat_file(path))

    try:
        reader = open_reader(data_config("memory://planned", format="tars"))
        monkeypatch.setattr(type(memory), "open", lambda _, *a, **o: opened(*a, **o))
        assert len(reader.parts("train")) == 2
        assert reader.classes() == ("cat", "dog")
        assert sum(read) < 20_000 < len(files) * 1000
    finally:
        monkeypatch.undo()
        memory.rm("/planned", recursive=True)


def test_a_bad_image_is_named_with_its_byte(tmp_path: Path, store: Store) -> None:
    synset_tars(IMAGES, tmp_path / "data")
    bad = tar_bytes([("a.png", png(1)), ("b.png", b"no image")])
    write(tmp_path / "data" / "train" / "cat.tar", bad)
    with pytest.raises(DataError, match=r"first is train/cat\.tar at byte 1536: 8 bytes that are"):
        ingest(data_config(tmp_path / "data", format="tars"), store)
