"""The feature codec: its bound on the loss of a label, and exactness of everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.information import share_lost
from distill_core.errors import DataError
from distill_core.labels.encoding import CACHED, TINY
from distill_core.storage.label_rows import Affine, choose_scheme
from tests.support.label_definitions import DEVICES, dequantise, quantised
from tests.support.realistic_labels import labels


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_at_most_a_ten_thousandth_of_a_labels_information_is_lost(temperature: float) -> None:
    assert share_lost(*labels(), temperature) <= 1e-4


def test_fewer_bits_exceed_the_bound() -> None:
    assert share_lost(*labels(codes_bits_lost=4), 20.0) > 1e-4


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_at_four_bits_at_most_half_a_percent_is_lost(temperature: float) -> None:
    assert share_lost(*labels(bits=4), temperature) <= 5e-3


@pytest.mark.parametrize("channels", [1, 6, 7])
def test_codes_of_four_bits_are_packed_in_pairs_and_unpacked(channels: int) -> None:
    features = np.random.default_rng(2).normal(size=(3, 5, channels)).astype(np.float32)
    codes, affine = quantised(features, bits=4)
    assert codes.shape == (3, 5, -(-channels // 2))
    back = dequantise(codes, affine)
    assert back.shape == features.shape
    assert (np.abs(back - features) <= 0.5 * affine.scale + 1e-6).all()
    by_label = Affine(np.tile(affine.scale, (5, 1)), np.tile(affine.offset, (5, 1)), 4)
    assert np.array_equal(dequantise(codes[1], by_label), back[1])


def test_the_largest_logit_usually_stays_the_largest() -> None:
    exact, coded = labels()
    assert (exact.argmax(-1) == coded.argmax(-1)).mean() > 0.99


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=finite)
)
def test_the_error_is_at_most_half_a_level(features: np.ndarray) -> None:
    codes, affine = quantised(features)
    back = dequantise(codes, affine)
    assert codes.dtype == np.uint8
    assert back.dtype == np.float32
    assert codes.shape == features.shape
    # A channel narrower than this is its offset.
    rounding = 4 * np.spacing(np.abs(features).max() + np.float32(1e-30)) + 256 * TINY
    assert (np.abs(back - features) <= 0.5 * affine.scale + rounding).all()


def by_definition(features: np.ndarray, bits: int) -> np.ndarray:
    """Return codes one operation after another, with a rounding and a clip, not yet packed."""
    offset, top = features.min(axis=0), features.max(axis=0)
    scale = (top - offset) / np.float32(2**bits - 1)
    steps = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > TINY)
    return np.clip(np.rint((features - offset) * steps), 0, 2**bits - 1).astype(np.uint8)


wide = st.floats(-(2.0**126), 2.0**126, width=32)
near_ties = st.integers(0, 510).map(lambda half: half / 2)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([wide, finite, near_ties]).flatmap(
        lambda values: hnp.arrays(
            np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=values
        )
    ),
    st.sampled_from([8, 4]),
)
def test_codes_equal_those_of_the_definition_without_a_clip(
    features: np.ndarray, bits: int
) -> None:
    codes, affine = quantised(features, bits=bits)
    levels = Affine(np.ones_like(affine.scale), np.zeros_like(affine.offset), bits)
    assert np.array_equal(dequantise(codes, levels), by_definition(features, bits))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("channels", [3, 512, 2 * CACHED])
def test_encoding_in_blocks_equals_encoding_at_once(channels: int, bits: int, device: str) -> None:
    rows = 2 * max(1, CACHED // channels) + 1
    features = np.random.default_rng(3).normal(size=(rows, channels)).astype(np.float32)
    codes, affine = quantised(features, bits=bits, device=device)
    levels = Affine(np.ones_like(affine.scale), np.zeros_like(affine.offset), bits)
    assert np.array_equal(dequantise(codes, levels), by_definition(features, bits))


def test_a_constant_channel_comes_back_exactly() -> None:
    features = np.stack([np.full(5, 0.1), np.arange(5)], axis=1).astype(np.float32)
    codes, affine = quantised(features)
    assert (dequantise(codes, affine)[:, 0] == features[:, 0]).all()
    assert affine.scale[0] == 0


def test_a_channel_too_narrow_for_levels_is_its_offset() -> None:
    narrow = np.array([[0.0], [1e-44]], np.float32)
    codes, affine = quantised(narrow)
    assert (codes == 0).all()
    assert (dequantise(codes, affine) == 0).all()


def test_the_extremes_of_every_channel_get_the_lowest_and_highest_code() -> None:
    features = np.random.default_rng(1).normal(size=(7, 11, 5)).astype(np.float32)
    codes, affine = quantised(features)
    assert codes.min(axis=(0, 1)).tolist() == [0] * 5
    assert codes.max(axis=(0, 1)).tolist() == [255] * 5
    assert affine.offset.tolist() == features.min(axis=(0, 1)).tolist()


def test_encoding_leaves_its_input_unchanged() -> None:
    features = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    before = features.copy()
    quantised(features)
    assert (features == before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features = np.zeros((4, 3), np.float32)
    features[2, 1] = bad
    with pytest.raises(DataError, match="channel 1"):
        quantised(features)


def test_codes_are_steps_above_the_offset_in_float32() -> None:
    affine = Affine(np.array([0.5, 1.0], np.float32), np.array([0.0, -1.0], np.float32))
    features = dequantise(np.array([[2, 4]], np.uint8), affine)
    assert features.tolist() == [[1.0, 3.0]]
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("features", "classes", "expected"),
    [(512, 1000, "features"), (512, 256, "features"), (512, 255, "logits"), (2048, 1000, "logits")],
)
def test_auto_takes_the_smaller_scheme(features: int, classes: int, expected: str) -> None:
    assert choose_scheme("auto", features=features, classes=classes) == expected
    for scheme in ("features", "logits", "topk", "online"):
        assert choose_scheme(scheme, features=features, classes=classes) == scheme


def test_auto_counts_bits() -> None:
    assert choose_scheme("auto", features=600, classes=200) == "logits"
    assert choose_scheme("auto", features=600, classes=200, bits=4) == "features"
