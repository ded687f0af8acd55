"""Follow a job to its end: its log, an outage of the Jobs API, its cancellation.

The log is read whole with every request, as the Jobs API has no other way over plain HTTP; the
pauses grow with it, so that a long log takes little of the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distill_core.errors import ClusterError, DistillError
from tasks.submission.jobs_api import Job, JobsApi, Unanswered
from tasks.submission.submission import Notify

POLL_SECONDS = 2.0
LOG_RATE = 100_000.0  # characters per second, on average, that reading the log may take
REPEAT_SECONDS = 60.0  # between two lines on the same outage
STOP_SECONDS = 9.0  # from the request to stop a job until its end
STOP_POLL_SECONDS = 0.3
END_ATTEMPTS = 5  # to read the rest of the log
STOP_REQUEST_SECONDS = 3.0

Show = Callable[[str], Any]  # receives each line of the log


@dataclass
class Following:
    """Follows one job.

    Args:
        api: of its cluster.
        id: of the job.
        show: receives each line of its log, once.
        notify: receives one sentence on an outage.
        outage_seconds: how long the Jobs API may be away.
        clock: seconds, monotonic.
        sleep: waits between two requests.
    """

    api: JobsApi
    id: str
    show: Show
    notify: Notify
    outage_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _seen: int = field(default=0, init=False)  # characters of the log that were shown
    _next_log: float = field(default=float("-inf"), init=False)
    _away: float | None = field(default=None, init=False)  # since when there is no answer
    _noted: float = field(default=float("-inf"), init=False)

    def wait(self) -> Job:
        """Return the job once it has ended; an exception of a signal stops it first.

        Raises:
            ClusterError: there was no answer for too long, or the cluster has lost the job.
            ConfigError: access is refused.
        """
        try:
            while True:
                try:
                    job = self._look()
                except Unanswered as error:
                    self._note_outage(error)
                else:
                    self._away = None
                    if job.has_ended:
                        return job
                self.sleep(POLL_SECONDS)
        except Exception:
            raise
        except BaseException:  # a signal, or the cancellation of a flow run
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop the job, and return whether it has ended, within a limited time."""
        api = JobsApi(self.api.address, seconds=STOP_REQUEST_SECONDS)
        deadline, asked = self.clock() + STOP_SECONDS, False
        while self.clock() < deadline:
            with suppress(DistillError):
                if not asked:
                    api.stop(self.id)
                    asked = True
                job = api.job(self.id)
                if job is None or job.has_ended:
                    self.notify(f"the job {self.id} has been stopped.")
                    return True
            self.sleep(STOP_POLL_SECONDS)
        self.notify(
            f"the job {self.id} did not answer the request to stop. Stop it with `ray job stop "
            f"{self.id} --address {self.api.address}`."
        )
        return False

    def _look(self) -> Job:
        job = self.api.job(self.id)
        if job is None:
            raise ClusterError(
                f"the job {self.id}: the cluster at {self.api.address} does not know it any more, "
                "so its head was replaced. Committed shards are kept; run the command again."
            )
        if job.has_ended:
            self._show_end()
        elif self.clock() >= self._next_log:
            with suppress(Unanswered):  # the node of the driver may be away
                self._show_log()
        return job

    def _show_end(self) -> None:
        """Show the rest of the log; give up on it if the node that holds it is away."""
        for _ in range(END_ATTEMPTS):
            try:
                self._show_log(is_whole=True)
            except Unanswered:
                self.sleep(POLL_SECONDS)
            else:
                return

    def _show_log(self, *, is_whole: bool = False) -> None:
        log = self.api.log(self.id)
        self._next_log = self.clock() + len(log) / LOG_RATE
        end = len(log) if is_whole else log.rfind("\n") + 1
        new, self._seen = log[self._seen : end], max(self._seen, end)
        for line in new.splitlines():
            self.show(line)

    def _note_outage(self, error: Unanswered) -> None:
        now = self.clock()
        if self._away is None:
            self._away = now
        if now - self._away >= self.outage_seconds:
            raise ClusterError(
                f"{error} This has lasted for {self.outage_seconds:g} s (--outage-timeout). The "
                f"job {self.id} is not affected; run the command again to find it."
            ) from error
        if now - self._noted >= REPEAT_SECONDS:
            self._noted = now
            self.notify(f"{error} The job {self.id} is not affected; waiting.")
