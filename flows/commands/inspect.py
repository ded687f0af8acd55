"""Commands that only look: status, plan, show, verify, doctor, report."""

from __future__ import annotations

from typing import Annotated, Unpack

import typer

from flows.runs.options import (
    DEFAULT_STORE,
    AsJson,
    How,
    Overrides,
    Preset,
    RunName,
    StoreUrl,
    execution,
    with_how,
)


def show_status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: all.")] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Say what is done, from the store alone; of one run also who is at work, and how fast."""
    from distill_core.storage.shard_store import utc_now
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.status import status
    from flows.status.activity import run_activity
    from tasks.run import open_run

    if run is None:
        every = status.every_run(Store(store))
        trees = [status.to_json(one) for one in every]
        terminal.show(status.overview(every), trees, as_json=as_json)
        return
    found = open_run(Store(store), run)
    one = status.run_status(found)
    seen = run_activity(found, one.stages, now=utc_now())
    terminal.show(status.details(one, seen), status.to_json(one, seen), as_json=as_json)
    if not as_json:
        terminal.say(*status.failures(one))


@with_how
def plan(
    preset: Preset,
    overrides: Overrides = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Image-iterations per second of one GPU."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the rate on a worker, in seconds.")
    ] = False,
    price: Annotated[float | None, typer.Option(min=0, help="USD per GPU-hour.")] = None,
    as_json: AsJson = False,
    **how: Unpack[How],
) -> None:
    """Say what a run will cost before anything is spent."""
    from distill_core.config.load import load_run
    from flows import terminal
    from flows.estimate import cost, workload
    from flows.runs.precision import warn_if_slow
    from tasks.calibration import calibrate as measure

    config = load_run(preset, overrides or [])
    warn_if_slow(config, execution(DEFAULT_STORE, how).device)
    rates = {"recover": rate} if rate else {}
    if calibrate:
        rates = {**measure(config, execution(DEFAULT_STORE, how))}
    made = workload.plan_run(
        config,
        train_images=workload.count_images(config, "train"),
        test_images=workload.count_images(config, "test"),
    )
    spent = cost.cost_at(made, config, rates, price=price)
    table = terminal.pairs(cost.lines(made, spent), title=config.preset)
    terminal.show(table, cost.to_json(made, spent), as_json=as_json)


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


def verify(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Read and hash every file of every manifest again; exit code 1 names what is damaged."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.maintenance.verify import verify_with_progress
    from tasks.run import open_run

    found = open_run(Store(store), run)
    verdict = verify_with_progress(found)
    terminal.say(
        *(f"damaged: {damage}" for damage in verdict.damage),
        verdict.summary(found.name),
    )
    raise typer.Exit(1 if verdict.damage else 0)


def doctor(store: StoreUrl = DEFAULT_STORE) -> None:
    """Check this machine and the store: OK, WARN or FAIL, and the fix."""
    from flows import terminal
    from flows.doctor import examine, worst

    checks = examine(store)
    terminal.say(*map(str, checks))
    raise typer.Exit(1 if worst(checks) == "FAIL" else 0)


def report(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Write a run's HTML report anew, from its manifests."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.reports.report import write_report
    from tasks.run import open_run

    found = open_run(Store(store), run)
    terminal.say(found.store.uri(write_report(found)))
