"""The stored views that an epoch reads, in order or from a pool, and epochs without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.labels.sources import Labels, OnlineLabels, ViewsOnly
from distill_core.posttrain.epochs import is_hard, views_of_epoch
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import train_student
from distill_core.training.losses import best_temperature
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.tiny import SIDE, labelled, pixels, tiny_batch, tiny_run, tiny_teacher
from tests.support.weights import same_weights

SHARDS = [tiny_batch(0) + tiny_batch(1), tiny_batch(2)]
SETTINGS = ("posttrain.epochs=6", "posttrain.batch_size=6", "posttrain.evaluate_every=3")
POOL = ("relabel.views=40", "relabel.prune=0.9", "posttrain.view_order=random")


class Asked:
    """A label source that records the views that were requested."""

    def __init__(self, source: Any) -> None:
        self.source, self.views = source, list[tuple[int, ...]]()

    @property
    def shards(self) -> Any:
        return self.source.shards

    def view(self, view: Any) -> Labels:
        self.views.append(view)
        return self.source.view(view)  # type: ignore[no-any-return]


def sources(run: RunConfig) -> tuple[Asked, Asked]:
    """Return labels of a teacher, and the same views without any."""
    data = pixels(12)
    parts = list(zip(SHARDS, torch.from_numpy(data).split([8, 4]), strict=True))
    online = OnlineLabels(parts, tiny_teacher(), run.relabel, run.seed)
    return Asked(online), Asked(ViewsOnly(SHARDS, run.relabel, run.seed, SIDE))


def train(
    *overrides: str, seed: int = 0, checkpoints: MemoryCheckpoints | None = None
) -> tuple[dict[str, torch.Tensor], Asked, Asked]:
    run = tiny_run(*SETTINGS, *overrides)
    labels, views = sources(run)
    data = Labelled(pixels(12), np.array([i.label for shard in SHARDS for i in shard]))
    task = StudentTask(run, run.posttrain.students[0], seed, "distilled")
    runtime = TrainingRuntime(checkpoints=checkpoints)
    test = labelled(8, seed=1)
    student = train_student(task, data, labels, test, views=views, runtime=runtime)
    return student.last.state_dict(), labels, views


@pytest.mark.parametrize(
    ("views", "prune", "stored"),
    [(300, 0, 300), (300, 0.9, 30), (300, 0.95, 15), (300, 0.975, 7), (300, 0.97, 9), (5, 0.99, 1)],
)
def test_pruning_leaves_the_documented_number_of_views(
    views: int, prune: float, stored: int
) -> None:
    run = tiny_run(f"relabel.views={views}", f"relabel.prune={prune}")
    assert run.relabel.stored_views == stored


def test_views_come_in_order_and_start_again() -> None:
    run = tiny_run("relabel.views=4", "posttrain.epochs=6")
    read = [views_of_epoch(run, epoch, seed=0, shards=2) for epoch in range(6)]
    assert read == [(n, n) for n in (0, 1, 2, 3, 0, 1)]


def test_views_are_drawn_evenly_from_the_pool_by_shard_and_epoch() -> None:
    run = tiny_run(*POOL)
    read = np.array([views_of_epoch(run, epoch, seed=3, shards=5) for epoch in range(2000)])
    assert read.shape == (2000, 5)
    counts = np.apply_along_axis(np.bincount, 0, read, minlength=4)
    assert counts.shape == (4, 5)
    assert counts.min() > 400
    assert len({tuple(column) for column in read.T.tolist()}) == 5  # shards draw for themselves
    again = views_of_epoch(run, 1234, seed=3, shards=5)
    assert again == tuple(read[1234])
    assert again != views_of_epoch(run, 1234, seed=4, shards=5)


def test_a_resumed_student_reads_the_same_drawn_views() -> None:
    weights, labels, _ = train(*POOL)
    assert len(labels.views) == 6
    assert {view for views in labels.views for view in views} <= set(range(4))
    checkpoints = MemoryCheckpoints(dies_after=4)
    with pytest.raises(Killed):
        train(*POOL, checkpoints=checkpoints)
    checkpoints.dies_after = None
    again, rest, _ = train(*POOL, checkpoints=checkpoints)
    assert same_weights(weights, again)
    assert rest.views == labels.views[4:]


def test_one_batch_may_hold_shards_in_different_views() -> None:
    run = tiny_run(*POOL)
    labels, _ = sources(run)
    mixed, first, second = (labels.view(views) for views in ((0, 3), 0, 3))
    rows = np.array([2, 9])
    torch.testing.assert_close(mixed.logits(rows)[0], first.logits(rows)[0])
    torch.testing.assert_close(mixed.logits(rows)[1], second.logits(rows)[1])
    assert np.array_equal(mixed.drawn.view.boxes[8:], second.drawn.view.boxes[8:])
    assert np.array_equal(mixed.drawn.mix.partners[:8], first.drawn.mix.partners[:8])


def test_hard_epochs_read_no_label_and_do_not_shift_the_views_of_soft_epochs() -> None:
    overrides = ("relabel.views=3", "posttrain.hard_epochs=[2, 4]")
    soft, (weights, labels, views) = train("relabel.views=3")[0], train(*overrides)
    assert labels.views == [(0, 0), (1, 1), (2, 2), (0, 0)]
    assert views.views == [(5, 5), (6, 6)]  # never described
    assert not same_weights(weights, soft)
    smoothed = train(*overrides, "posttrain.hard_smoothing=0.8")[0]
    assert not same_weights(weights, smoothed)
    settings = tiny_run(*SETTINGS, *overrides).posttrain
    assert [epoch for epoch in range(6) if is_hard(settings, epoch)] == [2, 3]


def test_a_student_calibrated_after_each_epoch_resumes_with_its_temperature() -> None:
    fixed = ("posttrain.temperature=0.1", "posttrain.student_temperature=1.0")
    calibrated = (*fixed, "posttrain.calibrate_student=true")
    weights, _, _ = train(*calibrated)
    assert not same_weights(weights, train(*fixed)[0])
    checkpoints = MemoryCheckpoints(dies_after=4)
    with pytest.raises(Killed):
        train(*calibrated, checkpoints=checkpoints)
    checkpoints.dies_after = None
    assert same_weights(weights, train(*calibrated, checkpoints=checkpoints)[0])


def test_the_best_temperature_undoes_a_scale() -> None:
    logits = torch.randn(6, 5)
    assert best_temperature(0.37 * logits, logits.softmax(1)) == pytest.approx(0.37)
    assert best_temperature(9 * logits, logits.softmax(1)) == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("posttrain.hard_epochs=[3, 3]", "first < after-last"),
        ("posttrain.hard_epochs=[2, 7]", "first < after-last"),
        ("posttrain.calibrate_student=true", "requires loss=kl and a student_temperature"),
        ("relabel.prune=1.0", "relabel.prune"),
    ],
)
def test_contradictory_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_run(*SETTINGS, override)
