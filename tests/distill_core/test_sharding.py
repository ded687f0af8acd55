from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.sharding import (
    ClassEntry,
    ClassShard,
    Composition,
    batch_classes,
    class_list_hash,
    plan_shards,
    plan_size,
    shard_width,
)

COMPOSITIONS: tuple[Composition, ...] = ("one_per_class", "class_major", "one_class")


def classes(count: int) -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(n, f"n{n:08d}") for n in range(count))


def plan(
    entries: tuple[ClassEntry, ...],
    *,
    ipc: int = 1,
    ipc_range: int = 10,
    batch_size: int = 100,
    composition: Composition = "one_per_class",
    shard_classes: int | None = None,
) -> tuple[ClassShard, ...]:
    return plan_shards(
        entries,
        ipc=ipc,
        ipc_range=ipc_range,
        batch_size=batch_size,
        composition=composition,
        shard_classes=shard_classes,
    )


@settings(max_examples=150, deadline=None)
@given(
    composition=st.sampled_from(COMPOSITIONS),
    count=st.integers(1, 350),
    ipc=st.integers(1, 9),
    ipc_range=st.integers(1, 5),
    batch_size=st.integers(1, 130),
    multiple=st.integers(0, 3),
)
def test_the_size_of_a_plan_is_known_without_making_it(
    composition: Composition, count: int, ipc: int, ipc_range: int, batch_size: int, multiple: int
) -> None:
    shape: dict[str, Any] = {
        "ipc": ipc,
        "ipc_range": ipc_range,
        "batch_size": batch_size,
        "composition": composition,
        "shard_classes": multiple * batch_classes(composition, batch_size, ipc_range) or None,
    }
    shards = plan_shards(classes(count), **shape)
    batches = sum(len(shard.grids) for shard in shards)
    assert plan_size(count, **shape) == (len(shards), batches)


@pytest.mark.parametrize("composition", COMPOSITIONS)
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 350),
    ipc=st.integers(1, 7),
    ipc_range=st.integers(1, 5),
    batch_size=st.integers(1, 130),
)
def test_every_image_is_in_exactly_one_batch_of_one_shard(
    composition: Composition, count: int, ipc: int, ipc_range: int, batch_size: int
) -> None:
    shards = plan(
        classes(count),
        ipc=ipc,
        ipc_range=ipc_range,
        batch_size=batch_size,
        composition=composition,
    )
    batches = [batch for shard in shards for batch in shard.batches]
    seen = Counter((i.label, i.ipc_index) for batch in batches for i in batch)
    assert seen == Counter((c, i) for c in range(count) for i in range(ipc))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len({shard.name for shard in shards}) == len(shards)
    assert [shard.number for shard in shards] == list(range(len(shards)))


def test_21841_classes_give_219_blocks_and_the_last_holds_41() -> None:
    shards = plan(classes(21841))
    assert len(shards) == 219
    assert len(shards[-1].images) == 41
    assert shards[-1].images[-1].label == 21840


def test_a_ragged_last_batch_is_a_shorter_batch() -> None:
    shards = plan(classes(10450))
    assert len(shards) == 105
    assert [len(batch) for batch in shards[-1].batches] == [50]
    small = plan(classes(7), batch_size=3)
    assert [len(batch) for shard in small for batch in shard.batches] == [3, 3, 1]


@pytest.mark.parametrize(
    ("batch_classes", "expected"), [(100, 100), (80, 160), (1, 100), (150, 150), (30, 120)]
)
def test_a_shard_is_the_smallest_multiple_of_a_batch_that_holds_100_classes(
    batch_classes: int, expected: int
) -> None:
    assert shard_width(10_000, batch_classes=batch_classes) == expected


def test_a_configured_shard_width_is_kept_exactly() -> None:
    shards = plan(classes(11), batch_size=2, shard_classes=4)
    assert [shard.labels for shard in shards] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)]
    assert [len(batch) for shard in shards for batch in shard.batches] == [2, 2, 2, 2, 2, 1]
    (whole,) = plan(classes(3), batch_size=2, shard_classes=4)
    assert whole.labels == (0, 1, 2)


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize(("short", "long", "ipc_range"), [(2, 4, 2), (10, 50, 10), (3, 5, 1)])
def test_the_shards_of_a_smaller_ipc_are_the_first_of_a_larger_one(
    composition: Composition, short: int, long: int, ipc_range: int
) -> None:
    few, many = (
        plan(classes(230), ipc=ipc, ipc_range=ipc_range, batch_size=40, composition=composition)
        for ipc in (short, long)
    )
    assert few == many[: len(few)]


def test_one_per_class_batches_hold_consecutive_classes_once_each() -> None:
    (first, second, *_) = plan(classes(300), ipc=2, batch_size=50)[0].batches
    assert [i.label for i in first] == list(range(50))
    assert [i.label for i in second] == list(range(50, 100))
    assert {i.ipc_index for i in first} == {0}


def test_class_major_batches_hold_whole_classes() -> None:
    batches = plan(classes(20), ipc=10, batch_size=35, composition="class_major")[0].batches
    for batch in batches:
        assert set(Counter(i.label for i in batch).values()) == {10}
    assert [len(batch) for batch in batches] == [30] * 6 + [20]


def test_one_class_batches_hold_one_class() -> None:
    for shard in plan(classes(5), ipc=7, ipc_range=7, batch_size=4, composition="one_class"):
        assert all(len({i.label for i in batch}) == 1 for batch in shard.batches)


def test_a_removed_class_leaves_a_hole_and_other_batches_stay() -> None:
    before = classes(300)
    after = tuple(replace(c, removed=c.id == 150) for c in before)
    old, new = plan(before), plan(after)
    assert (old[0], old[2]) == (new[0], new[2])
    assert [i.label for i in new[1].images] == [n for n in range(100, 200) if n != 150]


def test_an_added_class_starts_a_block_of_its_own() -> None:
    before = classes(130)
    after = (*before, ClassEntry(130, "new", generation=1))
    old, new = plan(before), plan(after)
    assert [shard.batches for shard in new[:2]] == [shard.batches for shard in old]
    assert [i.wnid for i in new[2].images] == ["new"]


def test_the_class_list_hash_follows_order_and_names() -> None:
    one = classes(3)
    assert class_list_hash(one) == class_list_hash(one[::-1])
    assert class_list_hash(one) != class_list_hash((replace(one[0], wnid="x"), *one[1:]))
    assert len(class_list_hash(one)) == 16
