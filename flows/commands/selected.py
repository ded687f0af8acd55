"""The options that select the shards of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.runs.shard_selection import ShardSelection
    from tasks.run import Run

FailedOnly = Annotated[
    bool, typer.Option("--failed-only", help="Run only the shards that failed before.")
]
ShardList = Annotated[
    str | None,
    typer.Option("--shards", metavar="LIST", help="Run only these class shards, e.g. 3,17-20."),
]
AndLater = Annotated[
    bool,
    typer.Option("--and-later", help="After --shards, go on with the stages that come later."),
]


@dataclass(frozen=True)
class SelectionOptions:
    """The shards that a resume runs; by default all that are missing."""

    failed_only: FailedOnly = False
    shards: ShardList = None
    and_later: AndLater = False

    def selection(self, run: Run) -> ShardSelection:
        """Return the shards to run by stage; see `shard_selection.selection`."""
        from flows.runs import shard_selection

        return shard_selection.selection(
            run, failed_only=self.failed_only, shards=self.shards, and_later=self.and_later
        )
