"""The command that estimates a run before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

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
    from flows.estimate.cost import Estimate, Machines
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
    from flows.estimate import tables
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
    estimate = _estimate(config, execution, speed)
    if as_json:
        terminal.print_json(tables.to_json(estimate))
        return
    lines = tables.lines(estimate.plan, estimate.counts)
    terminal.print_table(terminal.pairs(lines, title=config.preset))
    terminal.print_table(terminal.table(*tables.stage_rows(estimate)))
    terminal.print_lines(*tables.cost_lines(estimate.cost))


def _estimate(config: RunConfig, execution: Execution, speed: RateOptions) -> Estimate:
    from flows.estimate.cost import Estimate, cost
    from flows.estimate.counts import count_images
    from flows.estimate.memory.making import Launch
    from flows.estimate.memory.real_data import real_data
    from flows.estimate.memory.stages import stage_memories
    from flows.estimate.rates import rates_of
    from flows.estimate.workload import plan_run
    from tasks.calibration import calibrate

    counts = count_images(config)
    plan = plan_run(config, test_images=counts.test)
    measured = calibrate(config, execution) if speed.calibrate else None
    rates = rates_of(config, given=speed.rate, measured=measured)
    launch, real = Launch(execution.device, execution.groups), (counts.train, counts.test, None)
    memories = stage_memories(config, launch, real_data(execution, real))
    return Estimate(
        plan,
        counts,
        cost(config, plan, counts, rates, price=speed.price),
        memory={each.stage: each.needed for each in memories},
        machines=speed.machines,
    )
