"""The processes of a gang share an evaluation, so that none waits for another in a collective."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.evaluation.metrics import EVALUATION_BATCH
from distill_core.training.distributed import DistributedContext
from distill_core.training.supervised import Labelled, evaluate
from tasks.execution import RetryPolicy
from tasks.jobs import Job, Receipt, WorkerSpec
from tasks.pools.dispatch import dispatch
from tasks.pools.local import local_pool
from tests.support.teacher_training import run

IMAGES = 2 * EVALUATION_BATCH + 100  # two processes: one has two batches, the other has one


class Counting(nn.Module):
    """A small network that counts the images it sees."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)  # the processes of a training have the same parameters
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)
        )
        statistics = self.layers.get_buffer("1.running_mean")
        statistics.fill_(0.5 * rank)  # each has seen other images
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        logits: Tensor = self.layers(images)
        return logits


def split() -> Labelled:
    """Return test images of noise."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, 3, 16, 16), dtype=np.uint8)
    return Labelled(pixels, rng.integers(0, 3, IMAGES))


class Evaluates:
    """Evaluates the network of its rank together with the other ranks."""

    def run(self, job: Job[Any]) -> Receipt:
        """Return the accuracy, and how many images each rank has evaluated."""
        torch.set_num_threads(1)
        world = DistributedContext.current()
        model = Counting(world.rank)
        accuracy = evaluate(model, split(), run(), device="cpu", world=world)
        shares = [model.images if rank == world.rank else 0 for rank in range(world.size)]
        seen = list(world.sum(shares))
        return Receipt(job.key, job.shard, summary={"accuracy": asdict(accuracy), "images": seen})


@pytest.mark.slow
def test_two_processes_share_the_images_and_get_the_accuracy_of_one() -> None:
    pool = local_pool(WorkerSpec(f"{__name__}:Evaluates"), processes=2)
    try:
        result = dispatch([Job("k", "s", None)], pool, policy=RetryPolicy(max_attempts=1))
    finally:
        pool.close()
    (receipt,) = result.receipts
    alone = evaluate(Counting(0), split(), run(), device="cpu")
    assert receipt.summary == {
        "accuracy": asdict(alone),
        "images": [EVALUATION_BATCH + 100, EVALUATION_BATCH],
    }
    assert evaluate(Counting(1), split(), run(), device="cpu") != alone
