"""An observer that records events."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.jobs import Receipt


@dataclass
class Notes:
    """The events of jobs by kind, in order."""

    started: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    retried: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    notices: list[tuple[str, str]] = field(default_factory=list)

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Ignore."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Ignore."""

    def stage_notice(self, stage: str, text: str) -> None:
        self.notices.append((stage, text))

    def job_started(self, stage: str, shard: str) -> None:
        self.started.append(shard)

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        self.progress.append((shard, done, total))

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        self.finished.append(receipt.shard)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        self.retried.append((shard, reason))

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        self.failed.append((shard, error))
