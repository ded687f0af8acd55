"""Label shards read from storage: one view at a time, by a few threads.

Every thread holds one row group at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from distill_core.storage.label_shards import LabelRows, decode_labels
from distill_core.storage.row_groups import RowGroupFile

READERS = 16  # label shards that are read at once: an epoch would wait for a thousand answers

ViewReader = Callable[[int], LabelRows]  # view id -> the labels of one image shard


def view_reader(
    open_file: Callable[[int], RowGroupFile], *, views_per_shard: int, in_order: bool
) -> ViewReader:
    """Return a function that reads one view of one image shard from its label shards.

    Args:
        open_file: opens label shard `n` of the image shard, which holds the views from
            `n * views_per_shard` on.
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
        return rows

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
