"""Messages are shortened after their credentials are hidden, so that no part of a secret is left.

Each message is long, and the credentials stand at many places in it: where the text is cut, a URL
may lose its scheme or its @, without which its rest looks like any other text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter

from distill_core.config.load import load_run
from distill_core.data.decoding.image import decode_image
from distill_core.data.readers.parquet_columns import choose_columns
from distill_core.errors import MAX_LINE, SHOWN, ConfigError, DistillError, one_line, shown
from distill_core.models.importing import parse_safetensors
from distill_core.naming.names import check_name
from distill_core.storage.records import parse_json
from tests.support.datasets import data_config

SECRET = "wJalrXUtnFEMI/K7MDENGbPxRfiCYSEKRETKEY12"  # of AWS: 40 characters, one of them a slash
URLS = (f"s3://AKUSERX:{SECRET}@bucket/x", f"https://1234567:89/{SECRET}@host/x")
FILLS = (0, 20, 40, 55, 70, 100, 150, 210, 640, 700, 900)  # characters in front of the URL


class Odd:
    """A value of a type that is not one of YAML's."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Odd({self.text!r})"


def config(text: str) -> object:
    """Return the config with a text in place of a number."""
    return load_run("digits-demo", [f"ipc={json.dumps(text)}"])


def record(text: str) -> object:
    """Return the number in a record that holds a text in its place."""
    data = json.dumps([text]).encode()
    return parse_json(TypeAdapter(list[int]), data, where="a", what="a record", remedy="Delete it.")


def weights(text: str) -> object:
    """Return the tensors of a file whose header has a text in place of a type."""
    header = json.dumps({"a": {"dtype": text, "shape": [1], "data_offsets": [0, 4]}}).encode()
    return parse_safetensors(len(header).to_bytes(8, "little") + header + b"abcd", where="a")


def columns(text: str) -> None:
    """Check the columns of a Parquet file, whose only one is named like the text."""
    choose_columns(pa.schema([(text, pa.int64())]), None, None, "a")


REFUSALS: dict[str, Callable[[str], object]] = {
    "a config": config,
    "a record": record,
    "weights": weights,
    "columns": columns,
    "a name": lambda text: check_name("run", text),
}


def texts(url: str) -> list[str]:
    """Return texts of many lengths that contain a URL."""
    return [f"{'x' * fill} {url} {'y' * rest}" for fill in FILLS for rest in (0, 60, 500)]


def parts_of_the_secret(text: str) -> list[str]:
    """Return what a text has of the secret."""
    parts = (SECRET[start : start + 5] for start in range(len(SECRET) - 5))
    return [part for part in parts if part in text]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "value",
    [str, Odd, lambda text: [text], lambda text: {"a": text}, lambda text: {text: 1}, str.encode],
    ids=["text", "other", "list", "mapping", "key", "bytes"],
)
def test_a_value_is_shown_without_credentials(url: str, value: Callable[[str], Any]) -> None:
    for text in texts(url):
        assert parts_of_the_secret(shown(value(text))) == []
        assert len(shown(value(text))) <= SHOWN + 3


@pytest.mark.parametrize("url", URLS)
def test_a_message_becomes_one_line_without_credentials(url: str) -> None:
    for text in texts(url):
        line = one_line(f"{text}\n{text}")
        assert parts_of_the_secret(line) == []
        assert len(line) <= MAX_LINE


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_shows_no_part_of_a_secret(refuse: Callable[[str], object], url: str) -> None:
    for text in texts(url):
        with pytest.raises(DistillError) as refused:
            refuse(text)
        assert parts_of_the_secret(str(refused.value)) == []


@pytest.mark.parametrize("url", URLS)
def test_the_error_of_a_decoder_shows_no_part_of_a_secret(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for text in texts(url):

        def broken(*_: object, message: str = text, **__: object) -> None:
            raise OSError(message)

        monkeypatch.setattr(Image, "open", broken)
        with pytest.raises(DistillError, match="cannot be decoded") as refused:
            decode_image(b"", data_config("unused"))
        assert parts_of_the_secret(str(refused.value)) == []


def test_other_values_are_shown_as_python_writes_them() -> None:
    for value in (
        5,
        1.5,
        True,
        None,
        "a 'b'",
        ["a", {"b": 1}],
        b"a",
        datetime(2001, 1, 1, tzinfo=UTC),
    ):
        assert shown(value) == repr(value)
    assert shown("s3://bucket/a") == "'s3://bucket/a'"


def test_a_config_names_the_key_of_the_hidden_value() -> None:
    with pytest.raises(ConfigError, match=r"ipc = 's3://\*\*\*@bucket/x': "):
        config(URLS[0])
