"""Random command lines: success, or one line and exit code 1 or 2; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from distill_core.errors import ConfigError
from flows import cli
from flows.runs import preflight
from tests.support.datasets import image_folder
from tests.support.fabricate import finished_run, preset_file
from tests.support.fuzzing import check_output, examples, invoke, mutated_bytes

# The others start servers, or need one.
COMMANDS = ("run", "resume", "redistill", "status", "plan", "show", "report", "verify", "gc")
OF_A_PRESET = ("run", "redistill", "plan", "show")
CLICK: Any = typer.main.get_command(cli.app)
FLAGS = {
    option: parameter.is_flag
    for name in COMMANDS
    for parameter in CLICK.commands[name].params
    for option in parameter.opts
    if option.startswith("--")
}
OPTIONS = {
    name: sorted(
        option
        for parameter in CLICK.commands[name].params
        for option in parameter.opts
        if option in FLAGS and option not in ("--help", "--calibrate")
    )
    for name in COMMANDS
}
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "..",
        "../..",
        "/dev/null",
        "a/b",
        "x" * 300,
        "\x1b[31m",
        "\udcff",
        "a\nb",
    ),
    *("0", "1", "-1", "1e9", "inf", "nan", "9" * 400, "0-99999999999", "3-1", "0.25", "1000000000"),
    *("cpu", "cuda", "7d", "1h", "keep", "squeeze_again", "tiny", "birds", "host:1", "auto", "="),
    *("quux://x/y", "memory://fuzz", "file:///", "s3:/b", "s3//b/c", "digits-demo", "--json"),
)
CHANGES = (
    *("ipc=0", "ipc=3", "ipc=[", "a=b", "ipc", "recover.lr=.nan", "data.side=1", "ipc=100000000"),
    *("data.path=/nowhere", "data.path=quux://x", "data.num_classes=3", "squeeze.checkpoint=/x"),
    *("recover.steps=0", "data.name=" + "x" * 99, "posttrain.sets=[]", "relabel.topk=2"),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Return stores and presets; runs stop after the checks, before anything is written."""

    def stop(request: preflight.Request) -> None:
        raise ConfigError("stopped")

    folder = tmp_path_factory.mktemp("fuzz")
    run = finished_run(folder)
    data = image_folder(folder / "data")
    text = f"extends: {preset_file(folder)}\ndata: {{path: {data}, num_classes: 2}}\n"
    (folder / "mine.yaml").write_text(text)
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "CHECKS", (*preflight.CHECKS, stop))
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("tracebacks")))
        patch.chdir(folder / "empty")
        yield [
            run.store.url,
            str(folder / "empty"),
            str(folder / "nowhere"),
            str(data),
            *(str(folder / name) for name in ("mine.yaml", "tiny.yaml")),
        ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@st.composite
def command_lines(draw: st.DrawFn, places: list[str]) -> list[str]:
    """Draw a command with arguments and options that are mostly, but not always, of their kind."""
    store, *stores, mine, tiny = places
    command = draw(st.sampled_from(COMMANDS))
    anything = st.sampled_from(WORDS) | st.text(
        st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=10
    )
    first = ["digits-demo", mine, tiny, "sre2l-in1k"] if command in OF_A_PRESET else ["tiny"]
    words = [command]
    if draw(st.integers(0, 9)):
        words.append(draw(st.sampled_from(first)))
    if command in OF_A_PRESET:
        words += draw(st.lists(st.sampled_from(CHANGES), max_size=2))
    words += draw(st.lists(anything, max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    options = OPTIONS[command] or ["--nonsense"]
    for option in draw(st.lists(st.sampled_from([*options, "--nonsense"]), max_size=3)):
        words += [option] if FLAGS.get(option) else [option, draw(anything)]
    chosen = draw(st.sampled_from([store, store, store, *stores]))
    return words if "--store" not in OPTIONS[command] else [*words, "--store", chosen]


@examples(40)
@given(data=st.data())
def test_a_random_command_line_fails_in_one_line_and_writes_nothing(
    data: st.DataObject, places: list[str]
) -> None:
    arguments = data.draw(command_lines(places))
    if arguments[0] == "gc":
        arguments.append("--dry-run")
    folder = Path(places[0]).parent
    before = contents(folder)
    check_output(invoke(arguments))
    after = contents(folder)
    assert unreported(after) == unreported(before)


def unreported(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files without those of a report, which some commands write."""
    return {name: data for name, data in files.items() if "/report/" not in name}


@examples(20)
@given(content=st.binary(max_size=60) | mutated_bytes(json.dumps({"a": [1, {"b": None}]}).encode()))
def test_a_preset_of_random_bytes_fails_in_one_line(content: bytes, places: list[str]) -> None:
    path = Path(places[1], "random.yaml")
    path.write_bytes(content)
    try:
        for command in ("show", "plan"):
            check_output(invoke([command, str(path)]))
    finally:
        path.unlink()
