"""Relabel: the teacher's predictions on views of the decoded, stored images.

Axes: V views, N images, D features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_core.config.students import RelabelConfig
from distill_core.errors import DataError, DivergedError
from distill_core.labels.encoding import quantise
from distill_core.labels.predict import predict_view
from distill_core.labels.topk import keep_top
from distill_core.labels.views import LabelView, sample_label_view
from distill_core.models.ensemble import Ensemble
from distill_core.models.teacher import FrozenTeacher, TeacherOutput
from distill_core.progress import Progress, silent
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_rows import choose_scheme
from distill_core.storage.label_shards import LabelRows
from distill_core.transforms.upload import upload


def relabel_shard(
    rows: ImageRows,
    views: Sequence[int],
    *,
    config: RelabelConfig,
    teacher: FrozenTeacher | Ensemble,
    seed: int,
    progress: Progress = silent,
    parts: int = 1,
) -> LabelRows:
    """Label a range of views of one image shard, on the device of the teacher.

    Args:
        rows: decoded images.
        views: view ids.
        config: views, mix and scheme; `auto` is resolved for this teacher.
        teacher: frozen.
        seed: the run's seed.
        progress: called after every view with (views done, views in total).
        parts: pieces that each forward pass is cut into, see `predict_view`.

    Raises:
        DivergedError: a label is not finite, or too large for the scheme.
    """
    spec = teacher.spec
    scheme = choose_scheme(
        config.scheme, features=spec.features, classes=spec.num_classes, bits=config.bits
    )
    pixels = upload(rows.pixels, teacher.head.weight.device)
    drawn = [sample_label_view(seed, rows.images, view, config, side=spec.side) for view in views]
    kept: dict[str, Tensor] = {}  # by name, (V, N, ...)
    for number, draw in enumerate(drawn):
        if scheme != "online":
            output = predict_view(teacher, pixels, draw, config, parts=parts)
            for name, part in _kept(output, scheme, config, where=rows.images[0]).items():
                if name not in kept:
                    kept[name] = part.new_empty(len(drawn), *part.shape)
                kept[name][number] = part
        progress(number + 1, len(drawn))
    return LabelRows(
        scheme=scheme,
        teacher=teacher.digest,
        images=rows.images,
        views=tuple(views),
        boxes=np.stack([d.view.boxes for d in drawn]),
        flips=np.stack([d.view.flips for d in drawn]),
        mix_kind=config.mix.kind,
        partners=np.stack([d.mix.partners for d in drawn]),
        lam=np.stack([d.mix.lam for d in drawn]),
        mix_boxes=np.stack([d.mix.boxes for d in drawn]),
        colours=np.stack([d.mix.colours for d in drawn]),
        **_stored(scheme, kept, config, where=rows.images[0]),
        **_drawn_columns(drawn),
    )


def _drawn_columns(drawn: Sequence[LabelView]) -> dict[str, Any]:
    """Return the draws that only some configs make."""
    columns: dict[str, list[np.ndarray]] = {}
    for draw in drawn:
        if draw.patches is not None:
            columns.setdefault("patches", []).append(draw.patches)
        if draw.operations is not None:
            columns.setdefault("operations", []).append(draw.operations.kinds)
            columns.setdefault("arguments", []).append(draw.operations.arguments)
    return {name: np.stack(values) for name, values in columns.items()}


def _kept(
    output: TeacherOutput, scheme: str, config: RelabelConfig, *, where: object
) -> dict[str, Tensor]:
    """Return the part of a teacher's output on one view that the scheme keeps.

    Features stay on the device until all views are computed, because one map serves them all.
    """
    if scheme == "features":
        return {"values": output.features.float()}
    if scheme == "logits":
        return {"values": _halved(output.logits, where)}
    top = keep_top(output.logits.float(), config.topk or 0)
    values, rest = (_halved(part, where) for part in (top.values, top.rest))
    return {"values": values, "ids": top.ids.cpu().to(torch.uint16), "rest": rest}


def _stored(
    scheme: str, kept: dict[str, Tensor], config: RelabelConfig, *, where: object
) -> dict[str, Any]:
    """Return the stored values: codes, fp16 logits, or nothing."""
    if scheme == "online":
        return {"values": None, "affine": None}
    if scheme != "features":
        return {name: part.numpy() for name, part in kept.items()} | {"affine": None}
    try:
        codes, affine = quantise(kept["values"], bits=config.bits)
    except DataError as error:
        raise DivergedError(f"relabel: the shard of {where}: {error}") from error
    return {"values": codes.cpu().numpy(), "affine": affine}


def _halved(values: Tensor, where: object) -> Tensor:
    """Return logits in float16, on the host.

    Raises:
        DivergedError: one is not finite, or does not fit.
    """
    halves = values.half()
    if not torch.isfinite(halves).all():
        largest = float(values.abs().max())
        if not math.isfinite(largest):
            raise DivergedError(f"relabel: logits of the shard of {where} are not finite.")
        raise DivergedError(
            f"relabel: logits of the shard of {where} reach {largest:g}, at most "
            f"{torch.finfo(torch.float16).max:g} fits float16. Set relabel.scheme to features."
        )
    return halves.cpu()
