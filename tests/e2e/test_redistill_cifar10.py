"""One changed class of ten on CIFAR-10: its block is made again, the other four are reused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tests.support.cifar10 import Subset
from tests.support.pipeline import manifest
from tests.support.series import Series

pytestmark = pytest.mark.slow
CHANGED = 5  # the class; blocks are of classes 0-1, 2-3, 4-5, 6-7, 8-9
BLOCK = "c00004-00005"


@pytest.fixture
def subset(cifar10_path: Path, tmp_path: Path) -> Subset:
    return Subset(cifar10_path, tmp_path / "data")


def stored(run: Run, name: str) -> dict[str, list[tuple[str, str, bytes]]]:
    """Return path, sha256 and bytes of every file of a manifest, by shard."""
    shard_store, found = ShardStore(run.store, name.split(".")[0]), {}
    for entry in manifest(run, name).entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        found[entry.shard] = [
            (f.path, f.sha256, shard_store.load(marker, f.suffix)) for f in marker.files
        ]
    return found


def test_with_real_starts_exactly_the_block_of_a_changed_class_is_made_again(
    subset: Subset, series: Series
) -> None:
    config = subset.run("recover.init=real")
    first = series(config).run
    assert len(manifest(first, "recover").entries) == 5
    names = ("recover", "recover.random_real", "relabel", "relabel.random_real")
    before = {name: stored(first, name) for name in names}
    subset.change(CHANGED)
    subset.write(order=1)
    outcome = series(config)
    assert outcome.changed
    assert series.shards("squeeze") == set()
    assert series.shards("recover") == {f"{BLOCK}_i000-001", f"{BLOCK}_i000-001_random_real"}
    assert {shard.partition("_")[0] for shard in series.shards("relabel")} == {BLOCK}
    for name in names:
        after = stored(outcome.run, name)
        assert after.keys() == before[name].keys()
        for shard, files in after.items():
            assert (files == before[name][shard]) == (not shard.startswith(BLOCK)), (name, shard)
    assert outcome.diff is not None
    assert outcome.diff.classes.changed == (subset.names[CHANGED],)
    assert not series(config).changed


def test_with_gaussian_starts_and_the_teacher_kept_no_version_is_made(
    subset: Subset, series: Series
) -> None:
    config = subset.run("posttrain.sets=[distilled]")
    first = series(config).run
    before = {name: stored(first, name) for name in ("recover", "relabel", "posttrain")}
    subset.change(CHANGED)
    subset.write(order=1)
    outcome = series(config)
    assert (outcome.run, outcome.changed) == (first, False)
    assert series.ran == []
    assert {name: stored(outcome.run, name) for name in before} == before
    assert outcome.unused is not None
    assert outcome.unused.classes.changed == (subset.names[CHANGED],)
