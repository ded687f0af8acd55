"""Nothing is removed without a proof that it is garbage of this project, in this store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_core.errors import ConfigError, DataError
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.identity import ensure_identity, find_identity
from distill_core.storage.manifest import Manifest, manifest_path, save_manifest
from distill_core.storage.records import seal_json
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.gc.collect import Collection, collect
from tasks.run import Run, create_run
from tests.support.planned import (
    SHARDED_STAGES,
    Workshop,
    begin,
    checkpoint,
    commit,
    date,
    drop,
    finish,
    jobs,
    paths,
    stray,
)

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=30)


@pytest.fixture
def run(workshop: Workshop, tmp_path: Path) -> Run:
    """Return a finished run in a store on a disk."""
    return workshop.finished(Store(str(tmp_path / "store")), "first")


@pytest.fixture
def unfinished(workshop: Workshop, tmp_path: Path) -> Run:
    """Return a run of which half of the image shards are made; a driver recorded its stage."""
    run = workshop.register(Store(str(tmp_path / "store")), "first")
    workshop.ingest(run)
    finish(run, "squeeze")
    commit(run, "recover", jobs(run, "recover")[0])
    begin(run, "recover")
    return run


def age(store: Store) -> None:
    """Make every object a month old."""
    date(store, (f.path for f in store.files("", partial=True) if f.regular), OLD)


def gc(store: Store) -> Collection:
    """Age everything, then collect with a grace period of a week."""
    age(store)
    return collect(store)


def marker_of(run: Run, stage: str) -> str:
    """Return the path of the marker of a stage's first shard."""
    return ShardStore(run.store, stage).marker_path(jobs(run, stage)[0].key)


def edit(store: Store, path: str, change: Callable[[str], str]) -> None:
    """Replace the text of an object."""
    store.put(path, change(store.read(path).decode()).encode())


# A folder that is no store, and objects of others in one that is


def test_a_folder_that_never_was_a_store_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    mine = ("datasets/imagenet/train/n01440764/a.jpg", "squeeze/checkpoints/exp-1/model.pt")
    for path in mine:
        store.put(path, b"mine")
    with pytest.raises(ConfigError, match=r"no distill-store\.json here"):
        gc(store)
    assert paths(store) == set(mine)


def test_a_store_of_an_older_version_is_refused_until_a_run_is_registered_again(run: Run) -> None:
    lost = stray(run.store, "recover", new_token())
    run.store.delete(IDENTITY)
    with pytest.raises(ConfigError, match="distill resume RUN"):
        gc(run.store)
    assert run.store.exists(lost)
    create_run(run.config, run.store, run.name)
    assert [item.path for item in gc(run.store).removed] == [lost]


def test_the_identity_of_a_store_is_created_once(run: Run) -> None:
    before = run.store.read(IDENTITY)
    create_run(run.config, run.store, "another")
    assert run.store.read(IDENTITY) == before
    assert find_identity(run.store) == ensure_identity(run.store)


def test_no_run_is_registered_where_the_identity_is_of_another_program(run: Run) -> None:
    run.store.put(IDENTITY, b'{"name": "something else"}')
    with pytest.raises(DataError, match="not the identity of a store"):
        create_run(run.config, run.store, "another")
    assert not run.store.exists("runs/another/run.yaml")


FOREIGN = (
    "recover/data/my-notes.txt",
    "recover/notes.txt",
    "datasets/mine/keep.txt",
    "datasets/mine/index.json",
    "datasets/imagenet/train/n01440764/a.jpg",
    "datasets/other-0123456789ab/readme.txt",
    "squeeze/checkpoints/exp-1/model.pt",
    "squeeze/checkpoints/exp-1/pointer.json",
    "squeeze/_done/mine.json",
    f"squeeze/_done/{'A' * 32}.json",
    f"recover/data/{'a' * 32}-{'b' * 32}.parquet.bak",
    f"recover/data/{'a' * 32}-{'b' * 31}.parquet",
    f"recover/data/deeper/{'a' * 32}-{'b' * 32}.parquet",
    f"recover/checkpoints/{'a' * 32}-{'b' * 32}/notes.txt",
    f"recover/checkpoints/{'a' * 32}-{'b' * 32}.txt",
    ".probe/mine",
    "runs/first/my-notes.txt",
    "runs/mine/notes.txt",
    "runs/.mine.txt.0123456789abcdef.partial",
    "recover/data/download.partial",
)


def test_objects_of_others_are_listed_and_kept(run: Run) -> None:
    for path in FOREIGN:
        run.store.put(path, b"mine")
    before = paths(run.store)
    done = gc(run.store)
    assert done.removed == ()
    assert {file.path for file in done.foreign} == set(FOREIGN)
    drop(run)
    run.store.put("runs/first/my-notes.txt", b"mine")
    gc(run.store)
    assert paths(run.store) == {*FOREIGN, IDENTITY} <= before


# Links


def test_links_are_kept_and_nothing_behind_them_is_removed(run: Run, tmp_path: Path) -> None:
    """Behind each link lie files with names of ours, as if the link led to another store."""
    store, key, token = run.store, new_token(), new_token()
    name = f"{key}-{token}"
    links = {
        "recover/data/linkdir": f"x/{name}.parquet",
        f"relabel/checkpoints/{name}": "pointer.json",
        "select": f"data/{name}.parquet",
        "validate/data": f"{name}.json",
        "datasets/linked-0123456789ab": "index.json",
        "runs/linked": ".run.yaml.0123456789abcdef.partial",
    }
    behind = set()
    for number, (link, inside) in enumerate(links.items()):
        target = tmp_path / f"elsewhere{number}"
        (target / inside).parent.mkdir(parents=True)
        (target / inside).write_bytes(b'{"classes": 1, "fingerprints": 1, "files": 1}')
        os.utime(target / inside, (OLD.timestamp(),) * 2)
        Path(store.url, link).parent.mkdir(parents=True, exist_ok=True)
        Path(store.url, link).symlink_to(target)
        behind.add(target / inside)
    to_file = Path(store.url, f"recover/data/{name}.parquet")
    to_file.symlink_to(next(iter(behind)))
    done = gc(store)
    assert done.removed == ()
    assert all(path.is_file() for path in behind)
    assert to_file.is_symlink()
    assert {file.path for file in done.foreign} == {*links, f"recover/data/{name}.parquet"}


def test_a_folder_of_probes_that_is_a_link_is_refused(run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / new_token()).write_bytes(b"mine")
    Path(run.store.url, ".probe").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"\.probe: a symbolic link"):
        gc(run.store)
    assert len(os.listdir(elsewhere)) == 1


def test_a_link_that_appears_between_the_passes_is_not_followed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, elsewhere = run.store, tmp_path / "elsewhere"
    lost = stray(store, "recover", new_token())
    kept, delete = Path(lost).name, Store.delete_unlinked

    def delete_later(self: Store, path: str) -> bool:
        if not elsewhere.exists():
            Path(store.url, "recover/data").rename(elsewhere)
            Path(store.url, "recover/data").symlink_to(elsewhere)
        return delete(self, path)

    monkeypatch.setattr(Store, "delete_unlinked", delete_later)
    assert gc(store).removed == ()
    assert (elsewhere / kept).is_file()


def test_markers_behind_a_link_keep_the_shards_of_their_stage(run: Run, tmp_path: Path) -> None:
    """The disk behind the link may not be mounted: then no shard seems to have a marker."""
    before = paths(run.store)
    for stage in SHARDED_STAGES:
        run.store.delete(manifest_path(run.name, stage))
    markers = Path(run.store.url, "recover/_done")
    markers.rename(tmp_path / "unmounted")
    markers.symlink_to(tmp_path / "not-mounted")
    assert "recover/" in {item.path for item in gc(run.store).kept}
    assert {path for path in before if path.startswith("recover/data/")} <= paths(run.store)


@pytest.mark.parametrize("folder", ["runs", "runs/first", "published"])
def test_records_of_runs_behind_a_broken_link_stop_the_collection(
    folder: str, run: Run, tmp_path: Path
) -> None:
    lost, link = stray(run.store, "recover", new_token()), Path(run.store.url, folder)
    if link.exists():
        link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "not-mounted")
    with pytest.raises(DataError, match=f"{folder}: a symbolic link without a target"):
        gc(run.store)
    assert run.store.exists(lost)
    link.unlink()
    if folder != "published":
        link.symlink_to(tmp_path / "moved")
    assert {item.path for item in gc(run.store).removed} == {lost}


# Damaged markers


def flip_a_digit(text: str) -> str:
    """Return a marker with one wrong hexadecimal digit in its token, and no digest."""
    tree = json.loads(text)
    digit = "0" if tree["token"][5] != "0" else "1"
    tree["token"] = tree["token"][:5] + digit + tree["token"][6:]
    tree.pop("record_sha256", None)
    return json.dumps(tree)


def other_token(text: str) -> str:
    """Return a marker with one wrong digit in its token, also in the paths of its files."""
    token = json.loads(text)["token"]
    tree = json.loads(text.replace(token, token[:-1] + ("0" if token[-1] != "0" else "1")))
    tree.pop("record_sha256", None)
    return json.dumps(tree)


def other_size(text: str) -> str:
    """Return a marker that states a wrong size."""
    tree = json.loads(text)
    tree["files"][0]["bytes"] += 1
    tree.pop("record_sha256", None)
    return json.dumps(tree)


@pytest.mark.parametrize(
    "damage",
    [flip_a_digit, other_token, other_size, lambda text: text[:-2], lambda text: '{"files": []}'],
)
@pytest.mark.parametrize("registered", [True, False])
def test_a_damaged_marker_keeps_every_file_of_its_shard(
    run: Run, damage: Callable[[str], str], registered: bool
) -> None:
    store, path, key = run.store, marker_of(run, "recover"), jobs(run, "recover")[0].key
    lost = {stray(store, "recover", key), *checkpoint(store, "recover", key)}
    edit(store, path, damage)
    of_shard = {p for p in paths(store) if key in p}
    if not registered:
        drop(run)
    done = gc(store)
    assert lost < of_shard <= paths(store)
    assert path in {item.path for item in done.kept}
    assert all(item.reason.startswith("damaged marker: ") for item in done.kept)


def test_markers_with_swapped_contents_keep_the_files_of_both(run: Run) -> None:
    store, keys = run.store, [job.key for job in jobs(run, "recover")[:2]]
    first, second = (ShardStore(store, "recover").marker_path(key) for key in keys)
    contents = store.read(first), store.read(second)
    store.put(second, contents[0])
    store.delete(first)
    for name in ("recover", "recover.random_real"):
        save_manifest(store, run.name, Manifest(name, ()))
    drop(run)
    before = {path for path in paths(store) if any(key in path for key in keys)}
    assert len(before) == 5
    gc(store)
    assert before <= paths(store)


def test_data_stays_while_its_marker_may_still_be_completed(run: Run) -> None:
    """On disks without hard links, the next writer completes what a killed one has claimed."""
    data = stray(run.store, "recover", new_token())
    marker = f".{data.split('/')[2].partition('-')[0]}.json"
    claim = f"recover/_done/{marker}.claim.partial/{marker}.0123456789abcdef.partial"
    run.store.put(claim, b"{}")
    date(run.store, [data], OLD)
    assert collect(run.store).removed == ()
    assert [item.path for item in gc(run.store).removed] == [claim]
    assert [item.path for item in gc(run.store).removed] == [data]


# Damaged records of runs


@pytest.mark.parametrize("empty", [*SHARDED_STAGES, "recover.random_real", "all"])
def test_an_emptied_manifest_of_a_finished_run_removes_nothing(run: Run, empty: str) -> None:
    names = [name for name in run.store.names(run.path()) if name.endswith(".manifest.json")]
    for stage in (name.removesuffix(".manifest.json") for name in names):
        if empty in (stage, "all"):
            save_manifest(run.store, run.name, Manifest(stage, ()))
    before = paths(run.store)
    assert gc(run.store).removed == ()
    assert paths(run.store) == before


def other_config(run: Run) -> None:
    """Replace the config of a run by one with another number of steps."""
    steps = run.config.recover.steps + 1
    recover = run.config.recover.model_copy(update={"steps": steps})
    config = run.config.model_copy(update={"recover": recover})
    run.store.delete(run.path("run.yaml"))
    create_run(config, run.store, run.name)


@pytest.mark.parametrize("missing", ["squeeze", "recover", "relabel", "posttrain"])
def test_another_config_and_a_missing_manifest_of_a_finished_run_remove_nothing(
    run: Run, missing: str
) -> None:
    run.store.put(run.path("report/index.html"), b"report")
    other_config(run)
    run.store.delete(manifest_path(run.name, missing))
    before = paths(run.store)
    done = gc(run.store)
    assert done.removed == ()
    assert f"{missing}/" in {item.path for item in done.kept}
    assert paths(run.store) == before


def test_a_manifest_of_another_set_of_images_removes_nothing(run: Run) -> None:
    data = run.store.read(manifest_path(run.name, "recover.random_real"))
    run.store.put(manifest_path(run.name, "recover"), data)
    other_config(run)
    before = paths(run.store)
    assert gc(run.store).removed == ()
    assert paths(run.store) == before


def test_a_missing_manifest_keeps_shards_of_the_stage_that_a_driver_had_reached(
    unfinished: Run,
) -> None:
    unfinished.store.delete(manifest_path(unfinished.name, "squeeze"))
    before = paths(unfinished.store)
    done = gc(unfinished.store)
    assert (done.removed, {item.path for item in done.kept}) == ((), {"squeeze/", "recover/"})
    assert paths(unfinished.store) == before


def test_logged_shards_are_kept_though_nothing_else_names_them(unfinished: Run) -> None:
    key, other = jobs(unfinished, "recover")[0].key, new_token()
    event = {"event": "job_finished", "stage": "recover", "shard": "x", "key": key}
    lines = ("not an event", "[1]", json.dumps({**event, "stage": "?"}), json.dumps(event))
    unfinished.store.put(unfinished.path("events/0123abcd-0000.jsonl"), "\n".join(lines).encode())
    other_config(unfinished)
    gone = stray(unfinished.store, "recover", other)
    assert [item.path for item in gc(unfinished.store).removed] == [gone]


def test_a_run_that_is_not_complete_does_not_keep_what_it_does_not_plan(
    workshop: Workshop, unfinished: Run
) -> None:
    other = Run("other", unfinished.config.model_copy(update={"seed": 7}), unfinished.store)
    create_run(other.config, other.store, other.name)
    workshop.ingest(other)
    finish(other, "squeeze")
    marker = commit(other, "recover", jobs(other, "recover")[0])
    drop(other)
    removed = {item.path for item in gc(unfinished.store).removed}
    assert {info.path for info in marker.files} < removed
    assert not {path for path in removed if jobs(unfinished, "recover")[0].key in path}


def test_a_record_of_another_dataset_keeps_the_datasets_of_that_name(run: Run) -> None:
    dataset = json.loads(run.store.read(run.path("ingest.json")))["dataset"]
    other = dataset[:-1] + ("0" if dataset[-1] != "0" else "1")
    facts = {"run": run.name, "dataset": other, "test_images": 2}
    run.store.put(run.path("ingest.json"), seal_json(facts))
    before = paths(run.store)
    assert gc(run.store).removed == ()
    assert paths(run.store) == before


def test_a_damaged_description_keeps_its_dataset(run: Run) -> None:
    (dataset,) = run.store.folders("datasets")
    drop(run)
    run.store.put(f"datasets/{dataset}/index.json", b'{"classes": ')
    before = {path for path in paths(run.store) if path.startswith("datasets/")}
    done = gc(run.store)
    assert [item.path for item in done.kept] == [f"datasets/{dataset}/index.json"]
    assert before <= paths(run.store)


def test_a_teacher_that_only_a_schedule_names_is_kept(run: Run) -> None:
    (teacher,) = (job.key for job in jobs(run, "squeeze"))
    run.store.put("schedules/new-run/weekly.yaml", f"squeeze: {{reuse: {teacher}}}".encode())
    drop(run)
    removed = {item.path for item in gc(run.store).removed}
    assert removed
    assert not any(teacher in path for path in removed)
    assert run.store.exists(f"squeeze/_done/{teacher}.json")


@pytest.mark.parametrize("place", ["runs/archive", "runs.bak", "."])
def test_a_run_that_was_moved_within_the_store_stops_the_collection(run: Run, place: str) -> None:
    root = Path(run.store.url)
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / run.path()).rename(root / place / run.name)
    before = paths(run.store)
    with pytest.raises(DataError, match="the record of a run in a place"):
        gc(run.store)
    assert paths(run.store) == before


@pytest.mark.parametrize("left", [("run.yaml",), ("run.yaml", "ingest.json")])
def test_a_finished_run_of_which_every_other_record_was_deleted_keeps_its_shards(
    run: Run, left: tuple[str, ...]
) -> None:
    for file in run.store.files(run.path()):
        if file.path not in map(run.path, left):
            run.store.delete(file.path)
    before = paths(run.store)
    found = gc(run.store)
    assert found.removed == ()
    assert paths(run.store) == before
    made = {f"{path.split('/')[0]}/" for path in before if "/_done/" in path}
    assert {kept.path for kept in found.kept} >= made  # and kinds that it may have made
