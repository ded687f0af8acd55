"""Commands that read and report: status, show, report."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import (
    DEFAULT_STORE,
    AsJson,
    Overrides,
    RunName,
    StoreUrl,
    checked,
)


def show_status(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", callback=checked("run"), help="Name of a run. Default: all runs."
        ),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Show the progress of all runs, or of one run with its drivers and rates.

    Without a name, the exit code is 1 if a run is damaged.
    """
    from distill_core.storage.shard_store import utc_now
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.status import status, tables
    from tasks.run import open_run

    if run is None:
        statuses = status.every_run(Store(store))
        trees = [tables.to_json(each) for each in statuses]
        if statuses or as_json:
            terminal.print_table(tables.overview(statuses), trees, as_json=as_json)
        else:
            terminal.print_lines(f"{Store(store).url}: no runs")
        damaged = tables.problems(statuses)
        for line in damaged:
            terminal.warn(line)
        raise typer.Exit(1 if damaged else 0)
    opened = open_run(Store(store), run)
    progress = status.run_status(opened)
    activity = status.run_activity(opened, progress.stages, now=utc_now())
    tree = tables.to_json(progress, activity)
    terminal.print_table(tables.details(progress, activity), tree, as_json=as_json)
    if not as_json:
        terminal.print_lines(*tables.failures(progress))
    for line in tables.mixture(progress.run, progress.mixed):
        terminal.warn(line)


def show(
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET]", help="A preset, a .yaml file or a dataset. Default: list all."
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print a config with all its defaults, or list the shipped presets.

    That of a dataset has the sizes for a CPU; `distill init --device` writes it for a GPU.
    """
    from distill_core.config.load import load_run, preset_names, to_yaml
    from flows import terminal
    from flows.runs.argument import load_requested
    from tasks.execution import Execution

    if preset is not None:
        requested = load_requested(preset, overrides or [], Execution(store=DEFAULT_STORE))
        terminal.print_lines(to_yaml(requested.config).rstrip())
        return
    configs = [load_run(name) for name in preset_names()]
    rows = [(config.preset, config.source, config.expected) for config in configs]
    terminal.print_table(terminal.table(("preset", "source", "expected"), rows))


def report(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Write the HTML report of a run again, from its manifests, and print its path."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.reports.report import write_report
    from tasks.run import open_run

    opened = open_run(Store(store), run)
    terminal.print_lines(opened.store.uri(write_report(opened)))
