"""Requests to buckets and their bytes, counted in this process: a bucket charges and limits them.

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
RECEIVED = "response-received.s3"  # event of botocore, once per answer
LENGTH = "content-length"


class RequestCounter:
    """Counts requests by kind, and bytes that were read and written; threads may share it."""

    def __init__(self) -> None:
        self._counts, self._bytes, self._lock = Counter[str](), Counter[str](), Lock()

    def count(self, kind: Kind, number: int = 1) -> None:
        """Add requests."""
        with self._lock:
            self._counts[kind] += number

    def add(self, counts: Mapping[str, int], traffic: Mapping[str, int]) -> None:
        """Add requests that another process has counted, by kind, and their bytes."""
        with self._lock:
            self._counts.update(counts)
            self._bytes.update(traffic)

    def count_event(self, event_name: str, request: Any = None, **_: Any) -> None:
        """Add the request of an event of botocore, such as ``before-send.s3.GetObject``."""
        operation = event_name.rpartition(".")[2]
        kinds = (kind for word, kind in KINDS.items() if operation.startswith(word))
        self.count(next(kinds, "read"))
        if request is not None:
            self.count_bytes("written", _length(request.headers))

    def count_answer(
        self, event_name: str, response_dict: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Add the bytes of an answer of botocore, as far as it states them."""
        if not event_name.rpartition(".")[2].startswith("Head"):  # they describe another answer
            self.count_bytes("read", _length((response_dict or {}).get("headers", {})))

    def count_bytes(self, kind: Literal["read", "written"], number: int) -> None:
        """Add bytes of the bodies of requests or answers."""
        with self._lock:
            self._bytes[kind] += number

    def taken_bytes(self) -> dict[str, int]:
        """Return the bytes since the last call, without zeros."""
        with self._lock:
            counts, self._bytes = self._bytes, Counter()
        return {kind: number for kind, number in counts.items() if number}

    def taken(self) -> dict[str, int]:
        """Return the counts since the last call, without zeros."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return {kind: number for kind, number in counts.items() if number}


def _length(headers: Mapping[str, Any]) -> int:
    """Return the length of a body by its headers, 0 if they do not state it."""
    found = (value for key, value in headers.items() if key.lower() == LENGTH)
    text = next(found, b"0")
    text = text.decode() if isinstance(text, bytes) else str(text)
    return int(text) if text.isdecimal() else 0


requests_of_process = RequestCounter()
