"""Terms on the predictions of the teacher, or of a student.

Axes: B images, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill_core.recover.terms.forward import Forward


def cross_entropy(forward: Forward) -> Tensor:
    """Return the mean cross-entropy between the teacher's logits and the assigned classes."""
    return functional.cross_entropy(forward.teacher.logits, forward.targets)


def adversarial(forward: Forward) -> Tensor:
    """Return a student's confidence in the assigned classes: the mean of -log(1 - probability).

    Only rows that the teacher gets right count: the others' logits are taken for zero, which adds
    a constant and no gradient.

    Source: arXiv:2405.09150 (CUDD) and its published code. Differs from the code: computed from
    logits alone, without its 1e-12, so that a student that is very sure still gives a gradient.
    """
    assert forward.student_logits is not None
    right = forward.teacher.logits.argmax(dim=1) == forward.targets
    logits = forward.student_logits * right[:, None]
    assigned = functional.one_hot(forward.targets, logits.shape[1]).bool()
    others = logits.masked_fill(assigned, -torch.inf)
    return (logits.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()


def flatness(forward: Forward) -> Tensor:
    """Return KL(images || running average of the images) of the teacher's tempered predictions.

    Source: arXiv:2404.13733 (EDC), flatness regularisation, logit form. Differs from the published
    code, where it is switched off: it follows the paper, averaged over the batch.
    """
    assert forward.smoothed_logits is not None
    assert forward.config.flatness is not None
    temperature = forward.config.flatness.temperature
    images = functional.log_softmax(forward.teacher.logits / temperature, dim=1)
    average = functional.log_softmax(forward.smoothed_logits / temperature, dim=1)
    return functional.kl_div(average, images, reduction="batchmean", log_target=True)
