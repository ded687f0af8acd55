"""Commands for schedules: `distill schedule PRESET ...`, list, pause, resume, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flows.commands.options import (
    AsJson,
    ConfigOptions,
    DeployedStore,
    Group,
    PlacementOptions,
    SeriesOptions,
    grouped,
)

if TYPE_CHECKING:
    from flows.orchestration.schedules import Entry


class PresetOrVerb(TyperGroup):
    """A group of commands whose first word may also be a preset, which adds a schedule."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `add` if the first word is neither a command nor an option."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["add", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PresetOrVerb,
    no_args_is_help=True,
    help="Redistill on a schedule, e.g. `distill schedule PRESET --cron '0 3 * * 0'`.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a schedule.")]


@dataclass(frozen=True)
class TimingOptions:
    """The times of a schedule, and its name."""

    cron: Annotated[
        str,
        typer.Option(
            help="Minute, hour, day, month and weekday, e.g. '0 3 * * 0' for Sundays at 03:00."
        ),
    ]
    timezone: Annotated[str, typer.Option(help="Time zone, e.g. UTC or Europe/Berlin.")] = "UTC"
    name: Annotated[str | None, typer.Option(help="Name of the schedule. Default: the preset.")] = (
        None
    )


@app.command("add")
@grouped
def add(
    config: ConfigOptions,
    timing: TimingOptions,
    series: SeriesOptions,
    placement: PlacementOptions,
    store: DeployedStore = None,
    deployment: Group = None,
    as_json: AsJson = False,
) -> None:
    """Add a schedule, or change the one of this name.

    The config is resolved now: a preset that changes later does not change the schedule. It is kept
    in the store of the deployment, which this command has to reach.
    """
    from distill_core.storage.store import Store
    from flows.commands.trigger import warn_of_local
    from flows.orchestration import schedules
    from flows.orchestration.parameters import resolved, with_absolute_paths
    from flows.orchestration.schedule_settings import ScheduleSettings
    from flows.runs.argument import check_is_config

    check_is_config(
        config.preset,
        command="schedule",
        reason="the sizes that are chosen for a dataset change with its images",
    )
    resolved_config, local = with_absolute_paths(resolved(config.preset, config.changes))
    name = timing.name or schedules.default_name(resolved_config.preset)
    execution = placement.parameters(store)["execution"]
    settings = ScheduleSettings(
        series=series.series or name,
        policy=series.policy,
        if_changed=series.if_changed,
        config=resolved_config,
        store=None if store is None else Store(store).url,
        execution=execution,
    )
    entry = schedules.put(name, timing.cron, timing.timezone, settings, group=deployment)
    warn_of_local(local, settings.store)
    _print([entry], as_json=as_json)


@app.command("list")
def show_list(deployment: Group = None, as_json: AsJson = False) -> None:
    """List the schedules with the time of their next run."""
    from flows import terminal
    from flows.orchestration import schedules

    entries = schedules.every(group=deployment)
    _print(entries, as_json=as_json)
    for entry in entries:
        if entry.problem is not None:
            terminal.warn(f"schedule {entry.name!r} cannot start anything: {entry.problem}")
    if (earlier := schedules.earlier(group=deployment)) is not None:
        terminal.warn(earlier)


@app.command()
def pause(name: Name, deployment: Group = None) -> None:
    """Pause a schedule; runs that have started continue."""
    from flows import terminal
    from flows.orchestration import schedules

    schedules.switch(name, active=False, group=deployment)
    terminal.print_lines(f"{name}: paused")


@app.command()
def resume(name: Name, deployment: Group = None) -> None:
    """Activate a paused schedule."""
    from flows import terminal
    from flows.orchestration import schedules

    schedules.switch(name, active=True, group=deployment)
    terminal.print_lines(f"{name}: active")


@app.command()
def remove(name: Name, deployment: Group = None) -> None:
    """Remove a schedule; runs that have started continue."""
    from flows import terminal
    from flows.orchestration import schedules

    if warning := schedules.remove(name, group=deployment):
        terminal.warn(warning)
    terminal.print_lines(f"{name}: removed")


def _print(entries: Sequence[Entry], *, as_json: bool) -> None:
    from flows import terminal

    header = ("schedule", "preset", "series", "cron", "time zone", "next", "store")
    terminal.print_table(
        terminal.table(header, [_cells(entry) for entry in entries]),
        [asdict(entry) | {"next": entry.next and entry.next.isoformat()} for entry in entries],
        as_json=as_json,
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    due = f"{entry.next:%Y-%m-%d %H:%M %Z}" if entry.next else "paused"
    return entry.name, entry.preset, entry.series, entry.cron, entry.timezone, due, entry.store
