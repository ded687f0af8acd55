"""Squeeze: training, exact resumption after a kill, and import of teachers from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, DivergedError
from distill_core.models.files import load_model, load_teacher
from distill_core.models.spec import TeacherSpec, check_start
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.squeeze.importing import import_teacher
from distill_core.squeeze.teacher import train_teacher
from distill_core.training.distributed import DistributedContext
from distill_core.training.epochs import BatchParts, train_step
from distill_core.training.random_streams import RandomStreams
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.supervised import Resident, TrainState, evaluate
from tests.support.killed import Killed, MemoryCheckpoints
from tests.support.teacher_training import TEST, TRAIN, TREE, run


def test_a_trained_teacher_is_accurate_and_described() -> None:
    config = run(training={"epochs": 8, "augment": {"pad_crop": 1}})
    seen: list[tuple[int, int]] = []
    squeezed = train_teacher(
        TRAIN,
        TEST,
        run=config,
        class_hash="ab",
        runtime=TrainingRuntime(progress=lambda done, total: seen.append((done, total))),
    )
    assert squeezed.accuracy.top1 > 80
    assert seen == [(step, 24) for step in range(1, 25)]  # three batches in each of eight epochs
    assert [point["epoch"] for point in squeezed.curve] == list(range(1, 9))
    assert squeezed.curve[-1]["loss"] < squeezed.curve[0]["loss"]
    assert squeezed.curve[-1]["top1"] == squeezed.accuracy.top1
    spec = TeacherSpec.from_json(squeezed.files["json"])
    assert (spec.num_classes, spec.features, spec.side, spec.origin) == (3, 32, 16, "trained")
    assert spec.accuracy == squeezed.accuracy.top1


def test_the_files_hold_the_trained_network_with_its_running_statistics() -> None:
    squeezed = train_teacher(TRAIN, TEST, run=run(), class_hash="ab")
    teacher = load_teacher(squeezed.files["safetensors"], squeezed.files["json"])

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = teacher

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.teacher(x).logits
            return logits

    assert evaluate(Logits(), TEST, run(), device="cpu") == squeezed.accuracy
    seen = teacher(torch.zeros(1, 3, 16, 16), statistics=True).statistics
    assert not torch.equal(seen[0].running_mean, torch.zeros(4))


@pytest.mark.parametrize("model", ["resnet18_small", "mobilenet_v2"])  # the second has dropout
@pytest.mark.parametrize("killed", [1, 2])
def test_a_killed_and_resumed_training_gives_the_same_bytes(model: str, killed: int) -> None:
    optimizer = {"name": "sgd", "lr": 0.05, "weight_decay": 1e-4}
    config = run(model=model, training={"optimizer": optimizer})
    undisturbed = train_teacher(TRAIN, TEST, run=config, class_hash="ab")
    checkpoints = MemoryCheckpoints(dies_after=killed)
    with pytest.raises(Killed):
        train_teacher(
            TRAIN,
            TEST,
            run=config,
            class_hash="ab",
            runtime=TrainingRuntime(checkpoints=checkpoints),
        )
    torch.manual_seed(123)
    checkpoints.dies_after = None
    resumed = train_teacher(
        TRAIN, TEST, run=config, class_hash="ab", runtime=TrainingRuntime(checkpoints=checkpoints)
    )
    assert resumed == undisturbed
    assert list(checkpoints.kept) == [1, 2, 3]


def test_adam_resumes_bit_for_bit() -> None:
    config = run(training={"optimizer": {"name": "adamw", "lr": 0.01}, "nesterov": False})
    checkpoints = MemoryCheckpoints(dies_after=1)
    with pytest.raises(Killed):
        train_teacher(
            TRAIN,
            TEST,
            run=config,
            class_hash="ab",
            runtime=TrainingRuntime(checkpoints=checkpoints),
        )
    resumed = train_teacher(
        TRAIN,
        TEST,
        run=config,
        class_hash="ab",
        runtime=TrainingRuntime(checkpoints=MemoryCheckpoints(kept=checkpoints.kept)),
    )
    assert resumed == train_teacher(TRAIN, TEST, run=config, class_hash="ab")


def test_a_finished_training_is_not_repeated() -> None:
    checkpoints = MemoryCheckpoints()
    first = train_teacher(
        TRAIN, TEST, run=run(), class_hash="ab", runtime=TrainingRuntime(checkpoints=checkpoints)
    )
    checkpoints.dies_after = 3
    again = train_teacher(
        TRAIN, TEST, run=run(), class_hash="ab", runtime=TrainingRuntime(checkpoints=checkpoints)
    )
    assert again == first


def test_a_training_follows_its_seed_and_leaves_the_global_generator_unchanged() -> None:
    config = run(training={"epochs": 1})
    before = torch.get_rng_state()
    first = train_teacher(TRAIN, TEST, run=config, class_hash="ab")
    assert torch.equal(torch.get_rng_state(), before)
    other = train_teacher(TRAIN, TEST, run=run(training={"epochs": 1}, seed=1), class_hash="ab")
    assert first.files["safetensors"] != other.files["safetensors"]


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions_train_and_store_float32(precision: str) -> None:
    config = run(training={"epochs": 1}, precision=precision)
    squeezed = train_teacher(TRAIN, TEST, run=config, class_hash="ab")
    teacher = load_teacher(squeezed.files["safetensors"], squeezed.files["json"])
    assert all(p.dtype == torch.float32 for p in teacher.parameters())
    assert np.isfinite(squeezed.curve[0]["loss"])


def test_a_diverged_training_raises_a_diverged_error() -> None:
    config = run(training={"optimizer": {"name": "sgd", "lr": 1e30}, "schedule": {}})
    with pytest.raises(DivergedError, match=r"epoch 1 is (nan|inf), expected a finite number"):
        train_teacher(TRAIN, TEST, run=config, class_hash="ab")


def test_images_of_a_batch_are_the_same_however_it_is_shared() -> None:
    config, source = run(), Resident.of(TRAIN, device="cpu")
    rows = np.arange(15)[::-1].copy()
    whole, labels = source.batch(rows, config, step=4, share=DistributedContext().share(15))
    parts = [
        source.batch(rows, config, step=4, share=DistributedContext(r, 2).share(15)) for r in (0, 1)
    ]
    torch.testing.assert_close(torch.cat([images for images, _ in parts]), whole)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_gradients_of_unequal_parts_average_to_that_of_the_whole_batch() -> None:
    config = run(precision="float64")
    training = config.squeeze.training
    assert training is not None
    train_state = TrainState.start(config, training, device="cpu")
    train_state.model.eval()  # batch norm sees the part of a process, as documented
    images, labels = Resident.of(TRAIN, device="cpu").batch(
        np.arange(15), config, step=0, share=slice(None)
    )

    def gradient(mine: slice, parts: BatchParts) -> Tensor:
        for group in train_state.optimizer.param_groups:
            group["lr"] = 0.0
        train_step(train_state.model, train_state, images[mine], labels[mine], parts, size=15)
        return torch.cat(
            [p.grad.flatten() for p in train_state.model.parameters() if p.grad is not None]
        )

    def parts(count: int, world: DistributedContext = DistributedContext()) -> BatchParts:
        mine = world.parts(count)
        streams = RandomStreams("cpu", len(mine))
        streams.seed(mine)
        return BatchParts(count, mine, world, streams)

    whole = gradient(slice(None), parts(1))
    worlds = [DistributedContext(rank, 2) for rank in (0, 1)]
    halves = [gradient(world.share(15), parts(2, world)) for world in worlds]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)
    torch.testing.assert_close(gradient(slice(None), parts(4)), whole)


def exported(folder: Path) -> tuple[Path, RunConfig]:
    """Train a teacher and write its two files; return the weights and a run that imports them."""
    for suffix, data in train_teacher(TRAIN, TEST, run=run(), class_hash="ab").files.items():
        (folder / f"teacher.{suffix}").write_bytes(data)
    weights = folder / "teacher.safetensors"
    return weights, run(squeeze={"checkpoint": str(weights), "training": None})


def test_an_exported_teacher_is_imported_unchanged(tmp_path: Path) -> None:
    weights, importing = exported(tmp_path)
    taken = import_teacher(TEST, run=importing, class_hash="ab")
    assert taken.files["safetensors"] == weights.read_bytes()
    spec = TeacherSpec.from_json(taken.files["json"])
    assert spec.origin == "teacher.safetensors"
    assert spec.accuracy == taken.accuracy.top1
    assert taken.curve == ()


def test_an_import_that_contradicts_its_description_is_refused(tmp_path: Path) -> None:
    _, importing = exported(tmp_path)
    with pytest.raises(ConfigError, match="class list is ab, the dataset's is cd"):
        import_teacher(TEST, run=importing, class_hash="cd")
    data = importing.data.model_copy(update={"mean": (0.1, 0.1, 0.1)})
    with pytest.raises(ConfigError, match=r"trained with mean \(0\.5, 0\.5, 0\.5\)"):
        import_teacher(TEST, run=importing.model_copy(update={"data": data}), class_hash="ab")
    model = importing.squeeze.model.model_copy(update={"width": 8})
    squeeze = importing.squeeze.model_copy(update={"model": model})
    with pytest.raises(ConfigError, match=r"resnet18_small-w4, but squeeze\.model is .*-w8"):
        import_teacher(TEST, run=importing.model_copy(update={"squeeze": squeeze}), class_hash="ab")


def test_weights_without_a_description_are_described_by_the_config(tmp_path: Path) -> None:
    weights, importing = exported(tmp_path)
    weights.with_suffix(".json").unlink()
    spec = TeacherSpec.from_json(import_teacher(TEST, run=importing, class_hash="cd").files["json"])
    assert spec.class_hash == "cd"
    data = importing.data.model_copy(update={"num_classes": 4})
    with pytest.raises(ConfigError, match="has 3 classes, the dataset has 4"):
        import_teacher(TEST, run=importing.model_copy(update={"data": data}), class_hash="cd")


def teacher_of(*, training: dict[str, Any] | None = None) -> tuple[nn.Module, TeacherSpec]:
    """Return the network of a teacher of three classes, and its description."""
    files = train_teacher(TRAIN, TEST, run=run(training=training or {}), class_hash="ab").files
    spec = TeacherSpec.from_json(files["json"])
    return load_model(files["safetensors"], spec, where="here"), spec


def grown(**training: Any) -> RunConfig:
    """Return a run over five classes, the first three of them known."""
    data = TREE["data"] | {"num_classes": 5}
    return run(data=data, squeeze={"start": "0" * 32}, training=training)


def test_a_larger_head_keeps_the_rows_of_known_classes() -> None:
    old, _ = teacher_of()
    config = grown()
    assert config.squeeze.training is not None
    fresh = TrainState.start(config, config.squeeze.training, device="cpu").model.state_dict()
    train_state = TrainState.start(config, config.squeeze.training, device="cpu", weights=old)
    for name, tensor in train_state.model.state_dict().items():
        known = old.state_dict()[name]
        if not name.startswith("fc."):
            assert torch.equal(tensor, known)
            continue
        assert torch.equal(tensor[:3], known)
        assert torch.equal(tensor[3:], fresh[name][3:])
        assert not torch.equal(tensor[:3], fresh[name][:3])


def test_fine_tuning_starts_from_the_weights_of_the_other_training() -> None:
    old, _ = teacher_of(training={"epochs": 8, "augment": {"pad_crop": 1}})
    brief = {"epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-3}, "schedule": {}}
    tuned = train_teacher(TRAIN, TEST, run=grown(**brief), class_hash="cd", start=old)
    fresh = train_teacher(TRAIN, TEST, run=grown(**brief), class_hash="cd")
    assert tuned.accuracy.top1 > fresh.accuracy.top1 + 20
    spec = TeacherSpec.from_json(tuned.files["json"])
    assert (spec.num_classes, spec.class_hash, spec.origin) == (5, "cd", "fine-tuned")


def test_a_killed_fine_tuning_resumes_with_the_same_bytes() -> None:
    old, _ = teacher_of()
    checkpoints = MemoryCheckpoints(dies_after=1)
    with pytest.raises(Killed):
        train_teacher(
            TRAIN,
            TEST,
            run=grown(),
            class_hash="cd",
            start=old,
            runtime=TrainingRuntime(checkpoints=checkpoints),
        )
    checkpoints.dies_after = None
    resumed = train_teacher(
        TRAIN,
        TEST,
        run=grown(),
        class_hash="cd",
        start=old,
        runtime=TrainingRuntime(checkpoints=checkpoints),
    )
    assert resumed == train_teacher(TRAIN, TEST, run=grown(), class_hash="cd", start=old)


def test_training_starts_only_from_the_same_network_over_the_first_classes() -> None:
    classes = tuple(ClassEntry(n, f"c{n}") for n in range(5))
    _, spec = teacher_of()
    spec = spec.model_copy(update={"class_hash": class_list_hash(classes[:3])})
    check_start(spec, grown(), classes, where="here")
    with pytest.raises(ConfigError, match="here: the teacher's 3 classes are not the first of"):
        check_start(spec, grown(), classes[::-1], where="here")
    with pytest.raises(ConfigError, match="not the first of the dataset's 2"):
        check_start(spec, grown(), classes[:2], where="here")
    model = spec.model.model_copy(update={"width": 8})
    with pytest.raises(ConfigError, match=r"is a resnet18_small-w8, but squeeze\.model is .*-w4"):
        check_start(spec.model_copy(update={"model": model}), grown(), classes, where="here")
