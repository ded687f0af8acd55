"""Compressed archives: read once, kept decompressed in the store, and read there by address."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from distill_core.config.data import DataConfig
from distill_core.data import archives
from distill_core.data.ingest import IngestPlan, ingest
from distill_core.data.parts import read as part_module
from distill_core.data.readers import compression
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import ReadsArchives
from distill_core.data.real_images import RealImages
from distill_core.errors import DataError, StorageError
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.sources import LAYOUTS, Images, tar_bytes, write

IMAGES: Images = {
    "train": {f"n{c}": {f"{c}{n}.png": png(10 * c + n) for n in range(3)} for c in range(2)},
    "test": {f"n{c}": {f"5{c}.png": png(50 + c)} for c in range(2)},
}
COMPRESSED = sorted(layout for layout in LAYOUTS if layout.startswith("compressed"))


def dataset(root: Path, layout: str = "compressed tar of folders") -> DataConfig:
    """Write a dataset and return its config."""
    return data_config(root, **LAYOUTS[layout](IMAGES, root))


def pieces(store: Store) -> list[str]:
    """Return the names of the pieces in a store."""
    return [name for name in store.names("ingest/data") if name.endswith(".pack")]


@pytest.mark.parametrize("layout", COMPRESSED)
def test_rows_and_pixels_are_those_of_the_uncompressed_archive(
    layout: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PIECE_BYTES", 700)  # images lie across pieces
    plain = layout.removeprefix("compressed ")
    config = dataset(tmp_path / "a", layout)
    other = dataset(tmp_path / "b", plain[0].upper() + plain[1:] if plain[0] == "W" else plain)
    index, expected = ingest(config, store), ingest(other, store)
    columns = ["label", "wnid", "name", "offset", "size", "sha256", "status"]
    assert index.train.select(columns).equals(expected.train.select(columns))
    assert index.fingerprints == expected.fingerprints
    assert index.test_fingerprint == expected.test_fingerprint
    for path in (tmp_path / "a").rglob("*.t*"):
        path.unlink() if path.name != "classes.txt" else None
    for decoders, start in ((1, 10**9), (2, 0)):
        images = RealImages(config, index, "train", decoders=decoders, start_pixels=start)
        assert np.array_equal(images.resident(), RealImages(other, expected, "train").resident())


def test_an_archive_is_decompressed_once_and_only_listed_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path / "data")
    index = ingest(config, store)
    assert len(pieces(store)) == 2
    before = pieces(store)
    monkeypatch.setattr(part_module, "check_image", None)
    assert ingest(config, store, index).id == index.id
    assert pieces(store) == before


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_archive_is_an_error_that_names_the_byte(
    kept: float, tmp_path: Path, store: Store
) -> None:
    config = dataset(tmp_path / "data")
    path = tmp_path / "data" / "train.tgz"
    data = path.read_bytes()
    path.write_bytes(cut := data[: int(kept * len(data))])
    with pytest.raises(DataError, match=rf"train\.tgz.* truncated at byte {len(cut)}"):
        ingest(config, store)
    assert not ShardStore(store, "ingest").done()
    assert pieces(store) == []


def test_a_changed_byte_is_found_by_the_checksum(tmp_path: Path, store: Store) -> None:
    config = dataset(tmp_path / "data", "compressed synset tars")
    path = tmp_path / "data" / "train" / "n1.tar.xz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"n1\.tar\.xz.*: damaged before byte"):
        ingest(config, store)
    path = tmp_path / "data" / "train" / "n1.tar.gz"
    path.with_name("n1.tar.xz").unlink()
    wrong = bytearray(gzip.compress(tar_bytes(IMAGES["train"]["n1"].items())))
    wrong[-6] ^= 1  # of the checksum
    path.write_bytes(wrong)
    with pytest.raises(DataError, match=r"n1\.tar\.gz.*: damaged before byte \d+ \(CRC"):
        ingest(config, store)


def test_more_bytes_than_images_can_have_are_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataset(tmp_path / "data")
    monkeypatch.setattr(compression, "FREE_BYTES", 2**20)
    files = [("n0/a.png", png(1)), ("n0/b.bin", bytes(2**24)), ("n1/a.png", png(2))]
    write(tmp_path / "data" / "train.tgz", gzip.compress(tar_bytes(files)))
    with pytest.raises(DataError, match=r"train\.tgz: more than 200 times as large"):
        ingest(config, store)


def test_links_and_names_that_lead_outside_are_refused(tmp_path: Path, store: Store) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind in (
            ("n0/a.png", tarfile.REGTYPE),
            ("n0/link.png", tarfile.SYMTYPE),
            ("n0/device.png", tarfile.CHRTYPE),
            ("n0/../../b.png", tarfile.REGTYPE),
            ("n1/a.png", tarfile.REGTYPE),
            ("n1/a.png", tarfile.REGTYPE),
        ):
            member, data = tarfile.TarInfo(name), png(1) if kind == tarfile.REGTYPE else b""
            member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(member, io.BytesIO(data))
    config = dataset(tmp_path / "data").model_copy(update={"max_bad_fraction": 1.0})
    write(tmp_path / "data" / "train.tgz", stream.getvalue())
    rows = ingest(config, store).train.to_pylist()
    assert sorted(row["reason"] for row in rows) == [
        "",
        "",
        "a member of the same name comes before it.",
        "it is a device, not a file.",
        "it is a symbolic link, not a file.",
        "its name leads out of the archive.",
    ]


class Killed(BaseException):
    """The end of a process, as far as it can be imitated within it."""


@pytest.mark.parametrize("moment", ["first", "last"])
def test_what_ends_in_the_middle_leaves_attempts_and_is_complete_after_another_run(
    moment: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PIECE_BYTES", 700)
    config = dataset(tmp_path / "data")
    (part, *_) = IngestPlan(config).parts
    with monkeypatch.context() as patch:
        patch.setattr(
            archives.ArchiveWriter, "abandon", lambda self: None
        )  # a killed process does not
        patch.setattr(*_killing(moment))
        with pytest.raises(Killed):
            ingest(config, store)
    done = ShardStore(store, "ingest").done()
    assert done == (set() if moment == "first" else {archives.archive_key(part.key)})
    attempts = len(pieces(store))
    assert attempts > 1
    index = ingest(config, store)
    assert len(RealImages(config, index, "train").resident()) == 6
    used = {
        info.path for m in ShardStore(store, "ingest").markers(sorted(done)) for info in m.files
    }  # type: ignore[union-attr]
    assert used <= {f"ingest/data/{name}" for name in pieces(store)}


def _killing(moment: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return a replacement that ends the process before or after the archive is committed."""
    commit = archives.ArchiveWriter.commit

    def killed(self: archives.ArchiveWriter) -> None:
        if moment == "last":
            commit(self)
        raise Killed

    return archives.ArchiveWriter, "commit", killed


def test_a_missing_decompressed_archive_is_named_with_the_remedy(
    tmp_path: Path, store: Store
) -> None:
    config = dataset(tmp_path / "data")
    index = ingest(config, store)
    for part in IngestPlan(config).parts:
        store.delete(f"ingest/_done/{archives.archive_key(part.key)}.json")
    with pytest.raises(DataError, match=r"train\.tgz at byte \d+: its decompressed .*--name"):
        RealImages(config, index, "train").resident()


def test_a_store_that_is_away_is_no_damage_of_the_archive(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: Any) -> None:
        raise StorageError("away")

    config = dataset(tmp_path / "data")
    monkeypatch.setattr(ShardStore, "put", away)
    with pytest.raises(StorageError, match="away"):
        ingest(config, store)


def test_a_copy_of_an_archive_is_the_same_dataset_and_stays_readable_without_the_first(
    tmp_path: Path, store: Store
) -> None:
    config = dataset(tmp_path / "data")
    first = ingest(config, store)
    pixels = RealImages(config, first, "train").resident()
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copy = config.model_copy(update={"path": str(tmp_path / "copy")})
    for part in IngestPlan(config).parts:
        for key in (part.key, archives.archive_key(part.key)):
            store.delete(f"ingest/_done/{key}.json")
    second = ingest(copy, store)
    assert second.id == first.id
    assert np.array_equal(RealImages(copy, second, "train").resident(), pixels)
    description = json.loads(store.read(f"datasets/{second.id}/index.json"))
    assert description["packs"] == sorted(part.key for part in IngestPlan(copy).parts)


def test_archives_in_a_bucket_are_read_alike(tmp_path: Path, store: Store) -> None:
    config, memory = dataset(tmp_path / "data"), fsspec.filesystem("memory")
    memory.put(str(tmp_path / "data"), "/packed", recursive=True)
    try:
        remote = config.model_copy(update={"path": "memory://packed"})
        index = ingest(remote, store)
        images = RealImages(remote, index, "train").resident()
    finally:
        memory.rm("/packed", recursive=True)
    expected = ingest(config, Store(f"{store.url}-other"))
    assert index.id == expected.id
    assert np.array_equal(images, RealImages(config, expected, "train").resident())


def test_members_beside_archives_are_passed_over_as_in_the_uncompressed_archive(
    tmp_path: Path,
) -> None:
    inner = {f"n{c}.tar": tar_bytes([(f"{c}.png", png(c)), ("notes.txt", b"")]) for c in range(2)}
    files = [("readme", b""), *inner.items(), ("n5/stray.png", png(9)), ("n3.tar", tar_bytes([]))]
    found = []
    for folder, name, data in (
        ("a", "train.tar", tar_bytes(files)),
        ("b", "train.tar.gz", gzip.compress(tar_bytes(files))),
    ):
        write(tmp_path / folder / name, data)
        reader = open_reader(data_config(tmp_path / folder, format="tars"))
        classes = reader.classes()
        records = [r for part in reader.parts("train") for r in reader.records(part, classes)]
        assert isinstance(reader, ReadsArchives)
        counts = sorted(reader.passed_over("train").counts().values(), key=str)
        passed_over = [(path.removeprefix(name), number) for path, number in counts]
        found.append((classes, [(r.label, r.name, r.offset, r.data) for r in records], passed_over))
    assert found[0] == found[1]
    assert found[0][0] == ("n0", "n1", "n3")
