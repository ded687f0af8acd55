"""The command line. Its own errors are one line and exit code 2; bugs keep their traceback.

Everything heavy is imported inside the commands: `distill --help` must answer at once, and no
command imports Prefect or Ray before the manifests have said that something is missing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_core.errors import DistillError, ShardsFailed
from flows.options import (
    DEFAULT_STORE,
    AsJson,
    Device,
    DryRun,
    Local,
    NumGpus,
    Overrides,
    Preset,
    RayAddress,
    RunName,
    SingleWriter,
    StoreUrl,
    Workers,
)

if TYPE_CHECKING:
    from distill_core.config.schema import RunConfig
    from flows.status import Only
    from tasks.execution import Execution
    from tasks.runs import Run

app = typer.Typer(
    help="Distil a labelled image dataset into a few images per class, with soft labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    preset: Preset,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    name: Annotated[str | None, typer.Option(help="Default: preset and config hash.")] = None,
    local: Local = False,
    workers: Workers = None,
    device: Device = None,
    num_gpus: NumGpus = None,
    ray_address: RayAddress = None,
    single_writer: SingleWriter = False,
    dry_run: DryRun = False,
) -> None:
    """Distil a dataset, e.g. `distill run digits-demo ipc=10 --local`."""
    from distill_core.config.load import load_run
    from distill_core.storage.store import Store
    from tasks.runs import Run, default_name

    config = load_run(preset, overrides or [])
    how = _execution(store, local, workers, device, num_gpus, ray_address, single_writer)
    if dry_run:
        _say_what_is_missing(Run(name or default_name(config), config, Store(store)), {})
        return
    _start(config, name, how)


@app.command()
def resume(
    run: RunName,
    store: StoreUrl = DEFAULT_STORE,
    failed_only: Annotated[
        bool, typer.Option("--failed-only", help="Only the shards that failed.")
    ] = False,
    shards: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Class shards by number: 3,17-20."),
    ] = None,
    local: Local = False,
    workers: Workers = None,
    device: Device = None,
    num_gpus: NumGpus = None,
    ray_address: RayAddress = None,
    single_writer: SingleWriter = False,
    dry_run: DryRun = False,
) -> None:
    """Do what a run lacks, and nothing else, e.g. `distill resume RUN --failed-only`."""
    from distill_core.storage.store import Store
    from flows import status
    from tasks.runs import open_run

    how = _execution(store, local, workers, device, num_gpus, ray_address, single_writer)
    found = open_run(Store(store), run)
    only: Only = status.failed_only(status.run_status(found)) if failed_only else {}
    if shards is not None:
        only = status.narrowed(only, status.by_number(found, shards))
    if dry_run:
        _say_what_is_missing(found, only)
        return
    _continue(found, how, only)


@app.command("status")
def show_status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: all.")] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Say what is done, from the store alone."""
    from distill_core.storage.store import Store
    from flows import status, terminal
    from tasks.runs import open_run

    if run is None:
        every = status.every_run(Store(store))
        terminal.show(status.overview(every), [one.to_json() for one in every], as_json=as_json)
        return
    one = status.run_status(open_run(Store(store), run))
    terminal.show(status.details(one), one.to_json(), as_json=as_json)
    if not as_json:
        terminal.say(*status.failures(one))


@app.command()
def plan(
    preset: Preset,
    overrides: Overrides = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Image-iterations per second of one GPU."),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="USD per GPU-hour.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run will cost before anything is spent."""
    from distill_core.config.load import load_run
    from flows import planning, terminal

    config = load_run(preset, overrides or [])
    made = planning.plan_run(config)
    steps = config.recover.steps
    spent = planning.cost(made, steps=steps, rate=rate, price=price) if rate else None
    table = terminal.pairs(planning.lines(made, spent), title=config.preset)
    terminal.show(table, planning.to_json(made, spent), as_json=as_json)


@app.command()
def show(
    preset: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="Default: list them.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print a config with every default visible; without a preset, list the presets."""
    from distill_core.config.load import load_run, preset_names, to_yaml
    from flows import terminal

    if preset is not None:
        terminal.say(to_yaml(load_run(preset, overrides or [])).rstrip())
        return
    configs = [load_run(name) for name in preset_names()]
    rows = [(config.preset, config.source, config.expected) for config in configs]
    terminal.show(terminal.rows(("preset", "source", "expected"), rows))


@app.command()
def verify(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Read and hash every file of every manifest again; exit code 1 names what is damaged."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.verify import verify_with_progress
    from tasks.runs import open_run

    found = open_run(Store(store), run)
    verdict = verify_with_progress(found)
    terminal.say(
        *(f"damaged: {damage}" for damage in verdict.damage),
        verdict.summary(found.name),
    )
    raise typer.Exit(1 if verdict.damage else 0)


@app.command()
def doctor(store: StoreUrl = DEFAULT_STORE) -> None:
    """Check this machine and the store: OK, WARN or FAIL, and the fix."""
    from flows import terminal
    from flows.doctor import examine, worst

    checks = examine(store)
    terminal.say(*map(str, checks))
    raise typer.Exit(1 if worst(checks) == "FAIL" else 0)


@app.command()
def report(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Write a run's HTML report anew, from its manifests."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.report import write_report
    from tasks.runs import open_run

    found = open_run(Store(store), run)
    terminal.say(found.store.uri(write_report(found)))


@app.command()
def demo(store: StoreUrl = "./out/demo") -> None:
    """Run everything once, Prefect and Ray included, on real images that need no download."""
    from distill_core.config.load import load_run
    from flows import summary, terminal

    config = load_run("digits-demo")
    terminal.say(*summary.demo_opening(config))
    workers = min(2, os.cpu_count() or 1)
    made = _start(config, None, _execution(store, False, workers, "cpu", None, None, False))
    terminal.say(*summary.demo_closing(made))


def _start(config: RunConfig, name: str | None, how: Execution) -> Run:
    """Register a run and complete it."""
    from distill_core.storage.store import Store
    from flows import pipeline

    made = pipeline.prepare(config, Store(how.store), name=name, single_writer=how.single_writer)
    return _continue(made, how, {})


def _continue(made: Run, how: Execution, only: Only) -> Run:
    """Complete a run, and show the accuracy table or what is still missing."""
    from flows import pipeline, status, summary

    try:
        reached = pipeline.complete_run(made, how, only)
    except ShardsFailed:
        print(*status.failures(status.run_status(made)), sep="\n", file=sys.stderr)
        raise
    summary.outcome(made, reached)
    return made


def _say_what_is_missing(made: Run, only: Only) -> None:
    from flows import status, terminal

    terminal.show(status.details(status.run_status(made)))
    terminal.say(*status.dry_run(made, only))


def _execution(
    store: str,
    local: bool,
    workers: int | None,
    device: str | None,
    num_gpus: float | None,
    ray_address: str | None,
    single_writer: bool,
) -> Execution:
    """Return where and how jobs run; what was not said keeps its default."""
    from flows.pipeline import execution_of

    said: dict[str, Any] = {
        "workers": workers,
        "device": device,
        "num_gpus": num_gpus,
        "ray_address": ray_address,
    }
    given = {key: value for key, value in said.items() if value is not None}
    return execution_of({"store": store, "local": local, "single_writer": single_writer, **given})


def main() -> None:
    """Run the command line; the entry point of `distill`."""
    try:
        app(prog_name="distill")
    except ShardsFailed as error:
        print(f"distill: {error}", file=sys.stderr)
        sys.exit(1)
    except DistillError as error:
        print(f"distill: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
