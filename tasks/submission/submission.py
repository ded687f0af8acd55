"""Submit a job once: the job of a subject that is running is found again by its id.

The id is ``distill-<subject>-<8 hex of the store>-<attempt>``. The cluster refuses a second job of
an id, so two who submit the same subject at the same time end up with the same job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from distill_core.errors import ClusterError, ConfigError, DistillError
from tasks.submission.jobs_api import Job, JobsApi, Unanswered

ROUNDS = 5  # others may submit the same subject at the same time
# A job has this long to end by itself. The driver limits itself to 6 s; Ray's default is 3 s.
VARIABLES = {"RAY_JOB_STOP_WAIT_TIME_S": "7"}
PREFIX = "distill."  # of the names in the metadata of a job
SUBJECT, STORE, ATTEMPT, WORK, CONFIG, PART = (
    f"{PREFIX}{name}" for name in ("subject", "store", "attempt", "work", "config", "part")
)

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Submission:
    """What is to run, once at a time."""

    subject: str  # name of the run, or of the series
    store: str  # URL or folder
    command: str
    variables: Mapping[str, str] = field(default_factory=dict)
    work: str = ""  # what is done to the subject
    config: str = ""  # fingerprint; empty: the config of the run that is there
    part: str = ""  # which shards; empty: all that are missing

    def id(self, attempt: int) -> str:
        """Return the id of an attempt."""
        place = hashlib.sha256(self.store.encode()).hexdigest()[:8]
        return f"distill-{self.subject}-{place}-{attempt}"

    def metadata(self, attempt: int) -> dict[str, str]:
        """Return what is recorded with the job of an attempt."""
        return {
            SUBJECT: self.subject,
            STORE: self.store,
            ATTEMPT: str(attempt),
            WORK: self.work,
            CONFIG: self.config,
            PART: self.part,
        }

    def attempt_of(self, job: Job) -> int | None:
        """Return which attempt of this submission a job is; None: it is another's."""
        text = job.metadata.get(ATTEMPT, "")
        return int(text) if text.isdecimal() and job.id == self.id(int(text)) else None


def submit_once(api: JobsApi, submission: Submission, notify: Notify) -> str:
    """Return the id of the running job of a submission, which is started if there is none.

    Args:
        api: of the cluster.
        submission: what is to run.
        notify: receives one sentence on what was done.

    Raises:
        ConfigError: another config or other shards of the same run are running, the token is
            refused, or this is no Jobs API.
        Unanswered: there is no answer.
        ClusterError: others submit the same run all the time.
    """
    for _ in range(ROUNDS):
        attempts = {submission.attempt_of(job): job for job in api.jobs()}
        attempts.pop(None, None)
        running = [job for job in attempts.values() if not job.has_ended]
        if running:
            _check_same(submission, running[-1], api.address)
            notify(f"{submission.subject}: the job {running[-1].id} runs already; following it.")
            return running[-1].id
        attempt = 1 + max((number for number in attempts if number is not None), default=0)
        id = submission.id(attempt)
        try:
            variables = {**submission.variables, **VARIABLES}
            api.submit(id, submission.command, variables, submission.metadata(attempt))
            notify(f"{submission.subject}: submitted to {api.address} as the job {id}.")
        except (Unanswered, ConfigError):
            # The answer may have been lost, or somebody else was faster.
            if api.job(id) is None:
                raise
            continue
        except Exception:
            raise
        except BaseException:  # a signal: the job may run already, and nobody would follow it
            with suppress(DistillError):
                api.stop(id)
            raise
        return id
    raise ClusterError(
        f"{submission.subject}: {ROUNDS} jobs in a row were submitted by others and ended. Look "
        f"for who else starts this run, with `ray job list --address {api.address}`."
    )


def _check_same(submission: Submission, job: Job, address: str) -> None:
    """Refuse to follow a job that does something else with the same run."""
    work, config, part = (job.metadata.get(name, "") for name in (WORK, CONFIG, PART))
    if work and work != submission.work:
        difference = f"another purpose ({work})"
    elif config and submission.config and config != submission.config:
        difference = "another config"
    elif part and part != submission.part:
        difference = f"a part of the shards ({part})"
    else:
        return
    raise ConfigError(
        f"{submission.subject}: the job {job.id} runs already, with {difference}. Wait for its "
        f"end, or stop it with `ray job stop {job.id} --address {address}`."
    )
