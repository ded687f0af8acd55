"""Real actors on a small Ray cluster: a fault of one job does not affect the others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from distill_core.errors import ClusterError, ConfigError, StorageError
from distill_core.machine_share import WORKERS
from tasks.execution import Execution, RetryPolicy
from tasks.jobs import Job, WorkerMemory, WorkerSpec
from tasks.pools import ray_capacity
from tasks.pools.dispatch import dispatch
from tasks.pools.events import Broken, Event, OnProgress, Ready
from tasks.pools.failures import DispatchResult
from tasks.pools.forwarding import forwarded
from tasks.pools.provider import PoolProvider
from tasks.pools.ray import RayPool
from tests.support.fakes import make_jobs
from tests.support.notes import Notes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

FAKE = "tests.support.fakes:FakeWorker"


@contextmanager
def actors(spec: WorkerSpec, workers: int = 2, num_gpus: float = 0.5) -> Iterator[RayPool]:
    """Start a pool for a block."""
    pool = RayPool(spec, workers=workers, num_cpus=0, num_gpus=num_gpus)
    try:
        yield pool
    finally:
        pool.close()


def run(jobs: list[Job], notes: Notes | None = None, **policy: float) -> DispatchResult:
    """Dispatch to two fake workers."""
    chosen = RetryPolicy(**policy)  # type: ignore[arg-type]
    with actors(WorkerSpec(FAKE)) as pool:
        return dispatch(jobs, pool, policy=chosen, stage="recover", observer=notes)


def test_actors_do_every_job_outside_this_process() -> None:
    result = run(make_jobs(20))
    assert len(result.receipts) == 20
    assert os.getpid() not in {receipt.summary["pid"] for receipt in result.receipts}


def test_actors_know_how_many_share_their_node_at_most() -> None:
    with actors(WorkerSpec(FAKE), workers=3, num_gpus=1) as pool:  # on a node of two GPUs
        (receipt,) = dispatch(make_jobs(1), pool).receipts
    assert receipt.summary[WORKERS] == "2"


def test_progress_is_seen_while_a_job_runs() -> None:
    notes = Notes()
    run(make_jobs(2, seconds=4.0), notes)
    assert {shard for shard, _, _ in notes.progress} == {"s0", "s1"}
    assert any(0 < done < total for _, done, total in notes.progress)


def test_a_poisoned_job_fails_with_its_own_error_and_the_others_finish() -> None:
    jobs = [
        *make_jobs(6),
        Job("kv", "value", {"error": "ValueError"}),
        Job("kd", "diverged", {"error": "DivergedError"}),
    ]
    result = run(jobs)
    assert len(result.receipts) == 6
    attempts = {shard: failure.attempts for shard, failure in result.failed.items()}
    assert attempts.keys() == {"value", "diverged"}
    assert attempts["value"] == 3
    assert attempts["diverged"] in (1, 2)  # the other worker may have been on another node
    assert type(result.failed["value"].error) is ValueError
    assert "in mischief" in result.failed["value"].traceback
    assert "\x1b" not in result.failed["value"].traceback


def test_a_killed_actor_comes_back_and_its_jobs_are_not_blamed(tmp_path: Path) -> None:
    notes = Notes()
    victim = Job("kx", "victim", {"die": True, "once": str(tmp_path / "died")})
    result = run([victim, *make_jobs(12, seconds=0.2)], notes, max_attempts=1)
    assert len(result.receipts) == 13
    assert result.losses == 1
    shard, reason = notes.retried[0]
    assert shard == "victim"
    assert "Ray does not report which one" in reason
    assert "\n" not in reason


def test_a_job_that_always_kills_its_actor_is_given_up() -> None:
    result = run([Job("kx", "killer", {"die": True}), *make_jobs(4)], max_losses_per_job=2)
    assert isinstance(result.failed["killer"].error, ClusterError)
    assert len(result.receipts) == 4


def test_two_answers_of_one_actor_at_once_are_both_heard() -> None:
    class Late:
        """A pool that looks for answers only when both are there."""

        def __getattr__(self, name: str) -> object:
            return getattr(pool, name)

        def wait(self, seconds: float, on_progress: OnProgress) -> Sequence[Event]:
            ray.wait(list(pool._refs), num_returns=len(pool._refs), timeout=20)
            return pool.wait(seconds, on_progress)

    jobs = [Job("kf", "full", {"error": "OutOfMemoryError", "split": 1}), *make_jobs(5)]
    with actors(WorkerSpec(FAKE), workers=1) as pool:
        result = dispatch(jobs, Late())  # type: ignore[arg-type]
    assert len(result.receipts) == 6
    assert not result.failed


def test_an_event_names_the_node_also_of_a_worker_that_cannot_be_built() -> None:
    node = ray_capacity.node_name()
    for spec, kind in ((WorkerSpec(FAKE), Ready), (WorkerSpec(FAKE, {"broken": "x"}), Broken)):
        with actors(spec, workers=1) as pool:
            (event,) = wait_until(lambda: pool.wait(1.0, lambda *_: None), "an event")
        assert isinstance(event, kind)
        assert event.node == node


def test_a_restarted_actor_reports_nothing_of_its_former_self() -> None:
    with actors(WorkerSpec(FAKE), workers=1) as pool:
        wait_until(lambda: pool.wait(1.0, lambda *_: None), "readiness")
        for job in make_jobs(3):
            pool.submit(0, job)
        ray.wait(list(pool._refs), num_returns=3, timeout=20)
        pool.restart(0)
        events = wait_until(lambda: pool.wait(1.0, lambda *_: None), "readiness")
        assert [type(event) for event in events] == [Ready]
        assert not pool.wait(1.0, lambda *_: None)
        assert not pool._refs


def test_a_hung_job_is_killed_and_tried_again(tmp_path: Path) -> None:
    notes = Notes()
    hung = Job("kx", "hung", {"hang": 600, "once": str(tmp_path / "hung")})
    result = run([hung, *make_jobs(4)], notes, job_timeout_seconds=4)
    assert len(result.receipts) == 5
    assert [shard for shard, _ in notes.retried] == ["hung"]


def test_a_worker_that_cannot_be_built_raises_its_own_error() -> None:
    spec = WorkerSpec(FAKE, {"broken": "ConfigError"})
    with actors(spec) as pool, pytest.raises(ConfigError, match="cannot be built"):
        dispatch(make_jobs(3), pool)


def test_a_worker_that_cannot_reach_storage_fails_the_stage() -> None:
    spec = WorkerSpec(FAKE, {"broken": "StorageError"})
    policy = RetryPolicy(outage_seconds=2)
    with actors(spec) as pool, pytest.raises(StorageError, match="cannot be built"):
        dispatch(make_jobs(3), pool, policy=policy)


def test_workers_without_resources_time_out() -> None:
    with (
        actors(WorkerSpec(FAKE), workers=1, num_gpus=64) as pool,
        pytest.raises(ClusterError, match=r"not ready within 2 s \(2 CPUs and 2 GPUs on 1 node"),
    ):
        dispatch(make_jobs(1), pool, policy=RetryPolicy(ready_timeout_seconds=2))


def test_an_actor_carries_the_workers_name_and_sees_its_share_of_the_gpus() -> None:
    with actors(WorkerSpec(FAKE), workers=1) as pool:
        dispatch(make_jobs(1), pool)
        assert pool._actors[0]._ray_actor_creation_function_descriptor.class_name == "FakeWorker"
        assert ray.available_resources()["GPU"] <= 1.5


def test_workers_without_a_place_are_absent_and_the_others_do_the_work() -> None:
    notes, how = Notes(), Execution(store=".", workers=3, num_cpus=0, num_gpus=1)
    with PoolProvider(how) as pools:
        pool = pools.pool(WorkerSpec(FAKE), jobs=10, stage="recover", observer=notes)
        result = dispatch(make_jobs(10, seconds=0.3), pool)
        assert not pool.wait(1.0, lambda *_: None)
    assert notes.notices == [
        ("recover", "the cluster has room for 2 of 3 workers; others start later.")
    ]
    assert (len(result.receipts), result.losses) == (10, 0)


def test_a_demand_beyond_every_node_is_refused_with_both_numbers() -> None:
    how = Execution(store=".", workers=3, num_cpus=4, num_gpus=1)
    with PoolProvider(how) as pools, pytest.raises(ConfigError) as raised:
        pools.pool(WorkerSpec(FAKE), jobs=10)
    message = re.sub(r"\(.* free\)", "(... free)", str(raised.value))
    assert message == (
        "workers = 3: 3 x num_cpus=4 = 12 CPUs and 3 x num_gpus=1 = 3 GPUs are required, but the "
        "cluster has 2 CPUs and 2 GPUs on 1 node (... free), enough for 0. Set fewer workers "
        "or smaller num_cpus and num_gpus, or add nodes."
    )


def test_a_stage_waits_for_nodes_that_an_earlier_stage_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes, real = Notes(), ray_capacity.capacity
    how = Execution(store=".", num_cpus=1, wait_for_workers_seconds=3)
    with PoolProvider(how) as pools:
        assert pools.pool(WorkerSpec(FAKE), jobs=10).workers == 2
        away = [0] * 4
        monkeypatch.setattr(
            ray_capacity, "capacity", lambda *size: away.pop() if away else real(*size)
        )
        pool = pools.pool(WorkerSpec(FAKE), jobs=10, stage="relabel", observer=notes)
        assert pool.workers == 2
        assert len(dispatch(make_jobs(3), pool).receipts) == 3
        ((stage, text),) = notes.notices
        assert stage == "relabel"
        assert text.startswith("waiting up to 3 s for nodes: 1 x num_cpus=1 = 1 CPUs")
        monkeypatch.setattr(ray_capacity, "capacity", lambda *_: 0)
        with pytest.raises(ClusterError, match=r"within 3 s no nodes with room for them came"):
            pools.pool(WorkerSpec(FAKE), jobs=10)


def test_a_gang_beyond_the_cluster_is_refused_likewise() -> None:
    how = Execution(store=".", num_cpus=1)
    with PoolProvider(how) as pools, pytest.raises(ConfigError, match="processes = 5"):
        pools.gang(WorkerSpec(FAKE), make_jobs(1), processes=5, stage="squeeze")


def test_a_worker_too_big_for_any_node_is_refused() -> None:
    how = Execution(store=".", num_cpus=64)
    with PoolProvider(how) as pools, pytest.raises(ConfigError, match="enough for 0"):
        pools.pool(WorkerSpec(FAKE), jobs=1)


def test_capacity_counts_whole_workers_on_each_node() -> None:
    assert ray_capacity.capacity(num_cpus=0, num_gpus=0.5) == 4
    assert ray_capacity.capacity(num_cpus=1, num_gpus=0.25) == 2


def test_workers_are_placed_by_the_memory_that_they_declare() -> None:
    (node,) = (each["Resources"] for each in ray.nodes() if each["Alive"])
    spec = WorkerSpec(FAKE, memory=WorkerMemory(0.6 * node["memory"], 0.0))
    notes = Notes()
    with PoolProvider(Execution(store=".", num_cpus=0, workers=2)) as pools:
        pool = pools.pool(spec, jobs=4, observer=notes)
        result = dispatch(make_jobs(4), pool)
        assert ray.available_resources()["memory"] == pytest.approx(0.4 * node["memory"], rel=0.01)
    assert len({receipt.summary["pid"] for receipt in result.receipts}) == 1
    assert any("room for 1 of 2 workers" in text for _, text in notes.notices)


def test_an_estimate_above_every_node_gets_a_whole_one_and_what_is_certain_is_refused() -> None:
    memory = sum(each["Resources"]["memory"] for each in ray.nodes() if each["Alive"])
    how = Execution(store=".", num_cpus=0, workers=1)
    with PoolProvider(how) as pools:
        pool = pools.pool(WorkerSpec(FAKE, memory=WorkerMemory(3 * memory, memory / 2)), jobs=1)
        assert len(dispatch(make_jobs(1), pool).receipts) == 1
        assert ray.available_resources().get("memory", 0.0) < 0.01 * memory
        too_large = WorkerSpec(FAKE, memory=WorkerMemory(4 * memory, 2 * memory))
        with pytest.raises(ConfigError) as one:
            pools.pool(too_large, jobs=1)
        with pytest.raises(ConfigError) as gang:
            pools.gang(too_large, make_jobs(1), processes=1, stage="squeeze")
    for refused in (one, gang):
        assert f"with {2 * memory / 1e9:.3g} GB of memory each, are required" in str(refused.value)
        assert f"at most {memory / 1e9:.3g} GB of memory on one of them" in str(refused.value)
        assert "enough for 0" in str(refused.value)
        assert "memory_gb" in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1


def test_a_provider_fills_the_cluster_but_starts_no_worker_without_a_job() -> None:
    with PoolProvider(Execution(store=".", num_cpus=1)) as pools:
        assert pools.pool(WorkerSpec(FAKE), jobs=100).workers == 2
        assert pools.pool(WorkerSpec(FAKE), jobs=1).workers == 1


def test_workers_that_use_no_gpu_reserve_none_and_fill_the_cluster_by_its_cpus() -> None:
    how = Execution(store=".", device="cuda", num_cpus=0.5, num_gpus=1)
    with PoolProvider(how) as pools:
        pool = pools.pool(WorkerSpec(FAKE, cpu_only=True), jobs=100)
        assert pool.workers == 4
        assert len(dispatch(make_jobs(8), pool).receipts) == 8
        assert ray.available_resources()["GPU"] == 2
        assert pools.pool(WorkerSpec(FAKE), jobs=100).workers == 2  # each has a GPU again


def test_a_provider_does_not_stop_a_ray_that_it_did_not_start() -> None:
    with PoolProvider(Execution(store=".", num_cpus=0, workers=1)) as pools:
        result = dispatch(make_jobs(2), pools.pool(WorkerSpec(FAKE), jobs=2))
    assert len(result.receipts) == 2
    assert ray.is_initialized()


def test_actors_get_the_variables_of_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    spec = WorkerSpec("tests.tasks.pools.test_ray:Environment")
    with PoolProvider(Execution(store=".", num_cpus=0, workers=1)) as pools:
        result = dispatch(make_jobs(1), pools.pool(spec, jobs=1))
    assert result.receipts[0].summary == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def test_storage_variables_are_forwarded_and_other_secrets_are_not() -> None:
    """Ray writes the variables of an actor into a log of its node."""
    plain = {"AWS_REGION": "x", "AWS_ENDPOINT_URL": "y", "FSSPEC_S3_ENDPOINT_URL": "z"}
    plain |= {"DISTILL_DECODERS": "2", "DISTILL_RESIDENT_BYTES": "1", "DISTILL_DEVICE_BYTES": "0"}
    secret = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_SESSION_TOKEN": "c",
        "FSSPEC_S3_KEY": "d",
        "FSSPEC_S3_SECRET": "e",
        "FSSPEC_S3": '{"secret": "f"}',
        "FSSPEC_GS": '{"endpoint_url": "https://g:h@host"}',
        "AWS_ENDPOINT_URL_S3": "https://user:password@host",
    }
    given = forwarded(plain | secret | {"HOME": "/root", "PATH": "/bin"})
    assert given == plain | {"RAY_USAGE_STATS_ENABLED": "0"}


class Environment:
    """Reports what its process was given."""

    def run(self, job: Job) -> object:
        from tasks.jobs import Receipt

        names = ("AWS_ENDPOINT_URL", "RAY_USAGE_STATS_ENABLED")
        facts = {name: os.environ.get(name) for name in names}
        return Receipt(job.key, job.shard, summary=facts)
