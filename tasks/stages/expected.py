"""Expected numbers of shards, from the config alone, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.sharding import ClassShard
from tasks.stages.names import StageId, round_of_image


@dataclass(frozen=True)
class Expected:
    """Facts of a run that are known before its dataset is indexed.

    Attributes:
        config: of the run.
        shards: class shards of one image set, as if no class were missing.
        test_images: in the real test split; None: not known.
        online: whether labels are computed again and not stored.
        parts: of the real dataset; None: not known.
        train_images: in the real training split; None: not known.
    """

    config: RunConfig
    shards: Sequence[ClassShard]
    test_images: int | None
    online: bool
    parts: int | None = None
    train_images: int | None = None

    @property
    def blocks(self) -> int:
        """Return how many blocks of classes the shards cover."""
        return len({shard.labels for shard in self.shards})

    def image_shards(self, stage: StageId) -> int:
        """Return how many image shards a stage covers, over all image sets."""
        number = stage.last_round(self.config)
        covered = sum(
            round_of_image(self.config, shard.grids[0][1][0]) <= number for shard in self.shards
        )
        return covered * (len(self.config.image_sets) if stage.is_last else 1)
