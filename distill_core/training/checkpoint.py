"""The state of a training as one file, and the interface of its storage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_core.errors import DataError
from distill_core.training.optim import WeightEma

STATE_VERSION = 1


class CheckpointPort(Protocol):
    """Storage of a training's state, see `storage.checkpoints.Checkpoints`."""

    def save(self, step: int, payload: bytes) -> None:
        """Store the state after `step` whole epochs."""

    def latest(self) -> tuple[int, bytes] | None:
        """Return the furthest stored (step, state), or None."""


def pack_state(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    ema: WeightEma | None = None,
    meta: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a training state as safetensors: weights, optimiser moments, EMA, and JSON facts."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.state_dict().items()}
    scalars: dict[str, Any] = {}
    for number, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                scalars[f"{number}/{name}"] = value
    facts = {"version": STATE_VERSION, "scalars": scalars, "meta": dict(meta or {})}
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(cpu, metadata={"state": json.dumps(facts)})


def unpack_state(
    data: bytes, model: nn.Module, optimizer: Optimizer, *, ema: WeightEma | None = None
) -> dict[str, Any]:
    """Load a packed state into model and optimiser; return its JSON facts.

    Raises:
        DataError: it belongs to another model or optimiser.
    """
    tensors, facts = load(data), _facts(data)
    try:
        model.load_state_dict(_below("model/", tensors))
        if ema is not None:
            ema.load_state_dict(_below("ema/", tensors))
        state = optimizer.state_dict()
        state["state"] = _optimizer_state(_below("optimizer/", tensors), facts["scalars"])
        optimizer.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"checkpoint: it belongs to another network or optimiser ({error}). Delete it."
        ) from None
    return dict(facts["meta"])


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
