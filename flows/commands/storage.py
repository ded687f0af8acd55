"""Commands that look after a store: gc."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.runs.options import DEFAULT_STORE, AsJson, StoreUrl


def gc(
    store: StoreUrl = DEFAULT_STORE,
    grace: Annotated[
        str, typer.Option(metavar="AGE", help="Leave what is younger: 12h, 7d, 2w; at least 1h.")
    ] = "7d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no run refers to, and what lost or killed attempts left."""
    from distill_core.storage.store import Store
    from flows import terminal
    from flows.maintenance import collect

    age = collect.parse_age(grace)
    done = collect.collect_with_progress(Store(store), grace=age, dry_run=dry_run)
    tree = collect.to_json(done, grace=age, dry_run=dry_run)
    if as_json or done.removed or done.waiting:
        terminal.show(collect.table(done), tree, as_json=as_json)
    if not as_json:
        terminal.say(collect.summary(done, dry_run=dry_run))
