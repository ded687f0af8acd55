"""Names and addresses on the command line: refused in one line, before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distill_core.config.load import to_yaml
from flows import cli
from tasks.run import Run
from tests.support.cli import Distill
from tests.support.fabricate import finished_run, preset_file

NAMES = ("../../../other/run", "..", "a\tb", "a\rb", "\x1b[31mred", "-x", "x" * 101, "a.")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run."""
    (tmp_path / "stored").mkdir()
    return finished_run(tmp_path / "stored")


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "words",
    [
        ("run", "PRESET", "--local", "--name", "NAME"),
        ("run", "PRESET", "--local", "--dry-run", "--name", "NAME"),
        ("redistill", "PRESET", "--local", "--series", "NAME"),
        ("trigger", "PRESET", "--name", "NAME"),
        ("trigger", "PRESET", "--deployment", "NAME"),
        ("resume", "--local", "--", "NAME"),
        ("resume", "--local", "--dry-run", "--", "NAME"),
        ("status", "--", "NAME"),
        ("report", "--", "NAME"),
        ("verify", "--", "NAME"),
    ],
)
def test_a_name_is_refused_by_every_command(
    distill: Distill, run: Run, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    values = {"PRESET": str(preset_file(tmp_path)), "NAME": name}
    before = everything(tmp_path)
    command, *others = (values.get(word, word) for word in words)
    output = distill(command, "--store", run.store.url, *others)
    assert output.code == 2
    assert " name " in output.err
    assert output.err.rstrip("\n").isprintable()
    assert everything(tmp_path) == before


def test_a_report_is_not_written_into_another_store(
    distill: Distill, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = finished_run(tmp_path / "other")
    before = everything(tmp_path)
    path = Path("..", "..", Path(other.store.url).relative_to(tmp_path), "runs", other.name)
    output = distill("report", str(path), "--store", run.store.url)
    assert (output.code, everything(tmp_path) == before) == (2, True)


SECRET = "s3://AKIDEXAMPLE:hu/sh@bucket/x"


@pytest.mark.parametrize(
    "words",
    [
        ("show", "PRESET", f"data.path={SECRET}"),
        ("plan", "PRESET", f"data.path={SECRET}"),
        ("run", "PRESET", "--local", "--dry-run", f"data.path={SECRET}"),
        ("run", "PRESET", "--local", f"data.path={SECRET}"),
        ("run", "PRESET", "--local", "--dry-run", f"squeeze.checkpoint={SECRET}"),
        ("run", "PRESET", "--local", "data.path=simplecache::s3://hush@bucket/x"),
        ("run", "PRESET", "--local", f"source=made from {SECRET} by hand"),
        ("run", "PRESET", "--local", "--store", SECRET),
        ("run", SECRET),
        ("trigger", "PRESET", f"data.path={SECRET}"),
        ("trigger", "PRESET", "--set", f"data.path={SECRET}"),
        ("schedule", "PRESET", "--cron", "0 3 * * 0", f"data.path={SECRET}"),
        ("serve", "--store", SECRET),
        ("status", "--store", SECRET),
        ("status", f"--store={SECRET}"),
        ("status", "tiny", SECRET),
        ("gc", "--store", SECRET),
        ("doctor", "--store", SECRET),
        ("demo", "--store", "s3:/key:hu/sh@bucket"),
        ("verify", "tiny", "--store", "s3://bucket/x?secret=hush"),
        ("run", "PRESET", "--local", "--dry-run", "data.train=key:hush@bucket/x"),
        ("run", "PRESET", "--local", "data.test=s3%3A//key:hush@bucket/x"),
        ("run", "PRESET", "--dry-run", "--ray-address", "user:hush@host:1"),
        ("run", "PRESET", "--ray-address", "user:hush@host:1"),
        ("resume", "tiny", "--ray-address", "user:hush@host:1"),
        ("trigger", "PRESET", "--ray-address", "user:hush@host:1"),
        ("schedule", "PRESET", "--cron", "0 3 * * 0", "--ray-address", "user:hush@host:1"),
        ("run", "PRESET", "--local", "--store", "s3%3A//key:hush@bucket"),
        ("run", "PRESET", "--local", "--store", "s3\uff1a//key:hush@bucket"),
        ("doctor", "--store", "s3\uff1a//key:hush@bucket"),
        ("report", "tiny", "--ray-address", "ray://key:hush@host:10001"),
    ],
)
def test_credentials_are_refused_by_every_command_and_repeated_by_none(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = str(preset_file(tmp_path))
    output = distill(*(preset if word == "PRESET" else word for word in words))
    assert output.code == 2
    assert "credentials" in output.err
    assert not any("hu/sh" in text or "hush" in text for text in (output.out, output.err))
    assert len(output.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("store", "correction"),
    [
        ("s3://bucket//prefix", "Write s3://bucket/prefix"),
        ("s3:/bucket/out", "expected s3://"),
        ("file://host/out", "three slashes"),
        ("", "empty"),
    ],
)
def test_a_store_that_is_spelled_wrongly_is_no_folder_here(
    distill: Distill,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    correction: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = str(preset_file(tmp_path))
    for words in (("run", preset, "--local"), ("status",), ("gc",), ("run", preset, "--dry-run")):
        output = distill(*words, "--store", store)
        assert (output.code, correction in output.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_run_of_an_older_version_is_shown_without_the_credentials_in_its_config(
    distill: Distill, run: Run
) -> None:
    data = run.config.data.model_copy(update={"path": SECRET})
    older = to_yaml(run.config.model_copy(update={"data": data}))
    run.store.put(run.path("run.yaml"), older.encode())
    assert "hu/sh" in older
    outputs = [distill(words, run.name, "--store", run.store.url) for words in ("status", "report")]
    assert [output.code for output in outputs] == [0, 0]
    page = run.store.read(run.path("report/index.html")).decode()
    assert "s3://***@bucket/x" in page
    for text in (page, *(output.out + output.err for output in outputs)):
        assert "hu/sh" not in text


def test_a_wrong_preset_file_is_refused_without_the_secret_in_it(
    distill: Distill, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yaml"
    for text in (f"data: {{path: {SECRET}", f"- {SECRET}", f"ipc: {SECRET}", f"{SECRET}: 1"):
        path.write_text(text)
        output = distill("show", str(path))
        assert output.code == 2
        assert "sh@bucket" not in output.err.replace("***", "")
        assert "hu/sh" not in output.err


def test_the_traceback_of_a_bug_holds_no_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(f"no answer from {SECRET}")

    monkeypatch.setattr("flows.runs.argument.load_requested", broken)
    monkeypatch.setattr(sys, "argv", ["distill", "show", "x"])
    monkeypatch.setenv("DISTILL_TRACEBACK", "1")
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr().err
    assert end.value.code == 1
    assert "Traceback" in printed
    assert "ZeroDivisionError: no answer from s3://***@bucket/x" in printed
    assert "hu/sh" not in printed
