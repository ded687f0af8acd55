"""One part of a dataset: its images read, hashed and decoded, as the files of a shard.

Fetching and decoding overlap: while some images are decoded, the next ones are fetched. The rows of
a shard name classes and know no ids, so the shard serves every version of the dataset.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distill_core.config.data import DataConfig
from distill_core.data.archives import ArchiveWriter
from distill_core.data.decoding.image import check_header, check_image
from distill_core.data.index import DatasetIndex
from distill_core.data.parts.known import ROWS, KnownImages, Row
from distill_core.data.parts.summary import PartSummary, summarise
from distill_core.data.readers.compression import is_compressed
from distill_core.data.readers.formats import open_reader
from distill_core.data.readers.record import (
    FileReader,
    ListedRecord,
    Part,
    Reader,
    ReadsArchives,
    ReadsFiles,
    Record,
    Unpacks,
)
from distill_core.errors import ChangedDataError, DataError
from distill_core.machine_share import cpu_share
from distill_core.progress import Progress, silent
from distill_core.storage.digest import sha256

CHUNK = 256  # encoded images fetched together, at most; two such groups are in memory
CHUNK_BYTES = 2**26  # of them, but for the last one: photographs of a camera have 10 MB each
THREADS = 2  # that decode at most
# Mean bytes of the images of a group that one thread decodes: Pillow holds the GIL during half of
# the work on a small image, and a second thread would only exchange it with the first.
SMALL = 2**14
ORDER = ("wnid", "name", "sha256", "uri", "offset")
TABLE, SUMMARY = "parquet", "json"  # suffixes of the files of a shard

T = TypeVar("T")


@dataclass
class PartRows:
    """The rows of a part."""

    table: pa.Table  # sorted by ORDER
    summary: PartSummary
    read: int  # images whose bytes were read; the rows of the others were taken over

    def files(self) -> dict[str, bytes]:
        """Return the files of its shard by suffix."""
        stream = io.BytesIO()
        pq.write_table(self.table, stream, compression="zstd", write_page_checksum=True)
        return {TABLE: stream.getvalue(), SUMMARY: self.summary.to_json()}


def read_part(
    config: DataConfig,
    part: Part,
    classes: Sequence[str],
    *,
    previous: DatasetIndex | None = None,
    archive: ArchiveWriter | None = None,
    progress: Progress = silent,
) -> PartRows:
    """Read, hash and decode the images of a part.

    Args:
        config: of the dataset.
        part: one of the parts of its reader.
        classes: see `readers.record.classes_of`.
        previous: index of the version before. The rows of files that have not changed by uri,
            size and version are taken over without reading them.
        archive: receives an archive that is compressed; the version of its rows is the key of the
            part, by which their images are found.
        progress: called with (images done, images in total).

    Raises:
        DataError: an archive is damaged, or a label is of no class.
        ChangedDataError: the files are no longer those that were planned. Their rows must not lie
            under the key of the planned ones, because those may come back.
    """
    reader = open_reader(config)  # a new one, because readers keep their listings
    work = _planned(reader, config, part, classes, previous, archive)
    rows, current = list(work.taken), not work.in_archives
    try:
        for some, are_current in _read(work, config):
            rows += some
            current = current and are_current
            progress(len(rows), max(part.count, len(rows)))
        if part.count not in (-1, len(rows)) or not (current or _is_current(config, part)):
            raise _changed(config, part)
        if archive is not None:
            archive.commit()
    except BaseException:
        if archive is not None:
            archive.abandon()
        raise
    table = _table(rows)
    # Listings have shown what else is passed over.
    archives = reader if work.in_archives and isinstance(reader, ReadsArchives) else None
    passed_over = {} if archives is None else archives.passed_over(part.split).counts()
    summary = replace(summarise(table), passed_over=passed_over)
    return PartRows(table, summary, len(rows) - len(work.taken))


def _changed(config: DataConfig, part: Part) -> ChangedDataError:
    return ChangedDataError(
        f"{config.path or config.format}: files of {', '.join(part.files[:3])} changed while the "
        "dataset was read. Run again when nothing writes to it."
    )


def _is_current(config: DataConfig, part: Part) -> bool:
    """Return whether the files of a part are still those that were planned, by a new listing."""
    again = open_reader(config)
    return not isinstance(again, ReadsFiles) or again.is_current(part)


Images = list[tuple[Record, str, str]]  # records, each with its class and the version of its file


class Chunk(NamedTuple):
    """Images that were fetched together."""

    images: Images
    current: bool = False  # see `readers.record.Loaded`


@dataclass(frozen=True)
class _Work:
    """What there is to do for a part."""

    chunks: Iterator[Chunk]  # to read
    taken: Sequence[Row] = ()  # of files that have not changed
    decoded: frozenset[str] = frozenset()  # contents that need not be decoded
    in_archives: bool = False


def _planned(
    reader: Reader,
    config: DataConfig,
    part: Part,
    classes: Sequence[str],
    previous: DatasetIndex | None,
    archive: ArchiveWriter | None,
) -> _Work:
    """Return what there is to do for a part; see `read_part`."""
    listed = reader.listed(part, classes) if isinstance(reader, FileReader) else None
    if listed is None or not isinstance(reader, FileReader):
        version, packed = "", any(map(is_compressed, part.files))
        if packed and archive is not None and isinstance(reader, Unpacks):
            reader.sink, version = archive, archive.part
        return _Work(_chunks(reader, part, classes, version), in_archives=True)
    if not reader.is_current(part):
        raise _changed(config, part)
    known = KnownImages()
    # What only had its header read is not taken over where every image is to be decoded.
    if previous is not None and previous.verify in ("full", config.verify):
        # A rule makes test images of some images of the training split.
        splits = (part.split,) if config.split is None else tuple(previous.tables)
        known = KnownImages.of(previous, splits, sorted({each.wnid for each in listed}))
    found = [(each, known.row_of(each)) for each in listed]
    return _Work(
        _file_chunks(reader, [each for each, row in found if row is None]),
        [row for _, row in found if row is not None],
        known.decoded,
    )


def _read(work: _Work, config: DataConfig) -> Iterator[tuple[list[Row], bool]]:
    """Yield the rows of each chunk, and whether they are current, while the next one is fetched."""
    with ThreadPoolExecutor(1) as fetcher, ThreadPoolExecutor(THREADS) as decoders:
        pending = fetcher.submit(next, work.chunks, None)
        while (chunk := pending.result()) is not None:
            pending = fetcher.submit(next, work.chunks, None)
            images = chunk.images
            share = -(-len(images) // _threads(images))
            shares = [images[n : n + share] for n in range(0, len(images), share)]
            some = decoders.map(lambda each: _rows(each, config, work.decoded), shares)
            yield list(chain.from_iterable(some)), chunk.current


def _threads(images: Images) -> int:
    """Return how many threads decode some images."""
    size = sum(len(record.data) for record, _, _ in images)
    return 1 if size < SMALL * len(images) else min(THREADS, cpu_share())


def _table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table, sorted."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(ROWS)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, ROWS.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROWS).sort_by([(n, "ascending") for n in ORDER])


def _chunks(reader: Reader, part: Part, classes: Sequence[str], version: str) -> Iterator[Chunk]:
    for chunk in _grouped(reader.records(part, classes), lambda record: len(record.data)):
        yield Chunk([(r, classes[r.label] if r.label >= 0 else "", version) for r in chunk])


def _file_chunks(reader: FileReader, listed: Sequence[ListedRecord]) -> Iterator[Chunk]:
    for some in _grouped(listed, lambda each: each.file.size):
        records, current = reader.load(some)
        pairs = zip(records, some, strict=True)
        yield Chunk([(record, each.wnid, each.file.version) for record, each in pairs], current)


def _grouped(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield consecutive items together: `CHUNK` of them, or fewer that reach `CHUNK_BYTES`."""
    group, total = list[T](), 0
    for item in items:
        group.append(item)
        total += max(0, size(item))
        if len(group) == CHUNK or total >= CHUNK_BYTES:
            yield group
            group, total = [], 0
    if group:
        yield group


def _rows(images: Images, config: DataConfig, decoded: frozenset[str]) -> list[Row]:
    return [_row(*each, config, decoded) for each in images]


def _row(
    record: Record, wnid: str, version: str, config: DataConfig, decoded: frozenset[str]
) -> Row:
    digest, reason = sha256(record.data), record.problem
    if not reason and digest not in decoded:
        reason = _undecodable(record, config)
    status, size = "bad" if reason else "ok", len(record.data)
    place = (record.name, record.uri, record.offset)
    return (wnid, *place, size, digest, status, reason, version)


def _undecodable(record: Record, config: DataConfig) -> str:
    """Return why an image cannot be decoded, as a sentence; empty when it can."""
    try:
        if config.verify == "header":
            check_header(record.data, where="")
        else:
            check_image(record.data, config, where="")
    except DataError as error:
        return str(error).removeprefix(": ")
    return ""
