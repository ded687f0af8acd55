"""The file format of soft labels: Parquet with a teacher's labels of views of one image shard.

A label is addressed by (image, view), never by a position in a batch. There is one row group per
view, so an epoch reads exactly one row group of every shard.

Axes: V views, N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distill_core.errors import DataError
from distill_core.sharding import ImageId
from distill_core.storage.label_rows import LabelRows, check_rows, image_names, pair
from distill_core.storage.label_schema import (
    COLUMNS,
    STREAMS,
    VALUES,
    label_schema,
    leaf,
    pack_affine,
    stored_columns,
    unpack_affine,
)
from distill_core.storage.parquet import (
    byte_rows,
    column_values,
    fixed_lists,
    list_values,
    need_columns,
    open_parquet,
    unpack_metadata,
    write_row_groups,
)
from distill_core.storage.row_groups import RowGroupFile

__all__ = ["LabelRows", "decode_labels", "encode_labels"]


def encode_labels(rows: LabelRows) -> bytes:
    """Return a label shard as Parquet; the same rows give the same bytes.

    Raises:
        DataError: a box does not fit 16 bits, two images share a name, or values are missing.
    """
    check_rows(rows)
    schema, fixed = _schema(rows), _image_columns(rows.images)
    tables = (_view_table(rows, position, fixed, schema) for position in range(len(rows.views)))
    # The label values are nearly all bytes and worth the better compression. Split byte streams
    # separate the varying bytes of a number from the constant ones.
    values = [leaf(field) for field in schema if field.name in VALUES or field.name == "ids"]
    streams = [leaf(field) for field in schema if field.name in STREAMS]
    return write_row_groups(
        schema,
        tables,
        compression=dict.fromkeys(map(leaf, schema), "lz4") | dict.fromkeys(values, "zstd"),
        use_dictionary=False,  # costs more than it saves for row groups of a hundred labels
        column_encoding=dict.fromkeys(streams, "BYTE_STREAM_SPLIT"),
        write_statistics=["view"],
    )


def decode_labels(
    data: bytes | RowGroupFile, views: Sequence[int] | None = None, *, where: str = "label shard"
) -> LabelRows:
    """Decode some views, all by default; only their row groups are read.

    Args:
        data: the file, or an open one in a store.
        views: view ids, at least one, in the order of the result.
        where: names the file in errors.

    Raises:
        DataError: it is damaged, has another schema, or lacks a view.
    """
    with open_parquet(data, where=where, columns=tuple(COLUMNS)) as file:
        facts = unpack_metadata(file, where=where)
        need_columns(file, stored_columns(facts), where=where)
        groups = {view: number for number, view in enumerate(facts["views"])}
        chosen = [int(view) for view in (facts["views"] if views is None else views)]
        if missing := [view for view in chosen if view not in groups]:
            raise DataError(
                f"{where}: no view {missing[0]}; it contains {facts['views'][0]} to "
                f"{facts['views'][-1]}. Read the shard that contains the view."
            )
        names = [name for name in stored_columns(facts) if name != "view"]
        numbers = [groups[view] for view in chosen]
        # Callers read many files at once and pages are small, so more threads only add overhead.
        table = file.read_row_groups(numbers, columns=names, use_threads=False)
    images = _images(table.slice(0, table.num_rows // len(chosen)))
    return _rows(facts, images, chosen, table, where=where)


def _schema(rows: LabelRows) -> pa.Schema:
    facts = {
        "scheme": rows.scheme,
        "teacher": rows.teacher,
        "mix": rows.mix_kind,
        "views": list(rows.views),
        **pack_affine(rows.affine),
        **_extras(rows),
        **({"images": rows.images_sha256} if rows.images_sha256 else {}),
    }
    width = None if rows.values is None else rows.values.shape[-1]
    return label_schema(facts, width=width)


def _extras(rows: LabelRows) -> dict[str, int]:
    """Return the facts of optional columns; files without them keep their bytes."""
    widths = {"kept": rows.ids, "patches": rows.patches, "operations": rows.operations}
    return {name: drawn.shape[-1] for name, drawn in widths.items() if drawn is not None}


def _image_columns(images: tuple[ImageId, ...]) -> dict[str, Any]:
    """Return the columns that are equal in every row group, made once."""
    return {
        "label": np.array([image.label for image in images], np.int32),
        "wnid": pa.array([image.wnid for image in images], pa.string()),
        "ipc_index": np.array([image.ipc_index for image in images], np.int32),
    }


def _view_table(rows: LabelRows, v: int, fixed: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Return one row group, without a Python loop over its rows."""
    partners = rows.partners[v]
    columns: dict[str, Any] = {
        **fixed,
        "view": np.full(len(rows.images), rows.views[v], np.int32),
        "box": fixed_lists(rows.boxes[v].astype(np.uint16)),
        "flip": rows.flips[v].astype(np.bool_),
        "partner_label": fixed["label"][partners],
        "partner_ipc_index": fixed["ipc_index"][partners],
        "lam": rows.lam[v].astype(np.float32),
        "mix_box": fixed_lists(rows.mix_boxes[v].astype(np.uint16)),
        "colour": fixed_lists(rows.colours[v].astype(np.float32)),
    }
    if rows.values is not None:
        wrap = byte_rows if rows.scheme == "features" else fixed_lists
        columns[rows.scheme] = wrap(rows.values[v])
    if rows.ids is not None and rows.rest is not None:
        columns["ids"], columns["rest"] = fixed_lists(rows.ids[v]), rows.rest[v]
    if rows.patches is not None:
        columns["patches"] = fixed_lists(rows.patches[v].reshape(len(rows.images), -1))
    if rows.operations is not None and rows.arguments is not None:
        columns["operations"] = fixed_lists(rows.operations[v])
        columns["arguments"] = fixed_lists(rows.arguments[v])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _images(table: pa.Table) -> tuple[ImageId, ...]:
    """Return the names of the images of one view."""
    labels, indices = (column_values(table[name]).tolist() for name in ("label", "ipc_index"))
    return tuple(map(ImageId, labels, table["wnid"].to_pylist(), indices))


def _rows(
    facts: Mapping[str, Any],
    images: tuple[ImageId, ...],
    views: list[int],
    table: pa.Table,
    *,
    where: str,
) -> LabelRows:
    shape, scheme = (len(views), len(images)), facts["scheme"]

    def column(name: str, dtype: Any, *tail: int, neutral: int = 0) -> np.ndarray:
        if name not in table.column_names:
            return np.full((*shape, *tail), neutral, dtype)
        read = list_values if tail else column_values
        return read(table[name]).astype(dtype).reshape(*shape, *tail)

    names = image_names(images)
    if (
        table.num_rows != shape[0] * shape[1]
        or (pair(column("label", np.int64), column("ipc_index", np.int64)) != names).any()
    ):
        raise DataError(
            f"{where}: its views are of different images, expected the same. Recreate the shard."
        )

    def lists(name: str, *shape: int) -> np.ndarray | None:
        if name not in table.column_names:
            return None
        return list_values(table[name]).reshape(len(views), len(images), *shape).copy()

    return LabelRows(
        scheme=scheme,
        teacher=facts["teacher"],
        images=images,
        views=_as_range(views),
        boxes=column("box", np.int32, 4),
        flips=column("flip", np.bool_),
        mix_kind=facts["mix"],
        partners=_partners(table, names, shape, where=where),
        lam=column("lam", np.float32, neutral=1),
        mix_boxes=column("mix_box", np.int32, 4),
        colours=column("colour", np.float32, 3),
        values=lists(scheme, -1),
        affine=unpack_affine(facts),
        ids=lists("ids", -1),
        rest=column("rest", np.float16) if "rest" in table.column_names else None,
        patches=lists("patches", 2, -1),
        operations=lists("operations", -1),
        arguments=lists("arguments", -1),
        images_sha256=facts.get("images", ""),
    )


def _partners(
    table: pa.Table, names: np.ndarray, shape: tuple[int, int], *, where: str
) -> np.ndarray:
    """Return positions in `images` from the partners' names, (V, N) int32."""
    if "partner_label" not in table.column_names:
        return np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))
    label, index = (column_values(table[f"partner_{n}"]) for n in ("label", "ipc_index"))
    partner_names, order = pair(label, index), np.argsort(names)
    places = np.searchsorted(names, partner_names, sorter=order)
    positions = order[places.clip(max=len(names) - 1)]
    if (names[positions] != partner_names).any():
        raise DataError(f"{where}: a mix partner is not in the shard. Recreate the shard.")
    partners: np.ndarray = positions.astype(np.int32).reshape(shape)
    return partners


def _as_range(views: list[int]) -> Sequence[int]:
    whole = range(views[0], views[0] + len(views))
    return whole if views == list(whole) else tuple(views)
