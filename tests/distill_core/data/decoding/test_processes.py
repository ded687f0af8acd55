"""Images decoded by processes are those decoded here, and so are their errors; nothing stays."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import psutil
import pytest

from distill_core import machine_share
from distill_core.config.data import DataConfig
from distill_core.data.decoding import processes
from distill_core.data.index import DatasetIndex
from distill_core.data.ingest import ingest
from distill_core.data.real_images import RealImages
from distill_core.errors import ClusterError, ConfigError, DataError
from distill_core.storage.store import Store
from tests.support.datasets import data_config, image_folder, png, write_parquet

IMAGES = 60


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let two halves of shared memory hold four images each; no process may stay."""
    monkeypatch.setattr(processes, "SHARED_BYTES", 2 * 4 * 3 * 8 * 8)
    monkeypatch.setattr(processes, "SPAN", 16)
    monkeypatch.setattr(processes, "MIN_SPAN", 1)
    yield
    gc.collect()
    assert children() == []


def children() -> list[int]:
    """Return the processes that this one started and that still run, decoders only."""
    return [
        child.pid
        for child in psutil.Process().children()
        if any("distill_core.data.decoding.rows" in part for part in child.cmdline())
    ]


def parquet_dataset(folder: Path) -> tuple[DataConfig, DatasetIndex]:
    """Return a dataset of two classes in several files and row groups, and its index."""
    for name, values in (("train", range(IMAGES)), ("test", range(100, 104))):
        rows = [(png(value), value % 2) for value in values]
        for part in (0, 1):
            write_parquet(
                folder / f"{name}-{part}.parquet", rows[part::2] + rows[:1], row_group_size=7
            )
    config = data_config(folder, format="parquet")
    return config, ingest(config, Store(str(folder / "store")))


def test_processes_decode_the_same_pixels_as_this_process(tmp_path: Path) -> None:
    config, index = parquet_dataset(tmp_path)
    here = RealImages(config, index, "train", decoders=1, start_pixels=0)
    there = RealImages(config, index, "train", decoders=2, start_pixels=0)
    seen: list[tuple[int, int]] = []
    pixels = there.resident(progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(pixels, here.resident())
    assert seen == [(16, 62), (32, 62), (48, 62), (62, 62)]
    assert children() == []
    shuffled = np.random.default_rng(0).integers(0, 62, 50)
    assert np.array_equal(there.pixels(shuffled), pixels[shuffled])
    started = children()
    assert len(started) == 2
    assert np.array_equal(there.pixels([3]), pixels[[3]])
    assert there.pixels([]).shape == (0, 3, 8, 8)
    assert children() == started
    there.close()
    assert children() == []


def test_few_images_start_no_process(tmp_path: Path) -> None:
    config, index = parquet_dataset(tmp_path)
    images = RealImages(config, index, "train", decoders=2, start_pixels=20 * 64 * 64)
    images.pixels(range(19))
    assert children() == []
    images.pixels([0])  # one more than what is worth it, all in all
    assert len(children()) == 2
    assert RealImages(config, index, "train", decoders=1, start_pixels=0).resident().shape[0] == 62
    assert len(children()) == 2
    del images


@pytest.mark.parametrize("change", ["other", "gone"])
def test_an_unreadable_image_gives_the_same_message_from_any_process(
    tmp_path: Path, change: str
) -> None:
    config = data_config(image_folder(tmp_path / "data"))
    index = ingest(config, Store(str(tmp_path / "store")))
    for name in ("10", "12"):
        file = tmp_path / "data" / "train" / "dog" / f"{name}.png"
        file.unlink() if change == "gone" else file.write_bytes(png(99))
    said = []
    for count in (1, 2):
        images = RealImages(config, index, "train", decoders=count, start_pixels=0)
        with pytest.raises(DataError, match=r"train/dog/10\.png") as caught:
            images.pixels(range(6))
        said.append(str(caught.value))
        for _ in range(4):  # no answer is left over for the next one
            assert np.array_equal(images.pixels([2, 0])[1], images.pixels([0])[0])
        assert len(children()) == (0 if count == 1 else 2)
        with pytest.raises(DataError):
            images.resident()
        assert children() == []
    assert said[0] == said[1]


def test_threads_share_processes_and_each_gets_its_own_image(tmp_path: Path) -> None:
    config, index = parquet_dataset(tmp_path)
    images = RealImages(config, index, "train", decoders=2, start_pixels=0)
    expected = RealImages(config, index, "train", decoders=1).resident()
    rows = [np.random.default_rng(n).permutation(62)[:30] for n in range(12)]
    with ThreadPoolExecutor(4) as threads:
        for found, asked in zip(threads.map(images.pixels, rows), rows, strict=True):
            assert np.array_equal(found, expected[asked])
    (tmp_path / "train-1.parquet").unlink()
    images.close()
    whole = [row for row, uri in enumerate(index.train["uri"].to_pylist()) if "train-0" in uri]
    with ThreadPoolExecutor(2) as threads:
        good = [threads.submit(images.pixels, whole) for _ in range(3)]
        bad = threads.submit(images.pixels, range(62))
        good += [threads.submit(images.pixels, whole) for _ in range(3)]
        assert all(np.array_equal(each.result(), expected[whole]) for each in good)
        with pytest.raises(DataError, match=r"train-1\.parquet"):
            bad.result()


def test_a_small_batch_leaves_decoders_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of one request each wait for each other in two decoders, or never end."""
    monkeypatch.setattr(processes, "MIN_SPAN", 16)
    config, index = parquet_dataset(tmp_path)
    images = RealImages(config, index, "train", decoders=2, start_pixels=0)
    expected = RealImages(config, index, "train", decoders=1).resident()
    both, read = Barrier(2), processes._Decoder.read

    def meet(self: processes._Decoder, *request: Any) -> None:
        both.wait(timeout=60)
        read(self, *request)

    monkeypatch.setattr(processes._Decoder, "read", meet)
    with ThreadPoolExecutor(2) as threads:
        batches = threads.map(images.pixels, (range(16), range(40, 56)))
        assert np.array_equal(np.concatenate(list(batches)), expected[[*range(16), *range(40, 56)]])


def test_a_lost_process_is_named_and_others_take_its_place(tmp_path: Path) -> None:
    config, index = parquet_dataset(tmp_path)
    images = RealImages(config, index, "train", decoders=2, start_pixels=0)
    before = images.pixels(range(8))
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ClusterError, match=r"SIGKILL.*DISTILL_DECODERS"):
        images.pixels(range(8))
    assert np.array_equal(images.pixels(range(8)), before)


def test_a_request_that_cannot_be_sent_leaves_no_answer_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one would take the pixels that are there for those that it has asked for."""
    config, index = parquet_dataset(tmp_path)
    expected = RealImages(config, index, "train", decoders=1).resident()
    images = RealImages(config, index, "train", decoders=2, start_pixels=0)
    request = processes._Decoder._request

    def fail(self: processes._Decoder, part: Any, half: int) -> None:
        if half == 1:
            raise MemoryError
        request(self, part, half)

    with monkeypatch.context() as patch:
        patch.setattr(processes._Decoder, "_request", fail)
        with pytest.raises(MemoryError):
            images.pixels(range(16))  # eight for each process, whose memory has halves of four
    for row in range(40, 50):
        assert np.array_equal(images.pixels([row])[0], expected[row])


def test_an_interrupted_read_ends_with_requests_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of 16 requests is answered; two wait in their threads, the others in the queue."""
    monkeypatch.setattr(processes, "SPAN", 4)
    config, index = parquet_dataset(tmp_path)
    images = RealImages(config, index, "train", decoders=2, start_pixels=0)
    numbers, closed, raised = itertools.count(), Event(), list[BaseException]()
    read, stop = processes._Decoder.read, processes._stop

    def held(self: processes._Decoder, *request: Any) -> None:
        if next(numbers):
            closed.wait(timeout=60)
        read(self, *request)

    def stopped(*pool: Any) -> None:
        stop(*pool)
        closed.set()

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    def reading() -> None:
        try:
            images.pixels(range(62), progress=interrupt)
        except KeyboardInterrupt as error:
            raised.append(error)

    monkeypatch.setattr(processes._Decoder, "read", held)
    monkeypatch.setattr(processes, "_stop", stopped)
    thread = Thread(target=reading, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert len(raised) == 1
    assert children() == []


def _decode(
    config: DataConfig, index: DatasetIndex, say: Callable[[tuple[int, ...]], None]
) -> None:
    say(RealImages(config, index, "train", decoders=2, start_pixels=0).pixels(range(8)).shape)


def test_a_daemonic_worker_can_start_decoding_processes(tmp_path: Path) -> None:
    config, index = parquet_dataset(tmp_path)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_decode, args=(config, index, theirs.send), daemon=True)
    worker.start()
    theirs.close()
    assert ours.recv() == (8, 3, 8, 8)
    worker.join()


ENDLESS = """
import sys
from pathlib import Path
from distill_core.data import real_images
from distill_core.data.index_files import load_index
from distill_core.storage.store import Store
from tests.support.datasets import data_config
config = data_config(sys.argv[1], format="parquet")
index = load_index(Store(sys.argv[1] + "/store"), sys.argv[2])
images = real_images.RealImages(config, index, "train", decoders=2, start_pixels=0)
while True:
    images.pixels(range(60))
    print(*(decoder.process.pid for decoder in images._decoders._all), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_or_killed_parent(tmp_path: Path, number: int) -> None:
    _, index = parquet_dataset(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path), index.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    family = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(family) == 2
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        os.kill(parent.pid, number)
    parent.stdout.read()  # ends when all who hold it have ended
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs([p for p in psutil.process_iter() if p.pid in family], 30)
    assert alive == []


def test_the_environment_sets_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_DECODERS", "3")
    assert processes.default_decoders() == 3
    monkeypatch.setenv("DISTILL_DECODERS", "many")
    with pytest.raises(ConfigError, match="DISTILL_DECODERS: 'many', expected 1 or more"):
        processes.default_decoders()
    monkeypatch.delenv("DISTILL_DECODERS")
    assert processes.default_decoders() == machine_share.usable_cpus()


def test_workers_divide_the_cpus_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTILL_DECODERS", raising=False)
    monkeypatch.setattr(machine_share, "usable_cpus", lambda: 96)
    for workers, decoders in ((1, 96), (8, 12), (96, 1), (200, 1)):
        monkeypatch.setenv(machine_share.WORKERS, str(workers))
        assert processes.default_decoders() == decoders
