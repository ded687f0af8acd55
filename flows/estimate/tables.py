"""An estimate as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flows import units
from flows.estimate.cost import SHARD_SECONDS, Cost, Estimate, Machines, StageCost
from flows.estimate.counts import Counts
from flows.estimate.passes import ON_CPU, Unit
from flows.estimate.rates import MEASURED_AS
from flows.estimate.requests import USD
from flows.estimate.workload import Plan

NAMES: Mapping[Unit, str] = {
    "iteration": "image-iterations",
    "view": "views",
    "training": "training passes",
    "forward": "forward passes",
    "decode": "real images read",
    "check": "real images read",
    "pack": "real images packed",
}
PER: Mapping[bool, str] = {True: "of one core", False: "of one GPU"}


def lines(plan: Plan, counts: Counts) -> list[tuple[str, str]]:
    """Return (quantity, amount) pairs of the whole run for the terminal."""
    images = f"{plan.images:,} = {plan.classes:,} classes x {plan.ipc} images per class"
    return [
        ("images", images),
        ("real images", _real_images(counts)),
        *([("packs", _packs(plan, counts))] if plan.packed_image_bytes else []),
        ("class shards", f"{plan.shards:,}, up to {plan.images_per_shard:,} images each"),
        ("batches", f"{plan.batches:,}"),
        ("labels", f"{plan.scheme}, in {plan.label_shards:,} shards"),
        ("students", f"{plan.students:,}"),
        *([("rounds", _rounds(plan))] if plan.rounds else []),
        ("image bytes", _bytes(plan.set_image_bytes)),
        ("label bytes", _bytes(plan.set_label_bytes)),
    ]


def cost_lines(cost: Cost) -> list[str]:
    """Return sentences about the sum, the shards and the rates."""
    text: list[str] = []
    if cost.hours:
        left_out = f", without {', '.join(cost.unknown)}" if cost.unknown else ""
        price = "" if cost.usd is None else f"; {cost.usd:,.2f} USD"
        text.append(f"{_hours(cost.hours)} GPU-hours, start-up excluded{left_out}{price}.")
    else:
        text.append("Add --calibrate, or --rate with the speed of a GPU, for GPU-hours.")
    if cost.shard_seconds:
        low, high = (seconds // 60 for seconds in SHARD_SECONDS)
        text.append(
            f"One shard of recover takes {units.duration(cost.shard_seconds)}; for {low} to {high} "
            f"minutes set recover.ipc_range={cost.ipc_range}."
        )
    asked = cost.requests
    text.append(
        f"In buckets about {asked.reads:,} reads and {asked.writes:,} writes: {asked.usd:,.2f} USD "
        f"at {1e6 * USD['reads']:.2f} and {1e6 * USD['writes']:.2f} USD per million."
    )
    for unit, rate in cost.rates.items():
        if any(unit in each.work.passes for each in cost.stages):
            what = "ingested" if unit == "check" else NAMES[unit]
            text.append(
                f"{rate.per_second:,.0f} {what} per second {PER[unit in ON_CPU]}: {rate.source}."
            )
    return text


def stage_rows(estimate: Estimate) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the header and the rows of the table of stages."""
    memory, machines = estimate.memory, estimate.machines
    header = ["stage", "shards", "work", "GPU-hours", "reading, core-hours", "memory a process"]
    rows: list[Sequence[str]] = []
    for each in estimate.cost.stages:
        row = [
            each.stage,
            "not known" if each.work.shards is None else f"{each.work.shards:,}",
            "; ".join(_work(unit, count) for unit, count in each.work.passes.items()),
            _hours(each.gpu_hours),
            _hours(each.cpu_hours),
            f"about {units.size(memory[each.stage])}" if each.stage in memory else "-",
        ]
        rows.append(row if machines is None else [*row, _hours(each.hours_on(machines))])
    return header if machines is None else [*header, f"hours on {machines.gpus} GPUs"], rows


def to_json(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a JSON-able tree."""
    plan, cost, machines = estimate.plan, estimate.cost, estimate.machines
    tree = asdict(plan) | {"image_bytes": plan.image_bytes, "label_bytes": plan.label_bytes}
    tree["real_images"] = asdict(estimate.counts)
    tree["stages"] = {
        each.stage: _stage(each, machines) | {"memory_bytes": estimate.memory.get(each.stage)}
        for each in cost.stages
    }
    tree["rates"] = {MEASURED_AS[unit]: asdict(rate) for unit, rate in cost.rates.items()}
    tree["cost"] = {
        "hours": cost.hours,
        "cpu_hours": cost.cpu_hours,
        "without": list(cost.unknown),
        "usd": cost.usd,
        "requests": asdict(cost.requests) | {"usd": cost.requests.usd},
        "shard_seconds": cost.shard_seconds,
        "ipc_range": cost.ipc_range,
    }
    return tree


def _stage(each: StageCost, machines: Machines | None) -> dict[str, Any]:
    return {
        "shards": each.work.shards,
        "passes": dict(each.work.passes),
        "gpu_hours": each.gpu_hours,
        "cpu_hours": each.cpu_hours,
        "hours": None if machines is None else each.hours_on(machines),
    }


def _real_images(counts: Counts) -> str:
    if counts.total is None:
        return "not known: state them as data.images=[TRAIN,TEST]"
    return f"{counts.train:,} to train and {counts.test:,} to test on ({counts.source})"


def _packs(plan: Plan, counts: Counts) -> str:
    each = f"about {units.size(plan.packed_image_bytes)} an image"
    if counts.total is None:
        return each
    return f"about {units.size(counts.total * plan.packed_image_bytes)}, {each}"


def _bytes(by_set: Mapping[str, int]) -> str:
    total = f"about {units.size(sum(by_set.values()))}"
    if len(by_set) == 1:
        return total
    return f"{total}: " + ", ".join(f"{name} {units.size(size)}" for name, size in by_set.items())


def _rounds(plan: Plan) -> str:
    ends = ", ".join(f"{shards:,}" for shards in plan.rounds)
    selection = (
        f"; {plan.selection_shards:,} selection shards each" if plan.selection_shards else ""
    )
    return f"{1 + len(plan.rounds)}, a student after {ends} class shards{selection}"


def _work(unit: Unit, count: int | None) -> str:
    return f"{NAMES[unit]} not known" if count is None else f"{count:,} {NAMES[unit]}"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "not known"
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}" if hours else "-"
