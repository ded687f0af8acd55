"""The policies of the store: each role may write and delete what it writes and deletes."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from flows.orchestration import schedule_settings
from tasks.gc.grammar import Role, recognise
from tests.support.deployment import read
from tests.support.store_names import OURS

DRIVER, COLLECTOR, READER = "driver-and-workers.json", "collector.json", "reader.json"
SETTINGS = schedule_settings.path_of("new-version", "weekly")
NAMES = {**OURS, SETTINGS: "record"}
# Attempts that lost a race, checkpoints that are older than the last two, and every probe.
DELETED_BY_DRIVERS = {"data", "checkpoint", "probe"}
# What a collection puts back if a run has come to need it, and the probe that reads the clock.
WRITTEN_BY_COLLECTORS = {"marker", "probe"}


def allows(policy: str, action: str, path: str) -> bool:
    """Return whether a policy allows an action on an object of the store, as IAM reads it."""
    name = f"arn:aws:s3:::BUCKET/PREFIX/{path}"
    for statement in json.loads(read(f"s3/{policy}"))["Statement"]:
        given = statement["Resource"]
        for resource in [given] if isinstance(given, str) else given:
            pattern = re.escape(resource).replace(r"\*", ".*").replace(r"\?", ".")
            if action in statement["Action"] and re.fullmatch(pattern, name):
                return True
    return False


def test_the_names_are_of_every_role_and_those_of_the_store() -> None:
    assert set(NAMES.values()) == set(get_args(Role))
    for path, role in NAMES.items():
        name = recognise(path)
        assert name is not None
        assert name.role == role


@pytest.mark.parametrize("path", NAMES)
def test_every_role_reads_every_object(path: str) -> None:
    assert all(allows(policy, "s3:GetObject", path) for policy in (DRIVER, COLLECTOR, READER))


@pytest.mark.parametrize("path", NAMES)
def test_drivers_write_every_object_and_delete_only_their_own(path: str) -> None:
    assert allows(DRIVER, "s3:PutObject", path)
    own = NAMES[path] in DELETED_BY_DRIVERS or path.startswith("schedules/")
    assert allows(DRIVER, "s3:DeleteObject", path) is own


@pytest.mark.parametrize("path", NAMES)
def test_collectors_delete_every_object_and_write_only_what_they_put_back(path: str) -> None:
    assert allows(COLLECTOR, "s3:DeleteObject", path)
    name = recognise(path)
    assert name is not None
    put_back = name.entry or name.role in WRITTEN_BY_COLLECTORS
    assert allows(COLLECTOR, "s3:PutObject", path) is put_back


@pytest.mark.parametrize("path", NAMES)
def test_readers_change_nothing(path: str) -> None:
    assert not allows(READER, "s3:PutObject", path)
    assert not allows(READER, "s3:DeleteObject", path)
