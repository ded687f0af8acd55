"""`distill redistill`: what it prints, with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from distill_core.storage.store import Store
from flows.reports.report_data import REPORT
from tests.support.cli import Distill, modules_after
from tests.support.pipeline import TINY
from tests.support.series import (
    BLOCKS,
    ONE_SHARD,
    Series,
    change_class,
    dataset,
    fabricated,
    small,
    write_class,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset(tmp_path / "data")


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Distill:
    return Distill(monkeypatch, capsys)


@pytest.fixture
def arguments(root: Path, tmp_path: Path) -> tuple[str, ...]:
    data = ("data.format=imagefolder", f"data.path={root}", "data.num_classes=4", "data.side=8")
    settings = (*TINY, *BLOCKS, "ipc=1", "posttrain.sets=[distilled]", "recover.init=real", *data)
    changes = [part for setting in settings for part in ("--set", setting)]
    options = ("--series", "small", "--store", str(tmp_path / "store"), "--local")
    return ("redistill", "digits-demo", *options, *changes)


def test_a_series_starts_stays_without_changes_and_continues_with_them(
    distill: Distill, arguments: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    first = distill(*arguments, "--policy", "keep")
    assert (first.code, "small-v0001" in first.out) == (0, True)
    again = distill(*arguments)
    assert (again.code, again.err.count("recover")) == (0, 0)
    assert again.out == ("small-v0001: neither data nor settings have changed; nothing to do.\n")
    change_class(root, "cat")
    second = distill(*arguments)
    assert second.code == 0
    assert "classes changed: 1 (cat)" in second.out
    assert f"diff: {tmp_path}/store/runs/small-v0002/diff.json" in second.out
    runs = tmp_path / "store" / "runs"
    page = (runs / "small-v0002" / REPORT).read_text()
    assert "Changes since small-v0001" in page
    assert "<li>classes changed: 1 (cat)</li>" in page
    assert "Changes since" not in (runs / "small-v0001" / REPORT).read_text()


def test_a_change_without_effect_is_explained_and_makes_no_version(
    distill: Distill, arguments: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    noise = (*arguments, "--set", "recover.init=gaussian")
    distill(*noise)
    change_class(root, "cat")
    kept = distill(*noise)
    assert kept.code == 0
    assert kept.out.splitlines() == [
        "small-v0001 stays the current version: no teacher, image, label or student of it would "
        "change.",
        "found: classes changed: 1 (cat)",
        "The teacher is kept and the images start from noise, so they do not depend on the "
        "contents of the classes. To take the change up, use --policy fine_tune or squeeze_again, "
        "or start from real images (recover.init=real).",
    ]
    tree = json.loads(distill(*noise, "--json").out)
    assert (tree["run"], tree["changed"]) == ("small-v0001", False)
    assert tree["unused"]["classes"]["changed"] == ["cat"]
    assert [path.name for path in (tmp_path / "store/runs").iterdir()] == ["small-v0001"]


def test_if_changed_asks_for_neither_a_server_nor_workers_where_nothing_changed(
    distill: Distill,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Store(str(tmp_path / "store"))
    Series(store)(small(root, *ONE_SHARD), complete=fabricated)
    file = tmp_path / "digits-demo.yaml"
    file.write_text(yaml.safe_dump(small(root, *ONE_SHARD).model_dump(mode="json")))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    command = ("redistill", str(file), "--series", "small", "--store", store.url)
    capsys.readouterr()
    unchanged = distill(*command, "--if-changed")
    assert (unchanged.code, unchanged.err) == (0, "")
    assert unchanged.out == (
        "small-v0001: neither the source nor the settings have changed since they were last "
        "compared; nothing to do.\n"
    )
    tree = json.loads(distill(*command, "--if-changed", "--json").out)
    assert (tree["run"], tree["changed"], tree["complete"]) == ("small-v0001", False, True)


def test_json_holds_the_outcome_and_the_whole_diff(
    distill: Distill, arguments: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    def output(*more: str) -> dict[str, object]:
        tree: dict[str, object] = json.loads(distill(*arguments, "--json", *more).out)
        return tree

    first = {
        "version": 1,
        "run": "small-v0001",
        "changed": True,
        "complete": True,
        "diff": None,
        "unused": None,
    }
    assert output() == first
    assert output() == first | {"changed": False}
    change_class(root, "cat")
    second = output()
    assert (second["run"], second["changed"]) == ("small-v0002", True)
    stored = json.loads((tmp_path / "store/runs/small-v0002/diff.json").read_text())
    assert second["diff"] == {name: stored[name] for name in stored if name != "record_sha256"}


def test_a_class_unknown_to_the_kept_teacher_is_one_line_and_exit_code_2(
    distill: Distill, arguments: tuple[str, ...], root: Path
) -> None:
    distill(*arguments)
    write_class(root, "bat", seed=7)
    refused = distill(*arguments, "--policy", "keep")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    assert "class 'bat' is new" in refused.err
    uncounted = distill(*arguments, "--policy", "fine_tune")
    assert (uncounted.code, "5 classes, but data.num_classes is 4" in uncounted.err) == (2, True)
    tuned = distill(*arguments, "--policy", "fine_tune", "--set", "data.num_classes=5")
    assert (tuned.code, "classes added: 1 (bat)" in tuned.out) == (0, True)


def test_a_series_that_cannot_name_a_folder_is_refused(
    distill: Distill, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    refused = distill(*arguments, "--series", "a/b")
    assert (refused.code, "series name 'a/b'" in refused.err) == (2, True)
    assert not (tmp_path / "store").exists()


def test_checking_for_changes_loads_neither_torch_nor_ray_nor_prefect() -> None:
    code = "import flows.runs.redistill, flows.runs.last_version, flows.commands.run"
    assert not {"torch", "ray", "prefect"} & set(modules_after(code))
