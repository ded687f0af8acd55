"""Manifests: equal if the bytes of the shards are equal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill_core.errors import DataError
from distill_core.storage.manifest import Manifest, load_manifest, manifest_path, save_manifest
from distill_core.storage.markers import FileInfo, Marker
from distill_core.storage.store import Store


def marker(number: int) -> Marker:
    """Return a marker of a shard with two files."""
    files = (
        FileInfo("parquet", f"recover/data/{number}-t.parquet", 100 + number, f"{number:064x}"),
        FileInfo("trace.json", f"recover/data/{number}-t.trace.json", 5, "f" * 64),
    )
    return Marker(
        key=f"{number:032x}",
        stage="recover",
        shard=f"c{number:05d}",
        token="a" * 32,
        files=files,
        rows=10,
        classes=2,
        seconds=1.0,
        device="cpu",
        host="here",
        finished="2026-01-01T00:00:00+00:00",
        summary={"loss": 1.0},
    )


def test_attempt_host_time_path_and_summary_are_not_in_a_manifest() -> None:
    files = tuple(replace(info, path=f"elsewhere/{info.suffix}") for info in marker(1).files)
    other = replace(
        marker(1),
        token="b" * 32,
        host="there",
        finished="2027-01-01T00:00:00+00:00",
        device="cuda",
        seconds=9.0,
        summary={},
        files=files[::-1],
    )
    assert Manifest.of("recover", [marker(1)]) == Manifest.of("recover", [other])
    first, second = (Manifest.of("recover", [m]).to_json() for m in (marker(1), other))
    assert first == second
    assert b"here" not in first


@pytest.mark.parametrize(
    "change",
    [
        {"key": "c" * 32},
        {"shard": "c00009"},
        {"rows": 11},
        {"classes": 3},
        {"files": (FileInfo("parquet", "p", 101, "e" * 64),)},
    ],
)
def test_every_canonical_field_changes_the_manifest(change: dict[str, object]) -> None:
    changed = replace(marker(1), **change)  # type: ignore[arg-type]
    assert Manifest.of("recover", [marker(1)]) != Manifest.of("recover", [changed])


def test_a_manifest_reads_back_in_plan_order(store: Store) -> None:
    manifest = Manifest.of("recover.random_real", [marker(3), marker(1), marker(2)])
    assert load_manifest(store, "run", manifest.stage) is None
    save_manifest(store, "run", manifest)
    assert load_manifest(store, "run", manifest.stage) == manifest
    assert [entry.shard for entry in manifest.entries] == ["c00003", "c00001", "c00002"]
    assert store.names("runs/run") == ("recover.random_real.manifest.json",)


def test_missing_shards_are_part_of_a_manifest_and_read_back(store: Store) -> None:
    whole = Manifest.of("recover", [marker(1)])
    partial = Manifest.of("recover", [marker(1)], missing=["c00002", "c00003"])
    assert partial != whole
    save_manifest(store, "run", partial)
    assert load_manifest(store, "run", "recover") == partial
    save_manifest(store, "run", whole)
    assert load_manifest(store, "run", "recover") == whole


def test_a_manifest_without_a_list_of_missing_shards_has_none() -> None:
    old = b'{"version": 1, "stage": "recover", "entries": []}'
    assert Manifest.from_json(old).missing == ()


def test_a_stage_without_shards_has_a_manifest(store: Store) -> None:
    save_manifest(store, "run", Manifest("relabel", ()))
    assert load_manifest(store, "run", "relabel") == Manifest("relabel", ())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"version": 2, "stage": "recover", "entries": []}']
)
def test_an_incomplete_or_foreign_manifest_is_named(store: Store, data: bytes) -> None:
    path = manifest_path("run", "recover")
    store.put(path, data)
    with pytest.raises(DataError, match=r"recover\.manifest\.json: \d+ bytes are not a manifest"):
        load_manifest(store, "run", "recover")


def test_the_digest_is_that_of_the_contents_whatever_version_wrote_them() -> None:
    plain = Manifest.of("recover", [marker(1), marker(2)])
    newer = replace(plain, numerics={"recover": 1}, built_on={"squeeze": "0" * 64})
    assert plain.digest == newer.digest == Manifest.from_json(newer.to_json()).digest
    for other in (
        Manifest.of("recover", [marker(1)]),
        Manifest.of("recover", [marker(2), marker(1)]),
        Manifest.of("relabel", [marker(1), marker(2)]),
        Manifest.of("recover", [marker(1), marker(2)], missing=["c00003"]),
    ):
        assert other.digest != plain.digest


def test_a_manifest_keeps_the_digests_of_those_that_it_builds_on() -> None:
    built_on = {"squeeze": "0" * 64, "recover": "1" * 64}
    manifest = Manifest.of("relabel", [marker(1)], built_on=built_on)
    assert Manifest.from_json(manifest.to_json()) == manifest
    older = Manifest.of("relabel", [marker(1)])
    assert b"built_on" not in older.to_json()
    assert Manifest.from_json(older.to_json()).built_on is None
