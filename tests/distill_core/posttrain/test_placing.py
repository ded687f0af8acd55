"""Images go to the device that trains if they fit what is free there, and else stay on the host."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.errors import ConfigError
from distill_core.posttrain.placing import VARIABLE, PlacedImages, place
from distill_core.training.supervised import Labelled
from distill_core.transforms.pixel_store import HostPixels, take
from tests.support.fake_cuda import fake_cuda
from tests.support.fake_cuda.machine import MEMORY
from tests.support.tiny import labelled

IMAGES = labelled(6)


def images_of(size: int) -> Labelled:
    """Return images that state so many bytes and have none."""
    empty = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (size // 12, 3, 2, 2), (0,) * 4)
    return Labelled(empty, np.zeros(len(empty), np.int64))


@pytest.mark.parametrize(
    ("used", "workers", "size", "fits"),
    [
        (0, 1, MEMORY // 2 - 12, True),
        (0, 1, MEMORY // 2 + 12, False),
        (MEMORY // 2, 1, MEMORY // 4 + 12, False),  # its networks are there
        (0, 4, MEMORY // 8 - 12, True),
        (0, 4, MEMORY // 8 + 12, False),  # four workers share the GPU
    ],
)
def test_images_may_take_half_of_what_is_free(
    used: int, workers: int, size: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_WORKERS_PER_GPU", str(workers))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: used)
    notices: list[str] = []
    with fake_cuda():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (MEMORY - used, MEMORY))
        monkeypatch.setattr("distill_core.posttrain.placing.upload", lambda array, _: array)
        placed = place(images_of(size), "cuda", notices.append)
    assert isinstance(placed.pixels, HostPixels) != fits
    assert len(notices) == (not fits)
    assert all("stay in the memory of the host" in notice for notice in notices)


def test_a_variable_states_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = IMAGES.pixels.nbytes
    for stated, fits in ((size, True), (size - 1, False)):
        monkeypatch.setenv(VARIABLE, str(stated))
        with fake_cuda():
            placed = place(IMAGES, "cuda")
            assert isinstance(placed.pixels, HostPixels) != fits
            assert take(placed.pixels, np.array([4, 1])).device.type == "cuda"
    monkeypatch.setenv(VARIABLE, "8 GB")
    with fake_cuda(), pytest.raises(ConfigError, match=f"{VARIABLE}: '8 GB', expected bytes"):
        place(IMAGES, "cuda")


def test_a_cpu_uses_the_array_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    placed = place(IMAGES, "cpu")
    assert isinstance(placed.pixels, torch.Tensor)
    assert placed.pixels.data_ptr() == IMAGES.pixels.ctypes.data
    assert place(placed, "cpu") is placed


def test_rows_of_the_host_are_those_of_the_device() -> None:
    pixels = torch.from_numpy(IMAGES.pixels)
    host = PlacedImages(HostPixels(pixels, torch.device("cpu")), IMAGES.labels).pixels
    rows = np.array([5, 0, 0, 3], np.int32)
    assert torch.equal(take(host, rows), take(pixels, rows))
    assert torch.equal(take(host[2:5], np.array([0, 2])), pixels[[2, 4]])
    assert host.shape == pixels.shape
    assert len(host) == 6
