"""The comparison of methods at its smallest: it runs, resumes, and prints its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_methods, methods_table
from benchmarks.methods_block import BLOCK, Block, Cell, cell_id
from distill_core.recover.pixels import late_groups
from distill_core.sharding import ImageId
from tests.support.published import METHODS

TEACHERS = ["a" * 32, "b" * 32, "c" * 32, "d" * 32]


def test_cells_run_once_and_the_table_shows_their_results(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--data", str(images), "--out", str(out), "--jobs", "0", "--smoke", "--first"]
    words += ["--only", "random-real,sre2l"]
    assert bench_methods.main(words) == 0
    shown = capsys.readouterr().out
    assert "| random-real | 10 | 1 |" in shown
    assert "| sre2l | 10 | 1 |" in shown
    cells = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(cells) == 2
    assert bench_methods.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == cells
    result = json.loads(next(path for path in cells if path.name.startswith("sre2l")).read_text())
    assert {"last", "ema", "hard", "seconds", "peak_mib", "image_bytes"} <= result.keys()


@pytest.mark.slow
def test_a_method_in_rounds_trains_the_student_between_them(images: Path, tmp_path: Path) -> None:
    words = ["--data", str(images), "--out", str(tmp_path), "--jobs", "0", "--smoke", "--first"]
    assert bench_methods.main([*words, "--only", "cudd"]) == 0
    (cell,) = (tmp_path / "cells").iterdir()
    result = json.loads(cell.read_text())
    seconds = result["seconds"]
    assert {"select-1", "recover-1", "posttrain-1", "select", "recover", "posttrain"} <= set(
        seconds
    )
    assert seconds["posttrain-1"] > 0
    made = sum(seconds[stage] for stage in seconds if stage.startswith(("select", "recover")))
    costs = methods_table._costs(result)
    assert costs[0] == pytest.approx(made + seconds["posttrain-1"] + seconds["relabel-1"])
    assert result["image_bytes"] > 0


def test_every_method_is_compared_but_lpqld_whose_images_are_those_of_lpld() -> None:
    compared = Block.read(BLOCK, data="/nowhere").methods()
    variants = {"edc-mosaic"}
    assert compared.keys() - variants == METHODS.keys() - {"lpqld"}


def test_the_block_keeps_the_rounds_of_cudd_and_the_groups_of_delt() -> None:
    block = Block.read(BLOCK, data="/nowhere")
    cudd, delt = (
        block.run(block.methods()[name], Cell(name, 10, 0), TEACHERS) for name in ("cudd", "delt")
    )
    assert cudd.round_starts == (0, 5)
    assert cudd.rounds is not None
    assert cudd.rounds.student == cudd.posttrain.students[0]
    assert cudd.recover.needs_student
    batch = tuple(ImageId(0, "airplane", number) for number in range(10))
    assert len(late_groups(batch, delt.recover)) == delt.recover.late_groups == 8


def test_students_on_hard_labels_train_on_the_images_of_those_on_soft_labels() -> None:
    block = Block.read(BLOCK, data="/nowhere")
    method, cell = block.methods()["cudd"], Cell("cudd", 10, 0)
    soft, hard = (block.run(method, cell, TEACHERS, hard=hard) for hard in (False, True))
    assert (soft.recover, soft.relabel) == (hard.recover, hard.relabel)
    assert soft.after_round(1).posttrain == hard.after_round(1).posttrain


def test_every_preset_of_the_dataset_is_compared_under_the_recipe_of_the_block() -> None:
    block = Block.read(BLOCK, data="/nowhere")
    methods = block.methods()
    runs = [block.run(m, Cell(name, 10, 0), TEACHERS) for name, m in methods.items()]
    assert len({(run.relabel, run.posttrain, run.squeeze) for run in runs}) == 1
    assert max(run.recover.steps for run in runs) <= block.tree["recover_steps"]


def test_the_id_of_a_cell_follows_its_settings_and_not_the_path_of_the_images() -> None:
    def name(data: str, seed: int, digest: str) -> str:
        block, cell = Block.read(BLOCK, data=data), Cell("sre2l", 10, seed)
        return cell_id(cell, block.run(block.methods()["sre2l"], cell, TEACHERS), [digest])

    assert name("/here", 0, "x") == name("/there", 0, "x")
    assert len({name("/here", 0, "x"), name("/here", 1, "x"), name("/here", 0, "y")}) == 3


def test_gains_are_over_random_real_images_of_the_same_seed_and_missing_cells_are_shown() -> None:
    def result(last: float) -> dict[str, object]:
        seconds = {"statistics": 0.0, "recover": 1.0, "posttrain": 2.0}
        numbers = {"last": last, "ema": last, "hard": None, "peak_mib": 1, "image_bytes": 1}
        return {**numbers, "seconds": seconds}

    rows = methods_table.table(
        {
            Cell("random-real", 1, 0): result(50.0),
            Cell("random-real", 1, 1): result(60.0),
            Cell("cda", 1, 0): result(52.0),
            Cell("cda", 1, 1): result(62.0),
            Cell("sre2l", 1, 0): None,
        }
    )[2:]
    assert rows[0].startswith("| cda | 1 | 2 | 57.0 +- 7.1 | 57.0 +- 7.1 | - | +2.0 +- 0.0 |")
    assert rows[1].startswith("| random-real | 1 | 2 | 55.0 +- 7.1 | 55.0 +- 7.1 | - | - |")
    assert rows[2].startswith("| sre2l | 1 | 0 of 1 | missing |")
