"""Images that are read in threads ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def read_ahead(
    read: Callable[[T], np.ndarray],
    batches: Sequence[T],
    *,
    ahead: int,
    readers: int,
) -> Generator[np.ndarray, None, None]:
    """Yield what `read` returns for each batch, in order.

    Raises what reading raises, at the batch that could not be read.

    Args:
        read: called in threads.
        batches: by batch, what `read` is called with.
        ahead: batches that are read, or have been read, before they are needed.
        readers: batches that are read at the same time.
    """
    threads, pending = ThreadPoolExecutor(readers), deque[Future[np.ndarray]]()
    try:
        for number in range(-ahead, len(batches)):
            if number + ahead < len(batches):
                pending.append(threads.submit(read, batches[number + ahead]))
            if number >= 0:
                yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
