"""The file format of class statistics: a teacher's activations on real images of each class.

There is one safetensors file per block of classes, with a row per class. A small second file holds
the statistics pooled over the block, so that those of a whole dataset are quick to read. A teacher
that was imported with statistics of its classes has them in such a file of its own.

Names of the arrays: mean and variance of batch norm n are ``00n.mean`` and ``00n.var``, of the
input of convolution n ``channels/00n.mean`` and ``patches/00n.mean``; beside them ``barycentre``
and ``originals``.

Axes: K classes of a block, ch channels of a layer, P patches, B images of a batch, T = f^2 tiles
of an image, k points of a class, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import MEASURED, OF_EVERY_CLASS, Measured
from distill_core.errors import DataError
from distill_core.sharding import Batch

Moments = tuple[tuple[np.ndarray, np.ndarray], ...]  # (mean, biased variance), (ch,) each, by layer
Rows = Mapping[str, np.ndarray]  # statistics of one class, by name
PREFIXES: Mapping[Measured, str] = {
    "batch_norms": "",
    "channels": "channels/",
    "patches": "patches/",
}
COUNT = "classes"  # name of the number of classes that were pooled
POOLED = "pooled.safetensors"  # suffix of the second file
OF_TEACHER = "classes.safetensors"  # suffix of the statistics that were imported with a teacher


@dataclass(frozen=True)
class Expected:
    """The references that the terms compare one batch with, for one teacher."""

    moments: Mapping[str, Moments] = field(default_factory=dict)  # by term
    features: Mapping[str, np.ndarray] = field(default_factory=dict)  # (B, T, D), by term


@dataclass(frozen=True)
class ClassStatistics:
    """The statistics of the classes of one block, float32."""

    wnids: tuple[str, ...]  # K
    rows: Mapping[str, np.ndarray]  # (K, ...) each, by name

    def of(self, batch: Batch, config: RecoverConfig, every: Rows | None = None) -> Expected:
        """Return the references for a batch of these classes.

        Statistics of several classes are averaged over the images of the batch.

        Args:
            batch: the images.
            config: the terms and their settings.
            every: statistics pooled over all classes, for the terms that need them.

        Raises:
            DataError: a class is not in this block.
        """
        places = self._places(batch)
        moments: dict[str, Moments] = {}
        features: dict[str, np.ndarray] = {}
        for term in sorted(config.active_terms & MEASURED.keys()):
            kind = MEASURED[term]
            if kind in PREFIXES:
                source = every if term in OF_EVERY_CLASS else self._mean(places)
                moments[term] = layers_of(source or {}, kind)
            else:
                features[term] = self.rows[kind][places[:, None], _turns(batch, config, kind)]
        return Expected(moments, features)

    def of_class(self, wnid: str) -> Rows | None:
        """Return the statistics of one class; None: it has none here."""
        if wnid not in self.wnids:
            return None
        row = self.wnids.index(wnid)
        return {name: values[row] for name, values in self.rows.items()}

    def _places(self, batch: Batch) -> np.ndarray:
        known = {wnid: row for row, wnid in enumerate(self.wnids)}
        if missing := sorted({image.wnid for image in batch} - known.keys()):
            raise DataError(
                f"class statistics: no class {missing[0]!r} among {self.wnids[0]} to "
                f"{self.wnids[-1]}. Read the block that contains the class."
            )
        return np.array([known[image.wnid] for image in batch])

    def _mean(self, places: np.ndarray) -> Rows:
        return {
            name: rows[places].mean(axis=0)
            for name, rows in self.rows.items()
            if name.endswith((".mean", ".var"))
        }


def _turns(batch: Batch, config: RecoverConfig, kind: Measured) -> np.ndarray:
    """Return the row of its class for each image, or for each of its tiles, (B, T)."""
    index = np.array([image.ipc_index for image in batch])[:, None]
    if kind == "barycentre":
        assert config.barycentre is not None
        return index % config.barycentre.points
    tiles = config.tiles**2
    return index * tiles + np.arange(tiles)


def layers_of(rows: Rows, kind: Measured) -> Moments:
    """Return mean and variance by layer; empty if the teacher has no such layer."""
    prefix = PREFIXES[kind]
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    while (name := f"{prefix}{len(layers):03d}") + ".mean" in rows:
        layers.append((rows[f"{name}.mean"], rows[f"{name}.var"]))
    return tuple(layers)


def pooled(parts: Sequence[Rows]) -> Rows:
    """Return the moments of the convolutions over all classes, with equal weight per class.

    Args:
        parts: statistics of single classes, or pooled ones.

    Returns:
        float64 moments by name, and the number of classes.
    """
    counts = [float(part.get(COUNT, np.ones(1))[0]) for part in parts]
    total = sum(counts)
    moments: dict[str, np.ndarray] = {COUNT: np.array([total])}
    for name in sorted(parts[0]):
        if not name.startswith(("channels/", "patches/")) or not name.endswith(".mean"):
            continue
        spread = name.removesuffix("mean") + "var"
        means = [part[name].astype(np.float64) for part in parts]
        squares = [part[spread] + mean**2 for part, mean in zip(parts, means, strict=True)]
        moments[name] = np.average(means, axis=0, weights=counts)
        moments[spread] = np.average(squares, axis=0, weights=counts) - moments[name] ** 2
    return moments


def encode_block(measured: Mapping[str, Rows], config: RecoverConfig) -> dict[str, bytes]:
    """Return the files of a block of classes by suffix.

    Args:
        measured: statistics of each class, by wnid.
        config: the terms; the second file is written where one of them may need it.
    """
    rows = list(measured.values())
    files = {"safetensors": encode_statistics(list(measured), rows)}
    if config.measured & {"channels", "patches"}:
        files[POOLED] = encode_pooled(rows)
    return files


def encode_statistics(wnids: Sequence[str], measured: Sequence[Rows]) -> bytes:
    """Return the file of a block; the same measurements give the same bytes.

    Args:
        wnids: K classes.
        measured: the statistics of each.
    """
    names = measured[0].keys()
    return encode_rows(wnids, {name: np.stack([rows[name] for rows in measured]) for name in names})


def encode_rows(wnids: Sequence[str], rows: Mapping[str, np.ndarray]) -> bytes:
    """Return the file of statistics that are stacked already.

    Args:
        wnids: K classes.
        rows: (K, ...) each, by name.
    """
    tensors = {name: values.astype(np.float32) for name, values in rows.items()}
    return save(tensors, metadata={"wnids": json.dumps(list(wnids))})


def encode_pooled(measured: Sequence[Rows]) -> bytes:
    """Return the file of the statistics pooled over a block."""
    return save(dict(pooled(measured)))


def decode_pooled(data: bytes, *, where: str = "class statistics") -> Rows:
    """Decode the file of pooled statistics.

    Raises:
        DataError: it is not such a file.
    """
    try:
        rows: Rows = load(data)
    except (SafetensorError, ValueError) as error:
        raise DataError(
            f"{where}: {len(data)} bytes that are not class statistics. Recreate the file."
        ) from error
    return rows


def decode_statistics(data: bytes, *, where: str = "class statistics") -> ClassStatistics:
    """Decode the file of a block.

    Raises:
        DataError: it is not such a file.
    """
    try:
        rows, wnids = load(data), _wnids(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{where}: {len(data)} bytes that are not class statistics. Recreate the file."
        ) from error
    return ClassStatistics(tuple(wnids), rows)


def _wnids(data: bytes) -> list[str]:
    """Return the class names from the header, which `load` does not return."""
    length = int.from_bytes(data[:8], "little")
    names: list[str] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["wnids"])
    return names
