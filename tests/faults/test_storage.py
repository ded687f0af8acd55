"""Faults of a bucket: the real commit, through the real client, over a faulty connection.

F01 and so on are the kinds of faults in docs/reliability.md; kills are tested in tests/e2e.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from distill_core.errors import ShardError, StorageError, StorageRefused
from distill_core.storage import filesystems
from distill_core.storage.filesystems import REPEATS, REQUEST_ATTEMPTS
from distill_core.storage.manifest import Manifest
from distill_core.storage.markers import Marker
from distill_core.storage.shard_store import ShardStore
from distill_core.storage.store import Store, probe
from flows.runs import pipeline
from tests.support.commits import FILES, KEY, commit, data_files
from tests.support.fault_kinds import (
    Fault,
    applied_but_500,
    error,
    flipped_bit,
    internal_error,
    reset_after,
    reset_before,
    slow_down,
    truncated,
    without_condition,
)
from tests.support.fault_line import line, s3_bucket, shard_store, store
from tests.support.fault_proxy import FaultProxy, Rule

__all__ = ["line", "s3_bucket", "shard_store", "store"]

MOST_SECONDS = 1 + 2 + 4 + 8 + 16  # that botocore waits between the attempts at one request
FINAL = {
    "AccessDenied": (403, "s3:PutObject"),
    "NoSuchBucket": (404, "create it"),
    "InvalidAccessKeyId": (403, "AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (400, "renew them"),
    "RequestTimeTooSkewed": (403, "clock"),
    "AuthorizationHeaderMalformed": (400, "AWS_DEFAULT_REGION"),
    "PermanentRedirect": (301, "AWS_DEFAULT_REGION"),
}
on_moto = pytest.mark.skipif(
    os.environ.get("DISTILL_TEST_S3", "moto") != "moto",
    reason="a header that is taken away spoils the signature, which this server checks",
)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long the client wanted to wait between requests; it waits a hundredth of that."""
    from botocore.retries.standard import ExponentialBackoff

    wanted: list[float] = []
    honest = ExponentialBackoff.delay_amount

    def delay_amount(self: ExponentialBackoff, context: object) -> float:
        wanted.append(honest(self, context))
        return wanted[-1] / 100

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", delay_amount)
    monkeypatch.setattr(filesystems, "FIRST_WAIT_SECONDS", 0.001)
    return wanted


def spoil(line: FaultProxy, *rules: Rule) -> None:
    """Let these rules hold from now on, and count from here."""
    line.rules = list(rules)
    line.forget()


@pytest.mark.parametrize("fault", [slow_down, internal_error, reset_before])
def test_a_shard_whose_writes_are_refused_twice_is_committed(
    line: FaultProxy, shard_store: ShardStore, waits: list[float], fault: Fault
) -> None:  # F01, F03
    spoil(line, Rule(fault, "PUT", f"data/{KEY}.*parquet", times=2))
    marker = commit(shard_store)
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES
    assert line.count("PUT") == len(FILES) + 1 + 2
    assert sum(waits) <= 1 + 2


def test_a_permanently_failing_write_costs_one_shard_a_bounded_time_and_no_other(
    line: FaultProxy, shard_store: ShardStore, waits: list[float]
) -> None:  # F02
    spoil(line, Rule(slow_down, path=f"data/{KEY}", times=None))
    with pytest.raises(StorageError, match=f"data/{KEY}.* cannot be written") as caught:
        commit(shard_store)
    assert caught.value.retryable
    assert line.count("PUT") == REQUEST_ATTEMPTS
    assert sum(waits) <= MOST_SECONDS * (1 + len(FILES))  # the write, then what is cleared away
    assert shard_store.done() == frozenset()
    other = replace(shard_store, stage="relabel")
    spoil(line, Rule(slow_down, path=f"recover/data/{KEY}", times=None))
    assert commit(other).key in other.done()


def test_a_read_succeeds_after_two_connection_resets(
    line: FaultProxy, shard_store: ShardStore
) -> None:
    marker = commit(shard_store)  # F03
    spoil(line, Rule(reset_before, "GET", times=2))
    assert shard_store.load(marker, "parquet") == FILES["parquet"]


def test_a_listing_succeeds_after_two_refusals(line: FaultProxy, store: Store) -> None:
    names = tuple(f"{number:04}" for number in range(3))
    for name in names:
        store.put(f"f/{name}", b"x")
    spoil(line, Rule(slow_down, "GET", times=2))
    assert store.names("f") == names
    assert line.count("GET") == 3


def test_a_truncated_body_is_read_again(line: FaultProxy, store: Store) -> None:
    data = os.urandom(300_000)  # F04
    store.put("x", data)
    spoil(line, Rule(truncated, "GET", "/x", times=2))
    assert store.read("x") == data
    assert line.count("GET") == 3
    spoil(line, Rule(truncated, "GET", "/x", times=2))
    assert store.read_range("x", 100, 200_000) == data[100:200_100]


def test_a_body_that_is_always_truncated_raises_a_storage_error(
    line: FaultProxy, store: Store
) -> None:  # F04
    store.put("x", b"0123456789")
    spoil(line, Rule(truncated, "GET", "/x", times=None))
    with pytest.raises(StorageError, match="x: cannot be read") as caught:
        store.read("x")
    assert caught.value.retryable
    assert line.count("GET") == REPEATS


def test_a_bit_flipped_in_transit_is_found_and_the_file_is_read_again(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F05
    marker = commit(shard_store)
    spoil(line, Rule(flipped_bit, "GET", "parquet"))
    assert shard_store.load(marker, "parquet") == FILES["parquet"]
    assert line.count("GET") == 2


def test_a_permanently_flipped_bit_raises_an_integrity_error_that_names_the_file(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F05
    marker = commit(shard_store)
    spoil(line, Rule(flipped_bit, "GET", "parquet", times=None))
    with pytest.raises(ShardError, match=r"\.parquet: 4 bytes, sha256 .* do not match the marker"):
        shard_store.load(marker, "parquet")


@pytest.mark.parametrize("fault", [applied_but_500, reset_after])
@pytest.mark.parametrize("times", [1, REQUEST_ATTEMPTS])
def test_a_marker_written_despite_an_error_reply_is_a_success(
    line: FaultProxy, shard_store: ShardStore, fault: Fault, times: int
) -> None:  # F06
    spoil(line, Rule(fault, "PUT", "_done/", times=times))
    marker = commit(shard_store, token="1" * 32)
    assert marker.token == "1" * 32
    assert shard_store.marker(KEY) == marker
    assert {suffix: shard_store.load(marker, suffix) for suffix in FILES} == FILES


def test_a_lost_race_with_a_lost_reply_is_still_a_loss(
    line: FaultProxy, shard_store: ShardStore
) -> None:
    winner = commit(shard_store, token="1" * 32)  # F06, F08
    spoil(line, Rule(applied_but_500, "PUT", "_done/", times=REQUEST_ATTEMPTS))
    assert commit(shard_store, token="2" * 32) == winner
    assert len(data_files(shard_store)) == len(FILES)


def test_a_conflict_of_two_conditional_writes_is_retried(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F07
    conflict = error("ConditionalRequestConflict", 409)
    spoil(line, Rule(conflict, "PUT", times=2, conditional=True))
    assert commit(shard_store, token="1" * 32).token == "1" * 32
    assert line.count("PUT", "_done/") == 3


def test_the_loser_of_a_race_deletes_its_data_and_returns_the_winners_marker(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F08
    winner = commit(shard_store, token="1" * 32)
    spoil(line)
    assert commit(shard_store, {"parquet": b"other"}, token="2" * 32) == winner
    assert line.count("DELETE", "2" * 32) == 1
    assert shard_store.load(winner, "parquet") == FILES["parquet"]
    assert len(data_files(shard_store)) == len(FILES)


@pytest.mark.parametrize("seed", range(3))
def test_of_eight_committers_on_a_faulty_connection_one_wins(
    line: FaultProxy, shard_store: ShardStore, seed: int
) -> None:  # F09
    spoil(line)
    line.rate, line.seed = 0.2, seed

    def attempt(number: int) -> Marker:
        return commit(shard_store, {"parquet": bytes([number])}, token=f"{number:032x}")

    with ThreadPoolExecutor(8) as threads:
        returned = list(threads.map(attempt, range(8)))
    line.rate = 0
    marker = shard_store.marker(KEY)
    assert marker is not None
    assert all(one == marker for one in returned)
    assert shard_store.load(marker, "parquet") == bytes([int(marker.token, 16)])
    assert shard_store.done() == {KEY}
    assert Manifest.of("recover", [marker]).entries[0].rows == marker.rows


CARELESS = {
    "ignores": pytest.param(without_condition, marks=on_moto),
    "refuses": pytest.param(error("NotImplemented", 501)),
}


@pytest.mark.parametrize("fault", CARELESS.values(), ids=CARELESS)
def test_a_store_without_conditional_create_serves_one_writer_with_a_warning(
    line: FaultProxy, shard_store: ShardStore, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:  # F10
    spoil(line, Rule(fault, "PUT", times=None, conditional=True))
    assert not probe(shard_store.store)
    with pytest.raises(StorageError, match="--single-writer"):
        pipeline.check_store(shard_store.store)
    single = replace(shard_store, store=replace(shard_store.store, single_writer=True))
    pipeline.check_store(single.store)
    assert capsys.readouterr().err.count("warning") == 1
    marker = commit(single, token="1" * 32)
    assert single.marker(KEY) == marker
    assert commit(single, {"parquet": b"other"}, token="2" * 32) == marker
    assert {suffix: single.load(marker, suffix) for suffix in FILES} == FILES
    assert len(data_files(single)) == len(FILES)


def test_a_store_without_conditional_create_is_refused_for_several_writers(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F10
    spoil(line, Rule(error("NotImplemented", 501), "PUT", times=None, conditional=True))
    with pytest.raises(StorageRefused, match=r"no conditional create.*--single-writer"):
        commit(shard_store)
    assert line.count("PUT", "_done/") == 1


def test_a_commit_of_another_machine_after_the_listing_is_found(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F11
    import boto3

    path = shard_store.marker_path(KEY)
    assert shard_store.done() == frozenset()
    assert not shard_store.store.exists(path)
    bucket, _, prefix = shard_store.store.url.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=b"{}")
    assert shard_store.done() == {KEY}
    assert shard_store.store.exists(path)


@pytest.mark.slow
def test_an_interrupted_multipart_upload_leaves_neither_object_nor_parts(
    line: FaultProxy, store: Store
) -> None:  # F12
    spoil(line, Rule(internal_error, "PUT", "partNumber=2", times=None))
    with pytest.raises(StorageError, match="x: cannot be written"):
        store.put("x", bytes(101 * 2**20))
    assert line.count("PUT", "partNumber=2") == REQUEST_ATTEMPTS
    assert store.files("") == ()
    assert store.uploads() == ()


@pytest.mark.parametrize("code", FINAL)
def test_a_permanent_refusal_is_not_retried_and_its_error_names_the_fix(
    line: FaultProxy, store: Store, code: str
) -> None:  # F15, F16, F18
    status, remedy = FINAL[code]
    store.exists("x")  # the client is up
    spoil(line, Rule(error(code, status), "PUT", "some/key", times=None))
    for call in (store.put, store.create):
        line.forget()
        with pytest.raises(StorageRefused, match="some/key: cannot be written") as caught:
            call("some/key", b"x")
        assert remedy in str(caught.value)
        assert not caught.value.retryable
        # A redirect may be followed once, to the region that the bucket says it is in.
        assert line.count("PUT") <= (2 if code == "PermanentRedirect" else 1)


def test_a_forbidden_marker_write_fails_without_a_retry(
    line: FaultProxy, shard_store: ShardStore
) -> None:  # F15
    spoil(line, Rule(error("AccessDenied", 403), "PUT", "_done/", times=None))
    with pytest.raises(StorageRefused, match=f"_done/{KEY}.json.*s3:PutObject"):
        commit(shard_store)
    assert line.count("PUT", "_done/") == 1


@pytest.mark.parametrize("code", FINAL)
def test_a_store_that_refuses_writes_stops_a_run_before_it_starts(
    line: FaultProxy, store: Store, code: str
) -> None:  # F16
    spoil(line, Rule(error(code, FINAL[code][0]), "PUT", times=None))
    with pytest.raises(StorageRefused, match=r"\.probe/.*cannot be written"):
        pipeline.check_store(store)


CALLS = {
    "read": ("x",),
    "read_range": ("x", 0, 1),
    "exists": ("x",),
    "names": ("f",),
    "files": ("",),
    "put": ("x", b""),
    "create": ("x", b""),
    "delete": ("x",),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_bucket_is_not_listed_as_an_empty_folder(
    line: FaultProxy, call: str
) -> None:  # F16
    store = Store(f"s3://distill-{uuid4().hex[:12]}/prefix")
    with pytest.raises(StorageRefused, match="no such bucket"):
        getattr(store, call)(*CALLS[call])


FILL = """
import sys
from distill_core.errors import StorageError
from distill_core.storage.store import Store
store = Store(sys.argv[1])
store.put("small", b"x" * 1000)
for call in (store.put, store.create):
    try:
        call("large", bytes(2**20))
    except StorageError as error:
        print(error)
print(store.exists("large"), [file.path for file in store.files("", partial=True)])
"""


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path) -> None:  # F17
    mount = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FILL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    first, second, left = done.stdout.splitlines()
    for said in (first, second):
        assert "large: cannot be written (No space left on device)" in said
    assert left == "False ['small']"
