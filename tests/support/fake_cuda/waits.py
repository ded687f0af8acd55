"""The places where the host may wait for the GPU, and why.

None is taken in every step. `EVERY_STEP` names the only ones, of terms that `NEEDS_SYNC` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# read: a value; shape: a result whose shape depends on values; check: a kernel's report of failure;
# download, upload: a copy
Kind = Literal["read", "shape", "check", "download", "upload"]


@dataclass(frozen=True, order=True)
class Wait:
    """A function of the product in which the host waits, and how."""

    site: str  # file below distill_core, and qualified name
    kind: Kind


EVERY_STEP: Mapping[Wait, str] = {
    Wait("recover/terms/pixels.py:density", "shape"): "which classes a batch has, and their rows",
    Wait("recover/terms/pixels.py:density", "read"): "the classes, one term for each",
    Wait("recover/terms/pixels.py:_unevenness", "check"): "an eigenvalue solver that may fail",
    Wait("recover/step.py:recover_step", "shape"): "the gradient of the rows of a class",
}
RECOVER: Mapping[Wait, str] = {
    # Once a batch or a segment.
    Wait("recover/goals.py:goal_of", "upload"): "classes and statistics of a batch",
    Wait("recover/goals.py:Goal.select", "upload"): "the rows of each late group",
    Wait("recover/pixels.py:PixelParameters.__init__", "upload"): "the order of the late groups",
    Wait("recover/pixels.py:pixel_adam", "upload"): "the learning rate, which a graph reads",
    Wait("recover/pixels.py:pixel_adam", "read"): "torch checks the range of a learning rate",
    Wait("models/moments.py:_enlarging", "upload"): "a matrix for each size of map, which is kept",
    # At the 50 traced steps, where a batch that diverged stops, and at the five snapshots.
    Wait("recover/batch.py:BatchRecovery._check", "read"): "whether losses are finite",
    Wait("recover/batch.py:BatchRecovery.record_snapshot", "download"): "an image for the report",
    Wait("recover/pixels.py:PixelParameters.images", "upload"): "the order of the late groups",
    # After the last step.
    Wait("recover/batch.py:BatchRecovery.result", "read"): "the losses of the traced steps",
    Wait("recover/batch.py:BatchRecovery.result", "download"): "the images",
    Wait("recover/batch.py:BatchRecovery._final_losses", "download"): "the losses of the images",
}
LABELS: Mapping[Wait, str] = {
    # Once a shard: features stay on the GPU until all views are computed.
    Wait("labels/encoding.py:_check", "read"): "whether features are finite",
    Wait("labels/encoding.py:quantise", "download"): "the map from codes to features",
    Wait("labels/relabel.py:_stored", "download"): "the codes",
    # Once a view of a whole shard: logits of all views would fill the GPU.
    Wait("labels/relabel.py:_halved", "read"): "whether logits fit half precision",
    Wait("labels/relabel.py:_halved", "download"): "the logits",
    Wait("labels/relabel.py:_kept", "download"): "the classes of the largest logits",
}
TRAINING: Mapping[Wait, str] = {
    # Once a training.
    Wait("training/supervised.py:TrainState.start", "upload"): "the weights",
    Wait("posttrain/student.py:Student.__init__", "upload"): "the weights",
    Wait("models/files.py:save_weights", "download"): "the weights, to be stored",
    # Once an epoch, or less.
    Wait("training/epochs.py:checked_loss", "read"): "the mean loss, which has to be finite",
    Wait("posttrain/student.py:Student.epoch", "read"): "the mean loss, which has to be finite",
    Wait("training/losses.py:best_temperature", "read"): "the student's temperature",
    Wait("training/checkpoint.py:pack_state", "download"): "the state, to be stored",
}
MEASURING: Mapping[Wait, str] = {
    # Once a network.
    Wait("models/files.py:load_teacher", "upload"): "the weights",
    Wait("models/files.py:load_student", "upload"): "the weights",
    Wait("evaluation/validate.py:_network", "upload"): "the weights",
    Wait("squeeze/importing.py:import_teacher", "upload"): "the weights",
    Wait("evaluation/metrics.py:count_hits", "download"): "the hits of 1,000 images together",
    Wait("squeeze/judging.py:_predictions", "download"): "the predictions, 500 images at a time",
    # Once a class of real images.
    Wait("selection/coreset.py:features_of", "download"): "the features, 100 images at a time",
    Wait("selection/mosaic.py:rank_crops", "download"): "the best crops and their order",
    Wait("selection/select.py:gets_right", "download"): "which of 100 images a network gets right",
    Wait("statistics/measure.py:measure_class", "download"): "the statistics",
    Wait("statistics/measure.py:describe_originals", "download"): "features, 100 images at a time",
    # k-means of the features of one class: its rounds end where nothing changes.
    Wait("statistics/barycentre.py:_spread_start", "read"): "the next point is drawn on the host",
    Wait("statistics/barycentre.py:_spread_start", "upload"): "the points that were drawn",
    Wait("statistics/barycentre.py:barycentre", "read"): "whether assignments have settled",
    Wait("statistics/barycentre.py:barycentre", "shape"): "the sizes of the clusters",
    Wait("statistics/barycentre.py:barycentre", "upload"): "images of a class with too few",
}
ALLOWED: Mapping[Wait, str] = {**EVERY_STEP, **RECOVER, **LABELS, **TRAINING, **MEASURING}
