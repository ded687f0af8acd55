"""A race of writers: it finds the stores that a single writer cannot find out about."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, current_thread, main_thread

import pytest

from distill_core.errors import StorageError
from distill_core.storage.race import WRITERS, arbitrates, race
from distill_core.storage.store import PROBES, Store, probe
from tests.support.places import local_store


class LosesRaces(Store):
    """A store that looks and then writes; writers in threads look at the same time."""

    meeting: Barrier | None = None

    def create(self, path: str, data: bytes) -> bool:
        if self.exists(path):
            return False
        meeting = type(self).meeting
        if meeting is not None and current_thread() is not main_thread():
            meeting.wait(60)
        self.put(path, data)
        return True


@pytest.mark.parametrize("url", ["memory://race", "disk"])
def test_of_many_writers_one_wins_and_no_object_is_left(url: str, tmp_path: Path) -> None:
    store = local_store(tmp_path) if url == "disk" else Store(url)
    assert race(store) == 1
    assert arbitrates(store)
    assert store.names(PROBES) == ()


@pytest.mark.parametrize("writers", [4, WRITERS])
def test_a_store_that_loses_races_passes_a_probe_but_not_a_race(
    writers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LosesRaces(str(tmp_path / "store"))
    assert probe(store)
    monkeypatch.setattr(LosesRaces, "meeting", Barrier(writers))
    assert race(store, writers=writers) == writers
    assert store.names(PROBES) == ()


def test_a_single_writer_does_not_hide_that_a_store_loses_races(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LosesRaces(str(tmp_path / "store"), single_writer=True)
    monkeypatch.setattr(LosesRaces, "meeting", Barrier(4))
    assert not arbitrates(store)


def test_a_writer_that_is_refused_ends_the_race_without_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = local_store(tmp_path), []

    def refusing(self: Store, path: str, data: bytes) -> bool:
        calls.append(path)
        if len(calls) == 3:
            raise StorageError(f"{path}: refused")
        self.put(path, data)
        return False

    monkeypatch.setattr(Store, "create", refusing)
    with pytest.raises(StorageError, match="refused"):
        race(store, writers=4)
    assert store.names(PROBES) == ()
