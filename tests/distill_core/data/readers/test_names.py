"""Names of files, which may hold anything but a slash, in messages."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.data.ingest import ingest
from distill_core.data.readers.names import EXTENSIONS, is_image
from distill_core.errors import DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, image_folder


def test_names_with_control_characters_are_one_printable_line_in_every_message(
    tmp_path: Path, store: Store
) -> None:
    folder = image_folder(tmp_path / "data")
    (folder / "train" / "cat" / "a\nb.txt").write_bytes(b"text")
    (folder / "train" / "cat" / "c\nd\x1b[2J.png").write_bytes(b"text")
    heard: list[str] = []
    with pytest.raises(DataError) as refused:
        ingest(data_config(folder), store, notice=heard.append)
    assert r"train/cat/c\nd\x1b[2J.png: 4 bytes that are not an image" in str(refused.value)
    assert heard == [
        r"train split: train/cat/a\nb.txt is ignored, because its name is not that of an image."
    ]
    index = ingest(data_config(folder, max_bad_fraction=0.5), store)
    assert "c\nd\x1b[2J.png" in index.train["name"].to_pylist()


@given(name=st.text(alphabet="./aPpngNbm", max_size=9))
def test_a_name_is_that_of_an_image_where_the_standard_library_finds_such_an_ending(
    name: str,
) -> None:
    assert is_image(name) == (posixpath.splitext(name)[1].lower() in EXTENSIONS)
