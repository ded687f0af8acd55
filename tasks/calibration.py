"""Calibration: the speed of this hardware on a config, measured with a teacher of random weights.

Time depends on shapes and not on values, so neither the data nor a trained teacher is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from distill_core.config.recovery import RecoverConfig
from distill_core.config.schema import RunConfig
from distill_core.config.training import TrainingConfig
from distill_core.data.detection.speed import reading_rates
from distill_core.environment import set_backend_flags
from distill_core.errors import ClusterError
from tasks.execution import Execution
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.provider import PoolProvider

if TYPE_CHECKING:
    from distill_core.models.teacher import FrozenTeacher
    from distill_core.sharding import Batch
    from distill_core.storage.statistics_files import Expected

STEPS = 10  # of the first, short measurement; the second takes as many as fit into SECONDS
SECONDS = 5.0  # of one measurement, about
VIEWS = 3
PASSES = 3  # over a batch, through a network


def calibrate(config: RunConfig, execution: Execution) -> dict[str, float]:
    """Measure one worker in the place where the run would start its workers.

    Returns:
        Per second of a worker: ``recover``: image-iterations; ``relabel``: views of one image;
        ``train``: images through a training step of the first teacher; ``forward``: images through
        it. Per second of one CPU core: ``decode``: real images fetched and decoded; ``check``:
        likewise, as ingestion does. What the config does not do, or cannot read, is left out.

    Raises:
        ClusterError: the worker was lost, or there is no cluster.
        ConfigError: the cluster cannot hold it.
    """
    spec = WorkerSpec(
        "tasks.calibration:CalibrationWorker",
        {"run": config.model_dump_json(), "device": execution.device},
    )
    job = Job("calibration", "calibration", None)
    with PoolProvider(execution) as pools:
        result = dispatch([job], pools.pool(spec, jobs=1), policy=execution.policy())
    for failure in result.failed.values():
        raise failure.error
    if not result.receipts:
        raise ClusterError("calibration: no worker answered. Check the cluster, then try again.")
    return result.receipts[0].summary


class CalibrationWorker:
    """Times what the stages do on one batch, and on a sample of the real images."""

    def __init__(self, *, run: str, device: str) -> None:
        self._config = RunConfig.model_validate_json(run)
        self._device = device

    def run(self, job: Job[Any]) -> Receipt:
        """Return the rates in the receipt's summary."""
        import torch

        torch.set_num_threads(self._config.threads)
        set_backend_flags()
        teacher, batch = self._teacher(), self._batch()
        rates = {
            "recover": self._recover(teacher, batch),
            "relabel": self._relabel(teacher, batch),
            "forward": self._forward(teacher, len(batch)),
        }
        if self._config.squeeze.training is not None:
            rates["train"] = self._train(self._config.squeeze.training, len(batch))
        return Receipt(job.key, job.shard, summary=rates | reading_rates(self._config.data))

    def _recover(self, teacher: FrozenTeacher, batch: Batch) -> float:
        """Return image-iterations per second, without the time spent once per batch."""
        if not self._config.recover.steps:
            return 0.0
        self._optimise(teacher, batch, 2)  # warm-up: memory and caches
        one_step = self._optimise(teacher, batch, 1)
        few_steps = self._optimise(teacher, batch, 1 + STEPS)
        per_step = max(few_steps - one_step, 1e-6) / STEPS
        steps = max(STEPS, min(self._config.recover.steps, round(SECONDS / per_step)))
        many_steps = self._optimise(teacher, batch, 1 + steps)
        return len(batch) * steps / max(many_steps - one_step, 1e-9)

    def _optimise(self, teacher: FrozenTeacher, batch: Batch, steps: int) -> float:
        """Return the seconds that a number of steps on one batch take."""
        from distill_core.recover.optimise import recover_batch
        from distill_core.recover.setup import RecoverySetup

        config = self._config.recover.model_copy(
            update={
                "steps": steps,
                "init": "gaussian",
                "segments": (),
                "committee": None,  # each of its members would be another pass
            }
        )
        since = time.perf_counter()
        student = teacher if config.needs_student else None
        setup = RecoverySetup(config, [teacher], self._config.seed, student)
        recover_batch(batch, setup, real=[_of_noise(config, teacher, batch)])
        return time.perf_counter() - since

    def _relabel(self, teacher: FrozenTeacher, batch: Batch) -> float:
        """Return views of one image per second."""
        import numpy as np

        from distill_core.labels.relabel import relabel_shard
        from distill_core.storage.image_shards import ImageRows

        side = self._config.data.side
        rows = ImageRows(batch, np.zeros((len(batch), 3, side, side), np.uint8))

        def seconds_for(count: int) -> float:
            since = time.perf_counter()
            relabel_shard(
                rows,
                range(count),
                config=self._config.relabel,
                teacher=teacher,
                seed=self._config.seed,
            )
            return time.perf_counter() - since

        first, many = seconds_for(1), seconds_for(1 + VIEWS)
        return len(batch) * VIEWS / max(many - min(first, seconds_for(1)), 1e-9)

    def _forward(self, teacher: FrozenTeacher, count: int) -> float:
        """Return images per second through a network, without gradients."""
        import torch

        side = self._config.data.side
        weight = teacher.head.weight
        images = torch.zeros(count, 3, side, side, device=weight.device, dtype=weight.dtype)

        def forward() -> float:
            return float(teacher(images).logits.sum())  # waits for the device

        return count / _seconds(forward)

    def _train(self, training: TrainingConfig, count: int) -> float:
        """Return images per second of training steps of the first teacher."""
        import torch

        from distill_core.training.epochs import BatchParts, train_step
        from distill_core.training.runtime import TrainingRuntime
        from distill_core.training.supervised import TrainState

        data = self._config.data
        alone = training.model_copy(update={"processes": 1})
        state = TrainState.start(self._config.of_teacher(0), alone, device=self._device)
        images = torch.zeros(count, 3, data.side, data.side, device=self._device)
        labels = torch.zeros(count, dtype=torch.int64, device=self._device)
        parts = BatchParts.of(alone, TrainingRuntime(self._device))
        state.model.train()

        def step() -> float:
            return float(train_step(state.model, state, images, labels, parts, size=count))

        return count / _seconds(step)

    def _batch(self) -> Batch:
        """Return the first batch of the run's plan."""
        from distill_core.sharding import ClassEntry, plan_shards

        config = self._config.recover
        names = range(self._config.data.num_classes)
        shards = plan_shards(
            [ClassEntry(number, f"class_{number}") for number in names],
            ipc=min(self._config.ipc, config.ipc_range),
            ipc_range=config.ipc_range,
            batch_size=config.batch_size,
            composition=config.composition,
        )
        return shards[0].batches[0]

    def _teacher(self) -> FrozenTeacher:
        """Return an untrained teacher of the config's shape."""
        from distill_core.loading import teacher_from_module
        from distill_core.models.build import build_model

        data, network = self._config.data, self._config.squeeze.model
        return teacher_from_module(
            build_model(network, data.num_classes, seed=self._config.seed),
            side=data.side,
            mean=data.mean,
            std=data.std,
            network=network,
            device=self._device,
            precision=self._config.precision,
        )


def _seconds(work: Callable[[], float]) -> float:
    """Return the seconds of some work, the median of a few times after a first one."""
    work()
    taken = []
    for _ in range(PASSES):
        since = time.perf_counter()
        work()
        taken.append(time.perf_counter() - since)
    return max(median(taken), 1e-9)


def _of_noise(config: RecoverConfig, teacher: FrozenTeacher, batch: Batch) -> Expected:
    """Return class statistics measured on noise, in place of real images of each class."""
    import numpy as np

    from distill_core.selection.class_images import ClassImages
    from distill_core.statistics.measure import MeasureSetup, measure_for_terms
    from distill_core.storage.statistics_files import decode_statistics, encode_statistics, pooled

    shape = (2, 3, teacher.spec.side, teacher.spec.side)
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    images = ClassImages(lambda label: np.arange(len(noise)), lambda rows: noise[rows])
    setup = MeasureSetup(config, teacher, scorer=teacher, seed=0)
    statistics = measure_for_terms(0, "noise", images, setup)
    wnids = sorted({image.wnid for image in batch})
    block = decode_statistics(encode_statistics(wnids, [statistics] * len(wnids)))
    return block.of(batch, config, pooled([statistics]))
