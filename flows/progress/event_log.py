"""The event log of one driver: numbered, immutable parts below ``runs/<name>/events/``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.jobs import Receipt
    from tasks.run import Run


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class EventLog:
    """Writes one part per stage: what started, finished, was tried again, failed, and when."""

    def __init__(
        self,
        run: Run,
        *,
        driver: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._run, self._clock = run, clock
        self._driver = driver or secrets.token_hex(4)
        self._lines: list[str] = []
        self._parts = 0

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Note how much there is to do."""
        self._note("stage_started", stage=stage, total=total, done=done)

    def job_started(self, stage: str, shard: str) -> None:
        """Note when a worker began a shard; without an end, it was lost there."""
        self._note("job_started", stage=stage, shard=shard)

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Ignore: too many, and the marker tells the outcome."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Note who made a shard, or that somebody else had."""
        facts = {"key": receipt.key, "seconds": receipt.seconds, "won": receipt.won}
        self._note("job_finished", stage=stage, shard=receipt.shard, **facts)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Note a new attempt."""
        self._note("job_retried", stage=stage, shard=shard, reason=reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Note a shard that used up its attempts."""
        self._note("job_failed", stage=stage, shard=shard, error=error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Note the time, and write the part."""
        self._note("stage_finished", stage=stage, seconds=round(seconds, 3))
        self.flush()

    def flush(self) -> None:
        """Write what was noted since the last part, if anything."""
        if not self._lines:
            return
        path = self._run.path("events", f"{self._driver}-{self._parts:04d}.jsonl")
        self._run.store.put(path, "".join(self._lines).encode())
        self._lines, self._parts = [], self._parts + 1

    def _note(self, event: str, **facts: Any) -> None:
        record = {
            "at": self._clock().isoformat(timespec="milliseconds"),
            "event": event,
            **facts,
        }
        self._lines.append(json.dumps(record) + "\n")
