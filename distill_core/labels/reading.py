"""Label shards read from storage: one view of all of them at a time, by a few threads.

Every thread holds one row group at a time, and copies it into arrays that hold the view once.

Axes: N images of all S shards, n of one, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from threading import Lock

import numpy as np

from distill_core.errors import DataError, ShardError
from distill_core.labels.views import LabelView
from distill_core.storage.label_rows import Affine
from distill_core.storage.label_shards import LabelRows, decode_labels
from distill_core.storage.row_groups import RowGroupFile
from distill_core.transforms.mixing import Mix
from distill_core.transforms.rand_augment import Operations
from distill_core.transforms.views import View

READERS = 16  # label shards that are read at once: an epoch would wait for a thousand answers

ViewReader = Callable[[int], LabelRows]  # view id -> the labels of one image shard
PER_IMAGE = (
    *("boxes", "flips", "partners", "lam", "mix_boxes", "colours"),
    *("ids", "rest", "patches", "operations", "arguments"),
)


def view_reader(
    open_file: Callable[[int], RowGroupFile],
    *,
    images: str,
    views_per_shard: int,
    in_order: bool,
) -> ViewReader:
    """Return a function that reads one view of one image shard from its label shards.

    Args:
        open_file: opens label shard `n` of the image shard, which holds the views from
            `n * views_per_shard` on.
        images: sha256 of the file of the image shard.
        views_per_shard: views of one label shard.
        in_order: whether views are read in order, so that one open file is enough.
    """
    opened: dict[int, RowGroupFile] = {}

    def read(view: int) -> LabelRows:
        number = view // views_per_shard
        if number not in opened:
            if in_order:
                opened.clear()
            opened[number] = open_file(number)
        rows = decode_labels(opened[number], [view], where=opened[number].where)
        opened[number].release()  # one view of every image shard fills the memory as it is
        check_images(rows.images_sha256, images, where=opened[number].where)
        return rows

    return read


def check_images(described: str, images: str, *, where: str) -> None:
    """Check that labels describe the images that they are used with.

    Args:
        described: sha256 of the images that a label shard states; empty in files of older versions.
        images: sha256 of the file of the image shard.
        where: address of the label shard, for messages.

    Raises:
        ShardError: they describe other images.
    """
    if described not in ("", images):
        raise ShardError(
            f"{where}: describes images with sha256 {described[:12]}, but the image shard has "
            f"{images[:12]}: it was made again. Delete the marker of this label shard, then run "
            "`distill resume`, which makes its labels again."
        )


def memory_reader(rows: LabelRows) -> ViewReader:
    """Return a function that gives one view of labels that are in memory."""
    places = {view: place for place, view in enumerate(rows.views)}

    def read(view: int) -> LabelRows:
        arrays = {f.name: getattr(rows, f.name) for f in fields(rows)}
        of_view = {
            name: array[places[view]][None]
            for name, array in arrays.items()
            if isinstance(array, np.ndarray)
        }
        return replace(rows, views=(view,), **of_view)

    return read


class ParallelReads:
    """Reads of one view, which start at once in a few threads.

    Args:
        jobs: reads, in no particular order.
    """

    def __init__(self, jobs: Sequence[Callable[[], None]]) -> None:
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="labels")
        self._futures = [self._threads.submit(job) for job in jobs]

    def wait(self) -> None:
        """Wait for all of them; if one fails, stop the others and raise its error."""
        try:
            for future in self._futures:
                future.result()
        finally:
            self.stop()

    def stop(self) -> None:
        """Start no more of them, and wait for those that run."""
        self._threads.shutdown(cancel_futures=True)


class ViewBuffer:
    """One view of all label shards in memory, filled shard by shard in any order.

    Args:
        counts: images of each shard, N in all.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._cuts = np.cumsum([0, *counts])
        self._lock = Lock()
        self._affines: list[Affine | None] = [None] * len(counts)
        self.arrays: dict[str, np.ndarray] = {}  # (N, ...) each; labels by their scheme

    def put(self, shard: int, rows: LabelRows) -> None:
        """Copy the only view of a shard into its place.

        Raises:
            DataError: the shard holds no labels, other columns than the rest, or other images than
                expected.
        """
        part = _columns(rows)
        with self._lock:
            if not self.arrays:
                total = self._cuts[-1]
                self.arrays = {n: np.empty((total, *a.shape[1:]), a.dtype) for n, a in part.items()}
        start, stop = self._cuts[shard : shard + 2]
        shapes = {name: array.shape for name, array in part.items()}
        expected = {name: (stop - start, *a.shape[1:]) for name, a in self.arrays.items()}
        for name in sorted(shapes.keys() | expected.keys()):
            if (actual := shapes.get(name)) != (other := expected.get(name)):
                raise DataError(
                    f"label shards: {name} of image shard {shard} has shape {actual}, {other} "
                    "expected. Relabel the whole set with one config."
                )
        for name, array in part.items():
            self.arrays[name][start:stop] = array
        self.arrays["partners"][start:stop] += start  # rows of a shard become rows among all
        self._affines[shard] = rows.affine

    def drawn(self) -> LabelView:
        """Return the draws of all images."""
        a = self.arrays
        rolls = np.zeros((self._cuts[-1], 2), np.int32)
        return LabelView(
            View(a["boxes"], a["flips"], rolls),
            Mix(a["partners"], a["lam"], a["mix_boxes"], a["colours"]),
            patches=a.get("patches"),
            operations=Operations(a["operations"], a["arguments"]) if "operations" in a else None,
        )

    def owners(self) -> np.ndarray:
        """Return the shard of every image, (N,) int64."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

    def affine(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the maps from codes to features: (S, D) scales, (S, D) offsets, bits.

        Raises:
            DataError: a shard has none.
        """
        maps = [affine for affine in self._affines if affine is not None]
        if len(maps) < len(self._affines):
            raise DataError("label shard: features without their scale. Run `distill verify`.")
        scale, offset = (np.stack([getattr(m, name) for m in maps]) for name in ("scale", "offset"))
        return scale, offset, maps[0].bits


def _columns(rows: LabelRows) -> dict[str, np.ndarray]:
    """Return the columns of the one view that was read from a label shard."""
    if rows.values is None:
        raise DataError("label shard: scheme online stores nothing to read. Relabel with features.")
    columns = {name: getattr(rows, name) for name in PER_IMAGE} | {rows.scheme: rows.values}
    return {name: array[0] for name, array in columns.items() if array is not None}
