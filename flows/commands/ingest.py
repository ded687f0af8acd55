"""The command that reads a dataset and stops: ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import (
    DEFAULT_STORE,
    NewName,
    Overrides,
    PlacementOptions,
    Source,
    StoreUrl,
    grouped,
)

if TYPE_CHECKING:
    from tasks.execution import Execution
    from tasks.run import Run


@grouped
def ingest(
    preset: Source,
    placement: PlacementOptions,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    name: NewName = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Print every image that cannot be used, and why.")
    ] = False,
) -> None:
    """Read and index the dataset of a run, e.g. `distill ingest FOLDER --local`.

    The run is registered; `distill resume` completes it. What was read is not read again.
    """
    from flows import terminal
    from flows.runs import pipeline
    from flows.runs.argument import load_requested
    from tasks.runs.rejects import rejects_of
    from tasks.stages.inputs import RunInputs

    execution = placement.execution(store)
    requested = load_requested(preset, overrides or [], execution)
    terminal.print_lines(*requested.lines)
    run = pipeline.prepare(requested.config, execution, name=name)
    try:
        _ingest(run, execution)
    finally:  # a dataset that is refused has rejects as well
        if rejects:
            terminal.print_lines(*rejects_of(run))
    index = RunInputs(run).index
    train, test = (index.count_readable(split) for split in ("train", "test"))
    terminal.print_lines(
        f"{run.name}: dataset {index.id}, {len(index.class_sizes('train')):,} classes, "
        f"{train:,} + {test:,} images."
    )


def _ingest(run: Run, execution: Execution) -> None:
    """Run the ingest stage, unless it is complete; that starts neither workers nor Ray."""
    from flows.runs import pipeline
    from tasks.runs.stage_status import stage_status
    from tasks.stages.names import StageId

    stage = StageId("ingest")
    if not stage_status(run, stage).complete:
        with pipeline.opened(run, execution, {}) as work:
            work.run_stage(stage)
