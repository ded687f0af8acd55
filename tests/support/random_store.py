"""Random stores on a disk: runs, leftovers, objects of others, links, and damaged records."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from distill_core.errors import DistillError
from distill_core.storage.identity import PATH as IDENTITY
from distill_core.storage.listing import StoredFile
from distill_core.storage.manifest import Manifest, manifest_path, save_manifest
from distill_core.storage.shard_store import ShardStore, new_token
from distill_core.storage.store import Store
from tasks.run import Run, create_run
from tasks.stages.inputs import NotReady
from tests.support.planned import (
    Workshop,
    begin,
    checkpoint,
    commit,
    date,
    drop,
    finish,
    jobs,
    reachable,
    stray,
    wanted,
)

NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=30), NOW - timedelta(days=1)
STAGES = ("squeeze", "recover", "relabel", "posttrain")  # that have shards in these runs
Refs = set[tuple[str, str]]  # (kind, key)


def foreign_names(key: str, token: str) -> list[str]:
    """Return paths in the folders of a store that this project never writes."""
    return [
        "recover/data/my-notes.txt",
        "datasets/mine/keep.txt",
        "datasets/imagenet/train/n01440764/a.jpg",
        "squeeze/checkpoints/exp-1/model.pt",
        f"relabel/data/{key}-{token}.parquet.bak",
        f"posttrain/checkpoints/{key}-{token}/notes.txt",
        f"squeeze/_done/{key}.json.orig",
        "runs/.mine.txt.0123456789abcdef.partial",
        "runs/mine/notes.txt",
        ".probe/mine",
    ]


class RandomStore:
    """A store with runs that share shards, some dropped and some damaged, and what attempts left.

    Attributes:
        kept: the runs that are registered.
        needed: contents of everything that must survive any collection, by path.
        outside: files behind links, which must survive as well.
    """

    def __init__(self, workshop: Workshop, rng: random.Random, folder: Path) -> None:
        self.store, self._rng, self._workshop = Store(str(folder / "store")), rng, workshop
        self._originals: dict[str, bytes] = {}  # of damaged records
        self._stopped: list[tuple[Run, str]] = []  # stages that damage interrupted
        runs = [self._run(f"run{n}") for n in range(rng.randrange(1, 5))]
        keys = sorted(set().union(*map(wanted, runs)))
        keys += [(rng.choice(STAGES), new_token()) for _ in range(3)]
        for _ in range(rng.randrange(6)):
            stray(self.store, *rng.choice(keys))
        for _ in range(rng.randrange(6)):
            checkpoint(self.store, *rng.choice(keys))
        self.store.put(f".probe/{new_token()}", b"probe")
        self.kept = [run for run in runs if rng.random() < 0.6]
        self.dropped = [run for run in runs if run not in self.kept]
        self._released = self._release()
        for run in self.dropped:
            drop(run)
        self.foreign = self._put_foreign()
        self.outside = list(self._link(folder))
        needed = self.survivors()
        self._damage()
        self.needed = {p: self.store.read(p) for p in {*needed, *self._originals} & self.paths()}
        self.young = self._age()

    def survivors(self) -> set[str]:
        """Return what a collection has to leave, however old; records must not be damaged."""
        found = set().union(self.foreign, *map(reachable, self.kept), {IDENTITY})
        refs = self._released.union(*map(wanted, self.kept))
        for kind, key in self._released:
            if marker := ShardStore(self.store, kind).marker(key):
                found |= {f"{kind}/_done/{key}.json", *(info.path for info in marker.files)}
        found |= {file.path for file in self._files() if file.path.startswith("published/")}
        found |= {f.path for f in self._files() if self._useful_checkpoint(f.path, refs)}
        return found - {f.path for f in self.store.files("") if not f.regular}

    def lost(self) -> set[str]:
        """Return needed objects and files outside that are gone or changed.

        A checkpoint is not needed any more if a driver has committed its shard since.
        """
        contents = {path: self.store.read(path) for path in self.paths()}
        lost = {path for path, data in self.needed.items() if contents.get(path) != data}
        lost = {path for path in lost if "/checkpoints/" not in path or not self._committed(path)}
        return lost | {str(path) for path in self.outside if not path.is_file()}

    def work(self) -> None:
        """Do what drivers may do between the passes of a collection."""
        if self.dropped and self._rng.random() < 0.5:
            again = self.dropped.pop()
            self._workshop.ingest(create_run(again.config, self.store, again.name))
            self.kept.append(again)
            self._finish(again, "squeeze")
        for run in self.kept:
            stage = self._rng.choice(STAGES)
            if not any(path.startswith(run.path()) for path in self._originals):
                self._finish(run, stage)

    def _finish(self, run: Run, stage: str) -> None:
        """Finish a stage; a driver that meets a damaged record stops, maybe between manifests."""
        try:
            finish(run, stage)
        except DistillError:
            self._stopped.append((run, stage))

    def repair(self) -> None:
        """Undo the damage, and make everything old."""
        for path, data in self._originals.items():
            self.store.put(path, data)
        self.needed |= self._originals
        self._originals = {}
        for run, stage in self._stopped:
            with suppress(NotReady):  # a stage before it is not done
                finish(run, stage)
        self._stopped = []
        date(self.store, (file.path for file in self._files()), OLD)

    def paths(self) -> set[str]:
        """Return every object of the store; links are none."""
        return {file.path for file in self._files()}

    def _files(self) -> list[StoredFile]:
        return [file for file in self.store.files("", partial=True) if file.regular]

    def _run(self, name: str) -> Run:
        """Return a run that is registered, ingested, in the middle of a stage, or done."""
        rng = self._rng
        which = (f"seed={rng.randrange(2)}", f"ipc={rng.randrange(1, 3)}")
        run = self._workshop.register(self.store, name, *which)
        reached = rng.randrange(-1, len(STAGES) + 1)
        if reached < 0:
            begin(run)
            return run
        self._workshop.ingest(run)
        for stage in STAGES[:reached]:
            finish(run, stage)
        for stage in STAGES[reached : reached + 1]:
            begin(run, stage)
            for job in jobs(run, stage):
                if rng.random() < 0.5:
                    commit(run, stage, job)
        if reached == len(STAGES):
            self.store.put(run.path("report/index.html"), b"report")
        return run

    def _release(self) -> Refs:
        """Publish a manifest of a run that is dropped; return its shards."""
        for run in self.dropped:
            path = manifest_path(run.name, "recover")
            if self.store.exists(path) and self._rng.random() < 0.5:
                data = self.store.read(path)
                self.store.put("published/tiny-1/recover.manifest.json", data)
                return {("recover", entry.key) for entry in Manifest.from_json(data).entries}
        return set()

    def _put_foreign(self) -> set[str]:
        names = foreign_names(new_token(), new_token())
        chosen = set(self._rng.sample(names, self._rng.randrange(len(names))))
        for path in chosen:
            self.store.put(path, b"mine")
        return chosen

    def _link(self, folder: Path) -> Iterator[Path]:
        """Put links into the store that lead to files with names of ours; yield those."""
        name = f"{new_token()}-{new_token()}"
        links = {
            "recover/data/linkdir": f"{name}.parquet",
            f"relabel/checkpoints/{name}": "pointer.json",
            "datasets/linked-0123456789ab": "index.json",
            "runs/linked": ".run.yaml.0123456789abcdef.partial",
        }
        for number, (link, inside) in enumerate(links.items()):
            if self._rng.random() < 0.3:
                file = folder / f"elsewhere{number}" / inside
                file.parent.mkdir()
                file.write_bytes(b"outside")
                os.utime(file, (OLD.timestamp(),) * 2)
                Path(self.store.url, link).parent.mkdir(parents=True, exist_ok=True)
                Path(self.store.url, link).symlink_to(file.parent)
                yield file

    def _damage(self) -> None:
        """Damage some markers, and the records of at most one run that is kept."""
        rng = self._rng
        markers = sorted(
            path for path in self.paths() if "/_done/" in path and path[-5:] == ".json"
        )
        for path in rng.sample(markers, min(len(markers), rng.randrange(3))):
            self._originals[path] = self.store.read(path)
            self.store.put(path, rng.choice(MARKER_DAMAGE)(self._originals[path], rng))
        if self.kept and rng.random() < 0.6:
            self._damage_records(rng.choice(self.kept))

    def _damage_records(self, run: Run) -> None:
        names = [n for n in self.store.names(run.path()) if n.endswith(".manifest.json")]
        chosen = self._rng.sample(names, self._rng.randrange(len(names) + 1))
        for name in chosen:
            self._originals[run.path(name)] = self.store.read(run.path(name))
            self.store.delete(run.path(name))
            if self._rng.random() < 0.5:
                save_manifest(
                    self.store, run.name, Manifest(name.removesuffix(".manifest.json"), ())
                )
        finished = self.store.exists(run.path("report/index.html"))
        if chosen and finished and self._rng.random() < 0.5:
            self._originals[run.path("run.yaml")] = self.store.read(run.path("run.yaml"))
            self.store.delete(run.path("run.yaml"))
            recover = run.config.recover.model_copy(update={"steps": run.config.recover.steps + 1})
            create_run(run.config.model_copy(update={"recover": recover}), self.store, run.name)

    def _age(self) -> set[str]:
        """Make what was written together old or young; return the young."""
        units: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.paths()):
            units[self._unit(path)].append(path)
        young: set[str] = set()
        for unit in units.values():
            is_old = self._rng.random() < 0.7
            date(self.store, unit, OLD if is_old else YOUNG)
            young |= set() if is_old else set(unit)
        return young

    def _unit(self, path: str) -> str:
        stage, area, name = (*path.split("/"), "", "")[:3]
        if stage == "datasets":
            return area
        if area in ("_done", "data"):
            return stage + name.partition(".")[0].partition("-")[0]
        return name if area == "checkpoints" else path

    def _useful_checkpoint(self, path: str, refs: Refs) -> bool:
        stage, area, name = (*path.split("/"), "", "")[:3]
        needed = area == "checkpoints" and (stage, name.partition("-")[0]) in refs
        return needed and not self._committed(path)

    def _committed(self, checkpoint: str) -> bool:
        """Return whether the shard of a checkpoint has a marker."""
        stage, _, name = checkpoint.split("/")[:3]
        return name.partition("-")[0] in ShardStore(self.store, stage).done()


def _flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(7)]) + data[place + 1 :]


def _other_token(data: bytes, rng: random.Random) -> bytes:
    tree = json.loads(data)
    tree["token"] = new_token()
    tree.pop("record_sha256", None)
    return json.dumps(tree).encode()


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


MARKER_DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _other_token, _cut)
