"""Names: one check, wherever a name enters."""

from __future__ import annotations

import re

import pytest

from distill_core.config.load import load_run, preset_names, to_yaml
from distill_core.errors import ConfigError, DataError
from distill_core.naming.names import PATTERN, check_name
from distill_core.storage.store import Store
from tasks.run import Run, create_run, open_run, planned_run, read_run
from tasks.series import versions_of

NAMES = ("tiny", "birds-v0002", "sre2l-in1k-0a1b2c3d", "a.b_c", "später", "x" * 100, "a+b=c,d@e")
NO_NAMES = {
    "": "empty",
    ".": r"starts with '\.'",
    "..": r"starts with '\.'",
    ".hidden": r"starts with '\.'",
    "../../../other/run": "it has '/'",
    "a/b": "it has '/'",
    "a\\b": "it has",
    "-rf": "starts with '-'",
    "--name": "starts with '-'",
    "a.": "ends with a dot",
    "a b": "it has ' '",
    "a:b": "it has ':'",
    "\x1b[31mred": r"\\x1b.*control character",
    "a\tb": r"a\\tb.*control character",
    "a\rb": r"a\\rb.*control character",
    "a\nb": r"a\\nb.*control character",
    "a\x00b": "control character",
    "a\u202eb": r"\\u202e.*control character",
    "a\xa0b": "control character",
    "con": "reserved",
    "LPT1.txt": "reserved",
    "x" * 101: "101 bytes, at most 100",
    "ä" * 51: "102 bytes",
}


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_names_are_accepted(name: str) -> None:
    assert check_name("run", name) == name
    assert re.search(PATTERN, name)


@pytest.mark.parametrize(("name", "why"), NO_NAMES.items())
def test_other_names_are_refused_wherever_they_enter(name: str, why: str) -> None:
    config, store = load_run("digits-demo"), Store("memory://names")
    for enter in (
        lambda: check_name("run", name),
        lambda: planned_run(config, store, name),
        lambda: create_run(config, store, name),
        lambda: open_run(store, name),
        lambda: versions_of(store, name),
    ):
        with pytest.raises(ConfigError, match=f"name .*{why}") as refused:
            enter()
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 400
    assert store.files("") == ()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a\0"])
def test_no_run_lies_outside_the_folder_of_the_runs(name: str) -> None:
    store = Store("memory://names")
    with pytest.raises(ConfigError, match="one folder"):
        Run(name, load_run("digits-demo"), store)
    with pytest.raises(ConfigError, match="one folder"):
        read_run(store, name)


def test_a_run_that_an_older_version_named_can_still_be_listed() -> None:
    store, config = Store("memory://older"), load_run("digits-demo")
    store.put("runs/-old.\x1b/run.yaml", to_yaml(config).encode())
    assert read_run(store, "-old.\x1b").config == config


@pytest.mark.parametrize("path", ["../x", "runs/../../x", "a/..", "..", "/etc/x"])
def test_no_path_leads_out_of_a_store(path: str) -> None:
    store = Store("memory://walls/inner")
    for call in (store.read, store.exists, store.names, store.files, store.delete):
        with pytest.raises(DataError, match="leads out of the store"):
            call(path)
    for write in (store.put, store.create):
        with pytest.raises(DataError, match="leads out of the store"):
            write(path, b"x")


def test_the_data_of_every_preset_has_a_name_that_is_accepted() -> None:
    for preset in preset_names():
        check_name("data.name", load_run(preset).data.name)
