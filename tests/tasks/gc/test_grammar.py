"""The grammar of names: it has all objects that runs write, and nothing else."""

from __future__ import annotations

import tarfile

import pytest

from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.store import PROBES
from tasks.gc.grammar import DATASETS, RUNS, recognise, recognise_unfinished
from tasks.stages.table import chained_kinds
from tests.support.repository import ROOT
from tests.support.store_names import KEY, OURS, TOKEN

ARCHIVE = ROOT / "tests/golden/store-before-restructuring.tar.xz"  # two runs, all kinds of stages
OTHERS = (
    f"recover/_done/{KEY}.json\n",
    f"recover/_done/{KEY[:-1]}.json",
    f"recover/_done/{KEY.upper()}.json",
    f"recover/_done/deeper/{KEY}.json",
    f"/recover/_done/{KEY}.json",
    f"unknown/_done/{KEY}.json",
    f"recover/data/{KEY}.parquet",
    f"recover/data/{KEY}-{TOKEN}",
    f"recover/data/{KEY}-{TOKEN}.parquet.bak",
    f"recover/data/{KEY}-{TOKEN}.txt",
    f"squeeze/checkpoints/{KEY}-{TOKEN}",
    f"squeeze/checkpoints/{KEY}/pointer.json",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/model.pt",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/deeper/pointer.json",
    "datasets/imagenet/index.json",
    "datasets/imagenet/train/n01440764/a.jpg",
    "datasets/tiny-0123456789ab/train-0123456789abcdef.parquet",
    "datasets/tiny-0123456789ab/index/val-0123456789abcdef.parquet",
    ".probe/notes",
    "runs/run.yaml",
    "runs/first/notes.txt",
    "published/tiny-1/recover.manifest.json",
    f"deeper/{IDENTITY}",
    "",
)


def test_every_object_of_complete_runs_is_recognised() -> None:
    with tarfile.open(ARCHIVE) as archive:
        paths = [member.name.removeprefix("./") for member in archive if member.isfile()]
    assert {path for path in paths if recognise(path) is None} == set()
    kinds = set(chained_kinds()) - {"pack"}  # optional, and unknown to that version
    assert {path.partition("/")[0] for path in paths} >= {*kinds, DATASETS, RUNS}


@pytest.mark.parametrize("path", OURS)
def test_names_of_ours_are_recognised(path: str) -> None:
    name = recognise(path)
    assert name is not None
    assert name.role == OURS[path]
    folder, _, last = path.rpartition("/")
    partial = f".{last}.0123456789abcdef.partial"
    for unfinished in (
        partial,
        f".{last}.claim.partial/{partial}",
        f".{last}.fedcba9876543210.claim.partial/{partial}",
    ):
        assert recognise_unfinished(f"{folder}/{unfinished}" if folder else unfinished) == name


@pytest.mark.parametrize("path", OTHERS)
def test_names_of_others_are_not(path: str) -> None:
    assert recognise(path) is None
    assert not recognise_unfinished(f"{path}.0123456789abcdef.partial")
    folder, _, last = path.rpartition("/")
    assert not recognise_unfinished(f"{folder}/.{last}.0123456789abcdef.partial")


def test_an_unfinished_write_needs_its_random_digits() -> None:
    for name in (
        f".{KEY}.partial",
        f"{KEY}.0123456789abcdef.partial",
        f".{KEY}.0123.partial",
        f".x.claim.partial/.{KEY}.0123456789abcdef.partial",
        f".{KEY}.claim.partial/{KEY}",
    ):
        assert not recognise_unfinished(f"{PROBES}/{name}")
