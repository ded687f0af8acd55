"""The command line: its output by stream, its exit codes, and what it imports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distill_core.errors import ShardsFailed, StorageError
from distill_core.storage.records import seal_page
from distill_core.storage.store import Store
from flows.orchestration import launch
from flows.runs import pipeline
from flows.status import status
from flows.status.status import RunStatus
from tasks.run import Run
from tasks.runs.stage_status import StageStatus
from tasks.stages.names import StageId
from tests.support.cli import Distill, modules_after
from tests.support.datasets import image_folder
from tests.support.fabricate import finished_run, preset_file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run, its report a placeholder."""
    made = finished_run(tmp_path)
    made.store.put(made.path("report/index.html"), seal_page("placeholder"))
    return made


def test_help_loads_nothing_heavy() -> None:
    code = "from flows.cli import app\napp(['--help'], standalone_mode=False)"
    assert modules_after(code) == []


def test_planning_and_inspecting_a_store_do_not_load_torch(tmp_path: Path) -> None:
    modules = "status.status estimate.workload maintenance.verify reports.report runs.pipeline"
    code = "import " + ", ".join(f"flows.{name}" for name in modules.split())
    assert not {"torch", "ray", "prefect"} & set(modules_after(code))


def test_errors_of_distill_are_one_line_and_exit_code_2(distill: Distill) -> None:
    output = distill("run", "no-such-preset")
    assert output.code == 2
    assert output.err == (
        "distill: no-such-preset: no such preset, and no folder or file of this name. "
        "Run `distill show` for a list of presets.\n"
    )


def test_an_invalid_value_writes_nothing(distill: Distill, tmp_path: Path) -> None:
    output = distill("run", str(preset_file(tmp_path)), "ipc=0", "--store", str(tmp_path / "s"))
    assert (output.code, "ipc = 0" in output.err) == (2, True)
    assert not (tmp_path / "s").exists()


def test_an_unknown_device_is_a_one_line_error(distill: Distill, tmp_path: Path) -> None:
    output = distill("run", str(preset_file(tmp_path)), "--device", "tpu", "--dry-run")
    assert output.code == 2
    assert output.err.startswith("distill: device = 'tpu'")
    assert len(output.err.splitlines()) == 1


def test_credentials_in_the_address_are_refused_without_repeating_them(distill: Distill) -> None:
    output = distill("resume", "tiny", "--store", "s3://key:hush@bucket/prefix")
    assert output.code == 2
    assert "credentials" in output.err
    assert "hush" not in output.err


def test_a_dry_run_plans_and_writes_nothing(distill: Distill, tmp_path: Path) -> None:
    store, data = tmp_path / "s", image_folder(tmp_path / "data")
    words = ("run", str(preset_file(tmp_path)), f"data.path={data}", "data.num_classes=2")
    output = distill(*words, "--store", str(store), "--dry-run")
    assert output.code == 0
    assert "recover: 2 by the plan" in output.out
    assert not store.exists()


def test_a_complete_run_starts_nothing_and_prints_the_table(
    distill: Distill, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(launch, "run_with_prefect", started)
    monkeypatch.setattr(pipeline, "run_local", started)
    run.store.delete(run.path("report/index.html"))
    preset = str(tmp_path / "tiny.yaml")
    for words in (("run", preset, "--name", "tiny"), ("resume", "tiny")):
        output = distill(*words, "--store", run.store.url)
        assert output.code == 0
        assert "41.0 ± 1.4" in output.out
        assert output.out.splitlines()[-1].endswith("runs/tiny/report/index.html")
    assert run.store.exists(run.path("report/index.html"))


def test_the_teacher_comes_first_in_the_table(distill: Distill, run: Run) -> None:
    lines = distill("resume", "tiny", "--store", run.store.url).out.splitlines()
    rows = [line for line in lines if "resnet18_small-w4" in line]
    assert ("teacher" in rows[0], len(rows)) == (True, 4)


def test_another_config_under_the_same_name_is_refused(
    distill: Distill, run: Run, tmp_path: Path
) -> None:
    preset = str(tmp_path / "tiny.yaml")
    output = distill("run", preset, "ipc=3", "--name", "tiny", "--store", run.store.url)
    assert output.code == 2
    assert "another config" in output.err


def test_a_store_without_conditional_create_is_refused_unless_there_is_one_writer(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "arbitrates", lambda store: False)
    with pytest.raises(StorageError, match="--single-writer"):
        pipeline.check_store(run.store)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        pipeline.check_store(replace(run.store, single_writer=True))
    output = capsys.readouterr().err
    assert output.count("warning") == 1
    assert run.store.url in output


def test_failed_shards_are_listed_and_the_exit_code_is_1(
    distill: Distill, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"attempts": 3, "error": "ValueError: poisoned\nmore"}
    stage = StageStatus(StageId("recover"), total=2, done=1, failed={"c0_i0": why})
    monkeypatch.setattr(status, "run_status", lambda run: RunStatus("tiny", "tiny", (stage,)))

    def fail(*_: object) -> None:
        raise ShardsFailed("1 of the recover shards failed.")

    monkeypatch.setattr(launch, "complete_run", fail)
    output = distill("resume", "tiny", "--store", run.store.url)
    assert output.code == 1
    assert output.err.splitlines() == [
        "recover: c0_i0: 3 attempts: ValueError: poisoned",
        "distill: 1 of the recover shards failed.",
    ]


def test_status_lists_runs_and_stages_as_text_and_json(distill: Distill, run: Run) -> None:
    assert "tiny" in distill("status", "--store", run.store.url).out
    every = json.loads(distill("status", "--json", "--store", run.store.url).out)
    assert [(one["run"], one["complete"]) for one in every] == [("tiny", True)]
    one = json.loads(distill("status", "tiny", "--json", "--store", run.store.url).out)
    assert [stage["done"] for stage in one["stages"]] == [1, 1, 2, 2, 6]
    assert "posttrain" in distill("status", "tiny", "--store", run.store.url).out


def test_status_of_an_unknown_run_names_the_known_ones(distill: Distill, run: Run) -> None:
    output = distill("status", "other", "--store", run.store.url)
    assert (output.code, "tiny" in output.err) == (2, True)


def test_verify_reports_success_or_names_the_damaged_file(distill: Distill, run: Run) -> None:
    output = distill("verify", "tiny", "--store", run.store.url)
    assert (output.code, "verified 14 files" in output.out) == (0, True)
    path = next(Path(run.store.url, "recover", "data").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    output = distill("verify", "tiny", "--store", run.store.url)
    assert (output.code, path.name in output.out) == (1, True)


def test_report_prints_the_path_of_the_report(distill: Distill, run: Run) -> None:
    output = distill("report", "tiny", "--store", run.store.url)
    assert Path(output.out.strip()).is_file()


def test_plan_prints_json(distill: Distill, tmp_path: Path) -> None:
    preset = str(preset_file(tmp_path))
    plan = json.loads(distill("plan", preset, "ipc=5", "--rate", "10", "--json").out)
    assert plan["images"] == 15
    assert plan["stages"]["recover"]["gpu_hours"] == pytest.approx(15 * 4 / 10 / 3600)


def test_a_plan_counts_real_images_in_the_memory_of_a_process(distill: Distill) -> None:
    """Statistics and validate are estimated only where the real images are known."""

    def memory(*overrides: str) -> dict[str, float]:
        stages = json.loads(distill("plan", "lpld-in21kp", *overrides, "--json").out)["stages"]
        return {name: stage["memory_bytes"] or 0.0 for name, stage in stages.items()}

    unknown, known = memory(), memory("data.images=[11060223,522500]")
    assert (unknown["statistics"], unknown["validate"]) == (0.0, 0.0)
    assert min(known["statistics"], known["validate"]) > 1e9
    assert known["posttrain"] - unknown["posttrain"] == 10_000 * 3 * 224**2  # of the test split


def test_show_prints_yaml_that_is_the_same_run(distill: Distill, tmp_path: Path) -> None:
    output = distill("show", str(preset_file(tmp_path)), "ipc=5")
    again = tmp_path / "again" / "tiny.yaml"
    again.parent.mkdir()
    again.write_text(output.out)
    assert distill("show", str(again)).out == output.out
    assert "ipc: 5" in output.out


def test_show_without_a_preset_lists_them(distill: Distill) -> None:
    assert "digits-demo" in distill("show").out


def test_a_run_that_was_never_started_has_no_stage_done(run: Run, tmp_path: Path) -> None:
    fresh = Run("fresh", run.config, Store(str(tmp_path / "fresh")))
    reached = status.run_status(fresh)
    assert not reached.complete
    assert reached.first_missing is not None
    assert reached.first_missing.stage == StageId("ingest")
