"""Whole objects in signed requests: what arrives is what the file system would have read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import fsspec
import pytest

from distill_core.data.files.remote import RemoteFolder
from distill_core.data.folders import open_place
from distill_core.data.ingest import IngestPlan
from distill_core.data.parts.read import read_part
from distill_core.errors import ChangedDataError, StorageError
from distill_core.storage import signed_gets
from distill_core.storage.filesystems import S3_OPTIONS, Steady
from distill_core.storage.requests import requests_of_process
from tests.support import fault_kinds
from tests.support.datasets import data_config, png
from tests.support.fault_proxy import FaultProxy, Rule
from tests.support.s3_fixtures import unique_name

NAMES = (
    "plain",
    "a b+c&d=e",
    "100%25",
    "[x]*?",
    "\u00fcn\u00ef",
    "q?r#s;t",
    "~'()!",
    "deep/er/$@:,",
)
IMAGES = {
    f"{s}/{c}/{n}.png": png(n + len(s)) for s in ("train", "test") for c in "ab" for n in (1, 20)
}


def uploaded(bucket: str, objects: dict[str, bytes]) -> str:
    """Write objects below a new prefix, and return its address."""
    prefix = unique_name()
    for path, data in objects.items():
        boto3.client("s3").put_object(
            Bucket=bucket.removeprefix("s3://"), Key=f"{prefix}/{path}", Body=data
        )
    return f"{bucket}/{prefix}"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each object whether a signed request was answered by it."""
    seen, get_objects = list[bool](), Steady.get_objects

    def noted(self: Steady, paths: Any) -> Any:
        found = get_objects(self, paths)
        seen.extend(each is not None for each in found)
        return found

    monkeypatch.setattr(Steady, "get_objects", noted)
    return seen


@pytest.fixture
def faulty(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Put a proxy without rules yet between the client and the server."""
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"], []) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def test_objects_of_any_name_and_size_arrive_with_the_versions_of_their_listing(
    s3_bucket: str, sent: list[bool]
) -> None:
    objects = {f"{name}.png": png(n) for n, name in enumerate(NAMES)}
    objects |= {"empty": b"", "large": os.urandom(3 * 2**20)}
    folder = open_place(uploaded(s3_bucket, objects), "data.path")
    files = folder.files("").files
    requests_of_process.taken()
    contents, current = folder.read_listed(files)
    assert requests_of_process.taken() == {"read": len(objects)}
    assert dict(zip([file.path for file in files], contents, strict=True)) == objects
    assert current
    assert sent == [True] * len(objects)


def test_an_object_that_is_not_there_is_none_and_the_others_arrive(s3_bucket: str) -> None:
    folder = open_place(uploaded(s3_bucket, {"a": b"1", "b": b"2", "c": b"3"}), "data.path")
    files = folder.files("").files
    assert isinstance(folder, RemoteFolder)
    folder.fs.rm_file(f"{folder.root}/b")
    assert folder.read_listed(files) == ([b"1", None, b"3"], False)


def test_an_object_that_was_replaced_since_it_was_listed_is_noticed(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = uploaded(s3_bucket, IMAGES)
    plan = IngestPlan(data_config(url))
    part, read = plan.parts[0].part, RemoteFolder.read_listed

    def replaced(self: RemoteFolder, files: Any) -> Any:
        self.fs.pipe_file(f"{self.root}/train/a/20.png", png(99))
        return read(self, files)

    read_part(plan.config, part, plan.names)
    monkeypatch.setattr(RemoteFolder, "read_listed", replaced)
    with pytest.raises(ChangedDataError, match="changed while the dataset was read"):
        read_part(plan.config, part, plan.names)


def test_images_that_are_sent_with_their_versions_are_not_listed_again(
    s3_bucket: str, faulty: FaultProxy
) -> None:
    plan = IngestPlan(data_config(uploaded(s3_bucket, IMAGES)))
    part = plan.parts[0].part
    faulty.requests.clear()
    read_part(plan.config, part, plan.names)
    listings = [seen.path for seen in faulty.requests if "list-type" in seen.path]
    assert len([seen for seen in faulty.requests if ".png" in seen.path]) == part.count
    assert len(listings) == len(set(listings))


@pytest.mark.parametrize(
    "fault", [fault_kinds.slow_down, fault_kinds.truncated, fault_kinds.error("AccessDenied", 403)]
)
def test_a_request_that_fails_once_is_left_to_the_file_system(
    s3_bucket: str, faulty: FaultProxy, sent: list[bool], fault: Any
) -> None:
    """It does not know the version of what arrives then, so the caller lists again."""
    folder = open_place(uploaded(s3_bucket, {"a": b"1234", "b": b"5678"}), "data.path")
    files = folder.files("").files
    faulty.rules = [Rule(fault, "GET", "/b$")]
    assert folder.read_listed(files) == ([b"1234", b"5678"], False)
    assert sent == [True, False]


def test_a_request_that_is_always_refused_is_the_error_of_the_file_system(
    s3_bucket: str, faulty: FaultProxy
) -> None:
    folder = open_place(uploaded(s3_bucket, {"a": b"1", "b": b"2"}), "data.path")
    files = folder.files("").files
    faulty.rules = [Rule(fault_kinds.error("AccessDenied", 403), "GET", "/b$", times=None)]
    with pytest.raises(StorageError) as refused:
        folder.read_listed(files)
    with pytest.raises(StorageError) as expected:
        folder.read(["a", "b"])
    assert str(refused.value) == str(expected.value)
    assert "permission" in str(refused.value)


@pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "moto", reason="other servers have one region"
)
def test_objects_of_a_bucket_in_another_region_are_requested_once_each(
    s3_bucket: str, faulty: FaultProxy, sent: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusals of the first ones name the region, for which the next ones are signed."""
    regions: list[bool] = []

    def elsewhere(exchange: fault_kinds.Exchange) -> None:
        regions.append("/eu-west-1/" in dict(exchange.headers).get("Authorization", ""))
        if len(regions) > 2:
            exchange.send(exchange.forward())
            return
        answer = fault_kinds.refusal("AuthorizationHeaderMalformed", 400)
        region = ("x-amz-bucket-region", "eu-west-1")
        exchange.send(replace(answer, headers=(*answer.headers, region)))

    monkeypatch.setattr(signed_gets, "_regions", {})
    folder = open_place(uploaded(s3_bucket, {"a": b"1", "b": b"2"}), "data.path")
    files = folder.files("").files
    faulty.rules = [Rule(elsewhere, "GET", "/[ab]$", times=None)]
    assert folder.read_listed(files) == ([b"1", b"2"], False)  # the file system reads them
    regions[2:] = []
    assert folder.read_listed(files) == ([b"1", b"2"], True)
    assert regions == [False, False, True, True]
    assert sent == [False, False, True, True]


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_request_is_signed_unless_the_client_is_anonymous(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, anonymous: bool
) -> None:
    from aiobotocore.httpsession import AIOHTTPSession

    url, seen, send = uploaded(s3_bucket, {"a": b"1"}), list[bool](), AIOHTTPSession.send

    async def noted(self: Any, request: Any) -> Any:
        seen.append("Authorization" in request.headers)
        return await send(self, request)

    monkeypatch.setattr(AIOHTTPSession, "send", noted)
    fs = Steady(fsspec.filesystem("s3", anon=anonymous, **S3_OPTIONS))
    (found,) = fs.get_objects([f"{url.removeprefix('s3://')}/a"])
    assert seen == [not anonymous]
    # A server may refuse strangers; the file system then raises its error.
    assert anonymous or found is not None
    assert found is None or found.data == b"1"
