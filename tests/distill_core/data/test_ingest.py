"""What ingestion reads: every image once, and no image whose file has not changed."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill_core.config.data import DataConfig
from distill_core.data import folders
from distill_core.data.files.local import ListedFile
from distill_core.data.index_files import open_index
from distill_core.data.ingest import ingest
from distill_core.data.parts import read as part_reading
from distill_core.data.parts.read import TABLE
from distill_core.data.readers import parts as bounds
from distill_core.errors import DataError
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.datasets import data_config, png
from tests.support.noted_reads import note_reads


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the files whose bytes are read."""
    return note_reads(monkeypatch)


def test_an_unchanged_dataset_is_only_listed(folder: Path, store: Store, reads: list[str]) -> None:
    first = ingest(data_config(folder), store)
    assert len(reads) == len(set(reads)) == 8
    reads.clear()
    assert ingest(data_config(folder), store) == first
    assert ingest(data_config(folder), store, first) == first
    assert reads == []


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (600, 3), (10**6, 6)])
def test_large_images_are_read_a_few_at_a_time(
    limit: int, most: int, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their bytes; those of this dataset have 268 each."""
    read, seen = folders.LocalFolder.read_listed, list[int]()

    def counted(self: folders.LocalFolder, files: Sequence[ListedFile]) -> Any:
        seen.append(len(files))
        return read(self, files)

    monkeypatch.setattr(folders.LocalFolder, "read_listed", counted)
    monkeypatch.setattr(part_reading, "CHUNK_BYTES", limit)
    ingest(data_config(folder), store)
    assert (max(seen), sum(seen)) == (most, 8)


def test_a_new_class_and_a_changed_file_are_all_that_is_read(
    folder: Path, store: Store, reads: list[str]
) -> None:
    first = ingest(data_config(folder), store)
    reads.clear()
    for split in ("train", "test"):
        (folder / split / "bat").mkdir()
        (folder / split / "bat" / "1.png").write_bytes(png(60))
    (folder / "train" / "dog" / "11.png").write_bytes(png(61))
    second = ingest(data_config(folder, num_classes=3), store, first)
    assert sorted(reads) == ["test/bat/1.png", "train/bat/1.png", "train/dog/11.png"]
    other = Store(f"{store.url}-other")
    assert ingest(data_config(folder, num_classes=3), other, first).id == second.id


def test_another_folder_with_equal_names_sizes_and_times_is_read(
    folder: Path, store: Store, reads: list[str], tmp_path: Path
) -> None:
    ingest(data_config(folder), store)
    copy = folder.rename(tmp_path / "elsewhere")
    reads.clear()
    ingest(data_config(copy), store)
    assert len(reads) == 8


SCRIPT = """
import sys
from distill_core.data import folders
from distill_core.data.files.local import ListedFile
from distill_core.data.ingest import ingest
from distill_core.data.readers import parts
from distill_core.storage.store import Store
from tests.support.datasets import data_config
parts.PART_RECORDS = 3
read = folders.LocalFolder.read_listed
def noted(self, files):
    for file in files:
        print(file.path, flush=True)
    return read(self, files)
folders.LocalFolder.read_listed = noted
ingest(data_config(sys.argv[1], num_classes=12), Store(sys.argv[2]))
"""


def committed(store: Store) -> set[str]:
    """Return the files whose rows are in finished shards."""
    shards = ShardStore(store, "ingest")
    markers = shards.markers(sorted(shards.done()))
    tables = [pq.read_table(io.BytesIO(shards.load(m, TABLE))) for m in markers if m is not None]
    return {uri for table in tables for uri in table["uri"].to_pylist()}


@pytest.mark.slow
def test_what_was_committed_before_a_kill_is_never_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, count in (("train", 9), ("test", 3)):
        for label in range(12):
            (tmp_path / "data" / split / f"c{label:02d}").mkdir(parents=True)
            for n in range(count):
                path = tmp_path / "data" / split / f"c{label:02d}" / f"{n}.png"
                path.write_bytes(png(100 * label + n))
    rng, store = np.random.default_rng(0), Store(str(tmp_path / "store"))
    for _ in range(10):
        before, seen = committed(store), list[str]()
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "data"), store.url],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line.strip())
            if len(seen) > rng.integers(4, 40):
                break
        process.kill()
        seen += [line.strip() for line in process.stdout]
        process.wait()
        assert not before & set(seen)
        assert before <= committed(store)
    monkeypatch.setattr(bounds, "PART_RECORDS", 3)
    index = ingest(data_config(tmp_path / "data", num_classes=12), store)
    undisturbed = ingest(
        data_config(tmp_path / "data", num_classes=12), Store(str(tmp_path / "other"))
    )
    assert index == undisturbed


def test_headers_alone_find_what_is_no_image_and_are_recorded_in_the_index(
    folder: Path, store: Store, reads: list[str]
) -> None:

    (folder / "train" / "cat" / "cut.png").write_bytes(png(5)[:60])
    (folder / "train" / "cat" / "text.png").write_bytes(b"text")
    config = data_config(folder, max_bad_fraction=0.5, verify="header")
    quick = ingest(config, store)
    assert (quick.train["status"].to_pylist().count("bad"), quick.verify) == (1, "header")
    assert open_index(store, quick.id).verify == "header"
    reads.clear()
    full = ingest(data_config(folder, max_bad_fraction=0.5), store, quick)
    assert (full.train["status"].to_pylist().count("bad"), full.verify) == (2, "full")
    assert len(reads) == 10  # nothing is taken over from headers


def test_the_way_of_checking_is_no_part_of_the_id(folder: Path, store: Store) -> None:
    other = Store(f"{store.url}-other")
    quick = ingest(data_config(folder, verify="header"), other)
    assert quick.id == ingest(data_config(folder), store).id


def test_files_that_were_written_again_are_read_once_though_their_parts_are_collected(
    folder: Path, store: Store, reads: list[str]
) -> None:
    """The dataset has the same contents and the same id; only the versions of its files differ."""
    first = ingest(data_config(folder), store)
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes())
    second = ingest(data_config(folder), store, first)
    assert (second.id, second.versions == first.versions) == (first.id, False)
    for path in store.files("ingest"):
        store.delete(path.path)
    reads.clear()
    assert ingest(data_config(folder), store, open_index(store, first.id)) == second
    assert reads == []


def test_an_index_states_that_all_images_were_decoded_once_they_were(
    folder: Path, store: Store
) -> None:
    quick, full = data_config(folder, verify="header"), data_config(folder)
    assert [ingest(config, store).verify for config in (quick, full, quick)] == [
        "header",
        "full",
        "full",
    ]


def test_a_class_with_more_bad_images_than_allowed_is_named(folder: Path, store: Store) -> None:
    for n in (10, 11):
        (folder / "train" / "dog" / f"{n}.png").write_bytes(b"text")
    ingest(data_config(folder, max_bad_fraction=0.5, max_bad_per_class=2), store)
    with pytest.raises(DataError, match=r"2 files of class 'dog' .*per_class = 1 .*dog/10\.png"):
        ingest(data_config(folder, max_bad_fraction=0.5, max_bad_per_class=1), store)


def test_another_number_of_files_than_stated_is_refused(folder: Path, store: Store) -> None:
    assert ingest(data_config(folder, images=(6, 2)), store) == ingest(data_config(folder), store)
    with pytest.raises(DataError, match=r"train split: found 6 files, .*images states 1,281,167"):
        ingest(data_config(folder, images=(1_281_167, 2)), store)
    with pytest.raises(DataError, match=r"test split: found 2 files, .*images states 0"):
        ingest(data_config(folder, images=(6, 0)), store)


def test_settings_of_checking_are_dumped_only_where_they_are_set(folder: Path) -> None:
    assert not {"verify", "max_bad_per_class"} & data_config(folder).model_dump().keys()
    changed = data_config(folder, verify="header", max_bad_per_class=0)
    assert DataConfig.model_validate(changed.model_dump()) == changed
