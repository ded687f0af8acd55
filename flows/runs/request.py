"""A request for a run, a resume or a new version: how it travels, and how it is carried out.

A flow carries it out, or the driver of a job in a cluster, to which it goes as JSON. It holds the
whole config and no credentials; those are in the environment of the machine that carries it out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from distill_core.config.addresses import check_config
from distill_core.config.load import fingerprint
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, shown
from distill_core.storage.store import Store
from flows.runs import last_version, pipeline, preflight, shard_selection
from flows.runs import redistill as redistillation
from flows.runs.redistill import Outcome
from flows.runs.shard_selection import ShardSelection
from flows.status.status import RunStatus
from tasks.execution import Execution, Placement
from tasks.policy import TeacherPolicy
from tasks.run import Run, default_name, open_run

if TYPE_CHECKING:
    from tasks.submission.submission import Submission

VARIABLE = "DISTILL_JOB"  # holds the request in the environment of a job
COMMAND = "exec distill job"
MAX_BYTES = 120_000  # of one variable; Linux allows 128 KiB


class RunStages(Protocol):
    """Runs the stages of a run, and returns its status."""

    def __call__(
        self,
        run: Run,
        execution: Execution,
        selection: ShardSelection | None = None,
        *,
        shards: str | None = None,
        and_later: bool = False,
    ) -> RunStatus:
        """Run them; see `flows.runs.pipeline.run_stages`."""


class RunRequest(BaseModel):
    """A request; immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["run", "resume", "redistill"]
    store: str
    execution: Placement = Placement()
    config: RunConfig | None = None  # of run and redistill
    run: str | None = None  # its name; None: the preset and the config's fingerprint
    series: str | None = None  # of redistill; None: the preset
    policy: TeacherPolicy = "keep"
    if_changed: bool = False
    shards: str | None = None
    and_later: bool = False
    failed_only: bool = False
    only: dict[str, list[str]] | None = None  # names of shards, by stage
    events: bool = False  # the log of the job also has them as lines for a program

    @property
    def subject(self) -> str:
        """Return the name of the run or of the series, of which one job runs at a time."""
        if self.command == "redistill":
            return str(self.series or self.checked_config().preset)
        return self.run or default_name(self.checked_config())

    def submission(self) -> Submission:
        """Return the job that carries this out.

        Raises:
            ConfigError: the config is too large for the environment of a process.
        """
        from tasks.submission.submission import Submission  # with Ray, which takes a moment

        execution = self.execution.model_copy(
            update={"submit": None, "ray_address": self.execution.ray_address or "auto"}
        )
        inner = self.model_copy(update={"execution": execution})
        text = inner.model_dump_json(exclude_defaults=True)
        if len(text.encode()) > MAX_BYTES:
            raise ConfigError(
                f"--submit: the request has {len(text.encode())} bytes, at most {MAX_BYTES} fit "
                "into the environment of a job. Run the command on a node of the cluster."
            )
        return Submission(
            subject=self.subject,
            store=Store(self.store).url,
            command=COMMAND,
            variables={VARIABLE: text},
            work=self._work(),
            config="" if self.config is None else fingerprint(self.config),
            part=self._part(),
        )

    @classmethod
    def received(cls, environment: Mapping[str, str] = os.environ) -> RunRequest:
        """Return the request in the environment of a job.

        Raises:
            ConfigError: there is none, or one of another version of this program.
        """
        if VARIABLE not in environment:
            raise ConfigError(
                f"{VARIABLE} is not set: `distill job` is started by `distill run --submit`."
            )
        try:
            return cls.model_validate_json(environment[VARIABLE])
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            path = ".".join(map(str, problem["loc"]))
            raise ConfigError(
                f"{path} = {shown(problem['input'])}: {problem['msg']}. The request comes from "
                "another version of distill; install the same one here and on the cluster."
            ) from None

    def checked_config(self) -> RunConfig:
        """Return the config.

        Raises:
            ConfigError: there is none, or an address in it holds credentials.
        """
        if self.config is None:
            raise ConfigError(f"config: missing, and distill {self.command} needs one.")
        check_config(self.config)
        return self.config

    def _work(self) -> str:
        """Return what is done to the subject; to resume a run is to run it."""
        work = f"redistill, policy {self.policy}" if self.command == "redistill" else "run"
        allowed = self.execution.allow_missing
        return f"{work}, allow_missing {allowed}" if allowed else work

    def _part(self) -> str:
        """Return a name for the shards that are selected; empty: all that are missing."""
        only = self.only and hashlib.sha256(repr(sorted(self.only.items())).encode()).hexdigest()
        parts: dict[str, Any] = {
            "failed only": self.failed_only,
            f"shards {self.shards}": self.shards,
            "and later": self.and_later,
            f"selection {(only or '')[:8]}": only,
        }
        return ", ".join(name for name, is_set in parts.items() if is_set)


def carry_out(request: RunRequest, run_stages: RunStages) -> tuple[Run, Outcome | None]:
    """Carry out a request in this process.

    Args:
        request: what to do.
        run_stages: runs the stages, with Prefect or without.

    Returns:
        The run, and what a re-distillation has come to.

    Raises:
        ConfigError, DataError, Problems: it is refused.
        StorageError, ClusterError, ShardsFailed, RunIncomplete: it was tried, and failed.
    """
    execution = pipeline.execution_of({**request.execution.model_dump(), "store": request.store})
    part: dict[str, Any] = {"shards": request.shards, "and_later": request.and_later}
    if request.command == "redistill":
        outcome = _redistill(request, execution, run_stages)
        return outcome.run, outcome
    if request.command == "resume":
        run = open_run(Store(request.store), str(request.run))
        preflight.check(run, execution)
        selection = shard_selection.selection(run, failed_only=request.failed_only, **part)
        run_stages(run, execution, selection)
        return run, None
    run = pipeline.prepare(request.checked_config(), execution, name=request.run)
    run_stages(run, execution, request.only, **part)
    return run, None


def _redistill(request: RunRequest, execution: Execution, run_stages: RunStages) -> Outcome:
    config, store = request.checked_config(), Store(request.store)
    series, policy = request.series or config.preset, request.policy
    if request.if_changed:
        allowed = execution.allow_missing
        last = last_version.unchanged(
            config, store, series=series, policy=policy, allow_missing=allowed
        )
        if last is not None:
            return Outcome(last, changed=False, diff=None)
    return redistillation.redistill(
        config, store, series=series, policy=policy, execution=execution, complete=run_stages
    )
