"""Files of teachers are judged by their headers before a run exists."""

from __future__ import annotations

import argparse
import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model
from distill_core.models.checkpoint_check import check_checkpoint
from distill_core.models.unpickling import read_checkpoint

CONFIG = ModelConfig(name="resnet18_small", width=4)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Return the state dict of a five-class network."""
    return build_model(CONFIG, 5, seed=0).state_dict()


def check(path: Path | str, data: bytes | None = None, *, num_classes: int = 5) -> None:
    if data is not None:
        Path(path).write_bytes(data)
    check_checkpoint(str(path), CONFIG, num_classes=num_classes)


def refused(path: Path, data: bytes, *, num_classes: int = 5) -> str:
    with pytest.raises((ConfigError, DataError)) as error:
        check(path, data, num_classes=num_classes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_that_the_import_takes_are_accepted(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    half = {f"module._orig_mod.{name}": t.half() for name, t in state.items()}
    check(tmp_path / "half.safetensors", save(half))
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    check(tmp_path / "old.safetensors", save(old, {"format": "pt"}))
    for zipped in (True, False):
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        check(tmp_path / "w.pth")


class Counting(io.FileIO):
    """Counts the bytes that are read."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        self.count += size
        return size

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self.count += len(data)
        return data


def test_shapes_are_read_without_the_numbers_of_a_checkpoint(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2000, 500), "b": nn.Parameter(torch.zeros(4)), "c": torch.tensor(1)}
    torch.save({"model": tensors, "args": argparse.Namespace(lr=1.0), "epoch": 3}, tmp_path / "w")
    with Counting(tmp_path / "w") as file:
        loaded = read_checkpoint(file, where="w", shapes_only=True)
        assert file.count < file.seek(0, io.SEEK_END) / 50
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded["model"].items()}
    assert shapes == {"a": (2000, 500), "b": (4,), "c": ()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"_orig_mod.{n}": t for n, t in state.items()}, "epoch": 1},
        lambda state: {"a": {"b": state}, "args": argparse.Namespace(lr=1)},
        lambda state: {"state_dict": state, "state_dict_ema": state},
    ],
)
def test_every_tensor_of_a_torch_checkpoint_is_compared_by_its_shape(
    tmp_path: Path, state: dict[str, Tensor], wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    torch.save(wrap(state), tmp_path / "w.pth")
    check(tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"the head 'fc\.weight' has 5 classes, .* has 7"):
        check(tmp_path / "w.pth", num_classes=7)
    wider = {**state, "conv1.weight": torch.zeros(8, 3, 3, 3)}
    torch.save(wrap(wider), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"tensor 'conv1\.weight' is \(8, 3, 3, 3\), .* expects"):
        check(tmp_path / "w.pth")
    lacking = {name: tensor for name, tensor in state.items() if name != "bn1.weight"}
    torch.save(wrap(lacking), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"1 tensors missing \(first 'bn1\.weight'\)"):
        check(tmp_path / "w.pth")


def test_the_entry_that_the_config_names_is_compared(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    other = build_model(CONFIG, 7, seed=0).state_dict()
    torch.save({"teacher": state, "student": other}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"weights under teacher, student\. Set .*entry"):
        check(tmp_path / "w.pth")
    check_checkpoint(str(tmp_path / "w.pth"), CONFIG, num_classes=7, entry="student")


@pytest.mark.parametrize("data", [b"", b"abc", b"<html>404</html>", b"version https://git-lfs"])
@pytest.mark.parametrize("name", ["notckpt", "w.pth", "w.safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    assert f"{name}: not a " in refused(tmp_path / name, data)


def header(content: object, *, tensors: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + tensors


@pytest.mark.parametrize(
    "data",
    [
        header([1]),
        header({"a": 1}),
        header({"a": {"shape": 3, "data_offsets": [0, 1]}}),
        header({"a": {"shape": [float("inf")], "data_offsets": [0, 1]}}),
        header({"a": {"shape": [1], "data_offsets": []}}),
        header(b"\xff\xfe"),
        header(b"[" * 100_000),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "not a complete safetensors file" in refused(tmp_path / "w.safetensors", data)


@pytest.mark.parametrize("keep", [7, 900, -40])
def test_a_truncated_file_is_refused(tmp_path: Path, state: dict[str, Tensor], keep: int) -> None:
    line = refused(tmp_path / "w.safetensors", save(state)[:keep])
    assert "not a complete safetensors file" in line


def test_another_network_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path, data = tmp_path / "w.safetensors", save(state)
    assert "has 5 classes, the dataset has 100" in refused(path, data, num_classes=100)
    wide = build_model(ModelConfig(name="resnet18_small", width=8), 5, seed=0).state_dict()
    assert "'conv1.weight' is (8, 3, 3, 3)" in refused(path, save(wide))
    del state["layer3.0.bn2.weight"]
    assert "1 tensors missing (first 'layer3.0.bn2.weight')" in refused(path, save(state))


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a file in ranges and counts their bytes; with `whole`, it knows no ranges."""

    sent = 0
    whole = False

    def do_GET(self) -> None:
        """Answer with the range that was asked for."""
        if "Range" not in self.headers or Ranges.whole:
            with suppress(ConnectionError):  # a client that asks whether it exists reads no body
                super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        Ranges.sent += len(part)
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def do_HEAD(self) -> None:
        """Report the length, and that ranges are possible."""
        size = Path(self.translate_path(self.path)).stat().st_size
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder over HTTP and return its address."""
    handler = partial(Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_of_a_remote_file_only_the_header_is_read(
    tmp_path: Path, server: str, state: dict[str, Tensor]
) -> None:
    pytest.importorskip("aiohttp")
    data = save(state)
    (tmp_path / "w.safetensors").write_bytes(data)
    Ranges.sent = 0
    check(f"{server}/w.safetensors")
    assert 0 < Ranges.sent < len(data) / 4
    with pytest.raises(ConfigError, match="the dataset has 7"):
        check(f"{server}/w.safetensors", num_classes=7)


def test_a_server_without_ranges_is_understood(
    tmp_path: Path, server: str, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "w.safetensors").write_bytes(save(state))
    monkeypatch.setattr(Ranges, "whole", True)
    check(f"{server}/w.safetensors")
