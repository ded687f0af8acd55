"""Addresses: one spelling for one place, or a refusal that repeats no secret."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from distill_core.errors import ConfigError
from distill_core.naming.addresses import (
    HOST_PATTERN,
    STORE_PATTERN,
    TEXT_PATTERN,
    check_host,
    check_text,
    checkpoint_address,
    data_address,
    store_address,
)
from distill_core.redaction import redacted, sanitised
from distill_core.storage.filesystems import open_filesystem
from distill_core.storage.store import Store

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY+hush"  # half of all secrets of AWS have a slash
CREDENTIALS = (
    f"s3://AKIDEXAMPLE:{SECRET}@bucket/x",
    f"S3A://AKIDEXAMPLE:{SECRET}@bucket/x",
    "s3://123:45/hush@bucket/x",
    "s3://hush@bucket",
    "s3://key:hush/bucket",
    "s3://AKIAIOSFODNN7EXAMPLE/hush@bucket",
    "s3://bucket/x?secret=hush",
    "s3://bucket?key=a&secret=hush",
    "s3://bucket/x#token=hush",
    "s3:/key:hu/sh@bucket/x",
    "s3:key:hush@bucket",
    "s3//key:hush@bucket",
    "s3:///key:hush@bucket",
    "s3://key:hu sh@bucket",
    "key:hush@bucket/x",
    "s3://key%3Ahush%40bucket/x",
    "s3://key%253Ahush%2540bucket/x",
    "s3%3A//key:hush@bucket",
    "s3%253A%252F%252Fkey%253Ahush%2540bucket",
    "s3:%2F%2Fkey:hush@bucket",
    "key%3Ahush%40bucket",
    "s3\uff1a//key:hush@bucket",
    "\uff53\uff13\uff1a\uff0f\uff0fkey\uff1ahush\uff20bucket",
    "s3%EF%BC%9A//key:hush@bucket",
    "https\uff1a//host/x\uff1ftoken\uff1dhush",
    "simplecache::s3://key:hush@bucket/x",
    "filecache::s3://hush@bucket",
    "zip://*.png::s3://key:hu/sh@bucket/x.zip",
    "https://user:hush@host/x",
    "https://user:12/hush@host/x",
    "https://user:hu#sh@host/x",
    "https://host/x?X-Amz-Credential=a&X-Amz-Signature=hush",
    "https://host/x?sv=2024&sig=hush",
    "https://host/x?AWSAccessKeyId=hush",
    "abfss://key:hush@account/x",
    "postgresql+asyncpg://user:hush@host:5432/db",
)
SPELLINGS = {
    "s3://bucket": "s3://bucket",
    "s3://bucket/": "s3://bucket",
    "s3://bucket/a/b///": "s3://bucket/a/b",
    "S3://bucket/A": "s3://bucket/A",
    "s3a://bucket/a": "s3://bucket/a",
    "s3://bucket/a@b:c": "s3://bucket/a@b:c",
    "s3://bucket/a #1": "s3://bucket/a #1",
    "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a": (
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a"
    ),
    "gcs://bucket/a": "gs://bucket/a",
    "az://container/a": "abfs://container/a",
    "abfss://container@account.dfs.core.windows.net/a": (
        "abfs://container@account.dfs.core.windows.net/a"
    ),
    "memory:///a": "memory://a",
    "file:///data//me@home/../x/": "/data/x",
    "file://localhost/data": "/data",
    "local:///data": "/data",
    "/data/me@home/x": "/data/me@home/x",
    "//data/x/": "/data/x",
    "/data/a::b://c": "/data/a::b:/c",
}
REFUSED = {
    "s3://bucket//prefix": "Write s3://bucket/prefix",
    "s3://bucket/a//b": "Write s3://bucket/a/b",
    "s3://bucket/./a": "Write s3://bucket/a",
    "s3://bucket/a/../b": "Write s3://bucket/b",
    "s3://bucket/a/../../b": r"`\.\.` does not lead upwards",
    "memory://a//b": "Write memory://a/b",
    "s3:/bucket/out": "expected s3://",
    "s3:bucket": "expected s3://",
    "s3:\\\\bucket\\a": "expected s3://",
    "s3//bucket/a": "the colon",
    "s3%3A//bucket/a": "percent-encoded",
    "s3%3Abucket/a": "percent-encoded",
    "s3%2F%2Fbucket/a": "percent-encoded",
    "nosuch%253A%252F%252Fbucket": "percent-encoded",
    "s3\uff1a//bucket/a": "full-width",
    "\uff53\uff13\uff1a\uff0f\uff0fbucket": "full-width",
    "memory:": "expected memory://",
    "nosuch:out": "expected nosuch://",
    "s3://": "no bucket",
    "s3:////bucket": "no bucket",
    "s3://bu cket/a": "not an address",
    "s3://[bucket": "not an address",
    "file://host/data": "three slashes",
    "file:/data": "three slashes",
    "file:data": "three slashes",
    "C:\\data": "Windows",
    "c:/data": "Windows",
    "~nosuchuser/data": "no such user",
    "": "empty",
    "  ": "empty",
    " s3://bucket": "blanks",
    "/data/a\nb": "cannot be printed",
    "/data/\x1b[31m": r"\\x1b",
    "/data/\u202efdp": r"\\u202e",
    "/data/" + "x" * 1000: "1006 characters",
    "ftp://host/a": "conditional create",
    "simplecache::s3://bucket/a": "conditional create",
    "https://host/a?x=1": "parameters",
    "s3://bucket/a?versionId=1": "parameters",
}


@pytest.mark.parametrize("address", CREDENTIALS)
def test_credentials_are_refused_wherever_they_stand_and_never_repeated(address: str) -> None:
    for judge in (
        lambda: Store(address),
        lambda: store_address(address),
        lambda: data_address(address, key="data.path"),
        lambda: open_filesystem(address),
    ):
        with pytest.raises(ConfigError, match="credentials") as refused:
            judge()
        text = str(refused.value)
        assert not re.search(r"hu ?/?#?sh|wJalr|K7MD", text)
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize("address", [a for a in CREDENTIALS if "://" in a and " " not in a])
def test_credentials_are_hidden_in_the_middle_of_a_text(address: str) -> None:
    text = f"Could not reach '{address}': it timed out, see https://host:8080/docs (later)."
    hidden = redacted(text)
    assert not re.search(r"hu/?#?sh|wJalr|K7MD", hidden)
    assert hidden.endswith("see https://host:8080/docs (later).")
    assert redacted(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket: cannot be read",
        "gs://bucket/a@b, or abfss://container@account.dfs.core.windows.net/a.",
        'endpoint "http://127.0.0.1:9000/bucket?list-type=2": refused',
        "http://[::1]:8080, then s3://bucket",
        "https://openreview.net/forum?id=abc and https://arxiv.org/abs/2306.13092",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a",
        "/data/me@home: no such folder",
    ],
)
def test_a_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert sanitised(text) == text
    check_text(text, key="source")


@pytest.mark.parametrize(
    "address", ["u:hush@host:1", "ray://u@host:1", "u:hush%40host:1", "u\uff1ahush\uff20host:1"]
)
def test_a_user_in_front_of_a_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^ray_address: .*credentials") as refused:
        check_host(address, key="ray_address")
    assert "hush" not in str(refused.value)
    assert not re.search(HOST_PATTERN, address) or "%40" in address or "\uff20" in address


@pytest.mark.parametrize("address", ["host:6379", "ray://host:10001", "auto", "[::1]:6379"])
def test_a_host_without_a_user_is_accepted(address: str) -> None:
    check_host(address, key="ray_address")
    assert re.search(HOST_PATTERN, address)


def test_control_characters_are_made_visible_and_line_breaks_kept() -> None:
    assert sanitised("a\x1b[31m\r\x07\tb\nc\u202e") == "a\\x1b[31m\\r\\x07\tb\nc\\u202e"
    assert str(ConfigError("x\x1b[2J s3://a:hush@b/c")) == "x\\x1b[2J s3://***@b/c"


@pytest.mark.parametrize(("address", "spelling"), SPELLINGS.items())
def test_one_place_has_one_spelling(address: str, spelling: str) -> None:
    assert store_address(address) == spelling
    assert store_address(spelling) == spelling
    assert data_address(address, key="data.path") == spelling


def test_a_relative_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for address in ("out", "./out", "out/", "a/../out", str(tmp_path / "out")):
        assert store_address(address) == str(tmp_path / "out")
    assert store_address("./s3:x") == str(tmp_path / "s3:x")
    for name in ("./s3%3A", "100%", "a%20b", "v1%3A2", "exp\uff1a1", "%2Fdata"):
        assert store_address(name) == str(tmp_path / name)
    assert store_address("~/out") == str(tmp_path / "home" / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("address", "why"), REFUSED.items())
def test_another_spelling_is_refused_with_the_right_one(address: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        Store(address)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "address",
    [
        "https://host:8080/a//b",
        "http://[::1]:8000/a",
        "https://host/teacher.pth?download=1",
        "simplecache::s3://bucket/a",
        "zip://*.png::file:///data/a.zip",
        "hf://datasets/me/birds@main/data",
    ],
)
def test_data_may_be_read_from_any_kind_of_address(address: str) -> None:
    assert data_address(address, key="data.path") == address


@pytest.mark.parametrize("address", CREDENTIALS)
def test_the_patterns_of_a_form_refuse_credentials(address: str) -> None:
    assert not re.search(STORE_PATTERN, address)
    if "://" in address and not re.search(r"%|AKIA|AWSAccess|:12/|123:45|[#]|:///key", address):
        assert not re.search(TEXT_PATTERN, address)


@pytest.mark.parametrize(("address", "spelling"), SPELLINGS.items())
def test_the_pattern_of_a_form_accepts_every_place(address: str, spelling: str) -> None:
    assert re.search(TEXT_PATTERN, address)
    if not spelling.startswith("memory"):
        assert re.search(STORE_PATTERN, spelling)


def test_redaction_takes_linear_time() -> None:
    long = "a" * 200_000
    assert redacted(long) == long
    assert redacted(f"s3://k:{long}@b") == "s3://***@b"


def test_a_file_of_a_package_is_an_address_of_a_checkpoint_only() -> None:
    address = "package:efficientnet-lite0"
    assert checkpoint_address(address, key="squeeze.checkpoint") == address
    for judge in (store_address, data_address):
        with pytest.raises(ConfigError, match="package://"):
            judge(address, key="address")
    with pytest.raises(ConfigError, match="package:// and a name"):
        checkpoint_address("package:../secret", key="squeeze.checkpoint")
