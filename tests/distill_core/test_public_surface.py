"""The names that `distill_core` exports: documented, imported when they are used, and complete."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import distill_core
from distill_core import (
    RecoverySetup,
    encode_images,
    encode_labels,
    read_images,
    read_labels,
    read_teacher,
    recover_batch,
    relabel_shard,
    teacher_from_module,
)
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model
from distill_core.models.files import teacher_files
from distill_core.storage.image_shards import ImageRows
from tests.golden.numbers import pixels
from tests.support.tiny import (
    CLASSES,
    MEAN,
    SIDE,
    STD,
    tiny_batch,
    tiny_recover,
    tiny_run,
    tiny_teacher,
)


@pytest.mark.parametrize("name", distill_core.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(distill_core, name)
    assert value.__name__ == name
    doc = inspect.getdoc(value)
    assert doc
    assert doc.splitlines()[0].endswith((".", ":"))


def test_the_lists_of_names_agree() -> None:
    tree = ast.parse(Path(distill_core.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert typed == set(distill_core._MODULES) == set(distill_core.__all__)
    assert set(distill_core.__all__) <= set(dir(distill_core))


def test_a_name_that_is_not_exported_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recover_everything'"):
        distill_core.recover_everything  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_needs_no_torch_until_a_name_does() -> None:
    code = (
        "import sys, distill_core; assert 'torch' not in sys.modules; "
        "distill_core.load_run('cda-cifar10'); assert 'torch' not in sys.modules; "
        "distill_core.recover_batch; assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Custom(nn.Module):
    """A network that is in no table."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.body(x).mean((2, 3)))
        return logits


def test_any_classifier_becomes_a_teacher_and_stays_as_it_was() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Custom().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    teacher = teacher_from_module(module, side=SIDE, mean=MEAN, std=STD)
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(teacher(images).logits, module(images))
    assert (teacher.spec.num_classes, teacher.spec.features) == (CLASSES, 8)
    recovered = recover_batch(tiny_batch(), RecoverySetup(tiny_recover(), [teacher], seed=0))
    assert recovered.trace[-1]["bn_statistics"] < recovered.trace[0]["bn_statistics"]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_stored_teacher_and_a_stored_set_are_read_back(tmp_path: Path) -> None:
    stored = tiny_teacher()
    model = build_model(stored.spec.model, CLASSES, seed=3)
    for suffix, data in teacher_files(model, stored.spec).items():
        (tmp_path / f"teacher.{suffix}").write_bytes(data)
    teacher = read_teacher(str(tmp_path / "teacher.safetensors"))
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(teacher(images).logits, model.eval()(images))

    rows = ImageRows(tiny_batch(), pixels(CLASSES))
    labels = relabel_shard(rows, range(3), config=tiny_run().relabel, teacher=teacher, seed=0)
    files = {"images": encode_images(rows, encoding="png", losses={})}
    files["labels"] = encode_labels(labels)
    for name, data in files.items():
        (tmp_path / f"{name}.parquet").write_bytes(data)
    assert np.array_equal(read_images(str(tmp_path / "images.parquet")).pixels, rows.pixels)
    second = read_labels(str(tmp_path / "labels.parquet"), [1])
    assert second.views == range(1, 2)
    assert np.array_equal(second.boxes[0], labels.boxes[1])


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.parquet: cannot be read"):
        read_images(str(tmp_path / "no.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        read_labels(str(tmp_path / "bad.parquet"))
