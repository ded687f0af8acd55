"""Logits by the batch: the codec's own features on any device, and what bfloat16 costs a label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.information import share_lost
from distill_core.labels.decoding import CodedFeatures, HalfLogits, Head, KeptLogits, decode
from distill_core.labels.sources import StoredLabels
from distill_core.labels.topk import keep_top, restore
from distill_core.storage.label_rows import Affine
from tests.support.label_definitions import DEVICES, dequantise, quantised
from tests.support.label_shards import shard
from tests.support.realistic_labels import clustered_head, sparse_features

ROWS = np.array([5, 0, 3, 3])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("channels", [1, 7, 512])
def test_features_are_bit_by_bit_those_of_the_codec(channels: int, bits: int, device: str) -> None:
    features = np.random.default_rng(0).normal(size=(6, channels)).astype(np.float32)
    codes, affine = quantised(features, bits=bits, device=device)
    tensors = [torch.from_numpy(part).to(device) for part in (codes, affine.scale, affine.offset)]
    found = decode(*tensors, bits=bits)
    assert found.dtype == torch.float32
    assert found.device.type == device
    assert np.array_equal(found.cpu().numpy(), dequantise(codes, affine))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", [8, 4])
def test_every_row_is_decoded_with_the_map_of_its_shard(bits: int, device: str) -> None:
    rng, head = np.random.default_rng(1), torch.randn(3, 9)
    parts = [
        quantised((9**n * rng.normal(size=(n + 2, 9))).astype(np.float32), bits=bits)
        for n in range(3)
    ]
    scale, offset = (np.stack([getattr(a, n) for _, a in parts]) for n in ("scale", "offset"))
    decoder = CodedFeatures(
        np.concatenate([codes for codes, _ in parts]),
        np.repeat(np.arange(3), [2, 3, 4]),
        torch.from_numpy(scale).to(device),
        torch.from_numpy(offset).to(device),
        bits,
        Head(head.to(device), torch.arange(3.0, device=device)),
    )
    exact = np.concatenate([dequantise(*part) for part in parts])[ROWS] @ head.numpy().T
    found = decoder(ROWS).cpu().numpy()
    np.testing.assert_allclose(found, exact + np.arange(3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_stored_logits_are_widened_where_they_are_needed(device: str) -> None:
    every = np.random.default_rng(2).normal(size=(6, 11)).astype(np.float16)
    found = HalfLogits(every, torch.device(device))(ROWS)
    assert (found.dtype, found.device.type) == (torch.float32, device)
    assert np.array_equal(found.cpu().numpy(), every[ROWS].astype(np.float32))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rest", ["none", "mean"])
def test_kept_logits_are_put_back_among_the_others(rest: str, device: str) -> None:
    classes = 60_000  # ids above 32,767 need all of their 16 bits
    top = keep_top(torch.randn(6, classes).half().float(), 5)
    values, others = (part.numpy().astype(np.float16) for part in (top.values, top.rest))
    ids = top.ids.numpy().astype(np.uint16)
    decoder = KeptLogits(values, ids, others, classes, rest, torch.device(device))  # type: ignore[arg-type]
    found = decoder(ROWS).cpu()
    expected = restore(top, classes=classes, rest=rest)[ROWS]  # type: ignore[arg-type]
    assert top.ids.max() > 2**15
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def coded_labels(dtype: torch.dtype, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return exact logits of standard deviation 2.3, and those of codes and a head of `dtype`."""
    rng = np.random.default_rng(0)
    head = clustered_head(rng)
    features = sparse_features(rng, head)
    head *= np.float32(2.3 / (features @ head.T).std())
    bias = rng.normal(size=len(head)).astype(np.float32)
    codes, affine = quantised(features, bits=bits)
    scale, offset = (torch.from_numpy(part)[None] for part in (affine.scale, affine.offset))
    weight = torch.from_numpy(head).to(dtype)
    decoder = CodedFeatures(
        codes, np.zeros(len(codes), int), scale, offset, bits, Head(weight, torch.from_numpy(bias))
    )
    found = decoder(np.arange(len(codes)))
    assert found.dtype == torch.float32
    return features @ head.T + bias, found.numpy()


@pytest.mark.parametrize(("bits", "most"), [(8, 1e-4), (4, 5e-3)])
def test_a_head_in_bfloat16_keeps_the_error_bound_of_the_codec(bits: int, most: float) -> None:
    lost = {d: share_lost(*coded_labels(d, bits), 20.0) for d in (torch.float32, torch.bfloat16)}
    assert lost[torch.float32] < lost[torch.bfloat16] <= most
    assert lost[torch.bfloat16] - lost[torch.float32] < 2e-5


@pytest.mark.parametrize("half", [False, True])
def test_a_run_in_bfloat16_decodes_in_bfloat16_and_no_other(half: bool) -> None:
    rows = shard(views=range(1), count=6, width=8, mix="none", scheme="features")
    head = torch.randn(3, 8), torch.randn(3)
    labels = StoredLabels([lambda view: rows], [6], head, "cpu", half=half).view(0)
    assert rows.values is not None
    assert rows.affine is not None
    features = torch.from_numpy(dequantise(rows.values[0][ROWS], rows.affine))
    exact, found = features @ head[0].T + head[1], labels.logits(ROWS)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact) != half
    scale = features.abs() @ head[0].abs().T + 1
    assert ((found - exact).abs() <= 2**-6 * scale).all()


def test_features_of_an_ensemble_are_coded_together_and_decoded_by_one_head() -> None:
    """Features of two teachers, coded channel by channel, and their heads in one."""
    rng = np.random.default_rng(4)
    features = [rng.normal(size=(6, d)).astype(np.float32) for d in (5, 8)]
    heads = [torch.randn(3, d) for d in (5, 8)]
    codes, affine = quantised(np.concatenate(features, axis=1))
    back = dequantise(codes, Affine(affine.scale, affine.offset))
    found = Head(torch.cat(heads, dim=1) / 2, torch.zeros(3))(torch.from_numpy(back))
    exact = sum(torch.from_numpy(f) @ h.T for f, h in zip(features, heads, strict=True))
    torch.testing.assert_close(found, exact / 2, atol=0.05, rtol=0)
