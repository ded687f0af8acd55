"""One cell of the comparison of methods, in this process: images, students, what they cost."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.methods_block import Block, Cell, Method, cell_id
from distill_core.config.schema import RunConfig
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tasks.execution import Execution
from tasks.observer import Observer
from tasks.pools.provider import PoolProvider
from tasks.run import Run, create_run
from tasks.runs.run_stage import run_stage
from tasks.runs.stage_status import stage_status
from tasks.stages.dataset_record import record_dataset
from tasks.stages.names import StageId
from tasks.stages.plan import JobPlan
from tasks.stages.squeeze import stored_teacher
from tasks.stages.table import stages_of


class Silent(Observer):
    """Nobody watches."""


@dataclass(frozen=True)
class Pool:
    """The teachers of all cells."""

    run: Run
    markers: tuple[Marker, ...]

    @property
    def keys(self) -> list[str]:
        return [marker.key for marker in self.markers]

    @property
    def digests(self) -> list[str]:
        return [marker.file("safetensors").sha256 for marker in self.markers]

    def facts(self) -> list[dict[str, Any]]:
        """Return each member's network, accuracy and digest."""
        return [
            {k: m.summary[k] for k in ("model", "accuracy", "epochs")} | {"sha256": digest}
            for m, digest in zip(self.markers, self.digests, strict=True)
        ]


def teacher_pool(block: Block, out: Path, *, jobs: int = 1) -> Pool:
    """Return the pool of an output folder; train it where there is none, or of another recipe.

    Its keys are noted beside it: a later version of the trainer replaces no teacher.
    """
    run = create_run(block.pool(), Store(str(out / "store")))
    note, recipe = out / "teachers.json", block.tree["teachers"]
    execute(run, (StageId("ingest"),))
    noted = json.loads(note.read_text()) if note.is_file() else {}
    if noted.get("recipe") != recipe:
        execute(run, (StageId("squeeze"),), jobs=jobs)
        noted = {"recipe": recipe, "keys": [marker.key for marker in JobPlan(run).teachers]}
        note.write_text(json.dumps(noted, indent=1))
    return Pool(run, tuple(stored_teacher(run.store, key) for key in noted["keys"]))


def cell_path(out: Path, block: Block, method: Method, cell: Cell, pool: Pool) -> Path:
    """Return where the result of a cell stands."""
    run = block.run(method, cell, pool.keys)
    return out / "cells" / f"{cell_id(cell, run, pool.digests)}.json"


def run_cell(out: Path, block: Block, method: Method, cell: Cell) -> dict[str, Any]:
    """Do a cell and write its result; shards that an interrupted cell has stored are kept."""
    pool = teacher_pool(block, out)
    config, path = block.run(method, cell, pool.keys), cell_path(out, block, method, cell, pool)
    run, notes = _started(config, pool), out / "seconds"
    execute(run, (StageId("squeeze"),))  # nothing to do but to say which teachers
    seconds = _every_stage(run, notes)
    hard = None
    if cell.seed == 0:
        hard = _started(block.run(method, cell, pool.keys, hard=True), pool)
        stages = stages_of(hard.config)
        execute(hard, stages[1 : stages.index(StageId("posttrain"))])
        seconds["hard_labels"] = _timed(hard, StageId("posttrain"), notes, set())
    result = {
        **asdict(cell),
        "preset": method.preset,
        "changes": method.changes,
        "run": run.name,
        "teacher": pool.digests[0],
        "seconds": seconds,
        **_student(run, hard),
        "image_bytes": _image_bytes(run),
        "images": cell.ipc * config.data.num_classes,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "recover": config.recover.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1))
    part.rename(path)
    return result


def _started(config: RunConfig, pool: Pool) -> Run:
    """Register a run over the images that the pool has learned."""
    run = create_run(config, pool.run.store)
    record_dataset(run, JobPlan(pool.run).index)
    return run


def _every_stage(run: Run, notes: Path) -> dict[str, float]:
    """Run every stage after squeeze; return CPU seconds by stage, those of each round included."""
    counted = set[str]()
    return {str(stage): _timed(run, stage, notes, counted) for stage in stages_of(run.config)[2:]}


def _timed(run: Run, stage: StageId, notes: Path, counted: set[str]) -> float:
    """Run a stage; return its CPU seconds, shards that another cell has made included.

    Args:
        run: of the cell.
        stage: to run.
        notes: folder where the CPU seconds of every shard are kept, by key.
        counted: keys of the shards that are left out, because a stage before had them, too; those
            of this stage are added.
    """
    before, since = ShardStore(run.store, stage.kind).done(), time.process_time()
    execute(run, (stage,))
    spent = time.process_time() - since
    markers = [marker for marker in markers_of(run, stage) if marker.key not in counted]
    counted.update(marker.key for marker in markers)
    made = [marker for marker in markers if marker.key not in before]
    notes.mkdir(parents=True, exist_ok=True)
    for marker in made:
        (notes / marker.key).write_text(str(spent / len(made)))
    return round(sum(_noted(marker, notes) for marker in markers), 1)


def _noted(marker: Marker, notes: Path) -> float:
    """Return the CPU seconds of a shard; without a note, those that passed."""
    note = notes / marker.key
    return float(note.read_text()) if note.is_file() else marker.seconds


def execute(run: Run, stages: tuple[StageId, ...], *, jobs: int = 1) -> None:
    """Run some stages in processes of this machine, or in this process."""
    execution = Execution(store=run.store.url, local=True, workers=jobs)
    with PoolProvider(execution) as pools:
        for stage in stages:
            run_stage(run, stage, execution=execution, observer=Silent(), pools=pools)


def markers_of(run: Run, stage: StageId) -> Iterator[Marker]:
    """Yield the markers of a stage's shards that are done."""
    shard_store = ShardStore(run.store, stage.kind)
    for key in stage_status(run, stage).keys:
        if (marker := shard_store.marker(key)) is not None:
            yield marker


def _student(run: Run, hard: Run | None) -> dict[str, Any]:
    """Return top-1 of the student on soft labels, last and EMA, and of that on hard labels."""
    soft, said = _summary(run), None if hard is None else _summary(hard)
    return {
        "last": soft["last"]["top1"],
        "ema": soft["ema"]["top1"],
        "hard": None if said is None else said["last"]["top1"],
        "steps": soft["steps"],
    }


def _summary(run: Run) -> dict[str, Any]:
    """Return what is said of the one student of a run."""
    (marker,) = markers_of(run, StageId("posttrain"))
    return marker.summary


def _image_bytes(run: Run) -> int:
    """Return what the image shards take in the store, without their loss curves."""
    files = [info for marker in markers_of(run, StageId("recover")) for info in marker.files]
    return sum(info.bytes for info in files if info.suffix == "parquet")
