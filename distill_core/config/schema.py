"""The frozen configuration tree of a run.

Values that a paper states have no default here: a preset must set them and name their source.
Settings that do not change the result (store, workers, retries, device, log level) are not part of
this tree; see ``tasks.execution``. Areas and probabilities are fractions.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from distill_core.config.data import DataConfig
from distill_core.config.fields import Count, Frozen, Precision, Processes, Seed
from distill_core.config.recovery import RecoverConfig
from distill_core.config.students import PosttrainConfig, RelabelConfig, RoundsConfig
from distill_core.config.training import SqueezeConfig
from distill_core.sharding import plan_size

# Limits of a plan, which is held in memory; ImageNet-21K with 200 images per class is a fifth.
MAX_IMAGES = 20_000_000
MAX_SHARDS = 200_000
MAX_BATCHES = 2_000_000


class RunConfig(Frozen):
    """Every setting that decides the result of one run."""

    preset: str  # name of the preset or file that the tree was loaded from
    source: str  # origin of its values
    expected: str  # published or measured number to compare with, or "not published"
    differs: str = (
        "not stated"  # differences from the paper or its code; older runs lack this field
    )
    seed: Seed = 0
    ipc: Count
    threads: Processes = (
        1  # intra-op threads of every worker; they affect float32 rounding on a CPU
    )
    precision: Precision = (
        "float32"  # of convolutions; statistics, losses and updates are at least float32
    )
    data: DataConfig
    squeeze: SqueezeConfig
    recover: RecoverConfig
    relabel: RelabelConfig
    posttrain: PosttrainConfig
    rounds: RoundsConfig | None = None  # None: all images are made in one round

    @property
    def image_sets(self) -> tuple[Literal["distilled", "random_real"], ...]:
        """Return the image sets that the run makes: its own, and the baseline if it is used."""
        if "random_real" in self.posttrain.sets and self.posttrain.students:
            return ("distilled", "random_real")
        return ("distilled",)

    def recover_for(self, images: Literal["distilled", "random_real"]) -> RecoverConfig:
        """Return the recover config of an image set; `random_real` keeps the start unchanged."""
        if images == "distilled":
            return self.recover
        first = {"teachers": self.recover.teachers[:1], "committee": None, "teacher_terms": ()}
        return self.recover.model_copy(update={"init": "real", "mosaic": None, "steps": 0, **first})

    @property
    def round_starts(self) -> tuple[int, ...]:
        """Return the ipc_index at which each round begins; the first is 0."""
        later = () if self.rounds is None else self.rounds.starts
        return (0, *(start for start in later if start < self.ipc))

    def after_round(self, number: int) -> RunConfig:
        """Return the run with the post-train settings of the student after round `number`."""
        assert self.rounds is not None
        optimizer = self.posttrain.optimizer
        if number > 1:
            optimizer = optimizer.model_copy(update={"lr": self.rounds.warm_lr})
        changes = {
            "students": (self.rounds.student,),
            "seeds": (0,),
            "sets": ("distilled",),
            "epochs": self.rounds.epochs,
            "optimizer": optimizer,
        }
        return self.model_copy(update={"posttrain": self.posttrain.model_copy(update=changes)})

    def of_teacher(self, number: int) -> RunConfig:
        """Return the run with teacher `number` as its only one."""
        return self.model_copy(update={"squeeze": self.squeeze.member(number)})

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        count = 1 + len(self.squeeze.pool)
        for stage, chosen in (("recover", self.recover), ("relabel", self.relabel)):
            if max(chosen.teachers) >= count:
                raise ValueError(
                    f"{stage}.teachers = {list(chosen.teachers)}: squeeze has teachers 0 "
                    f"to {count - 1} only"
                )
        return self

    @model_validator(mode="after")
    def _no_missing_image_is_read(self) -> Self:
        members = [self.squeeze.member(number) for number in range(1 + len(self.squeeze.pool))]
        readers = {
            f"recover.init = {self.recover.init}": self.recover.reads_real_images,
            "recover.terms": self.recover.needs_class_statistics,
            "posttrain.students": bool(self.posttrain.students),
            "rounds": self.rounds is not None,
            "squeeze.training": any(
                member.checkpoint is None and member.reuse is None for member in members
            ),
        }
        using = [key for key, reads in readers.items() if reads]
        if self.data.format == "classes" and using:
            raise ValueError(
                f"{using[0]} needs real images, but data.format = classes has none: change it, or "
                "set data to a dataset with images"
            )
        if self.rounds is not None and not self.posttrain.students:
            raise ValueError("rounds train students as they go: set posttrain.students")
        return self

    @model_validator(mode="after")
    def _outputs_are_classes(self) -> Self:
        classes = self.data.num_classes
        for number in range(1 + len(self.squeeze.pool)):
            imported = self.squeeze.member(number).imported
            if imported is None or not imported.outputs or not classes:
                continue
            if sorted(imported.outputs) != list(range(classes)):
                raise ValueError(
                    f"squeeze.imported.outputs has {len(imported.outputs)} entries, expected every "
                    f"class id from 0 to {classes - 1} once"
                )
        return self

    @model_validator(mode="after")
    def _top_logits_are_consistent(self) -> Self:
        kept, classes = self.relabel.topk, self.data.num_classes
        if kept is not None and classes and kept > classes:
            raise ValueError(
                f"relabel.topk = {kept}, expected at most {classes}, the number of classes"
            )
        if kept is not None and (self.posttrain.loss, self.posttrain.rest) == ("mse", "none"):
            raise ValueError(
                "posttrain.loss = mse compares all logits, but relabel.topk stores a part: set "
                "posttrain.rest to mean"
            )
        return self

    @model_validator(mode="after")
    def _plan_is_bounded(self) -> Self:
        if not self.data.num_classes:
            return self  # checked once they are counted
        images = self.data.num_classes * self.ipc
        if images > MAX_IMAGES:
            raise ValueError(
                f"ipc = {self.ipc} with data.num_classes = {self.data.num_classes} is {images} "
                f"images, expected at most {MAX_IMAGES}: set a smaller ipc"
            )
        shards, batches = self._plan_size()
        per_shard = -(-self.relabel.stored_views // self.relabel.views_per_shard)
        for name, count, limit, key in (
            ("class shards", shards, MAX_SHARDS, "recover.ipc_range or recover.shard_classes"),
            ("batches", batches, MAX_BATCHES, "recover.batch_size"),
            ("label shards", shards * per_shard, MAX_BATCHES, "relabel.views_per_shard"),
        ):
            if count > limit:
                raise ValueError(
                    f"the plan has {count} {name}, expected at most {limit}: raise {key}, or set a "
                    "smaller ipc"
                )
        return self

    def _plan_size(self) -> tuple[int, int]:
        """Return the number of class shards and of batches of one image set."""
        return plan_size(
            self.data.num_classes,
            ipc=self.ipc,
            ipc_range=self.recover.ipc_range,
            batch_size=self.recover.batch_size,
            composition=self.recover.composition,
            shard_classes=self.recover.shard_classes,
        )

    @model_validator(mode="after")
    def _rounds_are_used(self) -> Self:
        recover, rounds = self.recover, self.rounds
        if rounds is None:
            if recover.needs_student:
                raise ValueError("recover.terms.adversarial needs a student: set rounds")
            return self
        if not any(weight for name, weight in recover.terms.items() if name != "adversarial"):
            raise ValueError(
                "recover.terms: the first round has no student; add a term besides adversarial"
            )
        if not recover.asks_student:
            raise ValueError(
                "rounds: their students are not used. Set recover.init = judged or "
                "recover.terms.adversarial, or remove rounds"
            )
        if misaligned := [start for start in rounds.starts if start % recover.ipc_range]:
            raise ValueError(
                f"rounds.starts = {misaligned[0]} must be a multiple of recover.ipc_range = "
                f"{recover.ipc_range}, so that no class shard spans two rounds"
            )
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        mosaic = self.recover.mosaic
        if mosaic is not None and self.data.side % mosaic.factor:
            raise ValueError(
                f"recover.mosaic.factor = {mosaic.factor} must divide data.side = {self.data.side}"
            )
        if self.data.side % (self.relabel.patches or 1):
            raise ValueError(
                f"relabel.patches = {self.relabel.patches} must divide data.side = {self.data.side}"
            )
        return self

    @model_validator(mode="after")
    def _every_image_has_originals(self) -> Self:
        originals = self.recover.originals
        if originals is not None and originals.images < self.ipc:
            raise ValueError(
                f"recover.originals.images = {originals.images} must be at least ipc = {self.ipc}"
            )
        return self
