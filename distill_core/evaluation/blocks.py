"""The images of the test split that a student is evaluated on, as a pure function of counts.

A student is evaluated every few epochs, and at the end. Where the split is larger than one
validation shard, the end is a stage of its own, one block of images per job, and training uses a
part of the split only. Rows are counted among the readable images, which are in class order.
"""

from __future__ import annotations

IN_TRAINING = 10_000  # test images at most; the standard error of an accuracy is then 0.5 points


def validation_blocks(images: int, shard: int) -> tuple[range, ...]:
    """Return the blocks of the stage `validate`; none where training evaluates all images.

    Args:
        images: readable images in the test split.
        shard: images of one block at most.
    """
    if images <= shard:
        return ()
    return tuple(range(start, min(start + shard, images)) for start in range(0, images, shard))


def rows_in_training(images: int, shard: int) -> list[int] | None:
    """Return the evenly spaced test images that training evaluates on; None: all of them.

    All are used where they fit one shard, because then there is no later validation. Otherwise the
    size of a shard does not matter here, so that changing it trains no student again.

    Args:
        images: readable images in the test split.
        shard: images of one validation shard at most.
    """
    if images <= max(shard, IN_TRAINING):
        return None
    return [number * images // IN_TRAINING for number in range(IN_TRAINING)]
