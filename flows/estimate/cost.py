"""Cost of a plan: hours of GPUs and of the CPU cores that read images, and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from flows.estimate.counts import Counts
from flows.estimate.passes import ON_CPU, StageWork, Unit, stage_works
from flows.estimate.rates import Rates
from flows.estimate.requests import Requests, requests_of
from flows.estimate.workload import Plan, shards_by_stage

SHARD_SECONDS = (300, 900)  # short enough to lose a shard, long enough for its overhead


@dataclass(frozen=True)
class Machines:
    """The GPUs of a cluster, and the CPU cores that read images for each of them."""

    gpus: int
    cores: int  # per GPU


@dataclass(frozen=True)
class StageCost:
    """The hours of one stage; None: a count or a rate is not known."""

    work: StageWork
    gpu_hours: float | None
    cpu_hours: float | None  # of cores that fetch and decode real images

    @property
    def stage(self) -> str:
        """Return the name of the stage."""
        return self.work.stage

    def hours_on(self, machines: Machines) -> float | None:
        """Return how long the stage takes, with reading and computing at the same time.

        A GPU without a shard is idle, as are its cores.
        """
        if self.gpu_hours is None or self.cpu_hours is None or self.work.most_workers is None:
            return None
        workers = max(1, self.work.most_workers)
        busy = workers / -(-workers // machines.gpus)  # as many rounds as the fullest GPU has
        return max(self.gpu_hours / busy, self.cpu_hours / (busy * machines.cores))


@dataclass(frozen=True)
class Cost:
    """The cost of a plan at given rates."""

    rates: Rates
    stages: Sequence[StageCost]
    shard_seconds: float | None  # of the longest shard of recover; None: its rate is not known
    ipc_range: int | None  # recommended images per class in one shard; likewise
    requests: Requests  # where the dataset and the store are in buckets
    price: float | None = None  # USD per GPU-hour

    @property
    def hours(self) -> float:
        """Return the GPU-hours of the stages whose hours are known."""
        return sum(each.gpu_hours or 0.0 for each in self.stages)

    @property
    def cpu_hours(self) -> float:
        """Return the hours of cores that read real images, as far as they are known."""
        return sum(each.cpu_hours or 0.0 for each in self.stages)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the stages whose GPU-hours are not in the sum."""
        return tuple(each.stage for each in self.stages if each.gpu_hours is None)

    @property
    def usd(self) -> float | None:
        """Return the price of all GPU-hours; None without a price or without hours."""
        return None if self.price is None or not self.hours else self.price * self.hours


@dataclass(frozen=True)
class Estimate:
    """All that is known of a run before it is started."""

    plan: Plan
    counts: Counts
    cost: Cost
    memory: Mapping[str, float]  # bytes of one process by stage; stages may be missing
    machines: Machines | None = None  # on which times are estimated


def cost(
    config: RunConfig, plan: Plan, counts: Counts, rates: Rates, *, price: float | None = None
) -> Cost:
    """Return the cost of a plan.

    Args:
        config: of the run.
        plan: of the same run.
        counts: real images.
        rates: of one GPU, and of one CPU core.
        price: USD per GPU-hour.
    """
    steps = config.recover.steps * config.recover.passes
    shards = shards_by_stage(config, test_images=counts.test)
    works = list(stage_works(config, plan, counts, shards))
    speed = rates.get("iteration")
    return Cost(
        rates=rates,
        stages=[_stage_cost(work, rates) for work in works],
        shard_seconds=None if speed is None else plan.images_per_shard * steps / speed.per_second,
        ipc_range=None if speed is None else _ipc_range(plan, steps, speed.per_second),
        requests=requests_of(config, plan, works),
        price=price,
    )


def _stage_cost(work: StageWork, rates: Rates) -> StageCost:
    return StageCost(
        work,
        gpu_hours=_hours([unit for unit in work.passes if unit not in ON_CPU], work, rates),
        cpu_hours=_hours([unit for unit in work.passes if unit in ON_CPU], work, rates),
    )


def _hours(units: Sequence[Unit], work: StageWork, rates: Rates) -> float | None:
    """Return the hours of some units of a stage; None: a count or a rate is not known."""
    total = 0.0
    for unit in units:
        count, rate = work.passes[unit], rates.get(unit)
        if count is None or rate is None:
            return None
        total += count / rate.per_second / 3600
    return total


def _ipc_range(plan: Plan, steps: int, rate: float) -> int:
    """Return the images per class with which a shard takes a time within `SHARD_SECONDS`."""
    seconds = plan.classes_per_shard * max(steps, 1) / rate  # for one image per class
    return max(1, min(plan.ipc, round(sum(SHARD_SECONDS) / 2 / seconds)))
