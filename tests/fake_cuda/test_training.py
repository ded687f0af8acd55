"""Training of teachers and of students on a GPU that computes no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill_core.config.fields import Precision
from distill_core.posttrain.student import Student, StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.squeeze.teacher import train_teacher
from distill_core.training import epochs
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import StreamedSplit
from distill_core.training.supervised import Labelled
from distill_core.transforms.pixel_store import HostPixels
from tests.support import stored_labels
from tests.support.fake_cuda import FakeCuda, fake_cuda
from tests.support.stored_labels import SHARDS, shard
from tests.support.teacher_training import TEST, TRAIN, run
from tests.support.tiny import labelled, tiny_run, tiny_teacher

BOTH = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
# The count of averages is on the host. It is zero before the first only.
AVERAGED = {"training/optim.py:WeightEma.update": False}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "sgd": (
        "posttrain.optimizer={name: sgd, lr: 0.1, weight_decay: 0.001}",
        "posttrain.schedule={milestones: [1], gamma: 0.2}",
    ),
    "adam": (
        "posttrain.optimizer={name: adam, lr: 0.001}",
        "posttrain.schedule={warmup_epochs: 1, per_step: true}",
    ),
    "adamw": ("posttrain.optimizer={name: adamw, lr: 0.001}", "posttrain.schedule={zeta: 2}"),
}
LOSSES: dict[str, tuple[str, ...]] = {
    "kl in micro-batches": (
        "posttrain.micro_batch=3",
        "posttrain.logit_smoothing=0.1",
        "posttrain.temperature_decay={floor: 2}",
    ),
    "calibrated": (
        "posttrain.student_temperature=0.5",
        "posttrain.calibrate_student=true",
        "posttrain.hard_weight=0.5",
        "posttrain.hard_smoothing=0.1",
    ),
    "squared error": ("posttrain.loss=mse", "posttrain.hard_weight=0.1"),
    "soft, then hard": ("posttrain.hard_epochs=[1, 2]", "posttrain.temperature_squared=true"),
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return the losses of all steps that are taken."""
    taken: list[Tensor] = []
    of_teacher, of_student = epochs.train_step, Student._step

    def teacher_step(*args: Any, **options: Any) -> Tensor:
        taken.append(of_teacher(*args, **options))
        return taken[-1]

    def student_step(student: Student, *args: Any) -> Tensor:
        taken.append(of_student(student, *args))
        assert all(weight.is_cuda for weight in student.ema.model.parameters())
        return taken[-1]

    monkeypatch.setattr(epochs, "train_step", teacher_step)
    monkeypatch.setattr(Student, "_step", student_step)
    return taken


def assert_on_gpu(losses: Sequence[Tensor], count: int) -> None:
    assert len(losses) == count
    assert {(loss.device.type, loss.dtype) for loss in losses} == {("cuda", torch.float32)}


def squeezed(
    images: Labelled | StreamedSplit, *, precision: Precision = "float32", **training: Any
) -> FakeCuda:
    """Train a teacher on the fake GPU, and store it; return the GPU."""
    config = run(model="convnet3", precision=precision, training=training)
    with fake_cuda() as gpu:
        runtime = TrainingRuntime(device="cuda", checkpoints=Kept())
        made = train_teacher(images, TEST, run=config, class_hash="ab", runtime=runtime)
    assert made.files.keys() == {"safetensors", "json"}
    return gpu


class Kept:
    """Checkpoints that are made and forgotten."""

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        assert len(state()) > 0

    def stored(self) -> Iterator[tuple[int, bytes]]:
        yield from ()


@BOTH
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_teacher_is_trained_on_the_gpu(
    optimizer: str, precision: Precision, steps: list[Tensor]
) -> None:
    chosen = {"name": optimizer, "lr": 0.05, "weight_decay": 1e-4}
    squeezed(TRAIN, precision=precision, epochs=1, optimizer=chosen, batch_size=25)
    assert_on_gpu(steps, 2)


def test_images_that_are_read_in_every_epoch_go_to_the_gpu(steps: list[Tensor]) -> None:
    squeezed(StreamedSplit(lambda rows: TRAIN.pixels[rows], TRAIN.labels), epochs=1, batch_size=25)
    assert_on_gpu(steps, 2)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_teacher_waits_once_an_epoch_however_many_steps_it_has(streamed: bool) -> None:
    images = StreamedSplit(lambda rows: TRAIN.pixels[rows], TRAIN.labels) if streamed else TRAIN
    few, many = (squeezed(images, epochs=1, batch_size=size).waits for size in (25, 10))
    assert sorted(few) == sorted(many)


def trained(
    *overrides: str,
    precision: Precision = "float32",
    scheme: str = "features",
    images_of: Any = "distilled",
    epochs: int = 2,
) -> FakeCuda:
    """Train a student on the fake GPU from stored labels of a scheme; return the GPU."""
    labels = () if scheme == "online" else stored_labels.SCHEMES[scheme].settings
    config = tiny_run(
        *(f"relabel.{setting}" for setting in (labels or ("scheme=online",))),
        *("relabel.mix.kind=cutmix", f"precision={precision}", f"posttrain.epochs={epochs}"),
        *("posttrain.batch_size=8", "posttrain.rest=mean", *overrides),
    )
    rows = [] if scheme == "online" else [
        stored_labels.labelled(n, scheme, "cutmix", range(2)) for n in range(len(SHARDS))
    ]  # fmt: skip
    task = StudentTask(config, config.posttrain.students[0], 0, images_of)
    with fake_cuda(AVERAGED) as gpu:
        soft = SoftLabels.in_memory(tiny_teacher(precision).to("cuda"), rows)
        runtime = TrainingRuntime(device="cuda", checkpoints=Kept())
        shards = [shard(n) for n in range(len(SHARDS))]
        made = train_on_shards(task, shards, soft, labelled(20), runtime=runtime)
        for network in (made.last, made.ema):
            assert all(weight.is_cuda for weight in network.parameters())
    return gpu


@BOTH
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_a_student_is_computed_on_the_gpu(
    loss: str, precision: Precision, steps: list[Tensor]
) -> None:
    trained(*LOSSES[loss], precision=precision)
    assert_on_gpu(steps, 2 * 2)  # 15 images in batches of 8


@pytest.mark.parametrize("scheme", ["logits", "topk", "features_4_bit", "online"])
def test_a_student_learns_from_labels_of_every_scheme_on_the_gpu(
    scheme: str, steps: list[Tensor]
) -> None:
    trained(scheme=scheme, epochs=1)
    assert_on_gpu(steps, 2)


@pytest.mark.parametrize("mix", ["none", "mixup", "cutout"])
def test_hard_labels_are_mixed_as_the_images_are_on_the_gpu(mix: str, steps: list[Tensor]) -> None:
    trained(f"relabel.mix.kind={mix}", images_of="hard_labels", epochs=1)
    assert_on_gpu(steps, 2)


@pytest.mark.parametrize("optimizer", SCHEDULES)
def test_every_optimiser_and_schedule_of_a_student_steps_on_the_gpu(
    optimizer: str, steps: list[Tensor]
) -> None:
    trained(*SCHEDULES[optimizer])
    assert_on_gpu(steps, 2 * 2)


@pytest.mark.parametrize("scheme", ["features", "topk", "online"])
def test_a_student_waits_once_an_epoch_however_many_steps_it_has(scheme: str) -> None:
    few, many = (
        trained(f"posttrain.batch_size={size}", "posttrain.hard_weight=1", scheme=scheme, epochs=1)
        for size in (8, 3)
    )
    assert sorted(few.waits) == sorted(many.waits)


@pytest.mark.parametrize(("scheme", "precision"), [("features", "float32"), ("online", "bfloat16")])
def test_images_that_do_not_fit_the_gpu_are_uploaded_batch_by_batch_without_waiting(
    scheme: str, precision: Precision, steps: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, original = list[int](), HostPixels.take

    def take(pixels: HostPixels, rows: np.ndarray) -> Tensor:
        sizes.append(len(rows))
        return original(pixels, rows)

    monkeypatch.setattr(HostPixels, "take", take)
    settings = ("relabel.mix.kind=none",)  # views of a mix are rendered once for the whole epoch
    resident = trained(*settings, precision=precision, scheme=scheme, epochs=1)
    assert sizes == []
    monkeypatch.setenv("DISTILL_DEVICE_BYTES", "0")
    on_host = trained(*settings, precision=precision, scheme=scheme, epochs=1)
    assert 0 < max(sizes) < sum(sizes)
    assert sorted(on_host.waits) == sorted(resident.waits)
    assert_on_gpu(steps, 2 * 2)
