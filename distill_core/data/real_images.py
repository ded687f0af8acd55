"""Decoded real images by row of the index, read from packs where the config has them.

Axes: n images, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.data import DataConfig
from distill_core.data.decoding.crops import SQUARES, Rendition
from distill_core.data.decoding.fetch import EncodedImages
from distill_core.data.decoding.processes import SPAN, Decoders, default_decoders
from distill_core.data.decoding.rows import read_images
from distill_core.data.index import DatasetIndex
from distill_core.data.packs.addresses import PackedRows
from distill_core.data.readers.record import Split
from distill_core.progress import Progress, silent

# Decoded pixels that justify starting processes. An image counts as at least 64 x 64, because the
# header dominates the cost of a smaller one: 61,000 images at 32 pixels, 5,000 at 224.
START_PIXELS = 250_000_000


class RealImages:
    """One split of an ingested dataset, read lazily.

    Large numbers of images are decoded by separate processes, which end with `close` or with this
    object. Several threads may read at the same time.

    Args:
        config: of the dataset.
        index: of the dataset.
        split: the split to read.
        decoders: decoding processes; 1: decode in this process; None: see `default_decoders`.
        start_pixels: total number of requested pixels at which processes are started.
        repeated: whether the images are read often enough from this machine to keep packs of
            them on its disk.
    """

    def __init__(
        self,
        config: DataConfig,
        index: DatasetIndex,
        split: Split,
        *,
        decoders: int | None = None,
        start_pixels: int = START_PIXELS,
        repeated: bool = False,
    ) -> None:
        self._config = config
        self._rows = index.tables[split]
        self._addresses = (
            self._rows
            if config.pack is None
            else PackedRows(config, index, split, repeated=repeated)
        )
        self._store = None if index.store is None else index.store.url
        self._count = decoders or default_decoders()
        self._start_pixels = start_pixels
        self._decoders: Decoders | None = None
        self._lock = Lock()
        self._pixels_requested = 0

    @property
    def decoders(self) -> int:
        """Return the number of decoding processes that large numbers of images are read with."""
        return self._count

    @cached_property
    def labels(self) -> np.ndarray:
        """Return the class of every readable image, (n,) int64."""
        return self._rows.labels()

    def resident(
        self, *, rendition: Rendition = SQUARES, progress: Progress = silent
    ) -> np.ndarray:
        """Return every readable image, (n, 3, S, S) uint8, in the order of `labels`."""
        try:
            return self.pixels(self._readable, rendition=rendition, progress=progress)
        finally:
            self.close()

    def at(self, places: np.ndarray, rendition: Rendition = SQUARES) -> np.ndarray:
        """Return some of the readable images by their positions in `labels`; see `pixels`."""
        return self.pixels(self._readable[places], rendition=rendition)

    def pixels(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        rendition: Rendition = SQUARES,
        progress: Progress = silent,
    ) -> np.ndarray:
        """Return some images, (n, 3, S, S) uint8.

        Args:
            rows: rows of the index; each must be readable.
            rendition: of these n images.
            progress: called with (images decoded, images in total).

        Raises:
            DataError: an image is missing, or is not the one that was ingested.
            ClusterError: a decoding process was lost.
        """
        chosen = self._addresses.take(np.asarray(rows, np.int64))
        out = np.empty((len(rows), 3, self._config.side, self._config.side), np.uint8)
        # Read in the order of the files: in the order of the index, every part would touch every
        # file of a shuffled dataset.
        keys = [("uri", "ascending"), ("offset", "ascending")]
        order = pc.sort_indices(chosen, sort_keys=keys).to_numpy()
        if self._worth_processes(len(rows)):
            self._started().read(chosen, order, out, rendition=rendition, progress=progress)
            return out
        for start in range(0, len(order), SPAN):
            places = order[start : start + SPAN]
            part = chosen.take(pa.array(places))
            read_images(self._images, part, out, places, rendition.rows(places))
            progress(min(start + SPAN, len(order)), len(order))
        return out

    def close(self) -> None:
        """End the decoding processes, if any; they are started again when needed."""
        if self._decoders is not None:
            self._decoders.close()
        self._decoders = None

    def _worth_processes(self, count: int) -> bool:
        """Return whether the pixels requested so far justify decoding processes."""
        self._pixels_requested += count * max(64, self._config.side) ** 2
        return self._count > 1 and self._pixels_requested >= self._start_pixels

    def _started(self) -> Decoders:
        with self._lock:
            if self._decoders is None or not self._decoders.alive:
                self._decoders = Decoders(self._config, self._count, self._store)
            return self._decoders

    @cached_property
    def _readable(self) -> np.ndarray:
        return self._rows.readable()

    @cached_property
    def _images(self) -> EncodedImages:
        return EncodedImages(self._config, self._store)
