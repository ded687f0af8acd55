"""A teacher's predictions on a view, for stored labels and for labels computed online alike.

Axes: N images of a shard, D features, C classes.
"""

from __future__ import annotations

import numpy as np
import torch

from distill_core.config.students import RelabelConfig
from distill_core.labels.views import LabelView, Renderer
from distill_core.models.ensemble import Ensemble
from distill_core.models.teacher import FORWARD_BATCH, FrozenTeacher, TeacherOutput
from distill_core.transforms.pixel_store import Pixels
from distill_core.transforms.upload import upload


@torch.no_grad()
def predict_view(
    teacher: FrozenTeacher | Ensemble,
    pixels: Pixels,
    drawn: LabelView,
    config: RelabelConfig,
    *,
    parts: int = 1,
) -> TeacherOutput:
    """Return the teacher's output on one view of all N images of a shard.

    Args:
        teacher: frozen, on the device of `pixels`.
        pixels: (N, 3, S, S) uint8.
        drawn: draws for the N images.
        config: the kind of mix, and whether images pool their statistics.
        parts: pieces that each forward pass is cut into, for a device without room for it; labels
            then differ by rounding at most. Pools stay whole.

    Source: arXiv:2306.13092 (SRe2L), section 3.3 (FKD labels).
    """
    spec, dtype = teacher.spec, teacher.head.weight.dtype
    renderer = Renderer(config.mix.kind, spec.mean, spec.std, dtype)
    groups, pooled = groups_of(len(pixels), drawn, config, size=FORWARD_BATCH // parts)
    outputs = [teacher(renderer.render(pixels, rows, drawn), pooled=pooled) for rows in groups]
    back = upload(np.argsort(np.concatenate(groups)), pixels.device)
    features, logits = (
        torch.cat([getattr(o, name) for o in outputs])[back] for name in ("features", "logits")
    )
    return TeacherOutput(features, logits, ())


def groups_of(
    count: int, drawn: LabelView, config: RelabelConfig, *, size: int
) -> tuple[list[np.ndarray], bool]:
    """Return the images of each forward pass, and whether they pool their statistics.

    Pools are as even as possible, so that none is a single image.

    Source of pools: arXiv:2501.07575 (CV-DD, SRe2L++), batch-specific soft labels. Differs from the
    published code: dropout stays off, and students may read the labels in any other batches.
    """
    if config.batch_statistics is None:
        cuts = range(size, count, size)
        return np.split(np.arange(count), cuts), False
    assert drawn.order is not None
    return np.array_split(drawn.order, -(-count // config.batch_statistics)), True
