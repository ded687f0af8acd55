"""Every failure of a command is one line on stderr, whatever caused it."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from distill_core.errors import ClusterError, MissingDataError, StorageError, StorageRefused
from flows.orchestration import launch
from tests.support.cli import CommandOutput, Distill
from tests.support.fabricate import finished_run


def line_of(output: CommandOutput) -> str:
    """Return the only line on stderr; nothing else is printed."""
    (line,) = output.err.splitlines()
    assert line.startswith("distill: ")
    assert output.out == ""
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), ("No such command 'nonsense'", "`distill --help`")),
        (("run",), ("Missing argument 'PRESET|SOURCE'", "`distill run --help`")),
        (("run", "x", "--nonsense"), ("No such option", "`distill run --help`")),
        (("run", "x", "--workers", "1e9"), ("'--workers'", "MIN:MAX")),
        (("run", "x", "--workers", "0"), ("'--workers'", "a number from 1")),
        (("run", "digits-demo", "--workers", "9:2"), ("'--workers'", "'9:2'", "100,000")),
        (("run", "digits-demo", "--num-cpus", "inf"), ("num_cpus = inf", "finite")),
        (("run", "digits-demo", "--device", "cuda:7"), ("device = 'cuda:7'", "'cpu' or 'cuda'")),
        (("run", "digits-demo", "--device", "mps"), ("device = 'mps'", "'cpu' or 'cuda'")),
        (("run", "digits-demo", "ipc=" + "9" * 5000), ("ipc: invalid YAML", "not a valid int")),
        (("run", "digits-demo", "ipc=100000000"), ("ipc = 100000000", "1000000")),
        (("plan", "digits-demo", "--rate", "inf"), ("'--rate'",)),
        (("plan", "digits-demo", "--price", "nan"), ("'--price'",)),
        (("show", "a\x1b[31m\nb"), ("a\\x1b[31m b: no such preset",)),
        (("show", "x" * 100_000), ("no such preset",)),
    ],
    ids=str,
)
def test_a_wrong_command_is_one_line_and_exit_code_2(
    distill: Distill, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    output = distill(*arguments)
    line = line_of(output)
    assert output.code == 2
    assert all(word in line for word in words), line
    assert len(line) < 1200


def test_a_command_without_arguments_prints_its_help(distill: Distill) -> None:
    output = distill()
    assert (output.code, output.err) == (2, "")
    assert "redistill" in output.out


@pytest.mark.parametrize(
    "command", [("status",), ("status", "x"), ("verify", "x"), ("report", "x"), ("resume", "x")]
)
def test_a_store_that_does_not_exist_is_refused_by_commands_that_read(
    distill: Distill, tmp_path: Path, command: tuple[str, ...]
) -> None:
    output = distill(*command, "--store", str(tmp_path / "typo"))
    assert output.code == 2
    assert f"{tmp_path}/typo: no such store" in line_of(output)
    assert not (tmp_path / "typo").exists()


def test_a_store_that_is_a_file_is_refused(distill: Distill, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = distill("status", "--store", str(tmp_path / "file"))
    assert (output.code, "no such store" in line_of(output)) == (2, True)


def test_a_store_without_runs_says_so(distill: Distill, tmp_path: Path) -> None:
    output = distill("status", "--store", str(tmp_path))
    assert (output.code, output.out, output.err) == (0, f"{tmp_path}: no runs\n", "")
    assert distill("status", "--json", "--store", str(tmp_path)).out == "[]\n"


def test_a_run_description_that_is_no_text_is_refused(distill: Distill, tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.store.put(run.path("run.yaml"), b"\xff\xfe\x00")
    output = distill("status", "--store", run.store.url)
    assert (output.code, output.err.count("\n")) == (1, 1)
    assert "runs/tiny/run.yaml" in output.err
    for command in (("status", "tiny"), ("verify", "tiny"), ("resume", "tiny")):
        output = distill(*command, "--store", run.store.url)
        assert output.code == 2
        assert "runs/tiny/run.yaml" in line_of(output)


def test_a_huge_list_of_shards_is_refused_by_the_plan(distill: Distill, tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for extra in ((), ("--dry-run",), ("--local",)):
        tracemalloc.start()
        try:
            output = distill(
                "resume", "tiny", "--shards", "0-99999999999", "--store", run.store.url, *extra
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        line = "--shards 0-99999999999: the plan of tiny has shards 0 to 0, not 99999999999."
        assert (output.code, line_of(output)) == (2, f"distill: {line}")
        assert peak < 2**28  # the numbers of the range would take over a thousand times as much


def broken(*_: object) -> None:
    raise ZeroDivisionError("a bug\nin two lines")


def test_a_bug_is_one_line_and_its_traceback_is_in_a_file(
    distill: Distill, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flows.runs.argument.load_requested", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = distill("show", "x")
    line = line_of(output)
    assert output.code == 1
    assert "ZeroDivisionError: a bug in two lines. This is a bug of distill" in line
    (file,) = tmp_path.glob("distill-traceback-*.txt")
    assert str(file) in line
    assert "in broken" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_a_traceback_is_printed_if_the_environment_asks_for_it(
    distill: Distill, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flows.runs.argument.load_requested", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("DISTILL_TRACEBACK", "1")
    output = distill("show", "x")
    assert output.code == 1
    assert output.err.startswith("Traceback (most recent call last)")
    assert output.err.splitlines()[-1].startswith("distill: ZeroDivisionError")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_no_traceback(distill: Distill, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.runs.argument.load_requested", interrupted)
    assert distill("show", "x") == CommandOutput("", "", 130)


def test_a_reader_that_closes_the_pipe_ends_a_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "show"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("kind", [ClusterError, StorageRefused, StorageError, MissingDataError])
def test_a_loss_is_one_line_with_the_command_that_continues(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def lose(*_: object) -> None:
        raise kind("Something on this machine is gone.")

    monkeypatch.setattr(launch, "complete_run", lose)
    where = ("--store", str(tmp_path / "store"), "--name", "lost")
    output = distill("run", "digits-demo-16px", *where, "--local")
    line = line_of(output)
    assert output.code == (75 if kind in (ClusterError, StorageError) else 2)
    assert "Something on this machine is gone. Committed shards are kept" in line
    assert line.endswith(f"continue with `distill resume lost --store {tmp_path / 'store'}`.")
