"""Shapes from the header of a torch checkpoint: found in any entry, and without its tensors."""

from __future__ import annotations

import argparse
import io
import zipfile
from typing import Any

import pytest
import torch

from distill_core.models.checkpoint_header import StoredTensor, head_rows, read_header


def header_of(value: Any) -> Any:
    """Return the header of a checkpoint whose tensors are cut out."""
    stream, without = io.BytesIO(), io.BytesIO()
    torch.save(value, stream)
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(without, "w") as smaller:
        for name in archive.namelist():
            if "/data/" not in name:
                smaller.writestr(name, archive.read(name))
    return read_header(without)


def test_shapes_are_those_of_the_tensors() -> None:
    value = {"a": torch.zeros(2, 3), "b": torch.nn.Parameter(torch.zeros(4)), "c": torch.tensor(1)}
    header = header_of(value)
    assert header == {"a": StoredTensor((2, 3)), "b": StoredTensor((4,)), "c": StoredTensor(())}


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ({"fc.weight": torch.zeros(5, 2)}, 5),
        ({"module.fc.weight": torch.zeros(5, 2)}, 5),
        ({"model": {"_orig_mod.module.fc.weight": torch.zeros(5, 2)}, "epoch": 1}, 5),
        ({"a": {"b": {"fc.weight": torch.zeros(5, 2)}}, "args": argparse.Namespace(lr=1)}, 5),
        ({"model": {"fc.weight": torch.zeros(5, 2)}, "ema": {"fc.weight": torch.zeros(5, 2)}}, 5),
        # Two sizes, no head, a convolution, and a layer deep in the network tell nothing.
        (
            {"model": {"fc.weight": torch.zeros(5, 2)}, "ema": {"fc.weight": torch.zeros(4, 2)}},
            None,
        ),
        ({"head.weight": torch.zeros(5, 2)}, None),
        ({"fc.weight": torch.zeros(5, 2, 1, 1)}, None),
        ({"layers.0.fc.weight": torch.zeros(5, 2)}, None),
        ({"prefc.weight": torch.zeros(5, 2)}, None),
        ([torch.zeros(5, 2)], None),
        (3, None),
    ],
)
def test_the_head_is_found_in_any_entry(value: Any, rows: int | None) -> None:
    assert head_rows(header_of(value), "fc.weight") == rows


def test_a_damaged_header_tells_nothing() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00(X")
    assert read_header(stream) is None
    with pytest.raises(zipfile.BadZipFile):
        read_header(io.BytesIO(b"PK\x03\x04" + bytes(99)))
