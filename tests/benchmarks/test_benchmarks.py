"""Benchmarks at their smallest. Other tests cover what they compute; no test asserts a time."""

from __future__ import annotations

import importlib
import sys

import pytest
import yaml

from benchmarks import (
    bench_guards,
    bench_ingest,
    bench_pack_cache,
    bench_squeeze_data,
    pairs,
)
from benchmarks.methods_block import Cell
from benchmarks.pairs import Ratios
from distill_core.data.packs import cache_settings
from distill_core.data.readers import parts as bounds
from distill_core.errors import ConfigError

SMALLEST = {
    "recover": "--width 4 --side 16 --batch 4 --groups 2",
    "labels": "--classes 200 --features 16 --views 2",
    "posttrain": "--side 16 --batch 8",
    "relabel": "--width 4 --side 16 --images 4 --views 2",
    "squeeze": "--small 40 --large 4 --width 4 --batch 20",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_comparison_prints_its_table_with_a_comparison_of_equal_sides(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", *SMALLEST[name].split(), "--pairs", "2"])
    main = importlib.import_module(f"benchmarks.bench_{name}").main
    assert main() in (0, 1)  # 1: the machine was too noisy, as it is in tests
    shown = capsys.readouterr().out
    assert "| A/A: " in shown
    assert f"Command: `python -m benchmarks.bench_{name} {SMALLEST[name]}" in shown


def test_ratios_are_of_pairs_in_both_orders_without_the_first_ones() -> None:
    seconds = {"one": 3.0, "other": 1.5}
    order = []

    def clock(way: pairs.Way) -> float:
        order.append(name := way())
        return seconds[str(name)] if len(order) > 2 * pairs.WARM_UP else 99.0

    row = pairs.paired("one over other", lambda: "one", lambda: "other", 4, clock)
    assert row.values == [2.0] * 4
    assert row.seconds == 1.5
    assert order[:4] == ["other", "one", "one", "other"]


def test_the_band_of_a_row_lies_within_its_ratios() -> None:
    row = Ratios("one over other", [2.0, 2.1, 2.2, 0.1], 1.0).row()
    low, high = map(float, row.strip("| ").split(" | ")[2:])
    assert 0.1 <= low < 2.1 < high <= 2.2


def test_a_run_on_a_noisy_machine_is_rejected_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    noise, row = Ratios("A/A", [1.05] * 3, 1.0), Ratios("one over other", [2.0] * 3, 1.0)
    assert pairs.conclude("a title", "recover-none", noise, [row], [], write=True) == 1
    assert "rejected: the A/A row is 1.05" in capsys.readouterr().out


def test_both_sides_of_every_guarded_option_are_runs_that_differ_in_it_alone() -> None:
    tree = yaml.safe_load(bench_guards.GUARDS.read_text())
    block = bench_guards.block_of(tree, "/nowhere", smoke=False)
    methods, teachers = block.methods(), ["a" * 32, "b" * 32, "c" * 32, "d" * 32]
    for one, other, _ in tree["options"].values():
        runs = [
            block.run(methods[name], Cell(name, tree["ipc"], 0), teachers).model_dump()
            for name in (one, other)
        ]
        differing = [section for section in runs[0] if runs[0][section] != runs[1][section]]
        assert differing in (["recover"], ["relabel"], ["precision"], ["relabel", "posttrain"])


def test_extra_methods_of_a_block_may_not_have_the_name_of_a_preset() -> None:
    tree = {"methods": {"edc": {"preset": "edc-cifar10", "set": []}}}
    with pytest.raises(ConfigError, match="edc"):
        bench_guards.block_of(tree, "/nowhere", smoke=False).methods()


@pytest.mark.slow
def test_ingestion_is_compared_with_decoding_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bounds, "PART_RECORDS", bounds.PART_RECORDS)  # the benchmark sets another
    words = "--small 60 --large 60 --rounds 1 --parts 3 --workers 1 2 --no-s3"
    assert bench_ingest.main(words.split()) in (0, 1)  # 1: the machine was too noisy
    shown = capsys.readouterr().out
    assert shown.count("| ingest, local, 2 workers |") == 2
    assert shown.count("- local, unchanged: ") == 2


@pytest.mark.slow
def test_every_way_reads_all_training_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RESIDENT_BYTES", "1")  # the benchmark sets it; restored afterwards
    words = ["--photographs", "100", "--small", "100", "--rounds", "1"]
    assert bench_squeeze_data.main(words) in (0, 1)  # 1: the machine was too noisy
    shown = capsys.readouterr().out
    assert "## stand-ins of 500 x 375: 100 images" in shown
    for way in ("squares of files, cropped in training", "packs: crops of whole images", "A/A: "):
        assert f"| {way}" in shown
    assert "| torchvision's ImageFolder and DataLoader, reduced files |" in shown


@pytest.mark.slow
def test_an_epoch_over_packs_of_a_bucket_reads_each_byte_once_and_later_ones_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "x")  # the benchmark sets them; restored afterwards
    monkeypatch.setenv(cache_settings.FOLDER, "/nowhere")
    bench_pack_cache.main(["--photographs", "60", "--rounds", "1"])
    shown = capsys.readouterr().out
    assert "first epoch over those of its packs: 1.000" in shown
    assert "later epochs: 0\n" in shown


def test_rates_are_compared_within_a_round_and_with_the_best_of_the_others() -> None:
    today, packs = bench_squeeze_data.TODAY, "packs: squares"
    rates = {today: [100.0, 200.0, 50.0], packs: [300.0, 400.0, 300.0]}
    others = {"one": [100.0, 400.0, 100.0], "another": [200.0, 100.0, 60.0]}
    rows = bench_squeeze_data.rows_of(rates | others, set(others))
    assert rows[1] == "| packs: squares | 300 | 3.00 | 1.50 |"
