"""The recommended run over a dataset of one's own: found, chosen, and written as YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_core.config.load import load_text, parse_overrides
from distill_core.config.recommended.document import document
from distill_core.config.recommended.facts import Machine
from distill_core.config.recommended.settings import (
    Setting,
    choose,
    settings,
    with_given,
)
from distill_core.config.schema import RunConfig
from distill_core.data.detection.source import Source, find_source
from distill_core.errors import ConfigError


@dataclass(frozen=True)
class Recommendation:
    """A recommended run; the same dataset gives the same one."""

    config: RunConfig
    source: Source
    settings: tuple[Setting, ...]  # that were chosen
    given: Mapping[str, Any]  # settings of the user by dotted key

    def lines(self) -> list[str]:
        """Return what was found and chosen, in a few sentences."""
        return [*self.source.notices, *_chosen(self)]

    def text(self, address: str) -> str:
        """Return commented YAML, which is the same config.

        Args:
            address: of the dataset, as a person entered it.

        Raises:
            ConfigError: a setting of the user cannot be written over those of a preset.
        """
        opening = [
            f"Config of a dataset of your own, written by `distill init` for {address}.",
            "Check it, edit it, and start it with `distill run FILE`; `distill show FILE` prints "
            "every other setting.",
            *(line for line in self.lines() if not line.startswith("Classes: ")),
        ]
        chosen = with_given(list(self.settings), self.given)
        text = document(chosen, opening, self.source.facts.classes)
        try:
            same = load_text(text, preset=self.config.preset, where=address) == self.config
        except ConfigError:
            same = False
        if not same:
            raise ConfigError(
                f"{address}: {', '.join(self.given)} cannot be written as parts of a file that "
                "extends a preset. Omit them here, and edit the file."
            )
        return text


def recommend(address: str, overrides: Sequence[str], machine: Machine) -> Recommendation:
    """Return the recommended run over a dataset.

    Args:
        address: a folder, an archive or a Parquet file, here or in a bucket.
        overrides: ``dotted.key=value``; sizes are chosen for the side and the IPC of these.
        machine: that is to run it.

    Raises:
        ConfigError: the address or an override cannot be used.
        DataError: there is no dataset, or it cannot be distilled.
    """
    given = parse_overrides(overrides, where=address)
    source = find_source(address, given)
    choice = choose(source.facts, machine)
    chosen = settings(choice, source.pixels(choice.view))
    text = document(chosen, (), ())
    config = load_text(text, overrides, preset=source.facts.name, where=address)
    return Recommendation(config, source, tuple(chosen), given)


def _chosen(recommended: Recommendation) -> Iterator[str]:
    """Yield the choices in a few sentences."""
    config, facts = recommended.config, recommended.source.facts
    method = recommended.settings[0].value
    images, epochs = config.ipc * config.data.num_classes, config.posttrain.epochs
    training = config.squeeze.training
    yield (
        f"Method: {method}; {config.ipc} images per class ({images:,} in all) at "
        f"{config.data.side} px."
    )
    if training is not None:
        about = "" if facts.counted else "about "
        yield (
            f"Teacher: {config.squeeze.model.title}, {training.epochs:,} epochs of {about}"
            f"{facts.train_images:,} images. Student: {epochs:,} epochs of {images:,} images."
        )
    if facts.smallest is not None and facts.smallest < config.ipc:
        yield (
            f"The smallest class has {facts.smallest} images, fewer than {config.ipc} per class: "
            "some are used more than once."
        )
