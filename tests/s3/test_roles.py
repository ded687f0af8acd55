"""The policies of deploy/s3, enforced by a real object store: Ceph's gateway."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import DataError, StorageError, StorageRefused
from distill_core.storage import backends, filesystems
from distill_core.storage.race import race
from distill_core.storage.store import Store, probe
from flows.runs.pipeline import check_store
from flows.status.status import run_status
from tasks.gc.clock import store_time
from tasks.gc.collect import collect
from tests.support.planned import Workshop, jobs, stray
from tests.support.policies import COLLECTOR, DRIVER, READER, allows, of_users
from tests.support.s3_servers import RGW
from tests.support.store_names import OURS

pytestmark = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "ceph",
    reason="needs a server that enforces policies: DISTILL_TEST_S3=ceph",
)
ROLES = {"distill-reader": READER, "distill-driver": DRIVER, "distill-collector": COLLECTOR}
PREFIX = "team/store"
DENIED = ("AccessDenied", "403")

As = Callable[[str | None], Store]


def client(role: str | None = None) -> Any:
    """Return a client of a user, or of the owner of the bucket."""
    import boto3

    keys = (
        {}
        if role is None
        else {
            "aws_access_key_id": f"{role}-key",
            "aws_secret_access_key": f"{role}-secret",
        }
    )
    return boto3.client("s3", **keys)


def answer(call: Callable[..., Any], **arguments: Any) -> str:
    """Return the code of an error of the server, or nothing."""
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


@pytest.fixture(scope="module")
def bucket(s3_bucket: str) -> str:
    """Return a bucket in which each role may do what its policy allows."""
    for role in ROLES:
        subprocess.run([RGW, "user", role], check=True)
    name = s3_bucket.removeprefix("s3://")
    policy = of_users(ROLES, bucket=name, prefix=PREFIX)
    client().put_bucket_policy(Bucket=name, Policy=policy)
    return name


@pytest.fixture
def store_as(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[As]:
    """Return a function that opens the store with the credentials of a role, or of the owner."""

    def opened(role: str | None) -> Store:
        key, secret = ("testing", "testing") if role is None else (f"{role}-key", f"{role}-secret")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        filesystems._s3.cache_clear()
        backends._open.cache_clear()
        return Store(f"s3://{bucket}/{PREFIX}")

    yield opened
    owner = opened(None)
    for file in owner.files(""):
        owner.delete(file.path)
    filesystems._s3.cache_clear()
    backends._open.cache_clear()


@pytest.mark.parametrize("role", ROLES)
def test_the_server_allows_on_every_object_what_the_policy_does(bucket: str, role: str) -> None:
    owner, user = client(), client(role)
    for path in OURS:
        place = {"Bucket": bucket, "Key": f"{PREFIX}/{path}"}
        owner.put_object(**place, Body=b"x")
        found = {
            "s3:GetObject": answer(user.get_object, **place),
            "s3:PutObject": answer(user.put_object, **place, Body=b"y"),
            "s3:DeleteObject": answer(user.delete_object, **place),
        }
        owner.delete_object(**place)
        allowed = {
            action: "" if allows(ROLES[role], action, path) else DENIED[0] for action in found
        }
        assert found == allowed, path


@pytest.mark.parametrize("role", ROLES)
def test_a_role_lists_its_prefix_alone(bucket: str, role: str) -> None:
    user = client(role)
    for prefix in (PREFIX, f"{PREFIX}/", f"{PREFIX}/runs/"):
        assert answer(user.list_objects_v2, Bucket=bucket, Prefix=prefix) == "", prefix
    for prefix in ("", "team/", "team", "other/", f"{PREFIX}-2/"):
        assert answer(user.list_objects_v2, Bucket=bucket, Prefix=prefix) in DENIED, prefix


@pytest.mark.parametrize("role", ROLES)
def test_a_role_touches_nothing_outside_its_prefix(bucket: str, role: str) -> None:
    user = client(role)
    for key in ("mine.txt", f"{PREFIX}-2/recover/_done/x.json"):
        place = {"Bucket": bucket, "Key": key}
        client().put_object(**place, Body=b"x")
        assert answer(user.get_object, **place) in DENIED
        assert answer(user.put_object, **place, Body=b"y") in DENIED
        assert answer(user.delete_object, **place) in DENIED
        assert client().get_object(**place)["Body"].read() == b"x"
        client().delete_object(**place)
    assert answer(user.delete_bucket, Bucket=bucket) in DENIED
    assert answer(user.put_bucket_policy, Bucket=bucket, Policy="{}") in DENIED
    assert answer(user.create_bucket, Bucket=f"{bucket}-2") != ""


def test_only_the_collector_sees_and_ends_unfinished_uploads(bucket: str) -> None:
    place = {"Bucket": bucket, "Key": f"{PREFIX}/recover/data/x"}
    upload = client().create_multipart_upload(**place)["UploadId"]
    for role in ("distill-reader", "distill-driver"):
        assert answer(client(role).list_multipart_uploads, Bucket=bucket) in DENIED
    assert (
        answer(client("distill-reader").abort_multipart_upload, **place, UploadId=upload) in DENIED
    )
    collector = client("distill-collector")
    # Tests of other stores in this bucket leave uploads of their own.
    listed = collector.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [each["UploadId"] for each in listed if each["Key"] == place["Key"]] == [upload]
    assert answer(collector.abort_multipart_upload, **place, UploadId=upload) == ""


def test_each_role_can_do_its_work(store_as: As, tmp_path: Path) -> None:
    store, workshop = store_as("distill-driver"), Workshop(tmp_path)
    assert (store.files(""), store.names(""), store.folders("runs")) == ((), (), ())
    check_store(store)
    assert race(store) == 1
    run = workshop.finished(store, "first")
    job = jobs(run, "recover")[0]
    marker = f"recover/_done/{job.key}.json"
    with pytest.raises(StorageRefused, match="cannot be deleted"):
        store.delete(marker)
    lost = stray(store, "recover", job.key)

    store = store_as("distill-reader")
    assert run_status(run).complete
    assert store.exists(marker)
    assert not store.exists("recover/_done/of-nobody.json")
    for read in (store.read, lambda path: store.read_range(path, 0, 1)):
        with pytest.raises(DataError, match="no such object"):
            read("recover/_done/of-nobody.json")
    with pytest.raises(StorageError):
        store.put("runs/first/notes.json", b"x")
    with pytest.raises(StorageError):
        probe(store)

    store = store_as("distill-collector")
    collection = collect(store, clock=lambda _: store_time(store) + timedelta(days=30))
    assert lost in [item.path for item in collection.removed]
    assert run_status(run).complete
