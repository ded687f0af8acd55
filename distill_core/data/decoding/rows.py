"""Reading and decoding of rows of the index, and the main loop of a decoding process.

A decoding process imports no torch, receives requests on one connection and writes pixels into
memory shared with its parent. It ends with the connection and with its parent, so a killed parent
leaves no process.
"""

from __future__ import annotations

import mmap
import pickle
import signal
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa

from distill_core.config.data import DataConfig
from distill_core.data.decoding.crops import SQUARES, Rendition
from distill_core.data.decoding.fetch import EncodedImages
from distill_core.data.decoding.image import decode_image
from distill_core.data.decoding.random_crop import decode_crop
from distill_core.errors import DataError
from distill_core.lifetime import end_with_parent
from distill_core.storage.digest import sha256
from distill_core.storage.requests import requests_of_process


def read_images(
    images: EncodedImages,
    rows: pa.Table,
    out: np.ndarray,
    places: np.ndarray,
    rendition: Rendition = SQUARES,
) -> None:
    """Fetch some images together and decode each into its position in `out`.

    Args:
        images: of the dataset.
        rows: n rows of the index, with the columns of `ADDRESS`.
        out: (m, 3, S, S) uint8, written.
        places: (n,) position in `out` of each image.
        rendition: of these n images.

    Raises:
        DataError: an image is missing, or is not the one that was ingested.
    """
    files, hashes = images.fetch(rows), rows["sha256"].to_pylist()
    for n, place in enumerate(places):
        where = images.where(rows, n)
        if sha256(files[n]) != hashes[n]:
            raise DataError(
                f"{where}: not the image that was ingested. Restore it, or start a new run."
            )
        out[place] = _rendered(files[n], images.config, rendition.rows(np.array([n])), where)


def _rendered(data: bytes, config: DataConfig, rendition: Rendition, where: str) -> np.ndarray:
    """Return one image by a rendition of it alone, (3, S, S) uint8."""
    crop, scaled = rendition.crops, rendition.scaled
    if crop is None:
        return decode_image(data, config, where=where, scaled=scaled)
    return decode_crop(data, config.side, crop, where=where, scaled=scaled)


def serve(connection: int, shared: int, parent: int) -> None:
    """Answer requests until the connection closes.

    The first message is the dataset's `DataConfig`, the address of the store of its index and how
    many images the shared memory holds.
    Every other one is (rows of the index, place of the first in shared memory, their rendition),
    and its answer is (None or what it raised, the requests to buckets that it took, by kind, their
    bytes).

    Args:
        connection: file descriptor of a `multiprocessing` connection.
        shared: file descriptor of the shared memory.
        parent: process id of the parent.
    """
    end_with_parent(parent)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the parent handles Ctrl-C and closes the connection
    line = Connection(connection)
    try:
        config, store, count = line.recv()
        pixels = map_images(shared, count, config.side)
        images = EncodedImages(config, store)
        while True:
            rows, first, rendition = line.recv()
            places = np.arange(first, first + len(rows))
            raised: Exception | None = None
            try:
                read_images(images, rows, pixels, places, rendition)
            except Exception as error:  # noqa: BLE001 - the parent raises it
                raised = _portable(error)
            counted = requests_of_process.taken(), requests_of_process.taken_bytes()
            line.send((raised, *counted))
    except (EOFError, OSError):
        return


def map_images(shared: int, images: int, side: int) -> np.ndarray:
    """Return shared memory as (images, 3, side, side) uint8."""
    memory = mmap.mmap(shared, images * 3 * side * side)
    return np.frombuffer(memory, np.uint8).reshape(images, 3, side, side)


def _portable(error: Exception) -> Exception:
    """Return an error that survives pickling: itself, or its type's name and message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - any error may fail to pickle
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
