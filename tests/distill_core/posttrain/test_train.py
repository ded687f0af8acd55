from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from distill_core.config.students import SetName
from distill_core.errors import ConfigError, DivergedError
from distill_core.labels.sources import Labels, OnlineLabels, ViewsOnly
from distill_core.labels.views import Renderer
from distill_core.posttrain.student import Student, StudentTask
from distill_core.posttrain.train import train_student
from distill_core.training.distributed import DistributedContext
from distill_core.training.optim import set_lr
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Labelled
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.tiny import SIDE, labelled, pixels, tiny_batch, tiny_run, tiny_teacher
from tests.support.weights import same_weights

IMAGES = tiny_batch(0) + tiny_batch(1) + tiny_batch(2)
SETTINGS = (
    "posttrain.epochs=6",
    "posttrain.batch_size=5",
    "posttrain.evaluate_every=2",
    "relabel.views=4",
)


def train(
    *overrides: str, images_of: str = "distilled", **changes: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    run = tiny_run(*SETTINGS, *overrides)
    data = Labelled(pixels(len(IMAGES)), np.array([image.label for image in IMAGES]))
    shards = [(IMAGES, torch.from_numpy(data.pixels))]
    teacher_says = OnlineLabels(shards, tiny_teacher(), run.relabel, run.seed)
    labels = changes.pop("labels", teacher_says)
    task = StudentTask(run, run.posttrain.students[0], changes.pop("seed", 0), images_of)  # type: ignore[arg-type]
    runtime = TrainingRuntime(**changes)
    student = train_student(task, data, labels, labelled(24, seed=1), runtime=runtime)
    return student.result, student.last.state_dict()


def test_last_ema_and_best_are_reported_and_named() -> None:
    result, _ = train()
    assert [point["epoch"] for point in result["curve"]] == [2, 4, 6]
    assert result["last"]["top1"] == result["curve"][-1]["top1"]
    assert result["ema"]["top1"] == result["curve"][-1]["ema_top1"]
    assert result["best"]["top1"] == max(point["top1"] for point in result["curve"])
    assert result["steps"] == 6 * 3
    assert result["images"] == 12


def test_a_resumed_training_ends_with_the_weights_of_an_undisturbed_one() -> None:
    undisturbed, weights = train()
    checkpoints = MemoryCheckpoints(dies_after=4)
    with pytest.raises(Killed):
        train(checkpoints=checkpoints)
    checkpoints.dies_after = None
    resumed, again = train(checkpoints=checkpoints)
    assert same_weights(weights, again)
    assert resumed == undisturbed


def test_seeds_give_different_students_and_the_same_seed_the_same() -> None:
    (_, first), (_, same), (_, other) = train(), train(), train(seed=1)
    assert same_weights(first, same)
    assert not same_weights(first, other)


def test_training_on_hard_labels_never_reads_teacher_logits() -> None:
    run = tiny_run(*SETTINGS)
    views = ViewsOnly([IMAGES], run.relabel, run.seed, SIDE)  # raises when asked for logits
    result, hard = train(images_of="hard_labels", labels=views)
    assert result["set"] == "hard_labels"
    assert same_weights(hard, train(images_of="hard_labels")[1])
    assert not same_weights(hard, train()[1])


def test_hard_labels_weigh_both_classes_by_the_share_of_each_image() -> None:
    train_state, labels = ready(
        DistributedContext(), "relabel.mix.kind=mixup", images_of="hard_labels"
    )
    rows, mix = np.array([7, 0, 10]), labels.drawn.mix
    data = train_state.task.run.data
    renderer = Renderer("mixup", data.mean, data.std, torch.float64)
    views = renderer.render(train_state.renderer.pixels, rows, labels.drawn)
    said = train_state.model(views).log_softmax(1)
    by_hand = [
        -lam * said[n, IMAGES[row].label] - (1 - lam) * said[n, IMAGES[partner].label]
        for n, (row, partner, lam) in enumerate(
            zip(rows, mix.partners[rows], mix.lam[rows].astype(float), strict=True)
        )
    ]
    loss = train_state._loss(rows, labels, views)
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())


@pytest.mark.parametrize(
    "settings",
    [
        ("posttrain.loss=mse", "posttrain.hard_weight=0.1"),
        ("posttrain.temperature_decay={factor: 0.7, every: 1, floor: 2}",),
        ("posttrain.student_temperature=1",),
        ("posttrain.schedule={milestones: [2], gamma: 0.2}",),
    ],
    ids=["mse and classes", "falling temperature", "own temperature", "milestones"],
)
def test_every_loss_trains_and_differs_from_the_plain_one(settings: tuple[str, ...]) -> None:
    result, _ = train(*settings)
    losses = [point["loss"] for point in result["curve"]]
    assert np.isfinite(losses).all()
    assert losses != [point["loss"] for point in train()[0]["curve"]]


@pytest.mark.parametrize("optimizer", ["{name: sgd, lr: 0.01}", "{name: adam, lr: 0.01}"])
def test_every_optimizer_and_schedule_trains(optimizer: str) -> None:
    result, _ = train(
        f"posttrain.optimizer={optimizer}",
        "posttrain.schedule={zeta: 2, warmup_epochs: 1, per_step: true}",
        "posttrain.temperature_squared=true",
    )
    assert np.isfinite([point["loss"] for point in result["curve"]]).all()


@pytest.mark.parametrize("optimizer", ["{name: sgd, lr: 0.01}", "{name: adam, lr: 0.01}"])
def test_resuming_is_exact_for_every_optimizer_schedule_and_micro_batch(optimizer: str) -> None:
    settings = (
        f"posttrain.optimizer={optimizer}",
        "posttrain.schedule={warmup_epochs: 1, per_step: true}",
        "posttrain.micro_batch=2",
    )
    undisturbed, weights = train(*settings)
    checkpoints = MemoryCheckpoints(dies_after=2)
    with pytest.raises(Killed):
        train(*settings, checkpoints=checkpoints)
    checkpoints.dies_after = None
    resumed, again = train(*settings, checkpoints=checkpoints)
    assert same_weights(weights, again)
    assert resumed == undisturbed


def gradient(
    rows: int, *overrides: str, world: DistributedContext = DistributedContext()
) -> torch.Tensor:
    """Return the gradient of one process after one step, batch norm aside."""
    train_state, labels = ready(world, *overrides)
    set_lr(train_state.optimizer, 0.0)
    take_step(train_state, labels, rows)
    return torch.cat(
        [p.grad.flatten() for p in train_state.model.parameters() if p.grad is not None]
    )


def take_step(train_state: Student, labels: Labels, rows: int) -> None:
    """Take one step of a batch of the first rows."""
    batch = np.arange(rows)
    train_state._step(batch, labels, train_state.views_of([batch], labels))


def ready(
    world: DistributedContext, *overrides: str, images_of: SetName = "distilled"
) -> tuple[Student, Labels]:
    exact = ("precision=float64", "posttrain.temperature=1", "posttrain.batch_size=12")
    run = tiny_run(*SETTINGS, *exact, *overrides)
    data = Labelled(pixels(len(IMAGES)), np.array([image.label for image in IMAGES]))
    shards = [(IMAGES, torch.from_numpy(data.pixels))]
    labels = OnlineLabels(shards, tiny_teacher("float64"), run.relabel, run.seed).view(0)
    task = StudentTask(run, run.posttrain.students[0], 0, images_of)
    train_state = Student(task, data, labelled(4), torch.device("cpu"), world)
    train_state.model.eval()  # batch norm sees one micro-batch of one process, as documented
    return train_state, labels


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(size: int) -> None:
    torch.testing.assert_close(gradient(9, f"posttrain.micro_batch={size}"), gradient(9))


@pytest.mark.parametrize("overrides", [(), ("posttrain.micro_batch=2",)])
@pytest.mark.parametrize(("rows", "size"), [(8, 2), (9, 2), (11, 3)])
def test_unequal_shares_average_to_the_gradient_of_the_whole_batch(
    rows: int, size: int, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        DistributedContext, "wrap", lambda self, model: model
    )  # averaged below instead
    shares = [
        gradient(rows, *overrides, world=DistributedContext(rank, size)) for rank in range(size)
    ]
    torch.testing.assert_close(torch.stack(shares).mean(0), gradient(rows))


def note(seen: list[int], bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """Take the place of the all-reduce of a bucket of gradients."""
    seen.append(bucket.index())
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.fixture
def lonely_group(tmp_path: Path) -> Iterator[None]:
    """Join a process group of one, so that a network can be wrapped as in a real gang."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("lonely_group")
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_average_once_per_step_however_many_micro_batches_they_have(rank: int) -> None:
    train_state, labels = ready(
        DistributedContext(rank, 2), "posttrain.micro_batch=4"
    )  # 4 | 4 + 1 of 9 rows
    exchanged: list[int] = []
    assert isinstance(train_state.parallel, DistributedDataParallel)
    train_state.parallel.register_comm_hook(exchanged, lambda seen, bucket: note(seen, bucket))
    take_step(train_state, labels, 9)
    assert exchanged == [0]


@pytest.mark.parametrize(
    ("batch", "size", "batches"), [(5, 1, 3), (5, 2, 2), (4, 2, 3), (11, 1, 1)]
)
def test_every_process_gets_at_least_two_images_of_every_batch(
    batch: int, size: int, batches: int
) -> None:
    train_state, _ = ready(DistributedContext(), f"posttrain.batch_size={batch}")
    train_state.world = DistributedContext(0, size)
    parts = list(train_state._batches(0))
    assert len(parts) == batches
    assert sorted(np.concatenate(parts)) == list(range(12))
    assert min(len(part) for part in parts) >= 2 * size


def test_more_processes_than_a_batch_can_serve_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"posttrain.processes = 3: a batch has 5 images"):
        train(world=DistributedContext(0, 3))


def test_a_diverging_student_raises_a_diverged_error() -> None:
    with pytest.raises(DivergedError, match="posttrain"):
        train("posttrain.optimizer={name: sgd, lr: 1.0e30}")


@pytest.mark.slow
def test_a_compiled_student_learns_the_same_as_an_eager_one() -> None:
    plain, weights = train()
    counters.clear()
    compiled, compiled_weights = train("posttrain.compile=true")
    assert counters["frames"]["ok"] > 0
    assert compiled_weights.keys() == weights.keys()
    for one, other in zip(plain["curve"], compiled["curve"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
