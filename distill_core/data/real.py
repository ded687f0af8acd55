"""Real images by row of the index. Axes: n images, S side in pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from distill_core.config.schema import DataConfig
from distill_core.data.decode import decode_image
from distill_core.data.index import THREADS, DatasetIndex
from distill_core.data.readers import READERS


class RealImages:
    """One split of an ingested dataset; nothing is read before it is asked for."""

    def __init__(self, config: DataConfig, index: DatasetIndex, split: str) -> None:
        self._config = config
        self._table = getattr(index, split)
        self._readable = index.readable(split)
        self.labels: np.ndarray = self._table["label"].to_numpy()[self._readable].astype(np.int64)

    def resident(self) -> np.ndarray:
        """Return every readable image, (n, 3, S, S) uint8, in the order of `labels`."""
        return self.pixels(self._readable)

    def pixels(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return some images, (n, 3, S, S) uint8.

        Args:
            rows: rows of the index; each must be readable.
        """
        chosen = self._table.take(np.asarray(rows, np.int64))
        uris, offsets = chosen["uri"].to_pylist(), chosen["offset"].to_pylist()
        files = self._fetch(uris, offsets)
        side = self._config.side
        out = np.empty((len(files), 3, side, side), np.uint8)

        def decode(n: int) -> None:
            out[n] = decode_image(files[n], self._config, where=f"{uris[n]} row {offsets[n]}")

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, range(len(files)), chunksize=256))
        return out

    def _fetch(self, uris: Sequence[str], offsets: Sequence[int]) -> list[bytes]:
        """Return encoded images, each source file asked once."""
        fetch = READERS[self._config.format].fetch
        places = defaultdict(list)
        for place, uri in enumerate(uris):
            places[uri].append(place)
        files = [b""] * len(uris)
        for uri, found in places.items():
            data = fetch(self._config, uri, [offsets[place] for place in found])
            for place, one in zip(found, data, strict=True):
                files[place] = one
        return files
