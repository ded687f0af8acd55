"""The type of a row in the table of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_core.config.schema import RunConfig
from distill_core.progress import Notice
from tasks.execution import Execution
from tasks.run import Run
from tasks.stages.expected import Expected
from tasks.stages.inputs import Jobs, RunInputs
from tasks.stages.names import StageId


@dataclass(frozen=True)
class Stage:
    """One kind of stage, with all that planning, running, reporting and collecting need.

    Pools run its `jobs` shard by shard. A stage is complete once its manifests list all of them.
    One that has a `record` instead is complete once that lies in the folder of the run; `finish`
    makes of its shards what later stages read.
    """

    kind: str
    unit: str  # what a running job counts, e.g. steps
    summary: str  # one sentence for people
    expected: Callable[[Expected, StageId], int | None]  # shards; None: the dataset must be known
    payload: type  # of its jobs
    jobs: Callable[[RunInputs, StageId], Jobs]
    worker: str  # "module:Class", imported where it runs
    less_memory: str  # the settings with which a worker needs less, as the start of a sentence
    record: str = ""  # file in the run's folder that `finish` writes last
    finish: Callable[[RunInputs, Jobs, Notice], None] = lambda inputs, jobs, notice: None
    notices: Callable[[RunInputs], Sequence[str]] = lambda inputs: ()  # before its jobs are run
    per_round: bool = False  # occurs once per round of images
    image_sets: bool = False  # writes one manifest per image set
    reports_accuracy: bool = False  # the summaries of its markers hold accuracies
    occurs: Callable[[RunConfig], bool] = lambda config: True
    has_shards: Callable[[Run], bool] = lambda run: True  # False: nothing to do in this run
    is_whole: Callable[[StageId], bool] = lambda stage: False  # later stages need every shard
    cpu_only: bool = False  # its workers use no GPU
    trains: bool = False  # a shard that another driver runs is left to it: it takes hours
    check: Callable[[RunInputs], None] = lambda inputs: None  # before its jobs are planned
    processes: Callable[[RunConfig], int] = lambda config: 1  # that share one job
    fewer_processes: bool = False  # may share it, because each can do the parts of several
    worker_options: Callable[[Execution], Mapping[str, Any]] = lambda execution: {}
