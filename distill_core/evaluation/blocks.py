"""Which images of the test split judge a student, and when: a pure function of counts.

A student is judged now and then while it trains, and in the end. Where the split is larger than one
validation shard, the end is a stage of its own, one block of images per job, and training looks at
a part of the split only. Rows are counted among the readable images, which stand in class order.
"""

from __future__ import annotations

IN_TRAINING = 10_000  # test images at most; the standard error of an accuracy is then 0.5 points


def validation_blocks(images: int, shard: int) -> tuple[range, ...]:
    """Return the blocks that the stage `validate` judges; none where training judges them all.

    Args:
        images: readable images in the test split.
        shard: of them in one block, at most.
    """
    if images <= shard:
        return ()
    return tuple(range(start, min(start + shard, images)) for start in range(0, images, shard))


def rows_in_training(images: int, shard: int) -> list[int] | None:
    """Return the evenly spaced test images that judge a student while it trains; None: all of them.

    All where they fit one shard, for then nobody judges later. Otherwise the size of a shard does
    not matter here: changing it trains no student again.

    Args:
        images: readable images in the test split.
        shard: of them in one validation shard, at most.
    """
    if images <= max(shard, IN_TRAINING):
        return None
    return [number * images // IN_TRAINING for number in range(IN_TRAINING)]
