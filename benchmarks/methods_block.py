"""Which cells the comparison of methods has, and the run that each one is.

A cell is a preset (or a baseline), an IPC and a seed. Its config is the preset's own recovery,
with everything else replaced by one override block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill_core.config.load import load_run, preset_names
from distill_core.config.recovery import RecoverConfig
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError

BLOCK = Path(__file__).with_name("cpu_override.yaml")
PRESETS = "-cifar10"  # how the names of the presets end that are compared
DATA = "sre2l-cifar10"  # the preset whose data section every run has
Tree = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """What makes images: a preset, or a preset with changes."""

    name: str
    preset: str
    changes: tuple[str, ...] = ()  # key=value


@dataclass(frozen=True, order=True)
class Cell:
    """One row of raw results."""

    method: str
    ipc: int
    seed: int


@dataclass(frozen=True)
class Block:
    """The override block, and where the real images are."""

    tree: Mapping[str, Any]
    data: str

    @classmethod
    def read(cls, path: Path, *, data: str, smoke: bool = False) -> Block:
        """Read the block; `smoke` lays its smallest sizes over it."""
        tree = yaml.safe_load(path.read_text())
        tiny = tree.pop("smoke", {})
        return cls(_merged(tree, tiny) if smoke else tree, data)

    def methods(self) -> dict[str, Method]:
        """Return what the block names beside the presets, then every preset of the dataset.

        Raises:
            ConfigError: a name is both, and would silently be one of them.
        """
        named = {
            name: Method(name, entry["preset"], tuple(entry["set"]))
            for name, entry in (self.tree["beside_presets"] | self.tree["variants"]).items()
        }
        presets = [name for name in preset_names() if name.endswith(PRESETS)]
        names = {preset.removesuffix(PRESETS): preset for preset in presets}
        if both := named.keys() & names.keys():
            raise ConfigError(f"{sorted(both)}: names of presets, too. Give what you add others.")
        changes = self.tree["fitted"]
        return named | {
            name: Method(name, preset, tuple(changes.get(name, ())))
            for name, preset in names.items()
        }

    def pool(self) -> RunConfig:
        """Return the run that trains the teacher pool."""
        squeeze = json.dumps(self.tree["teachers"]["squeeze"])
        return load_run(DATA, [*self._common(), f"squeeze={squeeze}"])

    def optimises(self, method: Method) -> bool:
        """Return whether a method changes pixels; a baseline only chooses them."""
        return load_run(method.preset, method.changes).recover.steps > 0

    def run(
        self, method: Method, cell: Cell, teachers: Sequence[str], *, hard: bool = False
    ) -> RunConfig:
        """Return the run of a cell.

        Args:
            method: what makes the images.
            cell: IPC and seed.
            teachers: keys of the pool's members in the store.
            hard: train the student on hard labels; the images are the same.
        """
        recover = load_run(method.preset, method.changes).recover
        squeeze = self.tree["teachers"]["squeeze"]
        models = [squeeze["model"], *(member["model"] for member in squeeze["pool"])]
        first, *rest = [
            {"model": model, "reuse": key} for model, key in zip(models, teachers, strict=True)
        ]
        return load_run(
            method.preset,
            [
                *self._common(),
                f"squeeze={json.dumps({**first, 'pool': rest})}",
                *method.changes,
                *_fitted(recover, steps=self.tree["recover_steps"], teachers=len(teachers)),
                *self._student(cell.ipc, hard=hard),
                f"ipc={cell.ipc}",
                f"seed={cell.seed}",
            ],
        )

    def _common(self) -> list[str]:
        data = load_run(DATA, [f"data.path={self.data}"]).data.model_dump(mode="json")
        sections = {"data": data, **self.tree["sections"]}
        return [f"{name}={json.dumps(section)}" for name, section in sections.items()]

    def _student(self, ipc: int, *, hard: bool) -> list[str]:
        """Return the set, and so many epochs that students at one IPC take as many steps.

        Views are those of the student on soft labels in both cases: where images are made in
        rounds, the student between two rounds learns from them, and the images are to be the same.
        """
        batches = -(-10 * ipc // self.tree["sections"]["posttrain"]["batch_size"])
        soft, said = self.tree["student_steps"][ipc], self.tree["hard_label_steps"]
        return [
            f"posttrain.sets=[{'hard_labels' if hard else 'distilled'}]",
            f"posttrain.epochs={max(1, (said if hard else soft) // batches)}",
            f"relabel.views={max(1, soft // batches)}",
        ]


def cell_id(cell: Cell, run: RunConfig, teachers: Sequence[str]) -> str:
    """Return the file name of a cell, which changes with everything that decides its numbers.

    Args:
        cell: which one.
        run: its resolved run.
        teachers: digests of the pool's weights.
    """
    # Without defaults: a field that the schema gains later renames no cell.
    tree = run.model_dump(mode="json", exclude_defaults=True)
    for words in ("source", "expected", "differs"):
        tree.pop(words, None)
    tree["data"].pop("path")  # moving the images changes nothing
    text = json.dumps([tree, list(teachers)], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{cell.method}_ipc{cell.ipc}_s{cell.seed}_{digest}"


def _fitted(recover: RecoverConfig, *, steps: int, teachers: int) -> list[str]:
    """Return what makes a recovery small: fewer steps, and only teachers that there are."""
    known = [number for number in recover.teachers if number < teachers]
    changes = [f"recover.teachers={known}"]
    if recover.committee is not None and recover.committee.weighting is not None:
        priors = list(recover.committee.weighting.priors[: len(known)])
        changes.append(f"recover.committee.weighting.priors={priors}")
    if recover.steps <= steps:
        return changes
    changes.append(f"recover.steps={steps}")
    if recover.segments:
        share = steps / recover.steps
        short = [s.model_dump() | {"steps": round(s.steps * share)} for s in recover.segments]
        changes.append(f"recover.segments={json.dumps(short)}")
        changes.append(f"recover.steps={sum(s['steps'] for s in short)}")
    return changes


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> Tree:
    """Lay `top` over `base`, key by key."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
