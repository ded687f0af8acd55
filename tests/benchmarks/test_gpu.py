"""The script for the first minutes on a GPU, on a CPU and on a GPU that computes no values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_cifar, gpu_speed, gpu_terms
from benchmarks.gpu_checks import Row, _on_cpu, bench, checks
from benchmarks.gpu_terms import SETTINGS, TermBench, stripes
from benchmarks.pairs import wall_time
from distill_core.recover import cudagraph
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.terms import TERMS
from distill_core.storage.image_shards import encode_pixels
from tests.support.datasets import write_parquet
from tests.support.fake_cuda import fake_cuda
from tests.support.repository import ROOT


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Return a folder as that of CIFAR-10, of a few noisy images."""
    images = stripes(40, classes=10)
    rows = [
        (encode_pixels(pixels, "png"), int(label))
        for pixels, label in zip(images.pixels, images.labels, strict=True)
    ]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", rows, names=[str(n) for n in range(10)])
    return tmp_path


@pytest.mark.slow
def test_every_row_passes_on_a_cpu(cifar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--quick", "--data", str(cifar), "--minutes", "30"]) == 0
    shown = capsys.readouterr().out
    assert all(f"the first step, {term}, {p} |" in shown for term in TERMS for p in PRECISIONS)
    assert "FAILED" not in shown
    assert "left out: the time" not in shown
    assert "| CIFAR-10, CDA | IPC 2: student " in shown


PRECISIONS = ("float32", "bfloat16")


@pytest.fixture
def without_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare what the GPU makes with itself, for without values nothing differs."""
    kept, recovered = {}, TermBench.recovered

    def once(
        bench: TermBench, term: str, *, device: str, **options: Any
    ) -> tuple[RecoveredBatch, ...]:
        if device != "cpu":
            kept[term] = recovered(bench, term, device=device, **options)
        return kept[term]

    monkeypatch.setattr(TermBench, "recovered", once)


@pytest.mark.slow
@pytest.mark.usefixtures("without_cpu")
def test_every_row_can_be_computed_on_a_gpu(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device or a name that is wrong is found here, not in the first minute on a GPU."""
    monkeypatch.setattr(gpu_speed, "clock_of", lambda device: wall_time)
    monkeypatch.setattr(gpu_terms, "STEPS", 3)
    monkeypatch.setattr(cudagraph, "WARM_UP", 1)
    _forget()
    rows: list[Row] = []
    with fake_cuda():
        for todo in (
            checks("cuda", quick=True),
            gpu_speed.speeds("cuda", quick=True),
            gpu_cifar.rows(str(cifar), "cuda", quick=True),
        ):
            rows += [measure() for _, measure in todo]
    _forget()
    assert [row for row in rows if row.passed is False] == []
    (graphs,) = (row for row in rows if row.what == "recorded steps")
    assert graphs.passed


def _forget() -> None:
    for kept in (bench, _on_cpu, gpu_cifar._split, gpu_cifar._teacher):
        kept.cache_clear()


def test_settings_are_of_terms_that_exist() -> None:
    assert SETTINGS.keys() <= TERMS.keys()


def test_a_row_that_fails_does_not_end_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Row:
        raise NameError("no such | name\nsecond line")

    todo = [
        ("first", broken),
        ("second", lambda: Row("b", "2", True)),
        ("third", lambda: Row("c", "3", False)),
    ]
    lines, failed = gpu.Script(float("inf")).section("A title", todo)
    assert failed == 2
    assert lines[4:7] == [
        "| first | NameError: no such / name | FAILED |",
        "| b | 2 | ok |",
        "| c | 3 | FAILED |",
    ]
    assert "| b | 2 | ok |" in capsys.readouterr().out


def test_what_does_not_fit_into_the_time_is_left_out() -> None:
    lines, failed = gpu.Script(0.0).section("A title", [("a", lambda: Row("a", "1", True))])
    assert failed == 0
    assert lines[4] == "| a | left out: the time was over |  |"


def test_without_a_folder_of_images_its_rows_state_so(tmp_path: Path) -> None:
    ((_, absent),) = gpu_cifar.rows(None, "cpu", quick=True)
    ((_, empty),) = gpu_cifar.rows(str(tmp_path), "cpu", quick=True)
    assert absent() == Row("CIFAR-10", "no folder was given by --data", None)
    assert empty().passed is False


def test_a_device_that_is_missing_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--device", "cuda"]) == 1
    assert "--device cuda: torch" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_imports_the_core_alone() -> None:
    program = "import sys, benchmarks.gpu; print(*{name.split('.')[0] for name in sys.modules})"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    imported = set(shown.stdout.split())
    others = {"ray", "prefect", "typer", "rich", "matplotlib", "s3fs", "timm", "sklearn", "psutil"}
    assert {"torch", "distill_core"} <= imported
    assert imported & {*others, "tasks", "flows", "tests"} == set()
