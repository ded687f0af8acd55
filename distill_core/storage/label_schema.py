"""The columns of a label shard: the common ones, and those of each mix and scheme."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from distill_core.storage.label_rows import Affine
from distill_core.storage.parquet import list_type, pack_metadata

VERSION = 2  # 1 stored lists of codes, one level per code; both can be read
BOX = list_type(pa.uint16(), 4)
COLUMNS: Mapping[str, pa.DataType] = {
    "label": pa.int32(),
    "wnid": pa.string(),
    "ipc_index": pa.int32(),
    "view": pa.int32(),
    "box": BOX,  # top, left, height, width, in pixels
    "flip": pa.bool_(),
}
PARTNER: Mapping[str, pa.DataType] = {
    "partner_label": pa.int32(),
    "partner_ipc_index": pa.int32(),
    "lam": pa.float32(),  # weight of the image itself
}
MIX_COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "none": {},
    "mixup": PARTNER,
    "cutmix": {**PARTNER, "mix_box": BOX},
    "cutout": {"mix_box": BOX, "colour": list_type(pa.float32(), 3)},
}
VALUES: Mapping[str, pa.DataType | None] = {
    "features": pa.uint8(),  # codes; `labels.decoding` and the head turn them into logits
    "logits": pa.float16(),
    "topk": pa.float16(),  # the largest logits, in order; see `labels.topk`
    "online": None,  # no values: they are recomputed from seed and teacher
}


STREAMS = frozenset({"logits", "topk", "ids"})  # columns encoded as split byte streams


def _extra(facts: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """Return the optional columns of a file with these facts."""
    types: dict[str, pa.DataType] = {}
    if kept := facts.get("kept"):
        types["ids"] = list_type(pa.uint16(), kept)  # classes of the largest logits
        types["rest"] = pa.float16()  # mean of the other logits
    if grid := facts.get("patches"):
        types["patches"] = list_type(pa.uint8(), 2 * grid)  # sources of rows, then of columns
    if count := facts.get("operations"):
        types["operations"] = list_type(pa.uint8(), count)  # see `rand_augment.Operations`
        types["arguments"] = list_type(pa.float32(), count)
    return types


def label_schema(facts: Mapping[str, Any], *, width: int | None) -> pa.Schema:
    """Return the schema of one label shard.

    Args:
        facts: metadata of the whole file; `scheme`, `mix`, `kept`, `patches` and `operations`
            determine the columns.
        width: values per label, D or C; None when none are stored.
    """
    types = {**COLUMNS, **MIX_COLUMNS[facts["mix"]], **_extra(facts)}
    if width is not None:
        codes = facts["scheme"] == "features"
        kind = pa.binary(width) if codes else list_type(VALUES[facts["scheme"]], width)
        types[facts["scheme"]] = kind
    fields = [pa.field(name, kind, nullable=False) for name, kind in types.items()]
    return pa.schema(fields, pack_metadata({"kind": "labels", "version": VERSION, **facts}))


def stored_columns(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the column names of a file with these facts."""
    values = () if VALUES[facts["scheme"]] is None else (facts["scheme"],)
    return (*COLUMNS, *MIX_COLUMNS[facts["mix"]], *_extra(facts), *values)


def leaf(field: pa.Field) -> str:
    """Return the Parquet column path of a field."""
    is_list = pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if is_list else str(field.name)


def pack_affine(affine: Affine | None) -> dict[str, Any]:
    """Return the map from codes to features as JSON-able facts."""
    if affine is None:
        return {"scale": None, "offset": None}
    facts: dict[str, Any] = {"scale": _pack(affine.scale), "offset": _pack(affine.offset)}
    return facts if affine.bits == 8 else facts | {"bits": affine.bits}


def unpack_affine(facts: Mapping[str, Any]) -> Affine | None:
    """Return the map that `pack_affine` packed."""
    if facts["scale"] is None:
        return None
    return Affine(_unpack(facts["scale"]), _unpack(facts["offset"]), facts.get("bits", 8))


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
