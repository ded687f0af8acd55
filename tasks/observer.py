"""The protocol of those who follow a run: displays, event logs, the heartbeat, artifacts."""

from __future__ import annotations

from typing import Protocol

from tasks.jobs import Receipt


class Observer(Protocol):
    """Receives the events of a run's stages and shards, in the thread that runs the stages.

    `job_progress` may come from a second thread, but never twice at the same time.
    """

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """A stage with `total` shards begins; `done` of them are complete already."""

    def stage_notice(self, stage: str, text: str) -> None:
        """A stage goes on, though something about its input deserves attention."""

    def job_started(self, stage: str, shard: str) -> None:
        """A worker begins a shard, for the first time or again."""

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """`done` of the `total` units of a running shard are complete."""

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """A shard is committed."""

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """A shard goes back into the queue."""

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """A shard used up its attempts."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage wrote its manifests, or ends without them."""
