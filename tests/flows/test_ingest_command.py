"""The command that reads a dataset and stops."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distill_core.storage.store import Store
from flows.cli import main
from flows.maintenance.verify import verify_run
from tasks.run import open_run
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tests.support.datasets import image_folder


def ingest(monkeypatch: pytest.MonkeyPatch, store: Path, data: Path, *more: str) -> int:
    """Run the command and return its exit code."""
    config = ["data.format=imagefolder", f"data.path={data}", "data.num_classes=2"]
    command = ["distill", "ingest", "digits-demo", *config, "--name=small", "--local"]
    monkeypatch.setattr(sys, "argv", [*command, f"--store={store}", *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_ingestion_by_itself_leaves_a_run_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "data")
    assert ingest(monkeypatch, tmp_path / "store", data, "--workers=2") == 0
    assert ", 2 classes, 6 + 2 images." in capsys.readouterr().out
    run = open_run(Store(str(tmp_path / "store")), "small")
    status = stage_status(run, StageId("ingest"))
    assert (status.complete, status.total, status.done) == (True, 2, 2)
    assert verify_run(run).damage == ()
    run.store.delete(run.store.files("ingest/_done")[0].path)
    assert not stage_status(run, StageId("ingest")).complete
    assert ingest(monkeypatch, tmp_path / "store", data) == 0
    assert stage_status(run, StageId("ingest")).complete


def test_rejects_are_printed_of_a_dataset_that_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "data")
    (data / "train" / "cat" / "1.png").write_bytes(b"text")
    assert ingest(monkeypatch, tmp_path / "store", data, "--rejects") == 2
    said = capsys.readouterr()
    line = "train/cat/1.png: 4 bytes that are not an image. Replace the file."
    assert said.out.splitlines() == [line]
    assert "max_bad_fraction" in said.err
    (data / "words.txt").write_text("cat\ttabby, tabby cat\n")
    assert ingest(monkeypatch, tmp_path / "store", data, "--rejects") == 2
    assert capsys.readouterr().out.splitlines() == [f"{line} Its class is tabby (cat)."]
