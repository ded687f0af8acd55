"""Commands that check and clean: verify, doctor, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import DEFAULT_STORE, AsJson, RunName, StoreUrl


def verify(run: RunName, store: StoreUrl = DEFAULT_STORE) -> None:
    """Read and hash every file of a run, and list those that are damaged.

    The exit code is 1 if any file is damaged.
    """
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.maintenance.verify import verify_with_progress
    from flows.status.tables import mixture
    from tasks.run import open_run

    opened = open_run(Store(store), run)
    verdict = verify_with_progress(opened)
    for line in mixture(opened.name, verdict.mixed):
        terminal.warn(line)
    terminal.print_lines(
        *(f"damaged: {damage}" for damage in verdict.damage),
        verdict.summary(opened.name),
    )
    raise typer.Exit(1 if verdict.damage else 0)


def doctor(
    store: StoreUrl = DEFAULT_STORE,
    ray_address: Annotated[
        str | None,
        typer.Option(help="host:port of a Ray cluster that a run would join; checked if given."),
    ] = None,
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a cluster's Jobs API, e.g. http://HEAD:8265; checked if given.",
        ),
    ] = None,
) -> None:
    """Check this machine, the store and a cluster, and print a fix for each problem.

    Each check is OK, WARN or FAIL; the exit code is 1 if any is FAIL.
    """
    from flows import terminal
    from flows.maintenance.doctor import examine
    from flows.maintenance.findings import worst

    checks = examine(store, ray_address=ray_address, submit=submit)
    terminal.print_lines(*map(str, checks))
    raise typer.Exit(1 if worst(checks) == "FAIL" else 0)


def gc(
    store: StoreUrl = DEFAULT_STORE,
    grace: Annotated[
        str,
        typer.Option(metavar="AGE", help="Keep files younger than this: 12h, 7d, 2w; at least 1h."),
    ] = "7d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and exit.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every path instead of examples.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete files that no run refers to, and leftovers of interrupted attempts.

    Only files that distill has written to a store of its own are deleted. Others are listed as
    foreign, and symbolic links are not followed.
    """
    from distill_core.storage.shard_store import utc_now
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.maintenance import collect
    from tasks.gc.collect import survey

    age, opened = collect.parse_age(grace), Store(store)
    found = survey(opened, grace=age)
    if warning := collect.clock_warning(utc_now(), found.now):
        terminal.warn(warning)
    if not as_json:
        if found.removed or found.waiting:
            terminal.print_table(collect.table(found))
        terminal.print_lines(*collect.remarks(found, verbose=verbose))
    if not dry_run:
        found = collect.remove_with_progress(opened, found)
    if as_json:
        terminal.print_json(collect.to_json(found, grace=age, dry_run=dry_run))
    else:
        terminal.print_lines(collect.summary(found, dry_run=dry_run))
