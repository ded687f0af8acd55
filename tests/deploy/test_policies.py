"""The policies of the store: each role may write and delete what it writes and deletes."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from flows.orchestration import schedule_settings
from tasks.gc.grammar import Role, recognise
from tests.support.deployment import read
from tests.support.policies import COLLECTOR, DRIVER, POLICIES, READER, allows, statements
from tests.support.store_names import OURS

SETTINGS = schedule_settings.path_of("new-version", "weekly")
NAMES = {**OURS, SETTINGS: "record"}
OF_A_BUCKET = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}  # the others are of objects
# Attempts that lost a race, checkpoints that are older than the last two, and every probe.
DELETED_BY_DRIVERS = {"data", "checkpoint", "probe"}
# What a collection puts back if a run has come to need it, and the probe that reads the clock.
WRITTEN_BY_COLLECTORS = {"marker", "probe"}


def actions(policy: str) -> set[str]:
    """Return everything a policy allows."""
    return {action for statement in statements(policy) for action in statement["Action"]}


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_allows_more_than_its_store(policy: str) -> None:
    for statement in statements(policy):
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        resources = statement["Resource"]
        listed = OF_A_BUCKET.intersection(statement["Action"])
        for resource in [resources] if isinstance(resources, str) else resources:
            if listed:
                assert resource == "arn:aws:s3:::BUCKET"
            else:
                assert resource.startswith("arn:aws:s3:::BUCKET/PREFIX/")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_lists_nothing_but_its_prefix(policy: str) -> None:
    lists = [s for s in statements(policy) if OF_A_BUCKET.intersection(s["Action"])]
    assert lists
    for statement in lists:
        if statement["Action"] == ["s3:ListBucketMultipartUploads"]:
            continue  # S3 has no condition for it; deploy/s3/README.md states what it shows
        assert statement["Action"] == ["s3:ListBucket"]
        prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
        assert prefixes == ["PREFIX", "PREFIX/*"]
    assert "no condition on the prefix" in read("s3/README.md")


def test_the_lifecycle_rule_is_limited_to_the_prefix() -> None:
    for rule in json.loads(read("s3/lifecycle.json"))["Rules"]:
        assert rule["Filter"] == {"Prefix": "PREFIX/"}


def test_only_the_collector_may_delete_markers() -> None:
    assert "s3:DeleteObject" not in actions(READER)
    deletes = next(s for s in statements(DRIVER) if s["Action"] == ["s3:DeleteObject"])
    assert not any(resource.endswith(("/PREFIX/*", "_done/*")) for resource in deletes["Resource"])
    assert "s3:DeleteObject" in actions(COLLECTOR)


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
