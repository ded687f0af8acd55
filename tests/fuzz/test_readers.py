"""Random datasets: they are ingested, or refused with an error that names what is wrong."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill_core.data.ingest import ingest
from distill_core.errors import DistillError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, image_folder, png, write_parquet
from tests.support.fuzzing import examples, mutated_bytes


def picture(kind: str) -> bytes:
    """Return a small image file."""
    stream = io.BytesIO()
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PICTURES = {
    f".{kind.lower()}": picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "PPM")
}
NAMES = st.sampled_from(
    ["0.png", "a.jpeg", "x.gif", "x.webp", "x.tiff", "x.ppm", "x", ".hidden", "x.txt"]
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a Parquet file of two classes."""
    path = tmp_path_factory.mktemp("fuzz") / "train.parquet"
    write_parquet(path, [(png(n), n % 2) for n in range(4)], names=["cat", "dog"])
    return path.read_bytes()


def ingested_or_refused(path: Path, store: Path, **settings: object) -> bool:
    """Return whether a dataset is ingested; an error that is not ours ends the test."""
    try:
        ingest(data_config(path, **settings), Store(str(store)))
    except DistillError:
        return False
    finally:
        shutil.rmtree(store, ignore_errors=True)
    return True


@examples(60)
@given(content=st.sampled_from(list(PICTURES.values())).flatmap(mutated_bytes), name=NAMES)
def test_a_damaged_image_is_ingested_or_refused(
    content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = image_folder(tmp_path_factory.mktemp("images"))
    (folder / "train" / "cat" / name).write_bytes(content)
    ingested_or_refused(folder, folder / "store", max_bad_fraction=1.0)
    shutil.rmtree(folder)


@examples(60)
@given(data=st.data())
def test_a_damaged_parquet_file_is_ingested_or_refused(
    data: st.DataObject, table: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    (folder / "train.parquet").write_bytes(data.draw(mutated_bytes(table)))
    (folder / "test.parquet").write_bytes(table)
    ingested_or_refused(folder, folder / "store", format="parquet", max_bad_fraction=1.0)
    shutil.rmtree(folder)


def test_undamaged_datasets_are_ingested(table: bytes, tmp_path: Path) -> None:
    assert ingested_or_refused(image_folder(tmp_path / "images"), tmp_path / "store")
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_bytes(table)
    assert ingested_or_refused(tmp_path, tmp_path / "store", format="parquet")
