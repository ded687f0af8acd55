"""Whose fault an error is, and that every error keeps this on its way between processes."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from distill_core.config.data import DataConfig
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import Address
from distill_core.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DivergedError,
    MissingDataError,
    OutOfMemoryError,
    ShardError,
    ShardsFailed,
    ShardsPostponed,
    StorageError,
    StorageRefused,
)
from tasks.pools.faults import Fault, fault_of
from tests.support.datasets import data_config, image_folder

CASES = [
    (StorageError("503"), Fault.OUTAGE),
    (StorageRefused("these credentials have expired"), Fault.ENVIRONMENT),
    (MissingDataError("data.path: no such folder"), Fault.ENVIRONMENT),
    (OSError(errno.ENOSPC, "no space left on device"), Fault.ENVIRONMENT),
    (OSError(errno.EIO, "input/output error"), Fault.ENVIRONMENT),
    (ImportError("no module named s3fs"), Fault.ENVIRONMENT),
    (MemoryError(), Fault.ENVIRONMENT),
    (OutOfMemoryError("2 GiB wanted"), Fault.DEVICE),
    (ClusterError("a rank was lost"), Fault.LOSS),
    (DivergedError("loss is nan"), Fault.JOB),
    (ConfigError("no such term"), Fault.JOB),
    (DataError("not the image that was ingested"), Fault.JOB),
    (ShardError("another digest"), Fault.JOB),
    (RuntimeError("CUDA error: illegal address"), Fault.JOB),
]


@pytest.mark.parametrize(("error", "fault"), CASES, ids=lambda case: type(case).__name__)
def test_every_error_has_one_culprit_also_after_a_journey(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault
    assert fault_of(pickle.loads(pickle.dumps(error))) is fault


@pytest.mark.parametrize("missing", ["the folder", "a file"])
def test_a_dataset_that_is_not_mounted_is_a_fault_of_the_machine(
    tmp_path: Path, missing: str
) -> None:
    config: DataConfig = data_config(image_folder(tmp_path / "data"))
    reader = open_reader(config)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    if missing == "a file":
        (tmp_path / "data").mkdir()
    address = Address("train/a/1.png", 0, 1)
    with pytest.raises(MissingDataError) as raised:
        (reader if missing == "a file" else open_reader(config)).fetch([address])
    assert fault_of(raised.value) is Fault.ENVIRONMENT


def test_postponed_shards_are_failed_shards_that_another_pass_may_finish() -> None:
    error = pickle.loads(pickle.dumps(ShardsPostponed("2 shards")))
    assert isinstance(error, ShardsFailed)
    assert error.retryable
    assert not ShardsFailed("2 shards").retryable
