"""The command `distill gc`: parsing of ages, and its output."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import ConfigError
from distill_core.storage import shard_store
from distill_core.storage.store import Store
from flows.maintenance.collect import clock_warning, parse_age
from tests.support.cli import Distill
from tests.support.planned import Workshop, jobs, stray

PROBE = "0" * 32


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
    store.put(f".probe/{PROBE}", b"probe")
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
    assert littered.names(".probe") == (PROBE,)


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


def test_a_place_that_is_no_store_is_refused_with_one_line(
    distill: Distill, tmp_path: Path
) -> None:
    mine = ("datasets/imagenet/train/n01/a.jpg", "squeeze/checkpoints/exp-1/model.pt")
    for path in mine:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"mine")
        os.utime(tmp_path / path, (0, 0))
    for arguments in ((), ("--dry-run",), ("--json",)):
        output = distill("gc", "--store", str(tmp_path), *arguments)
        assert (output.code, output.out) == (2, "")
        assert output.err.startswith(f"distill: {tmp_path}: no distill-store.json here")
        assert len(output.err.splitlines()) == 1
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(mine)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"name": "my app"}',
        b'{"format": "distill-store", "version": 2, "id": "00", "created": "2026-01-01"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_or_foreign_identity_is_refused_with_one_line(
    distill: Distill, littered: Store, data: bytes
) -> None:
    littered.put("distill-store.json", data)
    before = {file.path for file in littered.files("", partial=True)}
    output = distill("gc", "--store", littered.url)
    assert (output.code, output.out, len(output.err.splitlines())) == (2, "", 1)
    assert "distill-store.json: " in output.err
    assert {file.path for file in littered.files("", partial=True)} == before


def test_foreign_objects_and_damaged_records_are_listed_and_kept(
    distill: Distill, littered: Store
) -> None:
    foreign = [f"recover/data/notes-{n}\x1b[31m.txt" for n in range(7)]
    for path in foreign:
        littered.put(path, b"mine")
    Path(littered.url, "recover/data/link").symlink_to("/")
    marker = f"recover/_done/{littered.names('recover/_done')[0]}"
    littered.put(marker, b"{")
    littered.put(f"{marker.replace('_done', 'data')[:-5]}-{PROBE}.parquet", b"lost")
    output = distill("gc", "--store", littered.url, "--dry-run")
    assert (
        "foreign, kept: recover/data/link (a link), recover/data/notes-0\\x1b[31m.txt" in output.out
    )
    assert "and 3 more" in output.out
    assert f"keep {marker}: damaged marker: " in output.out
    every = distill("gc", "--store", littered.url, "--dry-run", "-v").out.splitlines()
    assert sum(line.startswith("foreign, kept: ") for line in every) == 8
    tree = json.loads(distill("gc", "--store", littered.url, "--json").out)
    assert tree["foreign"] == {"objects": 8, "paths": sorted(["recover/data/link", *foreign])}
    assert [item["path"] for item in tree["kept"]] == [marker]
    assert all(littered.exists(path) for path in foreign)


def test_the_paths_that_go_are_printed_before_they_go(distill: Distill, littered: Store) -> None:
    output = distill("gc", "--store", littered.url, "-v").out.splitlines()
    going = [line.removeprefix("remove ") for line in output if line.startswith("remove ")]
    assert len(going) == 2
    assert not any(littered.exists(path) for path in going)


def test_a_clock_that_differs_from_that_of_the_store_is_reported() -> None:
    now = datetime(2026, 1, 9, tzinfo=UTC)
    assert clock_warning(now, now - timedelta(minutes=59)) == ""
    assert "is 192 h 00 min ahead of that of the store" in clock_warning(now, now - timedelta(8))
    assert "is 2 h 00 min behind that of the store" in clock_warning(now, now + timedelta(hours=2))


def test_ages_are_measured_by_the_clock_of_the_store(
    distill: Distill, littered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is eight days ahead removes nothing that was written just now."""
    fresh = stray(littered, "recover", PROBE)
    real = shard_store.utc_now
    monkeypatch.setattr(shard_store, "utc_now", lambda: real() + timedelta(days=8))
    output = distill("gc", "--store", littered.url)
    assert "the clock of this machine is 192 h 00 min ahead of that of the store" in output.err
    assert littered.exists(fresh)
    assert littered.names(".probe") == (PROBE,)
