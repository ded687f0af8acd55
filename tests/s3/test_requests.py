"""Requests to a bucket are counted by kind, and a run reports them stage by stage."""

from __future__ import annotations

from distill_core.storage.requests import requests_of_process
from distill_core.storage.shard_store import utc_now
from distill_core.storage.store import Store
from flows.status import tables
from flows.status.status import run_activity, run_status
from tasks.run import open_run
from tests.support.cli import Distill
from tests.support.pipeline import TINY


def test_every_request_counts_once_by_its_kind(s3_store: Store) -> None:
    requests_of_process.taken()
    s3_store.put("a", b"1")
    s3_store.put("b", b"2")
    counted = requests_of_process.taken()
    assert counted["write"] == 2
    assert s3_store.read("a") == b"1"
    assert requests_of_process.taken() == {"read": 1}
    list(s3_store.files(""))
    assert requests_of_process.taken() == {"list": 1}
    s3_store.delete("a")
    assert requests_of_process.taken()["delete"] == 1
    assert requests_of_process.taken() == {}


def test_bytes_that_a_bucket_sends_and_receives_are_counted(s3_store: Store) -> None:
    requests_of_process.taken_bytes()
    s3_store.put("a", b"1" * 1000)
    counted = requests_of_process.taken_bytes()
    assert 1000 <= counted["written"] < 1500
    assert s3_store.read("a") == b"1" * 1000
    counted = requests_of_process.taken_bytes()
    assert 1000 <= counted["read"] < 1500
    assert "written" not in counted


def test_a_run_reports_the_requests_of_its_stages(s3_bucket: str, distill: Distill) -> None:
    url = f"{s3_bucket}/counted"
    done = distill("run", "digits-demo", *TINY, "--store", url, "--local", "--name", "counted")
    assert done.code == 0, done.err
    run = open_run(Store(url), "counted")
    activity = run_activity(run, run_status(run).stages, now=utc_now())
    for name, stage in activity.stages.items():
        assert stage.requests.get("write", 0) > 0, name
        assert stage.requests.get("read", 0) > 0, name
    (line,) = tables._requests(activity)
    assert line.startswith("requests to buckets: ")
    shown = distill("status", "counted", "--store", url)
    assert line in shown.out
