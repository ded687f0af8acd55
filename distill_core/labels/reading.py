"""Label shards that are read by a few threads, each of which holds one row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

READERS = 16  # label shards that are read at once: an epoch would wait for a thousand answers


class Reading:
    """Jobs of one view, at work from the beginning.

    Args:
        jobs: what to do, in no particular order.
    """

    def __init__(self, jobs: Sequence[Callable[[], None]]) -> None:
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="labels")
        self._futures = [self._threads.submit(job) for job in jobs]

    def wait(self) -> None:
        """Wait for all of them; if one fails, stop the others and raise what it raised."""
        try:
            for future in self._futures:
                future.result()
        finally:
            self.stop()

    def stop(self) -> None:
        """Begin no more of them, and wait for those at work."""
        self._threads.shutdown(cancel_futures=True)
