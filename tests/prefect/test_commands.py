"""trigger, serve and schedule refuse invalid input before they connect to a server."""

from __future__ import annotations

import sys

import pytest

from flows import cli
from flows.orchestration import schedules


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the address of a server that does not run."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")


@pytest.mark.parametrize(("preset", "name"), [("cda-in1k", "cda-in1k"), ("My_Run.v2", "my-run-v2")])
def test_a_schedule_is_named_after_its_preset(preset: str, name: str) -> None:
    assert schedules.default_name(preset) == name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trigger digits-demo ipc=0", "ipc = 0"),
        ("trigger digits-demo --set ipc=-1", "ipc = -1"),
        ("trigger digits-demo --set ipc", "expected the form dotted.key=value"),
        ("trigger no-such-preset", "no such preset"),
        ("trigger digits-demo --shards 5-2", "runs backwards"),
        ("trigger digits-demo --store ftp://host/runs", "ftp"),
        ("trigger digits-demo --store s3://", "no bucket"),
        ("trigger digits-demo --store s3://key:hush@bucket", "credentials"),
        ("trigger digits-demo data.path=s3://key:hush@bucket", "credentials"),
        ("trigger digits-demo --num-gpus 0.3", "num_gpus"),
        ("trigger digits-demo --failed-only", "goes with --resume"),
        ("trigger --resume run --and-later", "goes with --shards only"),
        ("trigger digits-demo --resume run", "not both"),
        ("trigger --resume run --set ipc=1", "cannot be changed"),
        ("trigger", "expected either a preset"),
        ("serve --store ftp://host/runs", "ftp"),
        ("schedule digits-demo ipc=0 --cron @daily", "ipc = 0"),
        ("schedule digits-demo --cron daily", "--cron 'daily'"),
        ("schedule digits-demo --cron @daily --timezone Mars/Phobos", "Mars/Phobos"),
        ("schedule digits-demo --cron @daily --name A_b", "lowercase"),
    ],
)
def test_an_invalid_command_is_one_line_and_exit_code_2(
    line: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["distill", *line.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert words in said
    assert "hush" not in said
    assert len(said.strip().splitlines()) == 1
