"""The published loop and ours compute the same loss and the same gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from benchmarks.baselines import HookedTeacher
from distill_core.models.build import build_model
from distill_core.recover.terms import Forward, bn_statistics, cross_entropy
from tests.core.tiny import CLASSES, tiny_teacher


def test_hooks_and_the_statistics_module_agree() -> None:
    ours = tiny_teacher()
    model = build_model(ours.spec.model, CLASSES, seed=0)
    model.load_state_dict(_plain_state(ours, model))
    hooked = HookedTeacher(model, 10.0)
    pixels = torch.randn(8, 3, 16, 16, requires_grad=True)
    targets = torch.arange(8) % CLASSES
    entropy, gap = hooked.losses(pixels, targets)
    forward = Forward(pixels, targets, ours(pixels, statistics=True), 10.0)
    mine = (cross_entropy(forward), bn_statistics(forward))
    assert mine[0].item() == pytest.approx(entropy.item(), rel=1e-6)
    assert mine[1].item() == pytest.approx(gap.item(), rel=1e-6)
    (theirs,) = torch.autograd.grad(entropy + 0.01 * gap, pixels)
    (ours_,) = torch.autograd.grad(mine[0] + 0.01 * mine[1], pixels)
    assert cosine_similarity(theirs.flatten(), ours_.flatten(), dim=0) > 0.9999


def _plain_state(teacher: torch.nn.Module, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the teacher's weights under the names of the plain network."""
    found = {
        name.removeprefix("backbone.").replace("head.", "classifier."): value
        for name, value in teacher.state_dict().items()
    }
    return model.state_dict() | found
