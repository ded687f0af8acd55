"""Label shards: unchanged by encoding and decoding, view by view, for every mix and scheme."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.errors import DataError
from distill_core.sharding import ImageId
from distill_core.storage import label_schema
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from distill_core.storage.parquet import unpack_metadata
from tests.support.damage import flip_bits
from tests.support.label_shards import LAST_LABEL, opened, parts, shard


def small(**changes: Any) -> LabelRows:
    """Return a small cutmix shard of features."""
    settings: dict[str, Any] = {
        "views": range(4),
        "count": 5,
        "width": 6,
        "mix": "cutmix",
        "scheme": "features",
    }
    return shard(**settings | changes)


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(0, 10_000),
    length=st.integers(1, 5),
    count=st.integers(1, 9),
    width=st.integers(1, 7),
    mix=st.sampled_from(sorted(label_schema.MIX_COLUMNS)),
    scheme=st.sampled_from(sorted(label_schema.VALUES)),
    seed=st.integers(0, 2**32 - 1),
)
def test_label_rows_are_unchanged_by_encoding_and_decoding(
    first: int, length: int, count: int, width: int, mix: str, scheme: str, seed: int
) -> None:
    rows = shard(
        views=range(first, first + length),
        count=count,
        width=width,
        mix=mix,
        scheme=scheme,
        seed=seed,
    )
    assert parts(decode_labels(encode_labels(rows))) == parts(rows)


@settings(max_examples=30, deadline=None)
@given(wanted=st.lists(st.integers(10, 15), min_size=1, max_size=6, unique=True))
def test_selected_views_are_returned_in_the_requested_order(wanted: list[int]) -> None:
    rows = small(views=range(10, 16))
    picked = decode_labels(encode_labels(rows), wanted)
    take = [view - 10 for view in wanted]
    assert list(picked.views) == wanted
    assert rows.values is not None
    assert picked.values is not None
    assert (picked.values == rows.values[take]).all()
    assert (picked.boxes == rows.boxes[take]).all()
    assert (picked.partners == rows.partners[take]).all()


def test_damage_to_one_view_does_not_affect_the_others() -> None:
    data = bytearray(encode_labels(small()))
    start = opened(bytes(data)).metadata.row_group(2).column(0).data_page_offset
    data[start + 30] ^= 1
    decode_labels(bytes(data), [1])
    with pytest.raises(DataError, match="shard-x"):
        decode_labels(bytes(data), [2], where="shard-x")


def test_a_view_is_a_row_group() -> None:
    file = opened(encode_labels(small(views=range(7, 11))))
    assert file.num_row_groups == 4
    views = [set(file.read_row_group(n)["view"].to_pylist()) for n in range(4)]
    assert views == [{7}, {8}, {9}, {10}]


@pytest.mark.parametrize("label", [127, 128, 255, 256, 21840, 32767, 32768, 65536])
def test_image_ids_are_unchanged_by_their_narrow_columns(label: int) -> None:
    names = ((label, 0), (0, label), (label - 1, 1))
    images = tuple(ImageId(a, "n", b) for a, b in names)
    rows = small(count=3, views=range(label, label + 1))
    rows = replace(rows, images=images, partners=np.array([[1, 0, 2]], np.int32))
    back = decode_labels(encode_labels(rows))
    assert back.images == images
    assert back.partners.tolist() == [[1, 0, 2]]
    assert list(back.views) == [label]


def test_every_label_of_imagenet_21k_is_stored_exactly() -> None:
    images = tuple(ImageId(label, "n", 0) for label in range(LAST_LABEL + 1))
    rows = shard(views=range(1), count=len(images), width=1, mix="cutmix", scheme="features")
    rows = replace(rows, images=images, partners=rows.partners[:, ::-1])
    back = decode_labels(encode_labels(rows))
    assert back.images == images
    assert (back.partners == rows.partners).all()


def test_the_same_rows_give_the_same_bytes() -> None:
    assert encode_labels(small()) == encode_labels(small())


@pytest.mark.parametrize(
    ("mix", "extra"),
    [
        ("none", set()),
        ("mixup", {"partner_label", "partner_ipc_index", "lam"}),
        ("cutmix", {"partner_label", "partner_ipc_index", "lam", "mix_box"}),
        ("cutout", {"mix_box", "colour"}),
    ],
)
def test_only_what_the_mix_uses_is_stored(mix: str, extra: set[str]) -> None:
    schema = opened(encode_labels(small(mix=mix))).schema_arrow
    assert set(schema.names) == set(label_schema.COLUMNS) | {"features"} | extra


def test_a_code_takes_one_byte() -> None:
    rows = shard(views=range(4), count=200, width=512, mix="none", scheme="features")
    stored = len(encode_labels(rows)) / (4 * 200)
    assert 512 < stored < 560  # random codes do not compress; geometry and structure are the rest


@pytest.mark.parametrize("kept", [10, 100])
def test_a_kept_logit_takes_four_bytes(kept: int) -> None:
    rows = shard(views=range(4), count=200, width=kept, mix="none", scheme="topk")
    assert rows.ids is not None
    ids = rows.ids % 1000
    stored = len(encode_labels(replace(rows, ids=ids))) / (4 * 200)
    # Ids of 1,000 classes need 10 of their 16 bits; geometry and structure are the rest.
    assert 3.2 * kept < stored < 4 * kept + 40


def test_files_without_the_newer_axes_keep_their_old_metadata() -> None:
    facts = unpack_metadata(opened(encode_labels(small())), where="shard-x")
    columns = {"kind", "version", "scheme", "teacher", "mix", "views", "scale", "offset"}
    assert set(facts) == columns


def test_decoded_arrays_are_writable() -> None:
    back = decode_labels(encode_labels(small()))
    arrays = [getattr(back, field.name) for field in fields(back)]
    assert all(a.flags.writeable for a in arrays if isinstance(a, np.ndarray))


def test_a_missing_view_is_named() -> None:
    with pytest.raises(DataError, match="shard-x: no view 4; it contains 0 to 3"):
        decode_labels(encode_labels(small()), [4], where="shard-x")


@pytest.mark.parametrize("value", [-1, 65536])
@pytest.mark.parametrize("field", ["boxes", "mix_boxes"])
def test_a_box_beyond_its_column_type_is_refused(field: str, value: int) -> None:
    rows = small()
    boxes = getattr(rows, field).copy()
    boxes[0, 0, 0] = value
    with pytest.raises(DataError, match=str(value)):
        encode_labels(replace(rows, **{field: boxes}))


def test_two_images_of_one_name_are_refused() -> None:
    rows = small()
    with pytest.raises(DataError, match="two images"):
        encode_labels(replace(rows, images=(rows.images[0], *rows.images[:-1])))


@pytest.mark.parametrize(
    ("scheme", "values"), [("features", None), ("online", np.zeros((4, 5, 1)))]
)
def test_values_and_scheme_must_agree(scheme: str, values: np.ndarray | None) -> None:
    with pytest.raises(DataError, match=f"scheme '{scheme}'"):
        encode_labels(replace(small(), scheme=scheme, values=values))


def test_a_flipped_bit_in_a_page_never_changes_a_label() -> None:
    rows = shard(views=range(2), count=40, width=60, mix="cutmix", scheme="features")
    flip_bits(encode_labels(rows), lambda data: parts(decode_labels(data)) == parts(rows), every=37)


def rewritten(data: bytes, column: str, values: list[int], *, metadata: bool = True) -> bytes:
    """Return a shard with one column replaced, its checksums right again."""
    table = opened(data).read()
    field = table.schema.field(column)
    table = table.set_column(
        table.schema.get_field_index(column), field, pa.array(values, field.type)
    )
    table = table if metadata else table.replace_schema_metadata({})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=5)
    return stream.getvalue()


@pytest.mark.parametrize("width", [5, 6])
def test_codes_stored_as_lists_by_the_first_version_are_still_read(width: int) -> None:
    rows = small(width=width)
    assert rows.values is not None
    codes = [value.tolist() for value in rows.values.reshape(-1, width)]
    table = opened(encode_labels(rows)).read()
    index = table.schema.get_field_index("features")
    lists = pa.array(codes, label_schema.list_type(pa.uint8(), width))
    table = table.set_column(index, pa.field("features", lists.type, nullable=False), lists)
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=5, write_page_checksum=True)
    assert parts(decode_labels(stream.getvalue(), [2, 0])) == parts(
        decode_labels(encode_labels(rows), [2, 0])
    )


def test_a_partner_outside_the_shard_is_refused() -> None:
    data = rewritten(encode_labels(small()), "partner_label", [99999] * 20)
    with pytest.raises(DataError, match="partner is not in the shard"):
        decode_labels(data)


def test_views_of_different_images_are_refused() -> None:
    rows = small()
    labels = [image.label for image in rows.images] * 4
    data = rewritten(encode_labels(rows), "label", [*labels[:-1], 3])
    with pytest.raises(DataError, match="views are of different images"):
        decode_labels(data)


def test_files_of_other_programs_are_refused() -> None:
    labels = [image.label for image in small().images] * 4
    data = rewritten(encode_labels(small()), "label", labels, metadata=False)
    with pytest.raises(DataError, match="its metadata lack"):
        decode_labels(data)
    stream = io.BytesIO()
    pq.write_table(pa.table({"label": [1]}), stream)
    with pytest.raises(DataError, match="no column 'box'"):
        decode_labels(stream.getvalue())
