"""Where memory ran out, the error names the settings of the stage that help."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import BaseModel
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError
from ray.exceptions import OutOfMemoryError as RayOutOfMemory

from distill_core.config.schema import RunConfig
from distill_core.errors import ClusterError, DataError, OutOfMemoryError, ShardsFailed
from distill_core.exit_codes import describe_exit
from distill_core.storage.shard_store import ShardStore
from tasks.execution import Execution
from tasks.jobs import Job, WorkerSpec
from tasks.pools.failures import Failure
from tasks.pools.host import Host
from tasks.pools.provider import PoolProvider
from tasks.pools.ray import _reason
from tasks.runs.memory_advice import MORE, advised, advising
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.table import STAGES
from tests.support.fabricate import finished_run
from tests.support.notes import Notes
from tests.support.workers import committing

VARIABLES = ("DISTILL_RESIDENT_BYTES", "DISTILL_DEVICE_BYTES")
KILLED_BY_RAY = ActorDiedErrorContext(
    actor_id=bytes(16),
    class_name="RecoverWorker",
    error_message="The actor is dead because its worker process has died. Worker exit type: "
    "NODE_OUT_OF_MEMORY Worker exit detail: it was killed due to the node running low on memory.",
)
ENDS = {
    "a full device": OutOfMemoryError("s: CUDA out of memory."),
    "a signal": ClusterError(f"s: child process 0.0 ended with {describe_exit(-signal.SIGKILL)}."),
    "Ray": ClusterError(f"s: {_reason(ActorDiedError())}"),
    "Ray's watch of an actor": ClusterError(f"s: {_reason(ActorDiedError(KILLED_BY_RAY))}"),
    "Ray's watch of a call": ClusterError(f"s: {_reason(RayOutOfMemory('it was killed'))}"),
}


class Hungry:
    """Wants more memory than any machine has."""

    def run(self, job: Job) -> None:
        match job.payload:
            case "numpy":
                np.empty(1 << 50)
            case "torch":
                torch.empty(1 << 50)
            case "arrow":
                pa.allocate_buffer(1 << 50)
            case "device":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            case "bug":
                raise RuntimeError("shapes differ")


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("end", ENDS)
def test_every_stage_names_what_helps_however_its_workers_end(kind: str, end: str) -> None:
    failed = {"s": Failure(4, ENDS[end], "")}
    (failure,) = advised(failed, StageId(kind)).values()
    assert type(failure.error) is type(ENDS[end])
    assert str(failure.error).startswith(str(ENDS[end]))
    assert STAGES[kind].less_memory in str(failure.error)
    assert "--workers" in str(failure.error)
    expected = pytest.raises(type(ENDS[end]), match=re.escape(STAGES[kind].less_memory))
    with expected, advising(StageId(kind)):
        raise ENDS[end]


def test_a_process_that_ray_ended_for_lack_of_memory_is_told_from_one_that_died() -> None:
    for end in ENDS:
        assert ("because the node was running out" in str(ENDS[end])) == ("watch" in end)


@pytest.mark.parametrize("kind", STAGES)
def test_the_settings_that_are_named_exist(kind: str) -> None:
    """Each is a key of the config, an option, or a variable of the environment."""
    text = STAGES[kind].less_memory
    for path in re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+", text):
        field: object = RunConfig
        for name in path.split("."):
            models = [field] if isinstance(field, type) else getattr(field, "__args__", ())
            (model,) = (m for m in models if isinstance(m, type) and issubclass(m, BaseModel))
            field = model.model_fields[name].annotation
    options = {option.replace("-", "_") for option in re.findall(r"--([a-z-]+)", text + MORE)}
    assert options <= Execution.model_fields.keys()
    assert set(re.findall(r"DISTILL_\w+", text)) <= set(VARIABLES)


def test_other_errors_get_no_advice() -> None:
    for error in (DataError("s: truncated in memory"), ClusterError("s: ran for more than 9 s.")):
        failure = Failure(1, error, "")
        assert advised({"s": failure}, StageId("recover")) == {"s": failure}
        with pytest.raises(type(error)) as caught, advising(StageId("recover")):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("where", ["numpy", "torch", "arrow", "device"])
def test_a_full_host_or_device_is_one_error(where: str) -> None:
    host = Host(WorkerSpec(f"{__name__}:Hungry"))
    with pytest.raises(OutOfMemoryError, match=r"^s1: .*(llocate|memory|malloc)"):
        host.run(Job("k1", "s1", where))
    with pytest.raises(RuntimeError, match="shapes differ"):
        host.run(Job("k1", "s1", "bug"))


def test_the_record_of_a_shard_that_does_not_fit_names_what_helps(tmp_path: Path) -> None:
    def full(job: Job) -> None:
        raise MemoryError

    run, stage = finished_run(tmp_path), StageId("posttrain")
    for job in JobPlan(run).jobs(stage)[stage]:
        run.store.delete(ShardStore(run.store, stage.kind).marker_path(job.key))
    run.store.delete(run.path("posttrain.manifest.json"))
    execution = Execution(store=run.store.url, local=True)
    with (
        committing(stage.kind, full),
        PoolProvider(execution) as pools,
        pytest.raises(ShardsFailed),
    ):
        run_stage(run, stage, execution=execution, observer=Notes(), pools=pools)
    for failure in stage_status(run, stage).failed.values():
        assert "MemoryError A second attempt" in failure["error"]
        assert STAGES[stage.kind].less_memory in failure["error"]
