"""The trace of a recovery: loss curves of every batch, and snapshots of the first image.

No torch here: reports and estimates read the same constants.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_core.storage.image_shards import encode_pixels

if TYPE_CHECKING:
    from distill_core.recover.batch import RecoveredBatch

TRACE_POINTS = 50  # loss values kept per batch
SNAPSHOTS = (0.0, 0.05, 0.25, 0.5, 1.0)  # fractions of the steps shown in the evolution strip


def traced_every(steps: int) -> int:
    """Return the distance of two steps whose losses are kept."""
    return max(1, steps // TRACE_POINTS)


def is_traced(step: int, steps: int) -> bool:
    """Return whether the losses of a step are kept; those of the last one always are."""
    return step % traced_every(steps) == 0 or step == steps - 1


def snapshot_steps(steps: int) -> frozenset[int]:
    """Return the steps before which a snapshot is taken."""
    return frozenset(round(share * steps) for share in SNAPSHOTS)


def encode_trace(batches: Sequence[RecoveredBatch]) -> bytes:
    """Return loss curves by batch, and the snapshots of the first image of the first one, as JSON.

    Args:
        batches: of one shard, in plan order.
    """
    first = batches[0].images[0]
    record = {
        "batches": [
            {"images": [[i.wnid, i.ipc_index] for i in batch.images], "trace": list(batch.trace)}
            for batch in batches
        ],
        "snapshots": [
            {
                "wnid": first.wnid,
                "ipc_index": first.ipc_index,
                "step": step,
                "low": low,
                "png": base64.b64encode(encode_pixels(pixels, "png")).decode(),
            }
            for step, low, pixels in batches[0].snapshots
        ],
    }
    return json.dumps(record, separators=(",", ":")).encode()
