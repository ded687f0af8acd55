"""Settings of schedules in a store: read as they were written, or refused in one line."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.errors import ConfigError, DataError
from distill_core.storage.store import Store
from flows.orchestration.schedule_settings import (
    ScheduleSettings,
    delete,
    path_of,
    read,
    write,
)
from tasks.execution import Placement

SETTINGS = ScheduleSettings(
    series="birds",
    policy="fine_tune",
    config=load_run("digits-demo", ["ipc=3"]),
    store=None,
    execution={"workers": 2},
)
WHERE = ("new-version", "weekly")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_settings_are_read_as_they_were_written_and_replaced(store: Store) -> None:
    for settings in (
        SETTINGS,
        replace(SETTINGS, policy="keep", store="s3://bucket/runs"),
        replace(SETTINGS, if_changed=True),
    ):
        write(store, *WHERE, settings)
        assert read(store, *WHERE) == settings
    delete(store, *WHERE)
    assert not store.exists(path_of(*WHERE))


def test_settings_without_an_option_have_the_bytes_of_versions_that_lack_it() -> None:
    assert b"if_changed" not in SETTINGS.to_yaml("schedules/new-version/weekly.yaml")


def test_groups_of_deployments_do_not_share_settings(store: Store) -> None:
    write(store, *WHERE, SETTINGS)
    with pytest.raises(ConfigError, match=r"has no settings there\. Make it again: `distill sched"):
        read(store, "new-version-gpu", "weekly")


def test_every_changed_byte_is_refused(store: Store) -> None:
    write(store, *WHERE, SETTINGS)
    whole = store.read(path_of(*WHERE))
    draw = random.Random(0)
    for place in draw.sample(range(len(whole)), 150):
        flipped = bytes([whole[place] ^ (1 << draw.randrange(8))])
        store.put(path_of(*WHERE), whole[:place] + flipped + whole[place + 1 :])
        with pytest.raises(DataError, match="Make the schedule again"):
            read(store, *WHERE)


def test_settings_of_another_schedule_are_refused(store: Store) -> None:
    write(store, *WHERE, SETTINGS)
    store.put(path_of("new-version", "daily"), store.read(path_of(*WHERE)))
    with pytest.raises(DataError, match="belong to another schedule"):
        read(store, "new-version", "daily")


def test_edited_settings_are_refused_with_the_command_that_replaces_them(store: Store) -> None:
    write(store, *WHERE, SETTINGS)
    edited = store.read(path_of(*WHERE)).replace(b"ipc: 3", b"ipc: 4")
    store.put(path_of(*WHERE), edited)
    with pytest.raises(DataError, match="Make the schedule again: `distill schedule PRESET"):
        read(store, *WHERE)


def test_a_folder_of_another_machine_is_not_created(tmp_path: Path) -> None:
    elsewhere = Store(str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="this machine has no such folder"):
        write(elsewhere, *WHERE, SETTINGS)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"series": "a/b"}, "series name 'a/b'"),
        ({"execution": {"workers": 0}}, "workers = 0"),
        ({"store": "ftp://host/runs"}, "ftp"),
    ],
)
def test_wrong_settings_are_not_stored(
    store: Store, wrong: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        write(store, *WHERE, replace(SETTINGS, **wrong))  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_settings_of_a_schedule_replace_those_of_the_deployment() -> None:
    deployment = Placement.model_validate({"ray_address": "head:6379", "workers": 8})
    placed = SETTINGS.placement(deployment)
    assert (placed.ray_address, placed.workers, placed.max_attempts) == ("head:6379", 2, 3)
