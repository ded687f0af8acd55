"""CIFAR's pickled batches are read without running code; anything else in a pickle is refused."""

from __future__ import annotations

import builtins
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill_core.data.ingest import ingest
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.inert_pickle import load
from distill_core.data.readers.record import Address, Record
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config
from tests.support.sources import write

ROWS = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
NAMES = [b"airplane", b"automobile"]


def cifar10(root: Path, protocol: int = 2) -> Path:
    """Write five training batches of two images and one of two to test on."""
    folder = root / "cifar-10-batches-py"
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = ROWS[2 * number : 2 * number + 2]
        files = [f"{name}_{row}.png".encode() for row in range(2)]
        batch = {b"data": rows, b"labels": [0, 1], b"filenames": files, b"batch_label": b"x"}
        write(folder / name, pickle.dumps(batch, protocol))
    meta = {b"label_names": NAMES, b"num_vis": 3072, b"num_cases_per_batch": 10000}
    write(folder / "batches.meta", pickle.dumps(meta, protocol))
    return root


def cifar100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    for name in ("train", "test"):
        batch = {b"data": ROWS[:2], b"fine_labels": [1, 0], b"coarse_labels": [0, 0]}
        write(folder / name, pickle.dumps(batch, 2))
    names = {b"fine_label_names": NAMES, b"coarse_label_names": [b"vehicles"]}
    write(folder / "meta", pickle.dumps(names, 2))
    return root


def everything(folder: Path, split: Any = "train") -> list[Record]:
    reader = open_reader(data_config(folder, format="cifar"))
    classes = reader.classes()
    return [record for part in reader.parts(split) for record in reader.records(part, classes)]


def pixels(data: bytes) -> np.ndarray:
    """Return an image as a row of CIFAR."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).transpose(2, 0, 1).reshape(-1)


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10_has_its_pixels_labels_and_names(tmp_path: Path, protocol: int) -> None:
    root = cifar10(tmp_path, protocol)
    records = everything(root) + everything(root, "test")
    assert np.array_equal(np.stack([pixels(record.data) for record in records]), ROWS)
    assert [record.label for record in records] == [0, 1] * 6
    assert records[0].name == "data_batch_1_0.png"
    reader = open_reader(data_config(root, format="cifar"))
    assert reader.classes() == ("airplane", "automobile")
    addresses = [Address(r.uri, r.offset, len(r.data)) for r in records]
    assert reader.fetch(addresses) == [record.data for record in records]


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    assert [record.label for record in everything(cifar100(tmp_path))] == [1, 0]


def test_the_path_may_be_the_folder_of_the_batches(tmp_path: Path, store: Store) -> None:
    folder = cifar10(tmp_path / "data") / "cifar-10-batches-py"
    index = ingest(data_config(folder, format="cifar", side=32), store)
    assert index.class_sizes("train") == {"airplane": 5, "automobile": 5}


def test_files_of_python_2_are_read() -> None:
    """An array as Python 2 has pickled it, in the instructions of its protocol 2."""
    array = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87"
        b"R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03abctbu."
    )
    assert load(array, "x")[b"data"].tolist() == [[97, 98, 99]]


class Bomb:
    """A value whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


@pytest.mark.parametrize("protocol", range(6))
def test_no_code_of_a_pickle_is_run(tmp_path: Path, protocol: int) -> None:
    sentinel = tmp_path / "sentinel"
    for bomb in (
        Bomb(os.mkdir, str(sentinel)),
        Bomb(builtins.eval, f"__import__('os').mkdir({str(sentinel)!r})"),
        Bomb(np.ones, 3),
        Path("x"),
        Bomb(bytearray, 3),
    ):
        with pytest.raises(DataError, match=r"data_batch_1: a pickle that is not read, because of"):
            load(pickle.dumps({b"data": bomb}, protocol), "data_batch_1")
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2**31 places
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"(dS'x'\nP1\n.",  # a persistent reference
        b"\x80\x02\x82\x01.",  # an extension
        b"cnumpy\nndarray\n}S'a'\nS'b'\nsb.",  # attributes of a class
        b"c_codecs\nencode\n(N}S'__code__'\nNstb.",
        b"cbuiltins\neval\n.",
        b"cdistill_core.data.readers.inert_pickle\nload\n.",
        b"",
        b"not a pickle",
    ],
)
def test_crafted_instructions_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="a pickle that is not read"):
        load(data, "x")


@pytest.mark.parametrize(
    "array",
    [np.ones(3), np.ones((2, 3), np.int32), np.array([{}]), np.asfortranarray(ROWS[:4])],
    ids=["float", "int32", "object", "columns"],
)
def test_only_arrays_of_bytes_are_read(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="an array that is not one of bytes in rows"):
        load(pickle.dumps({b"data": array}, 2), "x")


def test_a_shape_that_the_bytes_do_not_have_is_refused() -> None:
    data = pickle.dumps({b"data": np.arange(6, dtype=np.uint8)}, 2)
    changed = data.replace(b"K\x06\x85", b"K\x7f\x85")
    assert changed != data
    with pytest.raises(DataError, match="another size than its shape"):
        load(changed, "x")


def test_random_damage_is_refused_or_gives_containers() -> None:
    data = bytearray(pickle.dumps({b"data": ROWS[:1], b"labels": [1], b"filenames": [b"a"]}, 2))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        damaged[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        damaged[int(rng.integers(60))] = int(rng.integers(256))
        try:
            assert not callable(load(bytes(damaged), "x"))
        except DataError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({b"data": ROWS[:2, :100]}, "no array of 3072 bytes per image"),
        ({b"labels": [0]}, "not a label per image"),
        ({b"labels": [0, 2]}, "row 1: its label 2 is not one of the 2 classes"),
        ({b"labels": None}, "not a label per image"),
    ],
)
def test_a_batch_without_sense_is_refused(
    tmp_path: Path, change: dict[bytes, Any], problem: str
) -> None:
    root = cifar10(tmp_path)
    batch = {b"data": ROWS[:2], b"labels": [0, 1], b"filenames": [b"a", b"b"]} | change
    write(root / "cifar-10-batches-py" / "data_batch_3", pickle.dumps(batch, 2))
    with pytest.raises(DataError, match=rf"data_batch_3.*{problem}"):
        everything(root)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    root = cifar10(tmp_path)
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4: no such file"):
        everything(root)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no cifar-10-batches-py or cifar-100-python"):
        everything(tmp_path / "other")
