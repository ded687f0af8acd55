"""Labels read an epoch ahead: equal labels, bounded memory, and no reader left running."""

from __future__ import annotations

import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.schema import RunConfig
from distill_core.errors import DataError
from distill_core.labels.reading import READERS
from distill_core.labels.relabel import relabel_shard
from distill_core.labels.sources import Labels, StoredLabels, ViewsOnly
from distill_core.posttrain.epochs import labels_by_epoch
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import TrainedStudent, train_student
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled
from tests.support.label_shards import shard
from tests.support.stored_labels import COUNT, SHARDS, same, stored
from tests.support.tiny import SIDE, labelled, pixels, tiny_run, tiny_teacher

HEAD = (torch.ones(3, 4), torch.zeros(3))
Read = Callable[[int], LabelRows]


def small(view: int, *, width: int = 4, scheme: str = "features", **changes: Any) -> LabelRows:
    """Return one view of a shard of three images."""
    views = range(view, view + 1)
    made = shard(views=views, count=3, width=width, mix="cutmix", scheme=scheme, seed=view)
    return replace(made, **changes)


def of(*readers: Read, width: int = 4) -> StoredLabels:
    head = (torch.ones(3, width), torch.zeros(3))
    return StoredLabels(readers, [3] * len(readers), head, "cpu")


def in_turn(source: Any, views: int) -> Any:
    """Return the labels of views 0, 1, ... of every shard, to be closed."""
    return closing(labels_by_epoch((source, (view,) * len(source.shards)) for view in range(views)))


def at_work() -> list[str]:
    """Return the names of the threads that read labels."""
    return [t.name for t in threading.enumerate() if t.name.startswith("labels")]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    assert at_work() == []


@pytest.mark.parametrize("scheme", ["features", "features_4_bit", "logits", "topk"])
def test_labels_are_the_same_whether_read_ahead_or_not(scheme: str) -> None:
    source, every, order = stored(scheme, "everything"), np.arange(COUNT), (2, 4, 3, 2)
    asked = ((source, (view,) * len(SHARDS)) for view in order)
    with closing(labels_by_epoch(asked)) as turns:
        found = list(turns)
    for view, labels in zip(order, found, strict=True):
        alone = source.view(view)
        assert same(labels.drawn, alone.drawn)
        assert torch.equal(labels.logits(every), alone.logits(every))


def test_exactly_one_view_is_read_ahead() -> None:
    begun: set[int] = set()
    second = threading.Event()

    def read(view: int) -> LabelRows:
        begun.add(view)
        if view == 1:
            second.set()
        return small(view)

    with in_turn(of(read, read), views=5) as turns:
        next(turns)
        assert second.wait(timeout=60)
    assert begun == {0, 1}


def test_labels_computed_on_the_device_are_not_read_ahead() -> None:
    asked: list[int] = []

    class Asked(ViewsOnly):
        def view(self, view: Any) -> Labels:
            asked.append(view[0])
            return super().view(view)

    run = tiny_run()
    with in_turn(Asked([SHARDS[0]], run.relabel, 0, SIDE), views=3) as turns:
        next(turns)
        assert asked == [0]
        next(turns)
        assert asked == [0, 1]


def test_an_error_while_reading_ahead_is_raised_to_the_consumer_and_stops_the_readers() -> None:
    def broken(view: int) -> LabelRows:
        if view == 1:
            raise DataError("shard-x: damaged")
        return small(view)

    with in_turn(of(small, broken, small), views=3) as turns:
        next(turns)
        with pytest.raises(DataError, match="shard-x"):
            next(turns)
    assert at_work() == []


def test_reading_stops_when_a_view_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    release, read_in_vain, stopped = threading.Event(), list[int](), list[ThreadPoolExecutor]()
    shutdown = ThreadPoolExecutor.shutdown

    def read(view: int) -> LabelRows:
        if view == 1:
            release.wait(timeout=60)
            read_in_vain.append(view)
        return small(view)

    def noting(pool: ThreadPoolExecutor, *, cancel_futures: bool) -> None:
        shutdown(pool, wait=False, cancel_futures=cancel_futures)
        stopped.append(pool)
        if len(stopped) == 2:  # of the view that nobody needs
            release.set()
        shutdown(pool, wait=True)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", noting)
    with in_turn(of(*[read] * (5 * READERS)), views=2) as turns:
        next(turns)
    assert len(stopped) == 2
    assert len(read_in_vain) <= READERS
    assert at_work() == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda view: small(view, scheme="logits"), "features of image shard 1 has shape None"),
        (lambda view: small(view, width=5), r"features of image shard 1 has shape \(3, 5\)"),
        (lambda view: shard(views=range(1), count=2, width=4, mix="cutmix", scheme="features"),
         r"shard 1 has shape \(2"),
        (lambda view: small(view, affine=None), "without their scale"),
    ],
)  # fmt: skip
def test_shards_that_do_not_fit_together_are_refused(
    other: Read, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_core.labels.reading.READERS", 1)  # the first shard comes first
    with pytest.raises(DataError, match=message):
        of(small, other).view(0)


def peak(views: int, shards: int, count: int, width: int) -> tuple[int, int]:
    """Return the peak of the bytes in memory while views are read, and of row groups at a time."""
    lock, alive, most = threading.Lock(), 0, 0
    template = shard(views=range(1), count=count, width=width, mix="cutmix", scheme="features")
    assert template.values is not None
    codes = template.values

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def read(view: int) -> LabelRows:
        nonlocal alive, most
        rows = replace(template, values=codes.copy())
        with lock:
            alive += 1
            most = max(most, alive)
        weakref.finalize(rows, gone)
        return rows

    head = (torch.ones(3, width), torch.zeros(3))
    source = StoredLabels([read] * shards, [count] * shards, head, "cpu")
    tracemalloc.start()
    with in_turn(source, views) as turns:
        for _ in range(views):
            assert next(turns).logits.codes.dtype == np.uint8
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held, most


def test_memory_holds_two_views_and_a_row_group_per_reader() -> None:
    shards, count, width = 4 * READERS, 40, 2000
    few, many = (peak(views, shards, count, width) for views in (3, 12))
    bound = 2 * shards * (count * (width + 100) + 8 * width) + READERS * count * width
    for held, most in (few, many):
        assert most <= READERS
        assert held < bound
    assert many[0] < 1.2 * few[0]


SETTINGS = ("posttrain.epochs=4", "posttrain.batch_size=6", "posttrain.evaluate_every=2")


def setting(*overrides: str) -> RunConfig:
    return tiny_run(*SETTINGS, "relabel.views=4", "relabel.flip=true", *overrides)


def images() -> Labelled:
    return Labelled(pixels(COUNT), np.array([i.label for names in SHARDS for i in names]))


def readers(run: RunConfig, seen: list[LabelRows]) -> list[Read]:
    """Return readers that label a view when it is requested, and record what they returned."""
    cuts = np.cumsum([len(names) for names in SHARDS])[:-1]
    parts = map(ImageRows, SHARDS, np.split(images().pixels, cuts))

    def reader(rows: ImageRows) -> Read:
        def read(view: int) -> LabelRows:
            made = relabel_shard(rows, [view], config=run.relabel, teacher=tiny_teacher(), seed=0)
            seen.append(made)
            return made

        return read

    return [reader(rows) for rows in parts]


def train(run: RunConfig, shards: list[Read], **changes: Any) -> TrainedStudent:
    head = tiny_teacher().head
    source = StoredLabels(shards, [*map(len, SHARDS)], (head.weight, head.bias), "cpu")
    task = StudentTask(run, run.posttrain.students[0], 0, "distilled")
    runtime = TrainingRuntime(**changes)
    return train_student(task, images(), source, labelled(8, seed=1), runtime=runtime)


def test_students_on_coded_features_and_on_logits_train_on_the_same_draws() -> None:
    trained, draws = {}, {}
    for scheme in ("features", "logits"):
        run, seen = setting(f"relabel.scheme={scheme}"), list[LabelRows]()
        trained[scheme] = train(run, readers(run, seen))
        seen.sort(key=lambda rows: (rows.views[0], repr(rows.images)))
        draws[scheme] = [replace(rows, values=None, affine=None) for rows in seen]
    assert all(map(same, draws["features"], draws["logits"]))
    assert len(draws["features"]) == len(draws["logits"]) == 4 * len(SHARDS)
    one, other = (trained[scheme].last.state_dict() for scheme in ("features", "logits"))
    for name, weights in one.items():
        torch.testing.assert_close(weights, other[name], atol=5e-3, rtol=0.05)


def test_an_abandoned_training_leaves_no_reader_running() -> None:
    run = setting("relabel.scheme=features")

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, readers(run, []), progress=interrupted)
    assert at_work() == []
