"""Commands about schedules: `distill schedule PRESET ...`, list, pause, resume, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer
from typer.core import TyperGroup

from flows.commands.trigger import said_where
from flows.runs.options import (
    DEFAULT_DEPLOYMENT,
    AsJson,
    DeployedStore,
    DeploymentName,
    How,
    Overrides,
    PolicyOption,
    Preset,
    Set,
    with_how,
)

if TYPE_CHECKING:
    from flows.orchestration.schedules import Entry


class Verbs(TyperGroup):
    """A group whose first word may also be a preset: then a schedule is added."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `add` in front of what is neither a command nor an option."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["add", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    help="Re-distil on a schedule: `distill schedule PRESET --cron '0 3 * * 0'`.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a schedule.")]


@app.command("add")
@with_how
def add(
    preset: Preset,
    overrides: Overrides = None,
    *,
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, weekday.")],
    timezone: Annotated[str, typer.Option(help="E.g. UTC or Europe/Berlin.")] = "UTC",
    set_: Set = None,
    store: DeployedStore = None,
    name: Annotated[str | None, typer.Option(help="Of the schedule. Default: preset.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Name of the runs that follow each other. Default: NAME.")
    ] = None,
    policy: PolicyOption = "keep",
    deployment: DeploymentName = DEFAULT_DEPLOYMENT,
    as_json: AsJson = False,
    **how: Unpack[How],
) -> None:
    """Add a schedule, or change the one of this name. The config is resolved here and now."""
    from flows.orchestration import schedules
    from flows.orchestration.deployments import of_config
    from flows.orchestration.parameters import resolved

    config = resolved(preset, [*(overrides or []), *(set_ or [])])
    name = name or schedules.default_name(config.preset)
    said = of_config(config) | {"series": series or name, "policy": policy}
    said |= said_where(store, how)
    made = schedules.put(name, cron, timezone, said, on=deployment)
    _show([made], as_json=as_json)


@app.command("list")
def show_list(deployment: DeploymentName = DEFAULT_DEPLOYMENT, as_json: AsJson = False) -> None:
    """List the schedules, and when each fires next."""
    from flows.orchestration import schedules

    _show(schedules.every(on=deployment), as_json=as_json)


@app.command()
def pause(name: Name, deployment: DeploymentName = DEFAULT_DEPLOYMENT) -> None:
    """Let a schedule rest; what already runs goes on."""
    from flows import terminal
    from flows.orchestration import schedules

    schedules.switch(name, active=False, on=deployment)
    terminal.say(f"{name}: paused")


@app.command()
def resume(name: Name, deployment: DeploymentName = DEFAULT_DEPLOYMENT) -> None:
    """Let a paused schedule go on."""
    from flows import terminal
    from flows.orchestration import schedules

    schedules.switch(name, active=True, on=deployment)
    terminal.say(f"{name}: active")


@app.command()
def remove(name: Name, deployment: DeploymentName = DEFAULT_DEPLOYMENT) -> None:
    """Remove a schedule; what already runs goes on."""
    from flows import terminal
    from flows.orchestration import schedules

    schedules.remove(name, on=deployment)
    terminal.say(f"{name}: removed")


def _show(entries: Sequence[Entry], *, as_json: bool) -> None:
    from flows import terminal

    header = ("schedule", "preset", "series", "cron", "time zone", "next", "store")
    terminal.show(
        terminal.rows(header, [_cells(entry) for entry in entries]),
        [asdict(entry) | {"next": entry.next and entry.next.isoformat()} for entry in entries],
        as_json=as_json,
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    fires = f"{entry.next:%Y-%m-%d %H:%M %Z}" if entry.next else "paused"
    return entry.name, entry.preset, entry.series, entry.cron, entry.timezone, fires, entry.store
