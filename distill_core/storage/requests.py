"""Requests to buckets, counted in this process: they are what a bucket charges and limits.

Every attempt counts, repeated ones as well. Requests that delete are free and count apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any, Literal

Kind = Literal["read", "write", "list", "delete"]
KINDS: Mapping[str, Kind] = {  # by the first word of an operation of S3
    "Get": "read",
    "Head": "read",
    "List": "list",
    "Put": "write",
    "Upload": "write",
    "Create": "write",
    "Complete": "write",
    "Copy": "write",
    "Delete": "delete",
    "Abort": "delete",
}
BEFORE_SEND = "before-send.s3"  # event of botocore, once per attempt


class RequestCounter:
    """Counts requests by kind; threads may share it."""

    def __init__(self) -> None:
        self._counts, self._lock = Counter[str](), Lock()

    def count(self, kind: Kind, number: int = 1) -> None:
        """Add requests."""
        with self._lock:
            self._counts[kind] += number

    def add(self, counts: Mapping[str, int]) -> None:
        """Add requests that another process has counted, by kind."""
        with self._lock:
            self._counts.update(counts)

    def count_event(self, event_name: str, **_: Any) -> None:
        """Add the request of an event of botocore, such as ``before-send.s3.GetObject``."""
        operation = event_name.rpartition(".")[2]
        kinds = (kind for word, kind in KINDS.items() if operation.startswith(word))
        self.count(next(kinds, "read"))

    def taken(self) -> dict[str, int]:
        """Return the counts since the last call, without zeros."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return {kind: number for kind, number in counts.items() if number}


requests_of_process = RequestCounter()
