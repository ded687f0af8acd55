"""The event log of one driver: numbered, immutable parts below ``runs/<name>/events/``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from distill_core.storage.records import BLANK, NAME, seal
from distill_core.storage.shard_store import utc_now

if TYPE_CHECKING:
    from tasks.jobs import Receipt
    from tasks.run import Run


class EventLog:
    """Writes one part per stage: when shards started, finished, were tried again or failed.

    Args:
        run: the run.
        driver: name of this driver.
        clock: returns the time.
        write: takes the path and the bytes of a part; by default, the store writes them at once.
    """

    def __init__(
        self,
        run: Run,
        *,
        driver: str | None = None,
        clock: Callable[[], datetime] = utc_now,
        write: Callable[[str, bytes], object] | None = None,
    ) -> None:
        self._run, self._clock = run, clock
        self._write = write or run.store.put
        self._driver = driver or secrets.token_hex(4)
        self._lines: list[str] = []
        self._parts = 0

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Record the number of shards."""
        self._record("stage_started", stage=stage, total=total, done=done)

    def stage_notice(self, stage: str, text: str) -> None:
        """Record it."""
        self._record("stage_notice", stage=stage, text=text)

    def job_started(self, stage: str, shard: str) -> None:
        """Record the start of a shard; if no end follows, the worker was lost."""
        self._record("job_started", stage=stage, shard=shard)

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Do nothing: there are too many, and the marker records the outcome."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Record a finished shard, and whether this driver committed it."""
        details = {"key": receipt.key, "seconds": receipt.seconds, "won": receipt.won}
        self._record("job_finished", stage=stage, shard=receipt.shard, **details)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Record a new attempt."""
        self._record("job_retried", stage=stage, shard=shard, reason=reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Record a shard that used up its attempts."""
        self._record("job_failed", stage=stage, shard=shard, error=error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Record the time, and write the part."""
        self._record("stage_finished", stage=stage, seconds=round(seconds, 3))
        self.flush()

    def flush(self) -> None:
        """Write the events since the last part, if any, and a digest of the part at its end."""
        if not self._lines:
            return
        path = self._run.path("events", f"{self._driver}-{self._parts:04d}.jsonl")
        end = json.dumps({"event": "end_of_part", NAME: BLANK}) + "\n"
        part = seal("".join(self._lines) + end)
        self._lines, self._parts = [], self._parts + 1
        self._write(path, part)

    def _record(self, event: str, **details: Any) -> None:
        record = {
            "at": self._clock().isoformat(timespec="milliseconds"),
            "event": event,
            **details,
        }
        self._lines.append(json.dumps(record) + "\n")
