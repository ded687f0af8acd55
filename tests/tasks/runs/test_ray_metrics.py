"""Metrics of a driver: what is published, and that Ray serves them to Prometheus."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import defaultdict
from typing import Any

import pytest

from distill_core.storage.requests import RequestCounter
from flows.progress.followers import Several
from tasks.jobs import Receipt
from tasks.runs.drivers import DriverRecord
from tasks.runs.ray_metrics import METRICS, RayMetrics, exported, kind_of
from tests.support.cli import modules_after
from tests.support.numbers_of_a_driver import NOW, RECORD
from tests.support.repository import ROOT


class Metrics:
    """Takes the place of `ray.util.metrics`, and adds up like Prometheus."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)
        self.Gauge, self.Counter = self._maker("set"), self._maker("inc")

    def _maker(self, verb: str) -> Any:
        def make(name: str, description: str, tag_keys: tuple[str, ...]) -> Any:
            assert description.endswith(".")

            def record(value: float, tags: dict[str, str]) -> None:
                assert tuple(tags) == tag_keys
                key = (name, *tags.values())
                self.values[key] = value + (self.values[key] if verb == "inc" else 0)

            return type(name, (), {verb: staticmethod(record)})

        return make


def test_records_retries_and_failures_become_gauges_and_counters() -> None:
    ray = Metrics()
    metrics = RayMetrics("tiny", lambda: ray)
    observer = Several(metrics)
    observer.job_retried("recover", "a", "ActorDiedError: the node is gone")
    observer.job_retried("recover", "b", "its worker was lost 4 times")
    observer.job_failed("recover", "b", "ValueError: poison")
    observer.job_finished("recover", Receipt("k", "a"))
    for _ in range(2):  # the totals of a record are added once
        metrics.publish(RECORD)
    assert ray.values == {
        ("distill_shards_planned", "tiny", "recover"): 8,
        ("distill_shards_done", "tiny", "recover"): 3,
        ("distill_shards_left", "tiny", "recover"): 5,
        ("distill_workers", "tiny", "recover"): 2,
        ("distill_workers_busy", "tiny", "recover"): 0,
        ("distill_shards_finished", "tiny", "recover"): 1,
        ("distill_shard_retries", "tiny", "recover", "ActorDiedError"): 1,
        ("distill_shard_retries", "tiny", "recover", "other"): 1,
        ("distill_shard_failures", "tiny", "recover", "ValueError"): 1,
        ("distill_worker_seconds", "tiny", "recover"): 25,
        ("distill_gpu_seconds", "tiny", "recover"): 12.5,
        ("distill_storage_requests", "tiny", "recover", "read"): 7,
        ("distill_storage_bytes", "tiny", "recover", "written"): 700,
    }
    assert {key[0] for key in ray.values} == METRICS.keys()


def test_workers_of_an_earlier_stage_are_not_counted_any_more() -> None:
    ray = Metrics()
    metrics = RayMetrics("tiny", lambda: ray)
    metrics.publish(RECORD)
    metrics.publish(DriverRecord("0", "h", 1, "cpu", NOW, NOW, stage="relabel", workers=5))
    assert ray.values[("distill_workers", "tiny", "recover")] == 0
    assert ray.values[("distill_workers", "tiny", "relabel")] == 5


def test_totals_wait_for_ray_and_nothing_happens_without_it() -> None:
    ray = Metrics()
    connected: list[Any] = [None, ray]
    metrics = RayMetrics("tiny", lambda: connected.pop(0))
    metrics.job_finished("recover", Receipt("k", "a"))
    metrics.publish(RECORD)
    assert ray.values == {}
    metrics.publish(RECORD)
    assert ray.values[("distill_shards_finished", "tiny", "recover")] == 1
    assert "ray" not in modules_after(
        "from tasks.runs.ray_metrics import connected_metrics\nassert connected_metrics() is None"
    )


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("OSError: away", "OSError"), ("ran for 3 s: killed", "other"), ("", "other"), ("A", "A")],
)
def test_kinds_are_types_of_errors(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


def test_bytes_are_counted_by_what_requests_and_answers_state() -> None:
    counter = RequestCounter()
    request = type("Request", (), {"headers": {"Content-Length": b"5", "Host": "h"}})
    counter.count_event("before-send.s3.PutObject", request=request)
    answer = {"headers": {"Content-Length": "70"}}
    counter.count_answer("response-received.s3.GetObject", response_dict=answer)
    counter.count_answer("response-received.s3.HeadObject", response_dict=answer)
    counter.count_answer("response-received.s3.GetObject", response_dict=None)
    assert counter.taken_bytes() == {"written": 5, "read": 70}
    assert counter.taken_bytes() == {}


SERVED = """
import sys, time, urllib.request
import ray
from tasks.runs.ray_metrics import RayMetrics
from tests.support.numbers_of_a_driver import RECORD
port, folder = sys.argv[1:]
ray.init(
    address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20,
    _metrics_export_port=int(port), _temp_dir=folder, log_to_driver=False,
)
metrics, text, end = RayMetrics("tiny"), "", time.monotonic() + 60
metrics.job_retried("recover", "a", "ActorDiedError: x")
metrics.job_failed("recover", "a", "ActorDiedError: x")
metrics._count("distill_shards_finished", "recover")
metrics.publish(RECORD)
while "distill" not in text and time.monotonic() < end:
    time.sleep(0.5)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        pass
print(text)
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_ray_serves_every_metric_under_its_exported_name(tmp_path_factory: Any) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = tmp_path_factory.getbasetemp().parent / "m"
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(port), str(folder)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        cwd=ROOT,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ray_distill")]
    assert {line.partition("{")[0] for line in lines} == {exported(name) for name in METRICS}
    assert all('run="tiny"' in line and 'stage="recover"' in line for line in lines)
    assert any(
        line.startswith("ray_distill_gpu_seconds_total") and line.endswith(" 12.5")
        for line in lines
    )
