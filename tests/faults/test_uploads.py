"""Uploads that are altered on their way and answered 200 never become a committed shard.

moto stores any body, whatever Content-MD5 and the signature state; so does a gateway that signs
again. Ceph checks both.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import replace

import pytest

from distill_core.errors import StorageError
from distill_core.storage import filesystems, object_backend
from distill_core.storage.manifest import Manifest, load_manifest, save_manifest
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store
from tests.support.commits import FILES, KEY, commit, data_files
from tests.support.fault_kinds import (
    Exchange,
    Fault,
    error,
    flipped_upload,
    halved_upload,
    lost_upload,
)
from tests.support.fault_line import line, s3_bucket, shard_store, store
from tests.support.fault_proxy import FaultProxy, Rule

__all__ = ["line", "s3_bucket", "shard_store", "store"]

ALTERED = (flipped_upload, halved_upload, lost_upload)
on_moto = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "moto",
    reason="needs a server that stores altered bodies; this one refuses them",
)
on_ceph = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "ceph",
    reason="needs a server that checks bodies: DISTILL_TEST_S3=ceph",
)


def spoil(line: FaultProxy, *rules: Rule) -> None:
    """Let these rules hold from now on, and count from here."""
    line.rules = list(rules)
    line.forget()


@pytest.mark.parametrize("fault", ALTERED)
@pytest.mark.parametrize("path", [rf"data/{KEY}.*parquet", rf"_done/{KEY}"])
def test_a_shard_with_an_altered_upload_is_committed_with_the_right_bytes(
    line: FaultProxy, shard_store: ShardStore, fault: Fault, path: str
) -> None:
    spoil(line, Rule(fault, "PUT", path, times=2))
    marker = commit(shard_store, token="1" * 32)
    spoil(line)
    assert shard_store.marker(KEY) == marker
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES
    assert len(data_files(shard_store)) == len(FILES)


@pytest.mark.parametrize("fault", ALTERED)
def test_a_shard_whose_uploads_are_always_altered_is_not_committed(
    line: FaultProxy, shard_store: ShardStore, fault: Fault
) -> None:
    spoil(line, Rule(fault, "PUT", rf"data/{KEY}.*parquet", times=None))
    with pytest.raises(StorageError, match=rf"data/{KEY}.*parquet: cannot be written") as caught:
        commit(shard_store)
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    bound = max(object_backend.UPLOADS, filesystems.REPEATS)
    assert line.count("PUT", "parquet") <= bound
    assert line.count("PUT", "_done/") == 0
    spoil(line)
    assert shard_store.done() == frozenset()
    assert data_files(shard_store) == ()


@pytest.mark.parametrize("fault", ALTERED)
def test_a_marker_that_is_always_altered_is_a_storage_error_and_leaves_no_marker(
    line: FaultProxy, shard_store: ShardStore, fault: Fault
) -> None:
    spoil(line, Rule(fault, "PUT", rf"_done/{KEY}", times=None))
    with pytest.raises(StorageError, match=rf"_done/{KEY}.*: cannot be written"):
        commit(shard_store)
    assert shard_store.done() == frozenset()
    spoil(line)
    assert commit(shard_store) == shard_store.marker(KEY)


@pytest.mark.parametrize("fault", ALTERED)
def test_a_manifest_is_compared_after_it_was_written(
    line: FaultProxy, store: Store, fault: Fault
) -> None:
    manifest = Manifest("recover", (), missing=tuple(map(str, range(100))))
    spoil(line, Rule(fault, "PUT", "manifest", times=1))
    save_manifest(store, "run", manifest)
    assert load_manifest(store, "run", "recover") == manifest


@pytest.mark.parametrize("fault", ALTERED)
def test_an_altered_part_of_a_large_upload_is_sent_again(
    line: FaultProxy, store: Store, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    part = 5 * 2**20  # the smallest that S3 accepts
    for module in (filesystems, object_backend):
        monkeypatch.setattr(module, "PART_BYTES", part)
    data = os.urandom(2 * part + 1)
    spoil(line, Rule(fault, "PUT", "partNumber=2", times=1))
    store.put("x", data)
    assert line.count("PUT", "partNumber=2") == 2
    assert store.read("x") == data
    line.forget()
    store.put("x", data)
    assert line.count("GET") == 0  # the ETag of all parts proves the bytes
    assert store.uploads() == ()


@on_moto
def test_an_object_whose_etag_is_no_md5_is_read_back(
    line: FaultProxy, shard_store: ShardStore
) -> None:
    def without_etag(exchange: Exchange) -> None:
        answer = exchange.forward()
        headers = tuple((n, v) for n, v in answer.headers if n.lower() != "etag")
        exchange.send(replace(answer, headers=(*headers, ("ETag", f'"{"0" * 32}"'))))

    hidden = Rule(without_etag, "HEAD", times=None)
    spoil(line, hidden, Rule(flipped_upload, "PUT", "parquet", times=1))
    marker = commit(shard_store)
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES
    assert line.count("PUT", "parquet") == 2


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentSHA256Mismatch"])
def test_a_refusal_of_an_altered_body_is_retried(
    line: FaultProxy, shard_store: ShardStore, code: str
) -> None:
    spoil(line, Rule(error(code, 400), "PUT", times=3))
    marker = commit(shard_store)
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES


@on_ceph
@pytest.mark.parametrize("fault", [flipped_upload, halved_upload])
def test_a_real_server_refuses_an_altered_body(
    line: FaultProxy, store: Store, fault: Fault
) -> None:
    spoil(line, Rule(fault, "PUT", times=None))
    for call in (store.put, store.create):
        with pytest.raises(StorageError, match="x: cannot be written"):
            call("x", b"0123456789")
    assert line.count("PUT") == 2 * filesystems.REPEATS
    assert store.files("") == ()


def test_every_upload_carries_its_md5_and_costs_one_head(
    line: FaultProxy, shard_store: ShardStore
) -> None:
    digests = []

    def note(exchange: Exchange) -> None:
        headers = {name.lower(): value for name, value in exchange.headers}
        md5 = base64.b64encode(hashlib.md5(exchange.body).digest()).decode()
        digests.append(headers.get("content-md5") == md5)
        exchange.send(exchange.forward())

    spoil(line, Rule(note, "PUT", times=None))
    commit(shard_store)
    assert digests == [True] * (len(FILES) + 1)
    assert line.count("PUT") == line.count("HEAD") == len(FILES) + 1
    assert line.count() == 2 * (len(FILES) + 1)
