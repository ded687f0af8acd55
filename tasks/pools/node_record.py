"""The record of a node: the evidence on whether it or the jobs that failed there are at fault."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NodeRecord:
    """The jobs of a node as evidence: whether it or they are at fault."""

    proven: bool = False  # a job was done there
    failed: set[str] = field(default_factory=set)  # keys of jobs, since one was last done
    failures: int = 0  # likewise
    failed_at: float = 0.0  # the last one
    failed_after: float = 0.0  # seconds, the longest of these attempts

    def note_failure(self, key: str, now: float, seconds: float) -> None:
        """Note that a job failed."""
        self.failed.add(key)
        self.failures += 1
        self.failed_at, self.failed_after = now, max(self.failed_after, seconds)

    def note_success(self) -> None:
        """Note that a job was done."""
        self.proven, self.failures, self.failed_after = True, 0, 0.0
        self.failed.clear()
