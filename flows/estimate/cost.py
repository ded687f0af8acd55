"""Cost of a plan: GPU-hours at a measured rate, and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distill_core.config.schema import RunConfig
from flows import units
from flows.estimate.workload import Plan

SHARD_SECONDS = (300, 900)  # short enough to lose a shard, long enough for its overhead
PASSES = {"relabel": 0.5, "training": 1.5}  # in image-iterations: 1 and 3 of recover's 2 passes


@dataclass(frozen=True)
class Cost:
    """The cost of a plan at a given speed of one GPU."""

    rate: float  # image-iterations per second
    squeeze_hours: float | None  # None: the training split is not known yet
    recover_hours: float
    relabel_hours: float
    posttrain_hours: float
    shard_seconds: float  # of the longest shard
    ipc_range: int  # recommended images per class in one shard
    price: float | None = None  # USD per GPU-hour

    @property
    def hours(self) -> float:
        """Return the GPU-hours of all stages; without squeeze if those are not known."""
        later = self.recover_hours + self.relabel_hours + self.posttrain_hours
        return later + (self.squeeze_hours or 0.0)

    @property
    def usd(self) -> float | None:
        """Return the price of all stages."""
        return None if self.price is None else self.price * self.hours


def cost(
    plan: Plan,
    *,
    steps: int,
    rate: float,
    label_rate: float | None = None,
    price: float | None = None,
) -> Cost:
    """Return the cost of a plan.

    Args:
        plan: of one run.
        steps: optimisation steps of recover.
        rate: measured image-iterations per second of one GPU on this config.
        label_rate: views of one image per second; None: estimated with `PASSES`.
        price: USD per GPU-hour.
    """
    per_view = 1 / label_rate if label_rate else PASSES["relabel"] / rate
    return Cost(
        rate=rate,
        squeeze_hours=None
        if plan.teacher_images is None
        else PASSES["training"] * plan.teacher_images / rate / 3600,
        recover_hours=plan.image_iterations / rate / 3600,
        relabel_hours=per_view * plan.views / 3600,
        posttrain_hours=PASSES["training"] * plan.student_images / rate / 3600,
        shard_seconds=plan.images_per_shard * steps / rate,
        ipc_range=_ipc_range(plan, steps, rate),
        price=price,
    )


def cost_at(
    plan: Plan, config: RunConfig, rates: Mapping[str, float], *, price: float | None
) -> Cost | None:
    """Return the cost of a plan at measured rates; None without the rate of recover.

    Args:
        plan: of one run.
        config: of that run.
        rates: ``recover``: image-iterations, ``relabel``: views of one image, per second of a GPU.
        price: USD per GPU-hour.
    """
    if not rates.get("recover"):
        return None
    return cost(
        plan,
        steps=config.recover.steps * config.recover.passes,
        rate=rates["recover"],
        label_rate=rates.get("relabel"),
        price=price,
    )


def to_json(plan: Plan, cost: Cost | None) -> dict[str, Any]:
    """Return plan and cost as a JSON-able tree."""
    tree = asdict(plan)
    if cost is not None:
        tree["cost"] = asdict(cost) | {"hours": cost.hours, "usd": cost.usd}
    return tree


def lines(plan: Plan, cost: Cost | None) -> list[tuple[str, str]]:
    """Return (quantity, amount) pairs for the terminal."""
    images = f"{plan.images:,} = {plan.classes:,} classes x {plan.ipc} images per class"
    work = [
        ("images", images),
        (
            "class shards",
            f"{plan.shards:,}, up to {plan.images_per_shard:,} images each",
        ),
        ("batches", f"{plan.batches:,}"),
        ("recover", f"{plan.image_iterations:,} image-iterations"),
        (
            "relabel",
            f"{plan.views:,} views in {plan.label_shards:,} shards ({plan.scheme})",
        ),
        (
            "post-train",
            f"{plan.students:,} students, {plan.student_images:,} images seen",
        ),
        *([("rounds", _rounds(plan))] if plan.rounds else []),
        ("validate", _validation(plan)),
        ("image bytes", f"about {units.size(plan.image_bytes)}, every set"),
        ("label bytes", f"about {units.size(plan.label_bytes)}, every set"),
    ]
    return work if cost is None else work + _cost_lines(cost)


def _rounds(plan: Plan) -> str:
    ends = ", ".join(f"{shards:,}" for shards in plan.rounds)
    selection = (
        f"; {plan.selection_shards:,} selection shards each" if plan.selection_shards else ""
    )
    return f"{1 + len(plan.rounds)}, a student after {ends} class shards{selection}"


def _validation(plan: Plan) -> str:
    match plan.validation_shards:
        case None:
            return "not known until the test split is ingested or is on this machine"
        case 0:
            return "within post-train: the test split fits one shard"
        case shards:
            return f"{shards:,} shards"


def _cost_lines(cost: Cost) -> list[tuple[str, str]]:
    low, high = SHARD_SECONDS
    verdict = "as recommended" if low <= cost.shard_seconds <= high else "is recommended"
    result = [
        (
            "GPU-hours",
            f"{cost.hours:,.2f} at {cost.rate:,.0f} image-iterations/s, without start-up",
        ),
        ("  squeeze", _squeeze(cost)),
        ("  recover", _hours(cost.recover_hours)),
        ("  relabel", _hours(cost.relabel_hours)),
        (
            "  post-train",
            f"{_hours(cost.posttrain_hours)} (rough: three passes where recover has two)",
        ),
        (
            "one shard",
            f"{units.duration(cost.shard_seconds)} ({low // 60}-{high // 60} min {verdict})",
        ),
        ("recommended", f"recover.ipc_range={cost.ipc_range}"),
    ]
    return result if cost.usd is None else [*result, ("price", f"{cost.usd:,.2f} USD")]


def _squeeze(cost: Cost) -> str:
    if cost.squeeze_hours is None:
        return "not included: the training split is not on this machine"
    return f"{_hours(cost.squeeze_hours)} (rough, as post-train)" if cost.squeeze_hours else "none"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"


def _ipc_range(plan: Plan, steps: int, rate: float) -> int:
    """Return the images per class with which a shard takes a time within `SHARD_SECONDS`."""
    seconds = plan.classes_per_shard * max(steps, 1) / rate  # for one image per class
    return max(1, min(plan.ipc, round(sum(SHARD_SECONDS) / 2 / seconds)))
