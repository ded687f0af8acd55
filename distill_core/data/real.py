"""Real images by row of the index. Axes: n images, S side in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_core.config.data import DataConfig
from distill_core.data.decode import decode_image
from distill_core.data.index import DatasetIndex
from distill_core.data.readers import open_reader
from distill_core.data.records import Reader, Split
from distill_core.data.survey import CHUNK, THREADS
from distill_core.errors import DataError
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256


class RealImages:
    """One split of an ingested dataset; nothing is read before it is asked for."""

    def __init__(self, config: DataConfig, index: DatasetIndex, split: Split) -> None:
        self._config = config
        self._table = index.table(split)
        self._readable = index.readable(split)
        self.labels: np.ndarray = self._table["label"].to_numpy()[self._readable].astype(np.int64)

    def resident(self, *, progress: Progress = silent) -> np.ndarray:
        """Return every readable image, (n, 3, S, S) uint8, in the order of `labels`."""
        return self.pixels(self._readable, progress=progress)

    def pixels(
        self, rows: Sequence[int] | np.ndarray, *, progress: Progress = silent
    ) -> np.ndarray:
        """Return some images, (n, 3, S, S) uint8.

        Args:
            rows: rows of the index; each must be readable.
            progress: told after every chunk.

        Raises:
            DataError: an image is gone, or is not the one that was ingested.
        """
        chosen = self._table.take(pa.array(np.asarray(rows, np.int64)))
        out = np.empty((len(rows), 3, self._config.side, self._config.side), np.uint8)
        # Files are read in their own order and the images put where they belong: with the order
        # of the index, every chunk would touch every file of a shuffled dataset.
        keys = [("uri", "ascending"), ("offset", "ascending")]
        order = pc.sort_indices(chosen, sort_keys=keys).to_numpy()
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(order), CHUNK):
                self._read_chunk(chosen, order[start : start + CHUNK], out, pool)
                progress(min(start + CHUNK, len(order)), len(order))
        return out

    def _read_chunk(
        self, chosen: pa.Table, places: np.ndarray, out: np.ndarray, pool: ThreadPoolExecutor
    ) -> None:
        """Fetch some of the chosen images together, then decode them in a few threads."""
        part = chosen.take(pa.array(places))
        uris, offsets = part["uri"].to_pylist(), part["offset"].to_pylist()
        hashes = part["sha256"].to_pylist()
        files = self._reader.fetch(list(zip(uris, offsets, strict=True)))

        def decode(some: range) -> None:
            for n in some:
                where = f"{self._config.path or self._config.format}: {uris[n]} row {offsets[n]}"
                if sha256(files[n]) != hashes[n]:
                    raise DataError(
                        f"{where}: not the image that was ingested. Restore it, or start a new run."
                    )
                out[places[n]] = decode_image(files[n], self._config, where=where)

        share = -(-len(files) // THREADS)
        list(pool.map(decode, [range(len(files))[s * share :][:share] for s in range(THREADS)]))

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self._config)
