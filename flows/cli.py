"""The command line. Every error is one line; several of a check are one numbered line each.

Exit codes are those of `flows.exit_codes`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from distill_core.errors import DistillError, Problems, one_line
from distill_core.naming.addresses import check_text
from flows.commands import (
    automations,
    ingest,
    init,
    inspect,
    job,
    maintenance,
    plan,
    run,
    schedule,
    trigger,
)
from flows.commands.failures import UsageError, unexpected, usage
from flows.exit_codes import FAILED, REFUSED, exit_code

app = typer.Typer(
    help="Distil a labelled image dataset into a few synthetic images per class with soft labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run.run, run.resume, run.redistill):
    app.command()(command)
app.command()(init.init)
app.command()(ingest.ingest)
app.command("status")(inspect.show_status)
for command in (plan.plan, inspect.show, inspect.report, maintenance.verify, maintenance.doctor):
    app.command()(command)
for command in (trigger.trigger, trigger.serve):
    app.command()(command)
app.add_typer(schedule.app, name="schedule")
app.command()(automations.automations)
app.command()(maintenance.gc)
app.command()(run.demo)
app.command(hidden=True)(job.job)


def main() -> None:
    """Run the command line; the entry point of `distill`."""
    try:
        check_arguments(sys.argv[1:])
        code = app(prog_name="distill", standalone_mode=False)
        sys.stdout.flush()
    except DistillError as error:
        _fail(exit_code(type(error)), error)
    except UsageError as error:
        _fail(REFUSED, usage(error))
    except KeyboardInterrupt:  # before or after the command; typer turns others into an exit
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # of a reader such as `head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # the last one that can turn a bug into one line
        _fail(FAILED, unexpected(error))
    sys.exit(code if isinstance(code, int) else 0)


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse credentials in any argument, before a message about wrong usage repeats it.

    Raises:
        ConfigError: names the option or the key, but not its value.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        key = re.match(r"[\w.-]+(?==)", argument)
        option = before if before.startswith("--") else "an argument"
        check_text(argument, key=key[0] if key else option)


def _fail(code: int, problem: object) -> NoReturn:
    if isinstance(problem, Problems):
        print(f"distill: {problem}", file=sys.stderr)
    elif text := one_line(problem):
        print(f"distill: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
