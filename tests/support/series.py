"""A series of re-distillations that takes seconds: small classes in folders, a narrow teacher."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill_core.config.load import load_run
from distill_core.config.schema import RunConfig
from distill_core.storage.store import Store
from flows.runs.redistill import Complete, Outcome, redistill
from flows.status.status import RunStatus, run_status
from tasks.execution import Execution
from tasks.policy import TeacherPolicy
from tasks.run import Run
from tests.support.datasets import png
from tests.support.fabricate import finish
from tests.support.pipeline import TINY, Recorder, execute

BLOCKS = (  # of two classes, so that four classes are two class shards
    "recover.batch_size=2",
    "recover.shard_classes=2",
    "recover.steps=2",
)
ONE_SHARD = (  # of each stage, as `fabricated` needs
    "recover.init=real",
    "recover.batch_size=4",
    "recover.shard_classes=4",
    "posttrain.sets=[distilled]",
)
CLASSES = ("ant", "bee", "cat", "dog")
Ran = list[tuple[str, str]]  # (stage, shard)


def dataset(root: Path, *wnids: str) -> Path:
    """Write three images to train on and one to test on per class; return the folder."""
    for wnid in wnids or CLASSES:
        write_class(root, wnid, seed=sum(map(ord, wnid)))
    return root


def write_class(root: Path, wnid: str, *, seed: int) -> None:
    """Write the images of a class in place of those it has."""
    for split, count in (("train", 3), ("test", 1)):
        folder = root / split / wnid
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number in range(count):
            value = 100 * seed + 10 * number + (split == "test")
            (folder / f"{number}.png").write_bytes(png(value))


def change_class(root: Path, wnid: str) -> None:
    """Replace one training image of a class; its test images stay."""
    (root / "train" / wnid / "1.png").write_bytes(png(99_999))


def remove_class(root: Path, wnid: str) -> None:
    """Remove a class from both splits."""
    for split in ("train", "test"):
        shutil.rmtree(root / split / wnid)


def small(root: Path, *overrides: str) -> RunConfig:
    """Return a run over the folder; with as many ids as classes by default."""
    sizes = (
        "data.format=imagefolder",
        "data.name=small",
        f"data.path={root}",
        f"data.num_classes={len(list((root / 'train').iterdir()))}",
        "data.side=8",
    )
    return load_run("digits-demo", (*TINY, *BLOCKS, "ipc=1", *sizes, *overrides))


def fabricated(run: Run, _: Execution) -> RunStatus:
    """Complete a version of `ONE_SHARD` without any computation."""
    finish(run)
    return run_status(run)


class Series:
    """A series in a store, with what the last call ran."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ran: Ran = []

    def __call__(
        self, config: RunConfig, policy: TeacherPolicy = "keep", *, complete: Complete | None = None
    ) -> Outcome:
        """Re-distil in this process."""
        self.ran = []
        execution = Execution(store=self.store.url, local=True)
        return redistill(
            config,
            self.store,
            series="small",
            policy=policy,
            execution=execution,
            complete=complete or (lambda run, _: self.resume(run)),
        )

    def shards(self, stage: str) -> set[str]:
        """Return the shards of a stage that the last call ran."""
        return {shard for ran, shard in self.ran if ran == stage}

    def upto(self, *stages: str) -> Complete:
        """Return a way to complete a run that stops after some stages."""

        def complete(run: Run, _: Execution) -> RunStatus:
            return self._noted(run, execute(run, *stages))

        return complete

    def resume(self, run: Run) -> RunStatus:
        """Do what a run lacks."""
        return self._noted(run, execute(run))

    def _noted(self, run: Run, recorder: Recorder) -> RunStatus:
        self.ran = recorder.ran
        return run_status(run)
