"""The state of a training as one file, and the interface of its storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_core.errors import DataError, one_line
from distill_core.progress import Notice, ignore_notice
from distill_core.training.optim import WeightEma

STATE_VERSION = 1
T = TypeVar("T")


class CheckpointPort(Protocol):
    """Storage of a training's state, see `tasks.stages.training.SharedCheckpoints`.

    Every process of a training calls it, in the same order.
    """

    def save(self, step: int, state: Callable[[], bytes], *, batches: int = 0) -> None:
        """Store the state after `step` whole epochs and some batches of the next one.

        `state` is called in the main process only.

        It may raise to end a training whose result is no longer needed, in every process.
        """

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield the stored (step, state), the furthest first; the same in every process."""


def pack_state(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    ema: WeightEma | None = None,
    meta: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a training state as safetensors: weights, optimiser moments, EMA, and JSON facts."""
    tensors = _weights(model, ema)
    scalars: dict[str, Any] = {}
    for number, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                scalars[f"{number}/{name}"] = value
    facts = {
        "version": STATE_VERSION,
        "optimizer": type(optimizer).__name__,
        "scalars": scalars,
        "meta": dict(meta or {}),
    }
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(cpu, metadata={"state": json.dumps(facts)})


def restore(
    checkpoints: CheckpointPort | None,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    ema: WeightEma | None = None,
    read: Callable[[dict[str, Any]], T],
    notice: Notice = ignore_notice,
) -> tuple[int, T] | None:
    """Load the furthest checkpoint that fits into model and optimiser; return (step, its facts).

    A checkpoint that is damaged, of another version or of another network is skipped, and the one
    before it is used. Without any, nothing is changed and the result is None.

    Args:
        checkpoints: where they are stored; None: nowhere.
        model: the network in training.
        optimizer: its optimiser.
        ema: its averaged weights.
        read: turns the JSON facts of `pack_state` into those of the caller; raises a KeyError,
            TypeError, ValueError or AttributeError for those of another version.
        notice: receives a sentence about each checkpoint that is skipped.
    """
    for step, data in () if checkpoints is None else checkpoints.stored():
        try:
            state = PackedState.parse(data)
            state.check(model, optimizer, ema)
            facts = read(state.meta)
        except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
            problem = one_line(error) if isinstance(error, DataError) else f"its facts: {error!r}"
            notice(
                f"The checkpoint after epoch {step} cannot be used ({problem}). Training goes on "
                "from the one before it."
            )
            continue
        state.load(model, optimizer, ema)
        return step, facts
    return None


@dataclass(frozen=True)
class PackedState:
    """The parts of a packed state."""

    tensors: Mapping[str, Tensor]  # model/..., ema/..., optimizer/<parameter>/...
    scalars: Mapping[str, Any]  # of the optimiser, <parameter>/<name>
    optimizer: str | None  # name of its class; None: not recorded
    meta: dict[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> PackedState:
        """Return the parts of a packed state.

        Raises:
            DataError: it is damaged, or of another version.
        """
        try:
            tensors, facts = load(data), _facts(data)
            version = facts["version"]
            meta, scalars = dict(facts["meta"]), dict(facts["scalars"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"checkpoint: {len(data)} bytes are not a training state ({error}). Delete it."
            ) from None
        if version != STATE_VERSION:
            raise DataError(
                f"checkpoint: version {version}, expected {STATE_VERSION}. Delete it, or go on "
                "with the version that wrote it."
            )
        return cls(tensors, scalars, facts.get("optimizer"), meta)

    def check(self, model: nn.Module, optimizer: Optimizer, ema: WeightEma | None) -> None:
        """Refuse a state that does not fit; so that `load` never stops half-way.

        Raises:
            DataError: it belongs to another network or optimiser.
        """
        problem = self._misfit(_weights(model, ema), optimizer)
        if problem is not None:
            raise DataError(
                f"checkpoint: it belongs to another network or optimiser ({problem}). Delete it."
            )

    def load(self, model: nn.Module, optimizer: Optimizer, ema: WeightEma | None) -> None:
        """Copy a state that fits into model, optimiser and averaged weights."""
        model.load_state_dict(_below("model/", self.tensors))
        if ema is not None:
            ema.load_state_dict(_below("ema/", self.tensors))
        state = optimizer.state_dict()
        state["state"] = _optimizer_state(_below("optimizer/", self.tensors), self.scalars)
        optimizer.load_state_dict(state)

    def _misfit(self, weights: Mapping[str, Tensor], optimizer: Optimizer) -> str | None:
        """Return the first difference from what is expected."""
        names = {name for name in self.tensors if name.startswith("model/")}
        if any(name.startswith("ema/") for name in weights):
            names |= {name for name in self.tensors if name.startswith("ema/")}
        for name in sorted(names ^ weights.keys()):
            return f"{name} is {'not expected' if name in names else 'missing'}"
        for name in names:
            if (shape := self.tensors[name].shape) != weights[name].shape:
                return f"{name} is {tuple(shape)}, expected {tuple(weights[name].shape)}"
        if self.optimizer not in (None, type(optimizer).__name__):
            return f"{self.optimizer}, expected {type(optimizer).__name__}"
        return self._misfit_of_optimizer(optimizer)

    def _misfit_of_optimizer(self, optimizer: Optimizer) -> str | None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for path, value in _below("optimizer/", self.tensors).items():
            number, _, name = path.partition("/")
            if not number.isdecimal() or int(number) >= len(parameters):
                return f"{name} of parameter {number}, expected {len(parameters)} parameters"
            if value.dim() and value.shape != (expected := parameters[int(number)].shape):
                return f"{path} is {tuple(value.shape)}, expected {tuple(expected)}"
        return None


def _weights(model: nn.Module, ema: WeightEma | None) -> dict[str, Tensor]:
    """Return the weights and buffers of a training by their names in a packed state."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.state_dict().items()}
    return tensors


def _facts(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return dict(json.loads(header["__metadata__"]["state"]))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _optimizer_state(
    tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for path, value in {**tensors, **scalars}.items():
        number, name = path.split("/", 1)
        state.setdefault(int(number), {})[name] = value
    return state
