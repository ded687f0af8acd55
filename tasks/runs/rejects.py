"""The images of a run's dataset that cannot be used, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator

from distill_core.data.labels.words import find_words
from distill_core.data.parts.read import SUMMARY
from distill_core.data.parts.summary import PartSummary, Reject
from distill_core.data.readers.record import Address
from distill_core.storage.manifest import load_manifest
from distill_core.storage.shard_store import ShardStore
from tasks.run import Run
from tasks.stages.ingest import STAGE
from tasks.stages.reads import require


def rejects_of(run: Run) -> Iterator[str]:
    """Yield a line for each image that cannot be used; none before every part was read.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    rejects = list(_all_rejects(run))
    words = find_words(run.config.data, sorted({reject.wnid for reject in rejects}))
    for reject in rejects:
        title = words.title(reject.wnid)
        of_class = f" Its class is {title}." if title != reject.wnid else ""
        yield f"{Address(reject.uri, reject.offset, 0).text}: {reject.reason}{of_class}"


def _all_rejects(run: Run) -> Iterator[Reject]:
    manifest = load_manifest(run.store, run.name, str(STAGE), sealed=run.sealed)
    shard_store = ShardStore(run.store, STAGE.kind)
    for entry in () if manifest is None else manifest.entries:
        marker = require(shard_store, entry.key)
        yield from PartSummary.from_json(shard_store.load(marker, SUMMARY)).rejects
