"""Facts that are stored twice are compared: every command that needs them finds a difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_core.errors import DataError
from distill_core.storage.manifest import load_manifest
from distill_core.storage.records import seal_json
from distill_core.storage.store import Store
from flows.maintenance.verify import verify_run
from flows.status.status import run_status
from tasks.run import Run, open_run
from tests.support.cli import Distill
from tests.support.fabricate import finished_run
from tests.support.flipped import complete_store, flips

Harm = Callable[[Run], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a finished run."""
    return finished_run(tmp_path)


def reseal(run: Run, path: str, change: Callable[[dict[str, object]], object]) -> str:
    """Change a record of JSON, with the digest that it then has."""
    tree = json.loads(run.store.read(path))
    change(tree)
    run.store.put(path, seal_json(tree))
    return path


def edit(run: Run, path: str, change: Callable[[dict[str, object]], object]) -> str:
    """Change a record of JSON and keep the digest that it had."""
    tree = json.loads(run.store.read(path))
    change(tree)
    run.store.put(path, json.dumps(tree, indent=1).encode())
    return path


def manifest(run: Run, name: str) -> str:
    """Return the path of a manifest."""
    return run.path(f"{name}.manifest.json")


def index_path(run: Run) -> str:
    """Return the path of the description of the dataset."""
    dataset = json.loads(run.store.read(run.path("ingest.json")))["dataset"]
    return f"datasets/{dataset}/index.json"


def table_path(run: Run) -> str:
    """Return the path of the table of the training split."""
    folder = index_path(run).removesuffix(".json")
    return next(f.path for f in run.store.files(folder) if "/train-" in f.path)


def first_marker(run: Run, stage: str) -> str:
    """Return the path of a marker."""
    return next(file.path for file in run.store.files(f"{stage}/_done"))


def without_entries(run: Run) -> str:
    """Empty a manifest."""
    return reseal(run, manifest(run, "recover"), lambda tree: tree.update(entries=[]))


def without_one_entry(run: Run) -> str:
    """Drop one entry of a manifest."""
    return reseal(run, manifest(run, "posttrain"), lambda tree: tree["entries"].pop())  # type: ignore[attr-defined]


def of_another_set(run: Run) -> str:
    """Give a manifest the entries of the baseline's."""
    other = json.loads(run.store.read(manifest(run, "recover.random_real")))["entries"]
    return reseal(run, manifest(run, "recover"), lambda tree: tree.update(entries=other))


def edited_manifest(run: Run) -> str:
    """Empty a manifest by hand."""
    return edit(run, manifest(run, "recover"), lambda tree: tree.update(entries=[]))


def of_another_stage(run: Run) -> str:
    """Put one manifest in the place of another."""
    run.store.put(manifest(run, "relabel"), run.store.read(manifest(run, "recover")))
    return manifest(run, "relabel")


def of_another_run(run: Run) -> str:
    """Give the run the dataset record of another run."""
    return reseal(run, run.path("ingest.json"), lambda tree: tree.update(run="another"))


def flipped_table(run: Run) -> str:
    """Change a byte of a table of the index."""
    path = table_path(run)
    data = bytearray(run.store.read(path))
    data[len(data) // 2] ^= 4
    run.store.put(path, bytes(data))
    return path


def deleted_table(run: Run) -> str:
    """Delete a table of the index."""
    run.store.delete(table := table_path(run))
    return table


def emptied_description(run: Run) -> str:
    """Empty the description of the dataset."""
    run.store.put(index_path(run), b"")
    return index_path(run)


def of_another_dataset(run: Run) -> str:
    """Let the description of the dataset state another fingerprint."""
    return reseal(run, index_path(run), lambda tree: tree.update(test_fingerprint="0" * 64))


def with_other_steps(run: Run) -> str:
    """Change a value of run.yaml."""
    text = run.store.read(run.path("run.yaml")).decode()
    assert "steps: 4" in text
    run.store.put(run.path("run.yaml"), text.replace("steps: 4", "steps: 5").encode())
    return run.path("run.yaml")


DAMAGE: list[Harm] = [
    without_entries,
    without_one_entry,
    of_another_set,
    edited_manifest,
    of_another_stage,
    of_another_run,
    flipped_table,
    deleted_table,
    emptied_description,
    of_another_dataset,
    with_other_steps,
]


@pytest.mark.parametrize("harm", DAMAGE)
def test_verify_finds_it_and_names_the_file(run: Run, distill: Distill, harm: Harm) -> None:
    path = harm(run)
    output = distill("verify", run.name, "--store", run.store.url)
    assert output.code in (1, 2)
    assert path in output.out + output.err


# What only a full read shows is left to `verify`: a manifest that lists what exists but is not the
# plan's is out of date, and a fingerprint follows from the tables.
@pytest.mark.parametrize("harm", [h for h in DAMAGE if h is not of_another_dataset])
def test_status_never_calls_it_complete(run: Run, distill: Distill, harm: Harm) -> None:
    harm(run)
    output = distill("status", "--store", run.store.url, "--json")
    (tree,) = json.loads(output.out)
    hashed = harm is flipped_table  # `resume` and `verify` hash the tables
    assert tree["complete"] == hashed
    assert output.code == (1 if tree["problem"] else 0)
    assert "\n" not in tree["problem"]


@pytest.mark.parametrize("harm", [h for h in DAMAGE if h is not of_another_dataset])
def test_resume_repairs_it_or_names_the_file(run: Run, distill: Distill, harm: Harm) -> None:
    path = harm(run)
    output = distill("resume", run.name, "--store", run.store.url, "--local")
    if output.code:
        assert path in output.err
        assert len(output.err.splitlines()) == 1
    else:
        assert not verify_run(open_run(run.store, run.name)).damage


def test_a_manifest_that_lists_other_shards_is_written_again(run: Run, distill: Distill) -> None:
    before = load_manifest(run.store, run.name, "recover")
    without_entries(run)
    assert distill("resume", run.name, "--store", run.store.url, "--local").code == 0
    after = load_manifest(run.store, run.name, "recover")
    assert before is not None
    assert after is not None
    assert after.digest == before.digest


def unsealed(run: Run, **changes: str) -> Run:
    """Return the run as an older version registered it, with values changed by hand."""
    text = run.store.read(run.path("run.yaml")).decode()
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    for old, new in changes.items():
        text = text.replace(f"{old}: 4", f"{old}: {new}")
    run.store.put(run.path("run.yaml"), text.encode())
    return open_run(run.store, run.name)


def test_a_run_of_an_older_version_is_complete(run: Run) -> None:
    old = unsealed(run)
    assert not old.sealed
    assert run_status(old).complete
    assert not verify_run(old).damage


def test_an_edited_run_of_an_older_version_is_refused_once_its_shards_exist(run: Run) -> None:
    old = unsealed(run)
    without_entries(old)
    with pytest.raises(DataError, match=r"recover\.manifest\.json: lists 0 shards.* has 1"):
        run_status(old)


@pytest.mark.parametrize("text", ["{}", "# nothing\n", "seed: 0\n# record\n", "\xff"])
def test_a_file_that_no_run_was_registered_with_is_refused(run: Run, text: str) -> None:
    run.store.put(run.path("run.yaml"), text.encode("latin1"))
    with pytest.raises(DataError, match=r"runs/tiny/run\.yaml: "):
        open_run(run.store, run.name)


def test_the_config_of_another_run_is_refused(run: Run) -> None:
    run.store.put("runs/other/run.yaml", run.store.read(run.path("run.yaml")))
    with pytest.raises(DataError, match="the config of run 'tiny', expected 'other'"):
        open_run(run.store, "other")


@pytest.mark.parametrize("field", ["token", "key", "shard", "stage"])
def test_one_wrong_character_of_a_marker_is_found(run: Run, field: str) -> None:
    path = first_marker(run, "recover")
    text = json.loads(run.store.read(path))[field]
    wrong = ("0" if text[0] != "0" else "1") + text[1:]
    edit(run, path, lambda tree: tree.update({field: wrong}))
    (damage,) = verify_run(run).damage
    assert damage.path == path
    assert "damaged or edited" in damage.problem


@pytest.mark.parametrize("field", ["token", "key", "stage"])
def test_a_marker_of_another_place_is_found(run: Run, field: str) -> None:
    path = first_marker(run, "recover")
    reseal(run, path, lambda tree: tree.update({field: "0" * 32}))
    (damage,) = verify_run(run).damage
    assert damage.path == path


def test_swapped_markers_are_found_and_no_manifest_is_made_of_them(
    run: Run, distill: Distill
) -> None:
    first, second = (file.path for file in run.store.files("recover/_done"))
    old = run.store.read(first)
    run.store.put(first, run.store.read(second))
    run.store.put(second, old)
    assert {damage.path for damage in verify_run(run).damage} == {first, second}
    run.store.delete(manifest(run, "recover"))
    output = distill("resume", run.name, "--store", run.store.url, "--local")
    assert output.code != 0
    assert not run.store.exists(manifest(run, "recover"))


def test_flipped_bytes_of_every_file_are_found(tmp_path: Path) -> None:
    """One byte in 401, and the first and the last of every file; a script flips each one."""
    run = complete_store(tmp_path, f"memory://{tmp_path.name}")
    tried = list(flips(run, every=401))
    assert {flip.path for flip in tried} == {file.path for file in Store(run.store.url).files("")}
    assert [flip for flip in tried if not flip.found] == []


def without_seal(run: Run, path: str, change: Callable[[dict[str, object]], object]) -> None:
    """Change a record and remove its digest, as an editor would who knows of it."""
    tree = json.loads(run.store.read(path))
    change(tree)
    del tree["record_sha256"]
    run.store.put(path, json.dumps(tree).encode())


@pytest.mark.parametrize("name", ["squeeze.manifest.json", "posttrain.manifest.json"])
def test_a_record_without_a_digest_is_refused_in_a_run_that_has_one(
    run: Run, distill: Distill, name: str
) -> None:
    without_seal(run, run.path(name), lambda tree: tree.update(entries=[]))
    for command in (("verify",), ("status",), ("resume", "--local")):
        output = distill(*command, run.name, "--store", run.store.url)
        assert output.code in (1, 2)
        assert name in output.out + output.err


def test_other_numerics_do_not_hide_a_missing_shard(run: Run) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["numerics"]["validate"] += 1
        tree["entries"].pop()

    reseal(run, manifest(run, "posttrain"), change)
    (damage,) = verify_run(run).damage
    assert damage.path == manifest(run, "posttrain")


def test_an_edited_result_in_a_marker_without_a_digest_is_found(run: Run) -> None:
    path = first_marker(run, "posttrain")
    tree = json.loads(run.store.read(path))
    suffixes = {file["suffix"] for file in tree["files"]}
    without_seal(run, path, lambda tree: tree["summary"].update(best={"top1": 98.7}))
    assert suffixes == {"result.json"}
    (damage,) = verify_run(run).damage
    assert (damage.path, "'best'" in damage.problem) == (path, True)


def test_an_empty_manifest_of_teachers_is_one_line(run: Run, distill: Distill) -> None:
    reseal(run, manifest(run, "squeeze"), lambda tree: tree.update(entries=[]))
    output = distill("verify", run.name, "--store", run.store.url)
    assert output.code == 1
    assert manifest(run, "squeeze") in output.out


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}"])
def test_a_damaged_record_of_the_dataset_does_not_stop_verify(
    run: Run, distill: Distill, content: bytes
) -> None:
    run.store.put(run.path("ingest.json"), content)
    shard = run.store.files("recover/data")[0].path
    run.store.put(shard, b"damaged")
    output = distill("verify", run.name, "--store", run.store.url)
    assert output.code == 1
    assert run.path("ingest.json") in output.out
    assert shard in output.out


def test_a_missing_record_of_the_dataset_is_damage_once_later_stages_are_complete(run: Run) -> None:
    run.store.delete(run.path("ingest.json"))
    assert run.path("ingest.json") in {damage.path for damage in verify_run(run).damage}


def test_files_of_others_in_the_folder_of_a_run_are_no_damage(run: Run) -> None:
    for name in ("drivers/mine.json", "events/sub/x.jsonl", "notes.txt"):
        run.store.put(run.path(name), b"mine")
    assert not verify_run(run).damage


def test_the_index_of_the_version_before_is_checked(tmp_path: Path) -> None:
    run = complete_store(tmp_path, f"memory://{tmp_path.name}", previous="gone-0123456789ab")
    paths = {damage.path for damage in verify_run(run).damage}
    assert "datasets/gone-0123456789ab/index.json" in paths
