"""One name of every kind of object that this project writes to a store, with its role."""

from __future__ import annotations

from distill_core.storage.identity import PATH as IDENTITY
from tasks.gc.grammar import Role

KEY, TOKEN = "0123456789abcdef" * 2, "f" * 32
OURS: dict[str, Role] = {
    f"recover/_done/{KEY}.json": "marker",
    f"posttrain/data/{KEY}-{TOKEN}.ema.safetensors": "data",
    f"statistics/data/{KEY}-{TOKEN}.pooled.safetensors": "data",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/step-000012.safetensors": "checkpoint",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/step-1000000.safetensors": "checkpoint",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/step-000012-000340.safetensors": "checkpoint",
    f"squeeze/checkpoints/{KEY}-{TOKEN}/pointer.json": "checkpoint",
    "datasets/tiny-imagenet_2-0123456789ab/index.json": "dataset",
    "datasets/tiny-0123456789ab/index/train-0123456789abcdef.parquet": "dataset",
    f".probe/{KEY}": "probe",
    "runs/birds v1/recover-2.manifest.json": "record",
    "runs/first/recover.random_real.manifest.json": "record",
    "runs/first/failed/recover-1.c00000-00009_i003-003.json": "record",
    "runs/birds-v0001/source.json": "record",
    "schedules/weekly/birds.yaml": "record",
    IDENTITY: "identity",
}
