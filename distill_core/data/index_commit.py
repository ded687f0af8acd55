"""Writing an index: its partitions first, then the description that names them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_core.data.duplicates import Contents, count_duplicates
from distill_core.data.index import DatasetIndex, TableFile
from distill_core.data.index_files import (
    SPLITS,
    description_path,
    load_index,
    load_partition,
    table_path,
)
from distill_core.data.index_table import RowCounts
from distill_core.data.readers.compression import COMPRESSED
from distill_core.data.readers.record import Split
from distill_core.errors import DataError
from distill_core.storage.digest import sha256
from distill_core.storage.records import seal_json
from distill_core.storage.store import Store


def commit_index(store: Store, index: DatasetIndex) -> None:
    """Write the partitions under content-based names, then index.json, unless they exist already.

    Files of this index that were damaged or deleted since are written again. So is the whole index
    if files of the dataset were written again without another content, because the next version
    takes over the rows of files by their version; or if it states that only headers were checked,
    and now all images were.
    """
    stored = _sound(store, index.id)
    if stored is not None:
        full = "full" in (stored.verify, index.verify)  # of the same contents
        index = replace(index, verify="full" if full else index.verify)
        if (stored.verify, stored.versions) == (index.verify, index.versions):
            return
    writing = {split: _Writing(store, index, split) for split in SPLITS}
    counts = {
        split: RowCounts.of(each.blocks(), len(index.classes)) for split, each in writing.items()
    }
    train, test = writing["train"], writing["test"]
    description = {
        "id": index.id,
        "classes": [asdict(entry) for entry in index.classes],
        "images": {split: counts[split].rows for split in SPLITS},
        "duplicates": count_duplicates(train.contents, test.contents, train.written),
        "fingerprints": dict(index.fingerprints),
        "test_fingerprint": index.test_fingerprint,
        "partitions": {split: [asdict(f) for f in writing[split].files] for split in SPLITS},
        "rows": {split: counts[split].by_class.tolist() for split in SPLITS},
        "bad": {split: counts[split].bad.tolist() for split in SPLITS},
        "versions": index.versions,
        **({} if index.verify == "full" else {"verify": index.verify}),
        **({"packs": packs} if (packs := sorted(train.packs | test.packs)) else {}),
    }
    store.put(description_path(index.id), seal_json(description))  # equal, whoever writes it


class _Writing:
    """The partitions of a split as they are written."""

    def __init__(self, store: Store, index: DatasetIndex, split: Split) -> None:
        self._store, self._dataset, self._split = store, index.id, split
        self._table = index.tables[split]
        self.files: list[TableFile] = []
        self.contents = Contents(self._table.known_rows)
        self.packs = set[str]()  # see `Description`

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the rows of each partition once it is written."""
        for (first, last), block in zip(self._table.bounds, self._table.blocks(), strict=True):
            stream = io.BytesIO()
            pq.write_table(block, stream, compression="zstd", write_page_checksum=True)
            data = stream.getvalue()
            digest = sha256(data)
            # Another version of Arrow may write other bytes for the same rows; both may be there.
            name = f"{self._split}-{digest[:16]}.parquet"
            self._store.put(table_path(self._dataset, name), data)
            self.files.append(TableFile(name, digest, len(data), block.num_rows, first, last))
            self.contents.add(block)
            self.packs |= _packs_of(block)
            yield block

    def written(self) -> Iterator[pa.Table]:
        """Yield the rows of each partition again, from the store."""
        for number in range(len(self.files)):
            yield load_partition(self._store, self._dataset, self.files, number)


def _packs_of(block: pa.Table) -> set[str]:
    """Return the versions of the rows whose archives are compressed."""
    endings = f"({'|'.join(map(re.escape, COMPRESSED))})$"
    packed = block.filter(pc.match_substring_regex(block["uri"], endings))
    return set(pc.unique(packed["version"]).to_pylist())


def _sound(store: Store, dataset: str) -> DatasetIndex | None:
    """Return an index that is stored and whole."""
    if not store.exists(description_path(dataset)):
        return None
    try:
        return load_index(store, dataset)
    except DataError:
        return None
