"""Verification of the chain from images to labels: a label shard describes the stored images.

A label shard states the sha256 of its images. The other links of the chain are in the keys, which
contain the content of what a shard was made from: `verify_records.check_plan` computes them again.
Labels of older versions state nothing; there, the times in the markers may show that the images
were made again after the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow.parquet as pq

from distill_core.errors import DataError
from distill_core.storage.manifest import Manifest, ManifestEntry
from distill_core.storage.markers import Marker
from distill_core.storage.parquet import unpack_metadata
from distill_core.storage.row_groups import PARQUET_ERRORS, RowGroupFile
from distill_core.storage.shard_store import ShardStore
from flows.maintenance.verify_records import Damage
from tasks.run import Run
from tasks.stages.names import StageId
from tasks.stages.relabel import LABELS, described
from tasks.stages.worker import IMAGES

REMEDY = "Delete this marker and run `distill resume`, which makes the labels again."


def check_labels(run: Run, manifests: Mapping[StageId, Manifest]) -> Iterator[Damage]:
    """Yield the label shards that describe other images than those of their image shard.

    Args:
        run: the run.
        manifests: those that exist and can be read. Files that are damaged are passed over.
    """
    for name, labels in manifests.items():
        images = manifests.get(StageId("recover", name.round, name.image_set))
        if name.kind != "relabel" or images is None:
            continue
        listed = {entry.shard: entry for entry in images.entries}
        for entry in labels.entries:
            if source := listed.get(described(entry.shard)):
                yield from _check_pair(run, entry, source)


def _check_pair(run: Run, labels: ManifestEntry, images: ManifestEntry) -> Iterator[Damage]:
    shard_store = ShardStore(run.store, "relabel")
    path = shard_store.marker_path(labels.key)
    try:
        marker = shard_store.marker(labels.key)
        stated = "" if marker is None else _stated(shard_store, marker)
        source = ShardStore(run.store, "recover").marker(images.key)
    except (DataError, *PARQUET_ERRORS):
        return
    if stated not in ("", images.sha256(IMAGES)):
        yield Damage(
            path,
            f"describes images with sha256 {stated[:12]}, but {images.shard} has "
            f"{images.sha256(IMAGES)[:12]}. {REMEDY}",
        )
    elif not stated and marker is not None and source is not None and _is_older(marker, source):
        yield Damage(
            path,
            f"was finished at {marker.finished}, before the images that it describes "
            f"({source.finished}): they were made again, or a clock was wrong. {REMEDY}",
        )


def _stated(shard_store: ShardStore, marker: Marker) -> str:
    """Return the sha256 of the images that a label shard describes; empty if it states none."""
    path = shard_store.marker_path(marker.key)
    file = RowGroupFile(shard_store.store, marker.file(LABELS), marker=path)
    facts = unpack_metadata(pq.ParquetFile(file), where=file.where)
    return str(facts.get("images", ""))


def _is_older(labels: Marker, images: Marker) -> bool:
    """Return whether labels are older than images of which no manifest shows that they are equal.

    Images that this version made again with the same bytes keep their labels, see
    `ManifestEntry.replaced_by`.
    """
    if images.keyed_by_content:
        return False
    try:
        first, second = map(datetime.fromisoformat, (labels.finished, images.finished))
        return first < second
    except (ValueError, TypeError):  # no times, or one without a zone
        return False
