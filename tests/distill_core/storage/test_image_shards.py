"""Image shards: exact pixels, in files that other libraries can read."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core.errors import DataError
from distill_core.sharding import ImageId
from distill_core.storage.image_shards import (
    ImageRows,
    decode_images,
    decode_pixels,
    encode_images,
    encode_pixels,
)
from tests.support.damage import flip_bits


def shard(*, classes: int = 3, ipc: int = 2, side: int = 8, first: int = 21838) -> ImageRows:
    """Return random images, those of a class adjacent."""
    images = tuple(
        ImageId(label, f"n{label:08d}", index)
        for label in range(first, first + classes)
        for index in range(ipc)
    )
    rng = np.random.default_rng(0)
    return ImageRows(images, rng.integers(0, 256, (len(images), 3, side, side), np.uint8))


def losses(rows: ImageRows) -> dict[str, np.ndarray]:
    """Return one loss per image."""
    return {"cross_entropy": np.arange(len(rows.images), dtype=np.float32) / 7}


def opened(data: bytes) -> pq.ParquetFile:
    """Open a shard with plain pyarrow."""
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)


@settings(max_examples=20, deadline=None)
@given(
    classes=st.integers(1, 4),
    ipc=st.integers(1, 3),
    side=st.sampled_from([1, 2, 8, 17]),
    first=st.integers(0, 21840),
)
def test_png_keeps_every_pixel_and_every_name(
    classes: int, ipc: int, side: int, first: int
) -> None:
    rows = shard(classes=classes, ipc=ipc, side=side, first=first)
    back = decode_images(encode_images(rows, encoding="png", losses=losses(rows)))
    assert back.images == rows.images
    assert back.pixels.dtype == np.uint8
    assert back.pixels.flags.writeable
    assert (back.pixels == rows.pixels).all()


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (
        encode_images(shard(), encoding="png", losses=losses(shard())) for _ in range(2)
    )
    assert first == second


def test_a_class_is_a_row_group() -> None:
    rows = shard(classes=3, ipc=2)
    file = opened(encode_images(rows, encoding="png", losses={}))
    assert file.num_row_groups == 3
    labels = [file.read_row_group(n)["label"].to_pylist() for n in range(3)]
    assert labels == [[21838] * 2, [21839] * 2, [21840] * 2]


def test_other_libraries_read_an_image_shard_as_an_image_dataset() -> None:
    rows = shard()
    file = opened(encode_images(rows, encoding="png", losses=losses(rows)))
    schema = file.schema_arrow
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == sorted(schema.names)
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "Value", "dtype": "int64"}
    assert features["loss_cross_entropy"] == {"_type": "Value", "dtype": "float32"}
    table = file.read()
    assert table["image"][1]["path"].as_py() == "n00021838/00001.png"
    assert table["wnid"][5].as_py() == "n00021840"
    assert table["loss_cross_entropy"].to_numpy().tolist() == losses(rows)["cross_entropy"].tolist()


def test_jpeg_is_close_keeps_full_colour_resolution_and_has_its_own_suffix() -> None:
    ramp = np.linspace(0, 255, 16, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (16, 1)), np.tile(ramp[:, None], (1, 16)), np.full((16, 16), 9)]
    )
    rows = ImageRows((ImageId(1, "cat", 0),), pixels.astype(np.uint8)[None])
    data = encode_images(rows, encoding="jpeg", losses={})
    gap = np.abs(decode_images(data).pixels.astype(int) - rows.pixels).max()
    assert 0 < gap < 12
    cell = opened(data).read()["image"][0].as_py()
    assert cell["path"] == "cat/00000.jpg"
    assert cell["bytes"][:2] == b"\xff\xd8"


def test_a_flipped_bit_in_a_page_never_changes_an_image() -> None:
    rows = shard()

    def holds_the_images(data: bytes) -> bool:
        back = decode_images(data)
        return bool((back.pixels == rows.pixels).all()) and back.images == rows.images

    flip_bits(encode_images(rows, encoding="png", losses={}), holds_the_images, every=37)


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_cut_file_is_named(keep: int) -> None:
    data = encode_images(shard(), encoding="png", losses={})[:keep]
    with pytest.raises(DataError, match=f"shard-x: {len(data)} bytes are not a complete Parquet"):
        decode_images(data, where="shard-x")


def test_an_image_with_a_wrong_hash_is_named() -> None:
    table = opened(encode_images(shard(), encoding="png", losses={})).read()
    position = table.schema.get_field_index("sha256")
    table = table.set_column(position, "sha256", pa.array(["0" * 64] * table.num_rows))
    stream = io.BytesIO()
    pq.write_table(table, stream)
    with pytest.raises(DataError, match=r"n00021838/00000\.png: its bytes do not match"):
        decode_images(stream.getvalue())


def test_another_schema_is_refused() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}), stream)
    with pytest.raises(DataError, match="no column 'ipc_index'; it has image, label"):
        decode_images(stream.getvalue())


def test_parts_of_different_lengths_are_refused() -> None:
    rows = shard()
    with pytest.raises(DataError, match="5 rows of pixels for 6 images"):
        encode_images(ImageRows(rows.images, rows.pixels[1:]), encoding="png", losses={})
    with pytest.raises(DataError, match="2 rows of total for 6 images"):
        encode_images(rows, encoding="png", losses={"total": np.zeros(2, np.float32)})


def test_images_of_two_sizes_are_refused() -> None:
    small, large = (
        opened(encode_images(shard(classes=1, side=s, first=s), encoding="png", losses={})).read()
        for s in (4, 8)
    )
    stream = io.BytesIO()
    pq.write_table(pa.concat_tables([small, large]), stream)
    with pytest.raises(DataError, match="expected one size"):
        decode_images(stream.getvalue())


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"no image"])
def test_bytes_that_are_not_an_image_are_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError, match="not a complete image"):
        decode_pixels(data)


def test_a_cut_image_is_a_data_error() -> None:
    with pytest.raises(DataError, match="not a complete image"):
        decode_pixels(encode_pixels(shard(side=32).pixels[0], "png")[:-40])


def test_a_grey_image_is_refused() -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    with pytest.raises(DataError, match=r"shape \(4, 4\)"):
        decode_pixels(stream.getvalue())
