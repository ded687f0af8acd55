"""Optimisers, learning rate by step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_core.config.training import OptimizerConfig, ScheduleConfig


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
        config: cosine with zeta or milestones, linear warm-up, per epoch or per step.
        lr: the highest value.
        step: counted over the whole training.
        steps_per_epoch: optimiser steps in one epoch.
        epochs: in total, warm-up included.
    """
    epoch = step / steps_per_epoch if config.per_step else float(step // steps_per_epoch)
    if epoch < config.warmup_epochs:
        share = epoch / config.warmup_epochs
        return lr * (config.warmup_start + (1 - config.warmup_start) * share)
    if config.milestones:
        return lr * config.gamma ** sum(milestone <= epoch for milestone in config.milestones)
    span = max(epochs - config.warmup_epochs, 1)
    progress = (epoch - config.warmup_epochs) / (config.zeta * span)
    return lr * (1 + math.cos(math.pi * progress)) / 2


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)  # a recorded CUDA graph reads it from this tensor
        else:
            group["lr"] = lr


class WeightEma:
    """Exponential moving average of a network's weights; buffers are those of the raw network.

    Source: EMA-based evaluation of EDC, arXiv:2404.13733; averaging by torch's AveragedModel.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._lerp = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(model)

    @property
    def model(self) -> nn.Module:
        """Return the averaged network."""
        return self._average.module

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the weights after an optimiser step.

        It does what `AveragedModel.update_parameters` does. That one copies its count to the GPU at
        every step, for which the host waits.
        """
        averages, weights = (list[Tensor](network.parameters()) for network in (self.model, model))
        if self._average.n_averaged == 0:
            torch._foreach_copy_(averages, weights)
        else:
            self._lerp(averages, weights, self._average.n_averaged)
        self.copy_buffers(model)
        self._average.n_averaged += 1

    def copy_buffers(self, model: nn.Module) -> None:
        """Copy the raw network's buffers, before the average is evaluated."""
        for target, source in zip(self.model.buffers(), model.buffers(), strict=True):
            target.copy_(source)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average and its count."""
        return dict(self._average.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state."""
        self._average.load_state_dict(dict(state))
