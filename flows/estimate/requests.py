"""Requests to buckets that a run takes, and their price.

Images that are files of their own, and images that training reads in a random order from archives,
take a request each. Images that are read class by class from archives or packs share requests (see
`distill_core.data.files.ranges`). A shard takes a few requests to look for it, to read what it is
made from and to publish it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distill_core.config.data import DataConfig
from distill_core.config.schema import RunConfig
from distill_core.data.files.ranges import MOST
from flows.estimate.passes import ON_CPU, StageWork
from flows.estimate.rates import SMALL
from flows.estimate.workload import Plan

FILES = frozenset({"imagefolder", "flat", "tiny"})  # formats with a file for each image
IN_ANY_ORDER = frozenset({"squeeze", "posttrain", "validate"})
IMAGE_BYTES = {True: 2_000, False: 110_000}  # of an image by whether it is small: assumed
READS, WRITES = 4, 3  # of one shard: its marker, its inputs; its files, its marker
VIEW_READS = 2  # of the labels of one view of an image shard
USD = {"reads": 0.40e-6, "writes": 5.00e-6}  # of one request: published for S3 Standard, 2026


@dataclass(frozen=True)
class Requests:
    """Requests of a run, as far as they are known."""

    reads: int
    writes: int

    @property
    def usd(self) -> float:
        """Return their price."""
        return self.reads * USD["reads"] + self.writes * USD["writes"]


def requests_of(config: RunConfig, plan: Plan, works: Iterable[StageWork]) -> Requests:
    """Return the requests of a run whose dataset and store are in buckets.

    Args:
        config: of the run.
        plan: of the same run.
        works: of its stages.
    """
    reads = writes = 0
    for work in works:
        shards = work.shards or 0
        images = sum(count or 0 for unit, count in work.passes.items() if unit in ON_CPU)
        reads += READS * shards + _image_reads(config.data, work.stage, images)
        writes += WRITES * shards
    if plan.label_shards:
        views = plan.students * config.posttrain.epochs
        reads += VIEW_READS * plan.shards * views
    return Requests(reads, writes)


def _image_reads(data: DataConfig, stage: str, images: int) -> int:
    """Return the requests for real images of a stage."""
    packed = data.pack is not None and stage not in ("ingest", "pack")
    if not packed and (data.format in FILES or stage in IN_ANY_ORDER):
        return images
    return -(-images * IMAGE_BYTES[data.side <= SMALL] // MOST)
