"""The command for automations of Prefect: `distill automations`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson

if TYPE_CHECKING:
    from flows.orchestration.automations import Change


def automations(
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME",
            help="Notification block of the server that is told about failed and late runs, e.g. "
            "slack-webhook/ops. Default: none.",
        ),
    ] = None,
    crashed_after: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=10,
            help="Mark a run as crashed after this time without a heartbeat. Workers need "
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY of a third of it.",
        ),
    ] = 90.0,
    late_after: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=10,
            help="Tell that a run is late after this time without a start.",
        ),
    ] = 600.0,
    remove: Annotated[bool, typer.Option("--remove", help="Remove all of them.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the difference, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create or update the automations for silent, failed and late runs on the Prefect server.

    Run it again at any time: what is as it should be stays, and automations of others are left
    alone. Options that are left out have their defaults, also for automations that exist.
    """
    from flows import terminal
    from flows.orchestration.automation_rules import Rules
    from flows.orchestration.automations import make

    rules = Rules(silent_seconds=crashed_after, late_seconds=late_after)
    changes = make(notify=notify, rules=rules, remove=remove, dry_run=dry_run)
    if as_json:
        terminal.print_json({"dry_run": dry_run, "changes": [asdict(each) for each in changes]})
        return
    terminal.print_lines(*(line for each in changes for line in _lines(each, dry_run=dry_run)))
    if not changes:
        terminal.print_lines("no automations")
    if notify is None and not remove:
        terminal.print_lines("without --notify, nobody is told about failed and late runs")


def _lines(change: Change, *, dry_run: bool) -> list[str]:
    done = {"create": "created", "change": "changed", "delete": "removed", "keep": "unchanged"}
    todo = {"create": "create", "change": "change", "delete": "remove", "keep": "keep"}
    verb = (todo if dry_run else done)[change.verb]
    paused = " (paused, and stays so)" if change.paused else ""
    return [f"{verb}: {change.name}{paused}", *(f"  {field}" for field in change.fields)]
