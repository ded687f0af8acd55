"""Reading in threads ahead of use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    read: Callable[[T], R],
    parts: Sequence[T],
    *,
    ahead: int,
    readers: int,
) -> Generator[R, None, None]:
    """Yield what `read` returns for each part, in order.

    Raises what reading raises, at the part that could not be read.

    Args:
        read: called in threads.
        parts: by part, what `read` is called with.
        ahead: parts that are read, or have been read, before they are needed.
        readers: parts that are read at the same time.
    """
    threads, pending = ThreadPoolExecutor(readers), deque[Future[R]]()
    try:
        for number in range(-ahead, len(parts)):
            if number + ahead < len(parts):
                pending.append(threads.submit(read, parts[number + ahead]))
            if number >= 0:
                yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
