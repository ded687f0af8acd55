"""Ingestion of a dataset that changes meanwhile, or that has a part that cannot be read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from distill_core.config.load import load_run
from distill_core.data.index_files import load_index
from distill_core.data.ingest import ingest
from distill_core.data.readers import parts as bounds
from distill_core.errors import DataError, ShardsFailed, StorageError
from distill_core.storage import delays
from distill_core.storage.manifest import load_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.ingest_ahead import Ingested, ingest_ahead
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.ingest import IngestWorker
from tasks.stages.inputs import dataset_of
from tasks.stages.names import StageId
from tests.support import sources
from tests.support.datasets import png
from tests.support.fault_runs import Watch

INGEST = StageId("ingest")
IMAGES: sources.Images = {
    split: {
        wnid: {f"{n}.png": png(first + 10 * k + n) for n in range(3)} for k, wnid in enumerate("bc")
    }
    for split, first in (("train", 0), ("test", 50))
}


class Writer(Watch):
    """Writes a new image to the dataset whenever a part is begun, up to some number."""

    def __init__(self, root: Path, *, limit: int) -> None:
        super().__init__()
        self._path, self._left = root / "train" / "b" / "1.png", limit

    def job_started(self, stage: str, shard: str) -> None:
        """Replace an image."""
        super().job_started(stage, shard)
        if self._left:
            self._left -= 1
            self._path.write_bytes(png(1000 + self._left))


def register(tmp_path: Path, layout: str = "image_folders", classes: int = 2) -> Run:
    """Return a run over the dataset."""
    settings = getattr(sources, layout)(IMAGES, tmp_path / "data")
    chosen = [f"data.{key}={value}" for key, value in settings.items()]
    chosen += [f"data.path={tmp_path / 'data'}", f"data.num_classes={classes}"]
    return create_run(load_run("digits-demo", chosen), Store(str(tmp_path / "store")), "small")


def run_ingest(run: Run, watch: Watch) -> None:
    execution = Execution(store=run.store.url, local=True)
    with PoolProvider(execution) as pools:
        run_stage(run, INGEST, execution=execution, observer=watch, pools=pools)


def run_ahead(run: Run, watch: Watch) -> None:
    ahead(run, watch).record(run)


def ahead(run: Run, watch: Watch) -> Ingested:
    execution = Execution(store=run.store.url, local=True)
    return ingest_ahead(run.config, run.store, None, execution=execution, observer=watch)


@pytest.mark.parametrize("ingests", [run_ingest, run_ahead])
def test_an_image_that_is_replaced_meanwhile_has_the_row_of_its_last_content(
    ingests: object, tmp_path: Path
) -> None:
    run = register(tmp_path)
    watch = Writer(tmp_path / "data", limit=2)
    ingests(run, watch)  # type: ignore[operator]
    assert stage_status(run, INGEST).complete
    other = Store(str(tmp_path / "other"))
    expected = ingest(run.config.data, other)
    assert load_index(run.store, expected.id) == load_index(other, expected.id)


@pytest.mark.parametrize("ingests", [run_ingest, run_ahead])
def test_a_dataset_that_changes_all_the_time_is_refused_and_says_so(
    ingests: object, tmp_path: Path
) -> None:
    run = register(tmp_path)
    with pytest.raises(DataError, match="Run again when nothing writes to it"):
        ingests(run, Writer(tmp_path / "data", limit=-1))  # type: ignore[operator]
    assert not stage_status(run, INGEST).complete


@pytest.mark.parametrize("ingests", [run_ingest, run_ahead])
def test_the_error_of_a_part_ends_ingestion(ingests: object, tmp_path: Path) -> None:
    """Before the dataset is recorded, nothing but the failure tells that a part is missing."""
    run = register(tmp_path, "webdataset", classes=1)
    (tmp_path / "data" / "classes.txt").write_text("b\n")
    with pytest.raises(DataError, match="its label 1 is not one of the 1 classes"):
        ingests(run, Watch())  # type: ignore[operator]


def test_parts_that_fail_before_there_is_a_run_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, job: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(IngestWorker, "run", fails)
    with pytest.raises(ShardsFailed, match=r"2 parts .* train-00000.* a bug.* run again") as failed:
        ahead(register(tmp_path), Watch())
    assert "resume" not in str(failed.value)


def test_parts_have_the_names_of_this_dataset_though_an_earlier_one_named_them_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "PART_RECORDS", 3)
    run = register(tmp_path)
    run_ahead(run, Watch())
    for split in ("train", "test"):
        sources.write(tmp_path / "data" / split / "a" / "1.png", png(99))
    data = run.config.data.model_copy(update={"num_classes": 3})
    later = create_run(run.config.model_copy(update={"data": data}), run.store, "later")
    run_ahead(later, Watch())
    manifest = load_manifest(run.store, later.name, "ingest")
    assert manifest is not None
    names = Counter(entry.shard for entry in manifest.entries)
    assert names == Counter(f"{s}-{n:05d}" for s in ("train", "test") for n in range(3))


def test_a_store_that_is_away_before_the_parts_are_read_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, watch, away = register(tmp_path), Watch(), [True, True]
    present = ShardStore.done

    def done(shard_store: ShardStore) -> frozenset[str]:
        if away and away.pop():
            raise StorageError(f"{shard_store.store.url}: the store is away.")
        return frozenset(present(shard_store))

    monkeypatch.setattr(delays, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(ShardStore, "done", done)
    run_ahead(run, watch)
    assert not away
    assert any("Waiting" in text for _, text in watch.notices)


def test_a_store_that_is_away_while_a_redistill_records_its_dataset_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, away, put = register(tmp_path), [True, True], Store.put
    ingested = ahead(run, Watch())

    def failing(store: Store, path: str, data: bytes) -> None:
        if away:
            away.pop()
            raise StorageError(f"{store.url}: the store is away.")
        put(store, path, data)

    monkeypatch.setattr(delays, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(Store, "put", failing)
    ingested.record(run)
    assert not away
    assert dataset_of(run) == ingested.index.id
