"""The record of a driver with a number in every field that is a metric."""

from __future__ import annotations

from tasks.runs.drivers import DriverRecord

NOW = "2030-01-01T00:00:00+00:00"
RECORD = DriverRecord(
    "0123abcd",
    "host",
    1,
    "cuda",
    NOW,
    NOW,
    stage="recover",
    stage_total=8,
    stage_done=3,
    workers=2,
    worker_seconds={"recover": 25.0},
    gpu_seconds={"recover": 12.5},
    requests={"recover": {"read": 7}},
    traffic={"recover": {"written": 700}},
)
