"""Re-distillation: changed shards are made again, the others are reused, and ids do not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_core.data.index import DatasetIndex
from distill_core.data.index_files import load_index
from distill_core.errors import ConfigError
from distill_core.models.spec import TeacherSpec
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from flows.runs import redistill as redistilling
from flows.status.status import RunStatus
from tasks.execution import Execution
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tasks.runs import ingest_ahead
from tasks.runs.seen_classes import unseen_by_teachers
from tasks.stages.inputs import dataset_of
from tests.support.datasets import png
from tests.support.noted_reads import note_reads
from tests.support.pipeline import manifest
from tests.support.places import objects
from tests.support.series import Series, change_class, remove_class, small, write_class

REAL = "recover.init=real"
STAGES_OF_IMAGES = ("recover", "recover.random_real", "relabel", "relabel.random_real")


def files(run: Run, name: str) -> dict[str, list[tuple[str, str]]]:
    """Return (path, sha256) of the files of every shard that a manifest lists."""
    shard_store = ShardStore(run.store, name.split(".")[0])
    found = {}
    for entry in manifest(run, name).entries:
        marker = shard_store.marker(entry.key)
        assert marker is not None
        found[entry.shard] = [(info.path, info.sha256) for info in marker.files]
    return found


def test_a_changed_class_is_made_again_and_other_blocks_are_reused(
    series: Series, root: Path
) -> None:
    first = series(small(root, REAL)).run
    change_class(root, "cat")
    outcome = series(small(root, REAL))
    assert outcome.run.name == "small-v0002"
    assert series.shards("squeeze") == set()
    assert series.shards("recover") == {
        "c00002-00003_i000-000",
        "c00002-00003_i000-000_random_real",
    }
    for name in STAGES_OF_IMAGES:
        before, after = files(first, name), files(outcome.run, name)
        assert before.keys() == after.keys()
        for shard in before:
            assert (before[shard] == after[shard]) == shard.startswith("c00000-00001"), shard
    assert manifest(outcome.run, "squeeze") == manifest(first, "squeeze")


def test_of_an_unchanged_dataset_nothing_but_listings_is_read(
    series: Series, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written again with the same content is read, and makes no version."""
    first = series(small(root)).run
    merge, seen = ingest_ahead.merge_index, note_reads(monkeypatch)

    def noted_merge(*given: Any) -> DatasetIndex:
        seen.append("shards")
        return merge(*given)

    monkeypatch.setattr(ingest_ahead, "merge_index", noted_merge)
    outcome = series(small(root))
    assert (outcome.run, outcome.changed, seen) == (first, False, [])
    again = root / "train" / "cat" / "1.png"
    again.write_bytes(again.read_bytes())
    outcome = series(small(root))
    assert (outcome.run, outcome.changed, seen) == (first, False, ["train/cat/1.png", "shards"])


def test_with_gaussian_starts_and_the_teacher_kept_a_changed_class_makes_no_version(
    series: Series, root: Path
) -> None:
    config = small(root, "posttrain.sets=[distilled, hard_labels]")
    first = series(config).run
    change_class(root, "cat")
    for _ in range(2):
        outcome = series(config)
        assert (outcome.run, outcome.changed, outcome.diff) == (first, False, None)
        assert outcome.unused is not None
        assert outcome.unused.classes.changed == ("cat",)
        assert outcome.unused.dataset[0] == dataset_of(first)
        assert series.ran == []
    assert series.store.folders("runs") == (first.name,)
    renewed = series(config, "fine_tune")
    assert (renewed.run.name, renewed.changed, renewed.unused) == ("small-v0002", True, None)
    assert renewed.diff is not None
    assert renewed.diff.classes.changed == ("cat",)


def test_settings_without_an_effect_on_any_shard_make_no_version(
    series: Series, root: Path, tmp_path: Path
) -> None:
    series(small(root, REAL))
    moved = root.rename(tmp_path / "moved")
    outcome = series(small(moved, REAL))
    assert (outcome.run.name, outcome.changed) == ("small-v0001", False)
    assert outcome.unused is not None
    assert (outcome.unused.config, outcome.unused.classes.changed) == (("data",), ())


def test_changed_test_images_make_a_version_with_other_students(series: Series, root: Path) -> None:
    config = small(root, "posttrain.sets=[distilled]")
    series(config)
    (root / "test" / "cat" / "0.png").write_bytes(png(99_999))
    outcome = series(config)
    assert (outcome.run.name, {stage for stage, _ in series.ran}) == ("small-v0002", {"posttrain"})


def test_a_third_version_keeps_the_teacher_of_the_first(series: Series, root: Path) -> None:
    first = series(small(root, REAL)).run
    for wnid in ("cat", "ant"):
        change_class(root, wnid)
        last = series(small(root, REAL)).run
        assert len(series.shards("recover")) == 2
    assert last.name == "small-v0003"
    assert last.config.squeeze.reuse == manifest(first, "squeeze").entries[0].key


def test_keep_refuses_a_class_that_the_teacher_does_not_know(series: Series, root: Path) -> None:
    series(small(root))
    before = objects(series.store)
    write_class(root, "bat", seed=7)
    with pytest.raises(ConfigError, match=r"class 'bat' is new .* no output for it\. Use"):
        series(small(root))
    with pytest.raises(ConfigError, match="class 'bat' is new"):
        series(small(root, "data.num_classes=4"))
    assert objects(series.store) == before


def test_keep_refuses_a_class_that_was_removed_when_the_teacher_was_trained(
    series: Series, root: Path
) -> None:
    four = "data.num_classes=4"
    series(small(root))
    remove_class(root, "bee")
    trained = series(small(root, four), "squeeze_again").run
    write_class(root, "bee", seed=9)
    with pytest.raises(ConfigError, match=r"class 'bee' came back .* while the class was removed"):
        series(small(root))
    forget_unseen(trained)  # as a version wrote it that did not record the classes
    with pytest.raises(ConfigError, match=r"class 'bee' came back"):
        series(small(root))
    tuned = series(small(root), "fine_tune").run
    assert tuned.name == "small-v0003"
    assert unseen_by_teachers(tuned, ()) == frozenset()
    write_class(root, "cat", seed=8)
    assert series(small(root, REAL)).run.config.squeeze.reuse is not None


def forget_unseen(run: Run) -> None:
    """Take the classes that the teacher was trained without out of its marker."""
    shard_store = ShardStore(run.store, "squeeze")
    key = manifest(run, "squeeze").entries[0].key
    marker = shard_store.marker(key)
    assert marker is not None
    assert marker.summary.pop("unseen") == ["bee"]
    run.store.put(shard_store.marker_path(key), marker.to_json())


def test_a_removed_class_leaves_a_hole_and_has_no_images(series: Series, root: Path) -> None:
    ids = "data.num_classes=4"
    first = series(small(root, REAL)).run
    remove_class(root, "bee")
    outcome = series(small(root, ids, REAL))
    assert series.shards("recover") == {
        "c00000-00001_i000-000",
        "c00000-00001_i000-000_random_real",
    }
    (changed, kept) = manifest(outcome.run, "recover").entries
    assert (changed.rows, changed.classes, kept) == (1, 1, manifest(first, "recover").entries[1])
    index = load_index(series.store, dataset_of(outcome.run))
    assert [entry.removed for entry in index.classes] == [False, True, False, False]
    assert outcome.diff is not None
    assert (outcome.diff.classes.removed, outcome.diff.classes.test_changed) == (("bee",), True)
    write_class(root, "bee", seed=sum(map(ord, "bee")))
    returned = series(small(root, REAL))
    assert manifest(returned.run, "recover") == manifest(first, "recover")
    assert series.ran == []
    assert returned.diff is not None
    assert returned.diff.classes.added == ("bee",)


def test_fine_tuning_gives_a_new_class_an_output_and_a_block_of_its_own(
    series: Series, root: Path
) -> None:
    first = series(small(root)).run
    write_class(root, "bat", seed=7)
    outcome = series(small(root), "fine_tune")
    run = outcome.run
    assert run.config.squeeze.start == manifest(first, "squeeze").entries[0].key
    assert len(series.shards("squeeze")) == 1
    shard_store, (entry,) = ShardStore(run.store, "squeeze"), manifest(run, "squeeze").entries
    marker = shard_store.marker(entry.key)
    assert marker is not None
    spec = TeacherSpec.from_json(shard_store.load(marker, "json"))
    assert (spec.num_classes, spec.origin) == (5, "fine-tuned")
    names = [entry.shard for entry in manifest(run, "recover").entries]
    assert names == [f"c{low:05d}-{high:05d}_i000-000" for low, high in ((0, 1), (2, 3), (4, 4))]
    assert outcome.diff is not None
    assert outcome.diff.classes.added == ("bat",)


def test_squeezing_again_reuses_only_class_ids(series: Series, root: Path) -> None:
    first = series(small(root)).run
    write_class(root, "bat", seed=7)
    run = series(small(root), "squeeze_again").run
    assert (run.config.squeeze.reuse, run.config.squeeze.start) == (None, None)
    index = load_index(series.store, dataset_of(run))
    assert index.class_names == ("ant", "bee", "cat", "dog", "bat")
    for name in ("squeeze", *STAGES_OF_IMAGES, "posttrain"):
        before = {entry.key for entry in manifest(first, name).entries}
        assert before.isdisjoint(entry.key for entry in manifest(run, name).entries)


def test_squeezing_again_renews_a_teacher_that_was_kept(series: Series, root: Path) -> None:
    series(small(root))
    change_class(root, "cat")
    series(small(root))
    outcome = series(small(root), "squeeze_again")
    assert (outcome.run.name, len(series.shards("squeeze"))) == ("small-v0003", 1)
    assert not series(small(root), "squeeze_again").changed
    assert not series(small(root), "keep").changed


@pytest.mark.parametrize("policy", ["keep", "fine_tune"])
def test_every_teacher_of_a_pool_is_inherited_by_its_position(
    series: Series, root: Path, policy: TeacherPolicy
) -> None:
    pool = "squeeze.pool=[{model: {name: resnet18_small, width: 5}}]"
    several = (pool, "recover.teachers=[0, 1]", "relabel.teachers=[0, 1]")
    first = series(small(root, *several)).run
    change_class(root, "cat")
    with pytest.raises(ConfigError, match="the config has 1 teachers, runs/small-v0001 has 2"):
        series(small(root), policy)
    run = series(small(root, *several), policy).run
    keys = [entry.key for entry in manifest(first, "squeeze").entries]
    squeeze = run.config.squeeze
    given = [squeeze.reuse, squeeze.pool[0].reuse], [squeeze.start, squeeze.pool[0].start]
    assert given == ((keys, [None, None]) if policy == "keep" else ([None, None], keys))
    assert len(series.shards("squeeze")) == (0 if policy == "keep" else 2)


def test_other_settings_give_a_new_version_that_shares_shards(series: Series, root: Path) -> None:
    series(small(root))
    outcome = series(small(root, "ipc=2"))
    assert outcome.diff is not None
    assert outcome.diff.config == ("ipc",)
    assert series.shards("recover") == {
        f"{block}_i001-001{images}"
        for block in ("c00000-00001", "c00002-00003")
        for images in ("", "_random_real")
    }


def test_the_diff_names_classes_shards_bytes_and_accuracies(series: Series, root: Path) -> None:
    first = series(small(root, REAL)).run
    change_class(root, "cat")
    outcome = series(small(root, REAL))
    diff = outcome.diff
    assert diff is not None
    assert (diff.run, diff.previous, diff.policy) == ("small-v0002", "small-v0001", "keep")
    assert diff.dataset == (dataset_of(first), dataset_of(outcome.run))
    assert (diff.classes.changed, diff.classes.unchanged) == (("cat",), 3)
    assert (diff.classes.added, diff.classes.removed) == ((), ())
    counts = {s.manifest: (list(s.recomputed), s.taken_over) for s in diff.shards}
    assert counts["squeeze"] == ([], 1)
    assert counts["recover"] == (["c00002-00003_i000-000"], 1)
    assert counts["relabel"] == (
        [f"c00002-00003_i000-000_v{v}" for v in ("0000-0001", "0002-0003")],
        2,
    )
    sizes = {s.manifest: (s.bytes_before, s.bytes_after) for s in diff.shards}
    for name, (before, after) in sizes.items():
        for run, size in ((first, before), (outcome.run, after)):
            listed = manifest(run, name).entries
            assert size == sum(count for entry in listed for _, count, _ in entry.files)
    rows = {row.trained_on: row for row in diff.accuracy}
    assert rows["all real images"].before == rows["all real images"].after
    assert rows["distilled images, soft labels"].after is not None
    stored = json.loads(series.store.read(outcome.run.path("diff.json")))
    del stored["record_sha256"]
    assert stored == json.loads(json.dumps(diff.to_json()))
    text = series.store.read(outcome.run.path("diff.md")).decode()
    assert "classes changed: 1 (cat)" in text
    assert "| recover | 1 | 1 |" in text


def test_a_shard_of_any_earlier_version_counts_as_reused(series: Series, root: Path) -> None:
    series(small(root, REAL))
    image = root / "train" / "cat" / "1.png"
    before = image.read_bytes()
    change_class(root, "cat")
    series(small(root, REAL))
    image.write_bytes(before)
    outcome = series(small(root, REAL))
    assert series.ran == []
    assert outcome.diff is not None
    assert {len(shards.recomputed) for shards in outcome.diff.shards} == {0}
    assert outcome.diff.classes.changed == ("cat",)


def test_a_kept_teacher_must_match_the_config(series: Series, root: Path) -> None:
    series(small(root))
    before = objects(series.store)
    for change, words in (
        ("squeeze.model.width=8", r"resnet18_small-w4, but squeeze\.model is resnet18_small-w8"),
        ("data.side=16", "trained on 8 x 8 pixels"),
        ("data.mean=[0, 0, 0]", "trained with mean"),
    ):
        with pytest.raises(ConfigError, match=words):
            series(small(root, change))
    # What was read of the dataset under another side is kept, and nothing else.
    after = {path: data for path, data in objects(series.store).items() if path in before}
    assert after == before
    assert {path.split("/")[0] for path in objects(series.store).keys() - before} == {"ingest"}


def test_a_missing_teacher_is_named(series: Series, root: Path) -> None:
    run = series(small(root)).run
    (entry,) = manifest(run, "squeeze").entries
    config = small(root, f'squeeze.reuse="{entry.key}"')
    other = Series(Store(f"{series.store.url}-other"))
    with pytest.raises(ConfigError, match=f"{entry.key}.json: no such teacher"):
        other(config)


def test_two_at_once_with_the_same_change_make_one_version(series: Series, root: Path) -> None:
    series(small(root, REAL))
    change_class(root, "cat")

    def beside(run: Run, _: Execution) -> RunStatus:
        """Complete the version, after another command of the same moment registered it as well."""
        assert request.next_run() == run
        return series.resume(run)

    config, execution = small(root, REAL), Execution(store=series.store.url, local=True)
    request = redistilling._index(config, series.store, "small", "keep", execution)
    outcome = series(config, complete=beside)
    assert outcome.run.name == "small-v0002"
    assert series.store.folders("runs") == ("small-v0001", "small-v0002")


def test_two_at_once_with_other_data_make_no_second_version(series: Series, root: Path) -> None:
    series(small(root, REAL))
    change_class(root, "cat")
    config, execution = small(root, REAL), Execution(store=series.store.url, local=True)
    request = redistilling._index(config, series.store, "small", "keep", execution)
    change_class(root, "dog")
    series(config)
    with pytest.raises(ConfigError, match="started at the same time"):
        request.next_run()
