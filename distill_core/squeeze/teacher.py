"""Squeeze: train a teacher on real images, or import one from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from distill_core.config.schema import RunConfig
from distill_core.data.decoding.crops import Rendition
from distill_core.data.real_images import RealImages
from distill_core.squeeze.checkpoints import TeacherCheckpoints
from distill_core.squeeze.importing import import_teacher
from distill_core.squeeze.result import SqueezedTeacher, described_teacher
from distill_core.training.epochs import BatchParts, EpochProgress, train_epoch
from distill_core.training.runtime import TrainingRuntime
from distill_core.training.streaming import StreamedSplit, fits, source_of
from distill_core.training.supervised import (
    Labelled,
    Split,
    TrainState,
    evaluate,
)

EVALUATIONS = 20  # points of the accuracy curve, about


def train_or_import(
    real: RealImages,
    test: Split,
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
    train = training_images(real, run, runtime=runtime)
    return train_teacher(train, test, run=run, class_hash=class_hash, start=start, runtime=runtime)


def training_images(
    real: RealImages, run: RunConfig, *, runtime: TrainingRuntime
) -> Labelled | StreamedSplit:
    """Return the training images in memory, or read again in every epoch.

    They are read again where they do not fit, or where every epoch cuts other crops from the whole
    images.
    """
    training = run.squeeze.training
    assert training is not None
    squares = Rendition(scaled=training.decode == "scaled")
    whole = training.crop_from == "image"
    if not whole and fits(len(real.labels), run.data.side, device=runtime.device):
        return Labelled(real.resident(rendition=squares), real.labels)
    return StreamedSplit(
        partial(real.at, rendition=squares),
        real.labels,
        crops_of=lambda places, cuts: real.at(places, replace(squares, crops=cuts)),
        decoders=real.decoders,
    )


def train_teacher(
    train: Labelled | StreamedSplit,
    test: Split,
    *,
    run: RunConfig,
    class_hash: str,
    start: nn.Module | None = None,
    runtime: TrainingRuntime = TrainingRuntime(),
) -> SqueezedTeacher:
    """Train the teacher of a run; an interrupted training goes on from its furthest checkpoint.

    Every draw is named by (seed, purpose, epoch or step): an interrupted and resumed training ends
    with the bytes of an undisturbed one, on the same kind of device and as many threads. With
    several processes, all call this; batch norm sees one of `processes` parts of a batch at a time,
    and the running statistics are those of the first part. Fewer processes than the config has may
    train as well, and go on where another number of them stopped: they see the same images, draws
    and parts, and only the order in which gradients are added up differs.

    Args:
        train: training images; the teacher is the same whether they are in memory or streamed.
        test: images on which its accuracy is measured.
        run: its seed, precision, normalisation, network and training.
        class_hash: identity of the label space.
        start: the same network over the first of the classes, whose weights training starts from;
            None: weights drawn from the seed.
        runtime: device, processes and checkpoints, of which one is kept after every epoch, and
            inside an epoch whenever the interval has passed.

    Raises:
        DivergedError: the loss stopped being finite.
    """
    training, device, world = run.squeeze.training, runtime.device, runtime.world
    assert training is not None
    train_state = TrainState.start(run, training, device=device, weights=start)
    parts = BatchParts.of(training, runtime)
    checkpoints = TeacherCheckpoints(train_state, parts, runtime)
    done = checkpoints.resume()
    curve = checkpoints.curve
    model = world.wrap(train_state.model)
    source = source_of(train, run, device=device)
    gpus = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for epoch in range(len(curve), training.epochs):
            checkpoints.start_epoch(done)
            point = train_epoch(
                model,
                train_state,
                source,
                parts,
                epoch=epoch,
                done=done,
                after_step=checkpoints.after_step,
            )
            done = EpochProgress()
            if _is_evaluated(epoch, training.epochs):
                accuracy = evaluate(train_state.model, test, run, device=device, world=world)
                point["top1"] = accuracy.top1
            curve.append(point)
            checkpoints.save_epoch()
    accuracy = evaluate(train_state.model.float(), test, run, device=device, world=world)
    return described_teacher(train_state.model, accuracy, curve, run=run, class_hash=class_hash)


def _is_evaluated(epoch: int, epochs: int) -> bool:
    """Return whether the accuracy curve has a point after an epoch that is not the last."""
    return (epoch + 1) % -(-epochs // EVALUATIONS) == 0 and epoch + 1 < epochs
