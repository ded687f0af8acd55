"""The command `distill gc`: parsing of ages, and its output."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import ConfigError
from distill_core.storage.store import Store
from flows.maintenance.collect import parse_age
from tests.support.cli import Distill
from tests.support.planned import Workshop, jobs, stray


@pytest.mark.parametrize(("text", "hours"), [("1h", 1), ("7d", 168), ("2w", 336)])
def test_ages_are_read(text: str, hours: int) -> None:
    assert parse_age(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5d", "7 days", "²d", "99999w"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--grace"):
        parse_age(text)


@pytest.fixture
def littered(tmp_path: Path, workshop: Workshop) -> Store:
    """Return a store on disk with a run and, as old as nine days, two lost attempts of 5 bytes."""
    store = Store(str(tmp_path / "store"))
    run = workshop.finished(store, "first")
    for path in (stray(store, "recover", jobs(run, "recover")[0].key) for _ in range(2)):
        nine_days_ago = datetime.now(UTC).timestamp() - 9 * 86_400
        os.utime(Path(store.url, path), (nine_days_ago, nine_days_ago))
    store.put(".probe/0", b"probe")
    return store


def test_the_command_reports_what_was_removed_and_what_is_too_young(
    distill: Distill, littered: Store
) -> None:
    output = distill("gc", "--store", littered.url, "--dry-run")
    assert output.out.splitlines()[-1] == "would remove 2 objects, 10 B"
    output = distill("gc", "--store", littered.url, "--grace", "2w")
    assert output.out.splitlines()[-1] == "nothing to remove"
    output = distill("gc", "--store", littered.url)
    assert (output.code, output.out.splitlines()[-1]) == (0, "removed 2 objects, 10 B")
    assert "data of attempts that were lost or killed" in output.out
    assert "probes of the store" in output.out
    assert littered.names(".probe") == ("0",)


def test_the_command_prints_json(distill: Distill, littered: Store) -> None:
    tree = json.loads(distill("gc", "--store", littered.url, "--json").out)
    assert tree["removed"] == {"attempts": {"objects": 2, "bytes": 10}}
    assert tree["too_young"] == {"probes": {"objects": 1, "bytes": 5}}
    assert (tree["dry_run"], tree["grace_seconds"]) == (False, 7 * 86_400)
    assert not any(littered.exists(path) for path in tree["paths"])


def test_a_damaged_run_ends_the_command_with_one_line(distill: Distill, littered: Store) -> None:
    littered.put("runs/first/run.yaml", b"ipc: [1")
    output = distill("gc", "--store", littered.url)
    assert output.code == 2
    assert output.err.startswith("distill: runs/first: its references cannot be read")
    assert len(output.err.splitlines()) == 1
