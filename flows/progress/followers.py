"""Several observers as one, none of which can end a stage; and an observer that delays none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows import terminal
from flows.progress.background import Background, Warn, Warnings

if TYPE_CHECKING:
    from tasks.jobs import Receipt
    from tasks.observer import Observer


class _Forwarding:
    """Passes every event on."""

    def _pass(self, event: str, *details: Any) -> None:
        raise NotImplementedError

    def stage_started(self, stage: str, total: int, done: int) -> None:
        """Pass it on."""
        self._pass("stage_started", stage, total, done)

    def stage_notice(self, stage: str, text: str) -> None:
        """Pass it on."""
        self._pass("stage_notice", stage, text)

    def job_started(self, stage: str, shard: str) -> None:
        """Pass it on."""
        self._pass("job_started", stage, shard)

    def job_progress(self, stage: str, shard: str, done: int, total: int) -> None:
        """Pass it on."""
        self._pass("job_progress", stage, shard, done, total)

    def job_finished(self, stage: str, receipt: Receipt) -> None:
        """Pass it on."""
        self._pass("job_finished", stage, receipt)

    def job_retried(self, stage: str, shard: str, reason: str) -> None:
        """Pass it on."""
        self._pass("job_retried", stage, shard, reason)

    def job_failed(self, stage: str, shard: str, error: str) -> None:
        """Pass it on."""
        self._pass("job_failed", stage, shard, error)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Pass it on."""
        self._pass("stage_finished", stage, seconds)


class Several(_Forwarding):
    """Passes every event on to several observers, in order.

    An observer that raises is followed by a warning, the first time for each kind of error.
    """

    def __init__(self, *observers: Observer, warn: Warn = terminal.warn) -> None:
        self._observers = [(o, Warnings(type(o).__name__, warn)) for o in observers]

    def _pass(self, event: str, *details: Any) -> None:
        for observer, warnings in self._observers:
            try:
                getattr(observer, event)(*details)
            except Exception as error:  # noqa: BLE001  # observers only inform
                warnings.report(error)


class Detached(_Forwarding):
    """Passes every event on to an observer in another thread."""

    def __init__(self, observer: Observer, calls: Background) -> None:
        self._observer, self._calls = observer, calls

    def _pass(self, event: str, *details: Any) -> None:
        self._calls.call(getattr(self._observer, event), *details)
