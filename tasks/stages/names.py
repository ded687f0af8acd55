"""Identities of stages and of their manifests.

A stage is a kind of work. Where images are made in rounds, every kind from `select` to `posttrain`
occurs once per round: ``recover-1`` makes the images of the first round, ``recover-2`` those of the
first two, and so on. A shard that several stages have in common has one key and is made once. The
last round has the plain names, which are also those of a run without rounds.

A stage that handles several image sets writes one manifest per set: ``recover`` lists the distilled
images and ``recover.random_real`` the baseline.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.keys import ImageSet

TEXT = re.compile(r"(?P<kind>[a-z_]+)(?:-(?P<round>[1-9]\d*))?(?:\.(?P<image_set>random_real))?")


@dataclass(frozen=True)
class StageId:
    """One stage of a run or, with an image set other than the distilled one, one of its manifests.

    `str` gives the text that stands in file names, logs and messages; `parse` reads it back.
    """

    kind: str
    round: int | None = None  # the stage covers rounds 1 to this one; None: all of them
    image_set: ImageSet = "distilled"

    @classmethod
    def parse(cls, text: str) -> StageId:
        """Return the stage that a text names.

        Raises:
            ConfigError: the text is not the name of a stage.
        """
        match = TEXT.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"stage {text!r}: expected KIND, KIND-ROUND or KIND.IMAGE_SET, such as recover, "
                "recover-1 or recover.random_real."
            )
        image_set: ImageSet = "random_real" if match["image_set"] else "distilled"
        return cls(match["kind"], int(match["round"]) if match["round"] else None, image_set)

    @classmethod
    def up_to(cls, config: RunConfig, kind: str, number: int) -> StageId:
        """Return the stage of a kind that covers rounds 1 to `number`."""
        return cls(kind, None if number == len(config.round_starts) else number)

    @property
    def is_last(self) -> bool:
        """Return whether the stage covers every round."""
        return self.round is None

    @property
    def stage(self) -> StageId:
        """Return the stage that writes this manifest."""
        return self.of("distilled")

    def of(self, image_set: ImageSet) -> StageId:
        """Return this stage's manifest of an image set."""
        return replace(self, image_set=image_set)

    def last_round(self, config: RunConfig) -> int:
        """Return the last round that the stage covers; the first is 1."""
        return len(config.round_starts) if self.round is None else self.round

    def __str__(self) -> str:
        name = self.kind if self.round is None else f"{self.kind}-{self.round}"
        return name if self.image_set == "distilled" else f"{name}.{self.image_set}"


def round_of_image(config: RunConfig, ipc_index: int) -> int:
    """Return the round that makes an image; the first is 1."""
    return sum(start <= ipc_index for start in config.round_starts)
