"""The comparison of label bytes: only labels differ, and fewer views take fewer bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import bench_label_bytes
from benchmarks.bench_label_bytes import COMPARED, HARD, Row, config_of, rows_of

TREE = yaml.safe_load(COMPARED.read_text())


@pytest.mark.parametrize("dataset", TREE["datasets"])
def test_the_runs_of_a_dataset_differ_in_their_labels_alone(dataset: str) -> None:
    of_set = TREE["datasets"][dataset]
    rows = rows_of(TREE, of_set, smoke=False)
    assert rows[0] == Row(HARD, 0)
    trees = [
        config_of(TREE, of_set, row, data=Path("/nowhere"), smoke=False).model_dump()
        for row in rows
    ]
    first = trees[1]
    for row, tree in zip(rows[1:], trees[1:], strict=True):
        differing = {section for section in first if first[section] != tree[section]}
        assert differing <= {"relabel"} | ({"posttrain"} if row.scheme == "topk" else set())
        assert tree["relabel"]["views"] == row.views
    hard = {section for section in first if first[section] != trees[0][section]}
    assert hard == {"relabel", "posttrain"}
    assert trees[0]["posttrain"]["epochs"] == first["posttrain"]["epochs"]


@pytest.mark.slow
def test_every_row_has_an_accuracy_and_fewer_views_take_fewer_bytes(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(images)
    words = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--smoke"]
    assert bench_label_bytes.main([*words, "--dataset", "CIFAR-10"]) == 0
    shown = capsys.readouterr().out
    each = re.findall(r"^\| (features|logits|topk) \| ([12]) \| ([\d.]+) kB", shown, re.M)
    sizes = {(scheme, int(views)): float(size) for scheme, views, size in each}
    assert len(sizes) == 6
    assert all(sizes[scheme, 1] < sizes[scheme, 2] for scheme, _ in sizes)
    assert f"| {HARD} | - | 0 |" in shown
