"""Shard keys: a hash of everything that decides a shard's bytes, and of nothing else.

A key contains the stage's settings and numerics version, the teacher digests, the content of the
shards it reads (sha256 of their files), its batches, class ids where they matter, content
fingerprints where real images are read, and the arithmetic (precision, intra-op threads). It does
not contain the total IPC, workers, device, retries, paths or other classes. Resuming, extending,
sharing between runs and incremental re-distillation therefore all reduce to one question: which
keys have no marker?

The bytes of a shard depend on the device and the libraries as well, which no key contains. A shard
that is made again with other bytes therefore keeps its key, and what was made from it gets others.
For a shard of an older version the keys of later stages contain its key in the place of its
content, see `distill_core.storage.markers.Marker`.

base:   NUMERICS versions, hashing, content fingerprints.
images: keys of teachers, class statistics, selections and image shards.
labels: keys of label shards, students and evaluation blocks.
"""

from __future__ import annotations

from distill_core.keys.base import NUMERICS, NUMERICS_OF_OLD_MANIFESTS, content_fingerprint
from distill_core.keys.images import (
    ImageSet,
    RecoverReads,
    recover_key,
    select_key,
    squeeze_key,
    statistics_key,
)
from distill_core.keys.labels import (
    EvaluationSplit,
    StudentStart,
    TrainingSet,
    posttrain_key,
    relabel_key,
    validate_key,
)

__all__ = [
    "NUMERICS",
    "NUMERICS_OF_OLD_MANIFESTS",
    "EvaluationSplit",
    "ImageSet",
    "RecoverReads",
    "StudentStart",
    "TrainingSet",
    "content_fingerprint",
    "posttrain_key",
    "recover_key",
    "relabel_key",
    "select_key",
    "squeeze_key",
    "statistics_key",
    "validate_key",
]
