"""The command line. Errors of its own are one line and exit code 2; bugs keep their traceback."""

from __future__ import annotations

import sys

import typer

from distill_core.errors import DistillError, RunIncomplete, ShardsFailed
from flows.commands import inspect, maintenance, run, schedule, trigger

app = typer.Typer(
    help="Distil a labelled image dataset into a few synthetic images per class with soft labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run.run, run.resume, run.redistill):
    app.command()(command)
app.command("status")(inspect.show_status)
for command in (inspect.plan, inspect.show, inspect.report, maintenance.verify, maintenance.doctor):
    app.command()(command)
for command in (trigger.trigger, trigger.serve):
    app.command()(command)
app.add_typer(schedule.app, name="schedule")
app.command()(maintenance.gc)
app.command()(run.demo)


def main() -> None:
    """Run the command line; the entry point of `distill`."""
    try:
        app(prog_name="distill")
    except (ShardsFailed, RunIncomplete) as error:
        print(f"distill: {error}", file=sys.stderr)
        sys.exit(1)
    except DistillError as error:
        print(f"distill: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
