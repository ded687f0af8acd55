"""A store in a bucket: its credentials stay secret, and forked processes can use it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pytest

from distill_core.config.load import load_run
from distill_core.data.files.remote import RemoteFolder
from distill_core.errors import ConfigError, DataError, StorageError, StorageRefused
from distill_core.storage.filesystems import open_filesystem
from distill_core.storage.race import race
from distill_core.storage.store import Store, probe
from flows.maintenance.storage import check_arbitration
from flows.runs.pipeline import check_store
from tasks.run import create_run, open_run
from tests.support.fault_kinds import check_then_write, error, unlisted
from tests.support.fault_proxy import FaultProxy, Rule

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLETOKEN",
}
on_ceph = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "ceph",
    reason="needs a server that checks signatures: DISTILL_TEST_S3=ceph",
)
on_moto = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "moto",
    reason="needs a server that takes any credentials",
)


def secrets_in(text: str) -> list[str]:
    """Return the credentials that a text contains."""
    return [name for name, value in SECRETS.items() if value in text]


@pytest.fixture
def proxy(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Return a way to the server that no client has used yet, so that one reads its environment."""
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"]) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


def test_a_bucket_supports_conditional_create(s3_store: Store) -> None:
    assert probe(s3_store)


def test_a_single_writer_still_uses_conditional_create(s3_store: Store) -> None:
    single = replace(s3_store, single_writer=True)
    assert probe(single)
    assert single.create("x", b"first")
    assert not single.create("x", b"second")
    assert single.read("x") == b"first"


def test_of_many_writers_at_once_one_wins_and_no_object_is_left(s3_store: Store) -> None:
    assert race(s3_store) == 1
    assert s3_store.files("") == ()


@on_moto
def test_a_bucket_that_looks_and_then_writes_is_refused_before_a_run(
    proxy: FaultProxy, s3_store: Store
) -> None:
    proxy.rules = [Rule(check_then_write, "PUT", times=None, conditional=True)]
    assert probe(s3_store)
    with pytest.raises(StorageError, match="does not refuse to create the same object twice"):
        check_store(s3_store)
    assert check_arbitration(s3_store).level == "FAIL"
    proxy.rules = []
    assert s3_store.files("") == ()


@pytest.mark.parametrize("single_writer", [False, True])
def test_a_store_that_does_not_list_what_it_holds_is_refused(
    proxy: FaultProxy, s3_store: Store, single_writer: bool
) -> None:
    proxy.rules = [Rule(unlisted, "GET", "list-type=2", times=None)]
    with pytest.raises(StorageRefused, match=r"\.probe: .* a listing does not show it"):
        probe(replace(s3_store, single_writer=single_writer))
    proxy.rules = []
    assert s3_store.files("") == ()


def test_a_missing_object_is_missing_to_a_role_that_may_list_only_its_prefix(
    proxy: FaultProxy, s3_store: Store
) -> None:
    """A bucket answers such a role with 403 instead of 404; a listing tells what is missing."""
    s3_store.put("present", b"x")
    s3_store.put("missing-2", b"x")
    refused = error("AccessDenied", 403)
    proxy.rules = [Rule(refused, method, r"^[^?]+$", times=None) for method in ("GET", "HEAD")]
    assert not s3_store.exists("missing")
    assert s3_store.files("missing") == ()
    for read in (s3_store.read, lambda path: s3_store.read_range(path, 0, 1)):
        with pytest.raises(DataError, match="missing: no such object"):
            read("missing")
        with pytest.raises(StorageRefused, match="present: cannot be read"):
            read("present")
    with pytest.raises(StorageRefused, match="present: cannot be read"):
        s3_store.exists("present")
    proxy.rules = [Rule(refused, "GET", times=None), Rule(refused, "HEAD", times=None)]
    with pytest.raises(StorageRefused, match="missing: cannot be read"):
        s3_store.exists("missing")  # what may not be listed is not known to be missing


@on_moto
def test_credentials_stay_in_the_environment(
    proxy: FaultProxy,
    s3_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.INFO)
    run = create_run(load_run("digits-demo"), s3_store)
    proxy.rules = [
        Rule(error(code, 403), "PUT", "bad")
        for code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Unheard")
    ]
    said = [repr(s3_store), repr(run), s3_store.read(run.path("run.yaml")).decode()]
    for _ in range(4):
        with pytest.raises(StorageError) as caught:
            s3_store.put("bad", b"x")
        said += traceback.format_exception(caught.value)
    said += [repr(pickle.dumps(value)) for value in (s3_store, run, caught.value)]
    assert proxy.count("PUT", "bad") == 4
    assert not any(secrets_in(text) for text in (*said, caplog.text))
    assert open_run(s3_store, run.name) == run


def test_a_store_with_credentials_in_its_address_is_refused_without_repeating_them() -> None:
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"].replace("/", "")
    with pytest.raises(ConfigError, match="credentials") as caught:
        Store(f"s3://{SECRETS['AWS_ACCESS_KEY_ID']}:{secret}@bucket/prefix")
    assert secret not in str(caught.value)


def test_one_prefix_has_one_spelling(s3_store: Store) -> None:
    s3_store.put("runs/a", b"x")
    for url in (s3_store.url.replace("s3:", "S3A:"), f"{s3_store.url}//"):
        assert Store(url) == s3_store
        assert Store(url).names("runs") == ("a",)
    bucket, _, prefix = s3_store.url.rpartition("/")
    with pytest.raises(ConfigError, match=f"Write {s3_store.url}"):
        Store(f"{bucket}//{prefix}")


def test_no_letter_of_a_name_is_lost_where_the_bucket_lists_another_spelling(
    s3_store: Store,
) -> None:
    s3_store.put("train/cat/1.png", b"x")
    fs, root = open_filesystem(s3_store.url)
    assert RemoteFolder("x", fs, root).files("train").paths == ["train/cat/1.png"]
    with pytest.raises(DataError, match="not below the folder"):
        RemoteFolder("x", fs, root.replace("/", "//")).files("train")


def test_without_credentials_the_error_names_the_variables_to_set(
    proxy: FaultProxy, s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageRefused, match="no credentials: Set AWS_ACCESS_KEY_ID"):
        s3_store.put("x", b"x")
    assert proxy.count() == 0


@on_ceph
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("AWS_ACCESS_KEY_ID", "check AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "check AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials_are_refused_with_a_hint(
    proxy: FaultProxy, s3_store: Store, monkeypatch: pytest.MonkeyPatch, name: str, remedy: str
) -> None:
    monkeypatch.setenv(name, SECRETS[name])
    with pytest.raises(StorageRefused, match=f"x: cannot be written.*{remedy}"):
        s3_store.put("x", b"x")
    assert proxy.count("PUT") == 1


def read_in_child(store: Store, answers: multiprocessing.SimpleQueue[bytes]) -> None:
    """Send what a forked process reads, through a client of its own."""
    answers.put(store.read("x"))


def test_a_forked_process_opens_the_store_anew(s3_store: Store) -> None:
    s3_store.put("x", b"from the parent")
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=read_in_child, args=(s3_store, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork
        child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == s3_store.read("x") == b"from the parent"
