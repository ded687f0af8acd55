"""The command that estimates a run before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import (
    DEFAULT_STORE,
    AsJson,
    Overrides,
    PlacementOptions,
    Source,
    grouped,
)

if TYPE_CHECKING:
    from distill_core.config.schema import RunConfig
    from flows.estimate.cost import Cost, Machines
    from flows.estimate.counts import Counts
    from flows.estimate.workload import Plan
    from tasks.execution import Execution


@dataclass(frozen=True)
class RateOptions:
    """Speed, price and number of the machines."""

    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1e12,
            help="Image-iterations per second of one GPU, to estimate GPU-hours.",
        ),
    ] = None
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the rates on a worker; takes seconds.")
    ] = False
    price: Annotated[float | None, typer.Option(min=0, max=1e6, help="USD per GPU-hour.")] = None
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Estimate how long each stage takes on N GPUs.")
    ] = None
    cores: Annotated[
        int, typer.Option(min=1, help="CPU cores that read images for each of them.")
    ] = 8

    @property
    def machines(self) -> Machines | None:
        """Return the machines on which times are estimated."""
        from flows.estimate.cost import Machines

        return None if self.gpus is None else Machines(self.gpus, self.cores)


@grouped
def plan(
    preset: Source,
    placement: PlacementOptions,
    speed: RateOptions,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the shards, bytes, reading and GPU-hours of a run without starting it."""
    from distill_core.data.detection.resolve import resolve_run
    from flows import terminal
    from flows.estimate import workload
    from flows.estimate.counts import count_images
    from flows.runs.argument import load_requested
    from flows.runs.precision import warn_if_slow
    from flows.runs.preflight import problems

    execution = placement.execution(DEFAULT_STORE)
    requested = load_requested(preset, overrides or [], execution)
    config = resolve_run(requested.config)
    if not as_json:
        terminal.print_lines(*requested.lines)
    warn_if_slow(config, execution.device)
    for problem in problems(config, execution):
        terminal.warn(f"a run would be refused: {problem}")
    counts = count_images(config)
    work = workload.plan_run(config, test_images=counts.test)
    spent = _cost(config, execution, work, counts, speed)
    _print(config, execution, work, counts, spent, speed.machines, as_json=as_json)


def _cost(
    config: RunConfig, execution: Execution, work: Plan, counts: Counts, speed: RateOptions
) -> Cost:
    from flows.estimate.cost import cost
    from flows.estimate.passes import stage_works
    from flows.estimate.rates import rates_of
    from flows.estimate.workload import shards_by_stage
    from tasks.calibration import calibrate

    measured = calibrate(config, execution) if speed.calibrate else None
    shards = shards_by_stage(config, test_images=counts.test)
    return cost(
        config,
        work,
        stage_works(config, work, counts, shards),
        rates_of(config, given=speed.rate, measured=measured),
        price=speed.price,
    )


def _print(
    config: RunConfig,
    execution: Execution,
    work: Plan,
    counts: Counts,
    spent: Cost,
    machines: Machines | None,
    **options: Any,
) -> None:
    from flows import terminal
    from flows.estimate import tables
    from flows.estimate.memory.making import Launch
    from flows.estimate.memory.stages import stage_memories
    from flows.runs.checks.machine import real_data

    launch, real = Launch(execution.device, execution.groups), (counts.train, counts.test, None)
    memories = stage_memories(config, launch, real_data(execution, real))
    memory = {each.stage: each.needed for each in memories}
    if options["as_json"]:
        terminal.print_json(tables.to_json(work, counts, spent, memory, machines))
        return
    terminal.print_table(terminal.pairs(tables.lines(work, counts), title=config.preset))
    terminal.print_table(terminal.table(*tables.stage_rows(spent, memory, machines)))
    terminal.print_lines(*tables.cost_lines(spent))
