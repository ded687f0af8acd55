"""Training images from packs in a bucket, kept on the disk, against packs on the disk.

python -m benchmarks.bench_pack_cache [--photographs 1000] [--rounds 5]

Images are stand-ins of 500 x 375, packed at a short edge of 256; the bucket is moto on loopback. An
epoch reads every image once, in random order, in batches of 64 and in one process. The first epoch
of the bucket loads the packs; its bytes are compared with those of the packs. Then epochs of the
bucket, with a warm cache, and of the folder are timed in turns: CPU seconds of this process, and
the median of the ratios of pairs. "A/A" is the folder against itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.hardware import hardware
from benchmarks.pairs import cpu_time
from benchmarks.s3_server import served
from benchmarks.squeeze_sources import Packed, Photographs, prepared
from distill_core.config.schema import RunConfig
from distill_core.data.packs.cache import Load, PackCache
from distill_core.data.packs.cache_settings import FOLDER
from distill_core.data.real_images import RealImages
from distill_core.storage.markers import FileInfo
from tasks.stages.inputs import RunInputs

BATCH = 64


class Epochs:
    """Epochs over the training split of a run whose packs are in a store."""

    def __init__(self, config: RunConfig, store: str) -> None:
        index = RunInputs(prepared(config, store)).index
        self._images = RealImages(config.data, index, "train", decoders=1, repeated=True)
        self._seed = 0

    def epoch(self) -> None:
        """Read every image once."""
        count, self._seed = len(self._images.labels), self._seed + 1
        order = np.random.default_rng(self._seed).permutation(count)
        for start in range(0, count, BATCH):
            self._images.at(order[start : start + BATCH])


class Reads:
    """The bytes that are read from the store, and those of the packs that are read."""

    def __init__(self) -> None:
        self.total, self._packs = 0, dict[str, int]()

    @property
    def packs(self) -> int:
        """Return the bytes of all packs of which something was read."""
        return sum(self._packs.values())

    def add(self, pack: FileInfo, size: int) -> None:
        """Add bytes that were read of a pack."""
        self.total += size
        self._packs[pack.sha256] = pack.bytes


@contextmanager
def counted() -> Iterator[Reads]:
    """Count what is read from the store during a block."""
    reads, read = Reads(), PackCache.read

    def counting(
        cache: PackCache, pack: FileInfo, offset: int, size: int, *, load: Load | None = None
    ) -> bytes | None:
        def loads(first: int, length: int) -> bytes:
            assert load is not None
            data = load(first, length)
            reads.add(pack, len(data))
            return data

        data = read(cache, pack, offset, size, load=None if load is None else loads)
        if data is None:  # it is read by a range
            reads.add(pack, size)
        return data

    with mock.patch.object(PackCache, "read", counting):
        yield reads


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, served() as (near, _):
        os.environ[FOLDER] = f"{name}/cache"
        source = Photographs.stand_ins(args.photographs, Path(name) / "images")
        source.write()
        config = Packed(source, Path(name) / "packed").run()
        disk, bucket = Epochs(config, f"{name}/store"), Epochs(config, near)
        disk.epoch()
        with counted() as cold:
            bucket.epoch()
        with counted() as later:
            pairs = [
                [cpu_time(way.epoch) for way in (disk, bucket, disk)] for _ in range(args.rounds)
            ]
    warm, same = (statistics.median(each[n] / each[0] for each in pairs) for n in (1, 2))
    rate = args.photographs / statistics.median(each[0] for each in pairs)
    print(f"{hardware()}; {args.photographs:,} images, {args.rounds} rounds.")
    print(f"bytes read in the first epoch over those of its packs: {cold.total / cold.packs:.3f}")
    print(f"bytes read in {args.rounds} later epochs: {later.total:,}")
    print(f"images per CPU second from the disk: {rate:,.0f}")
    print(f"time of an epoch from the bucket over one from the disk: {warm:.3f} (A/A {same:.3f})")


if __name__ == "__main__":
    sys.exit(main())
