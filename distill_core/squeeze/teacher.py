"""Squeeze: train a teacher on real images, or import one from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import torch
from torch import nn

from distill_core.config.fields import Precision
from distill_core.config.schema import RunConfig
from distill_core.config.training import ImportConfig, SqueezeConfig
from distill_core.data.real_images import RealImages
from distill_core.errors import ConfigError, DataError
from distill_core.evaluation.accuracy import Accuracy
from distill_core.models.build import head_name
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.hub_config import check_hub_config
from distill_core.models.importing import Fate, fit_network, read_description, read_weights
from distill_core.models.spec import TeacherSpec, check_description
from distill_core.models.teacher import FrozenTeacher
from distill_core.progress import Notice, ignore_notice
from distill_core.seeds import derive_seed
from distill_core.squeeze.judging import judge_import
from distill_core.squeeze.outputs import count_outputs, places_of, statistics_file, take_outputs
from distill_core.storage.statistics_files import OF_TEACHER
from distill_core.training.checkpoint import pack_state, restore
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import StreamedSplit, fits, source_of
from distill_core.training.supervised import Labelled, TrainState, evaluate, train_epoch

EVALUATIONS = 20  # points of the accuracy curve, about
Point = Mapping[str, float]  # epoch, lr, loss, and top1 where it was measured


@dataclass(frozen=True)
class SqueezedTeacher:
    """A teacher, its accuracy and its training curve."""

    files: dict[str, bytes]  # by suffix: safetensors and json
    accuracy: Accuracy  # on the test split, percent
    curve: tuple[Point, ...]
    judged: bool = True  # False: there were no test images, and `accuracy` is zero

    def frozen(self, *, device: str = "cpu", precision: Precision = "float32") -> FrozenTeacher:
        """Return the teacher as the later stages use it.

        Args:
            device: where it computes.
            precision: of its convolutions.
        """
        weights, spec = self.files["safetensors"], self.files["json"]
        return load_teacher(weights, spec, device=device, precision=precision)


def train_or_import(
    real: RealImages,
    test: Labelled,
    *,
    run: RunConfig,
    class_hash: str,
    classes: Sequence[str] = (),
    start: nn.Module | None = None,
    runtime: TrainingRuntime = TrainingRuntime(),
) -> SqueezedTeacher:
    """Import the teacher of a run where its config names a checkpoint, else train it.

    Training sets the intra-op threads of this process to those of the config, because they decide
    how float32 rounds.

    Args:
        real: the training images; read only to train.
        test: images on which its accuracy is measured.
        run: the run, as if this teacher were its only one.
        class_hash: identity of the label space.
        classes: names of the classes by id, see `import_teacher`.
        start: network whose weights training starts from, see `train_teacher`.
        runtime: device, processes and checkpoints.

    Raises:
        ConfigError: the checkpoint is missing, cannot be read as finite weights, or is of another
            network, class list or normalisation.
        DivergedError: the loss stopped being finite.
    """
    training = run.squeeze.training
    if training is None or run.squeeze.checkpoint is not None:
        return import_teacher(
            test,
            run=run,
            class_hash=class_hash,
            classes=classes,
            device=runtime.device,
            notice=runtime.notice,
        )
    torch.set_num_threads(training.threads or run.threads)
    train = training_images(real, side=run.data.side, runtime=runtime)
    return train_teacher(train, test, run=run, class_hash=class_hash, start=start, runtime=runtime)


def training_images(
    real: RealImages, *, side: int, runtime: TrainingRuntime
) -> Labelled | StreamedSplit:
    """Return the training images in memory, or read again in every epoch where they do not fit."""
    if fits(len(real.labels), side, device=runtime.device):
        return Labelled(real.resident(), real.labels)
    return StreamedSplit(real.at, real.labels)


def train_teacher(
    train: Labelled | StreamedSplit,
    test: Labelled,
    *,
    run: RunConfig,
    class_hash: str,
    start: nn.Module | None = None,
    runtime: TrainingRuntime = TrainingRuntime(),
) -> SqueezedTeacher:
    """Train the teacher of a run; an interrupted training goes on after its last whole epoch.

    Every draw is named by (seed, purpose, epoch or step): an interrupted and resumed training ends
    with the bytes of an undisturbed one, on the same kind of device and as many threads. With
    several processes, all call this; batch norm sees the part of a batch that each process has, and
    the running statistics are those of the main one, whose result counts.

    Args:
        train: training images; the teacher is the same whether they are in memory or streamed.
        test: images on which its accuracy is measured.
        run: its seed, precision, normalisation, network and training.
        class_hash: identity of the label space.
        start: the same network over the first of the classes, whose weights training starts from;
            None: weights drawn from the seed.
        runtime: device, processes and checkpoints, of which one is kept after every epoch.

    Raises:
        DivergedError: the loss stopped being finite.
    """
    training, device, world = run.squeeze.training, runtime.device, runtime.world
    assert training is not None
    train_state = TrainState.start(run, training, device=device, weights=start)
    curve = _resume(train_state, runtime)
    model, source = world.wrap(train_state.model), source_of(train, device=device)
    gpus = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for epoch in range(len(curve), training.epochs):
            torch.manual_seed(derive_seed(run.seed, "squeeze", "dropout", epoch, world.rank))
            point = train_epoch(
                model, train_state, source, epoch=epoch, world=world, progress=runtime.progress
            )
            if _is_evaluated(epoch, training.epochs):
                accuracy = evaluate(train_state.model, test, run, device=device, world=world)
                point["top1"] = accuracy.top1
            curve.append(point)
            if runtime.checkpoints is not None:
                state = partial(
                    pack_state, train_state.model, train_state.optimizer, meta={"curve": curve}
                )
                runtime.checkpoints.save(len(curve), state)
    accuracy = evaluate(train_state.model.float(), test, run, device=device, world=world)
    return _finish(train_state.model, accuracy, curve, run=run, class_hash=class_hash)


def import_teacher(
    test: Labelled,
    *,
    run: RunConfig,
    class_hash: str,
    classes: Sequence[str] = (),
    device: str = "cpu",
    notice: Notice = ignore_notice,
) -> SqueezedTeacher:
    """Import the teacher of a run from `squeeze.checkpoint`, and measure its accuracy.

    Args:
        test: images on which its accuracy is measured.
        run: names the file, the network it holds, the class count and the normalisation.
        class_hash: identity of the label space; compared where a description stands beside a file.
        classes: names of the classes by id; read only if the file has another label space, or
            statistics of its classes, which are left out without names.
        device: where its accuracy is measured.
        notice: receives a sentence about what was chosen from the file or left out.

    Raises:
        ConfigError: no such file, or it is of another network, class list or normalisation, or its
            accuracy shows that it is not a teacher of these classes in this order.
            It is also raised for a file that cannot be read as finite weights: the file is what
            the config names, and another attempt would read the same bytes.
    """
    url = run.squeeze.checkpoint
    assert url is not None
    config, data = run.squeeze.imported or ImportConfig(), run.data
    try:
        if (description := read_description(url)) is not None:
            check_description(description, run, class_hash=class_hash, where=url)
        outputs = count_outputs(config, data.num_classes)
        check_hub_config(url, run, outputs=outputs)
        network = fit_network(
            read_weights(url, config.entry),
            run.squeeze.model,
            num_classes=outputs,
            where=url,
            statistics=_fate(config, run),
            notice=notice,
        )
        places = places_of(config, data, classes, where=url)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if places:
        take_outputs(network.model, places)
    model, accuracy = network.model.float().to(device), None
    if len(test.labels) > 0:
        judge_import(model, test, run=run, device=device, where=url)
        accuracy = evaluate(model, test, run, device=device)
    teacher = _finish(model, accuracy, (), run=run, class_hash=class_hash)
    if network.statistics and classes:
        teacher.files[OF_TEACHER] = statistics_file(network.statistics, places, classes)
    return teacher


def _fate(config: ImportConfig, run: RunConfig) -> Fate:
    """Return what an import does with the statistics of classes that a checkpoint may have."""
    if not config.class_statistics:
        return "left_out"
    return "used" if "batch_norms" in run.recover.measured else "kept"


def _resume(train_state: TrainState, runtime: TrainingRuntime) -> list[Point]:
    """Restore the furthest checkpoint; return the curve so far, a point per epoch."""
    restored = restore(
        runtime.checkpoints,
        train_state.model,
        train_state.optimizer,
        read=lambda meta: list[Point](meta["curve"]),
        notice=runtime.notice,
    )
    return [] if restored is None else restored[1]


def _is_evaluated(epoch: int, epochs: int) -> bool:
    """Return whether the accuracy curve has a point after an epoch that is not the last."""
    return (epoch + 1) % -(-epochs // EVALUATIONS) == 0 and epoch + 1 < epochs


def _finish(
    model: nn.Module,
    accuracy: Accuracy | None,
    curve: Sequence[Point],
    *,
    run: RunConfig,
    class_hash: str,
) -> SqueezedTeacher:
    """Describe a teacher that was evaluated as it is stored: in float32, whatever trained it.

    Without test images it was not evaluated, and its accuracy is stored as unknown.
    """
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    spec = TeacherSpec(
        model=run.squeeze.model,
        num_classes=run.data.num_classes,
        class_hash=class_hash,
        mean=run.data.mean,
        std=run.data.std,
        side=run.data.side,
        features=head.in_features,
        accuracy=None if accuracy is None else accuracy.top1,
        origin=_origin(run.squeeze),
        label_space=run.data.label_space,
    )
    files = teacher_files(model, spec)
    if accuracy is None:
        return SqueezedTeacher(files, Accuracy(0.0, 0.0), tuple(curve), judged=False)
    last = [{**point, "top1": accuracy.top1} for point in curve[-1:]]
    return SqueezedTeacher(files, accuracy, (*curve[:-1], *last))


def _origin(config: SqueezeConfig) -> str:
    if config.checkpoint is not None:
        return PurePosixPath(config.checkpoint).name
    return "trained" if config.start is None else "fine-tuned"
