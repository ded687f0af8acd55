"""What training a teacher and training a student share: optimiser, schedule, state, judging.

Axes: n images, B in a batch, S side in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_core.config.schema import OptimizerConfig, ScheduleConfig, Triple
from distill_core.errors import DataError
from distill_core.metrics import Accuracy, count_hits

EVALUATION_BATCH = 500  # images per forward pass; a memory setting
STATE_VERSION = 1


class CheckpointPort(Protocol):
    """Where a long training keeps its state, see `storage.checkpoints.Checkpoints`."""

    def save(self, step: int, payload: bytes) -> None:
        """Keep the state after `step` whole epochs."""

    def latest(self) -> tuple[int, bytes] | None:
        """Return the furthest state kept, or None."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among all processes of one training."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return this process's place in the initialised process group, or the only one."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Return whether this process writes and judges."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of `count` images."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with averaged gradients over processes, or as it is when alone."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def exchange(self, model: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Return a context for one backward pass of a wrapped model that averages now, or later.

        Processes must average equally often, however many micro-batches each of them has.
        """
        if now or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, *, nesterov: bool = False
) -> Optimizer:
    """Return the optimiser; weight decay skips biases and norm parameters (1-D tensors)."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    match config.name:
        case "sgd":
            return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
        case "adam":
            return Adam(groups, lr=config.lr, betas=config.betas)
        case "adamw":
            return AdamW(groups, lr=config.lr, betas=config.betas)


def lr_at(
    config: ScheduleConfig, lr: float, *, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """Return the learning rate of an optimiser step.

    Args:
        config: cosine with zeta, linear warm-up, per epoch or per step.
        lr: the highest value.
        step: counted over the whole training.
        steps_per_epoch: optimiser steps in one epoch.
        epochs: in total, warm-up included.
    """
    epoch = step / steps_per_epoch if config.per_step else float(step // steps_per_epoch)
    if epoch < config.warmup_epochs:
        share = epoch / config.warmup_epochs
        return lr * (config.warmup_start + (1 - config.warmup_start) * share)
    span = max(epochs - config.warmup_epochs, 1)
    progress = (epoch - config.warmup_epochs) / (config.zeta * span)
    return lr * (1 + math.cos(math.pi * progress)) / 2


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class WeightEma:
    """Exponential moving average of a network's weights; buffers are those of the raw network.

    Source: EMA-based evaluation of EDC, arXiv:2404.13733; averaging by torch's AveragedModel.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(model, multi_avg_fn=average)

    @property
    def model(self) -> nn.Module:
        """Return the averaged network."""
        return self._average.module

    def update(self, model: nn.Module) -> None:
        """Average in the weights after an optimiser step."""
        self._average.update_parameters(model)

    def copy_buffers(self, model: nn.Module) -> None:
        """Take over the raw network's buffers, before the average is judged."""
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average and its count."""
        return dict(self._average.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take a state back."""
        self._average.load_state_dict(dict(state))


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
    """Put a packed state back in place and return its JSON facts.

    Raises:
        DataError: not a state of this model and optimiser.
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
        raise DataError(f"checkpoint: of another network or optimiser ({error}).") from None
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


@torch.no_grad()
def evaluate(
    model: nn.Module,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    mean: Triple,
    std: Triple,
    device: str | torch.device,
    batch: int = EVALUATION_BATCH,
) -> Accuracy:
    """Judge a network in eval mode on unaugmented images; its mode is put back.

    Args:
        model: maps normalised (B, 3, S, S) to logits (B, C).
        pixels: (n, 3, S, S) uint8.
        labels: (n,) int64.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        device: where the network is.
        batch: images per forward pass.
    """
    dtype = next(model.parameters()).dtype
    mean_, std_ = (
        torch.tensor(v, dtype=dtype, device=device).view(1, 3, 1, 1) for v in (mean, std)
    )
    hits = torch.zeros(2, dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    for start in range(0, len(labels), batch):
        part = torch.from_numpy(pixels[start : start + batch]).to(device)
        normalised = (part.to(dtype) / 255 - mean_) / std_
        logits = model(normalised.to(memory_format=torch.channels_last))
        hits += count_hits(logits, torch.from_numpy(labels[start : start + batch]).to(device))
    model.train(was_training)
    top1, top5 = (100 * hits.double() / max(len(labels), 1)).tolist()
    return Accuracy(round(top1, 4), round(top5, 4))
