"""Statistics of real images by class, and the statistics that a batch is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.config.recovery import RecoverConfig
from distill_core.config.terms import Measured, OriginalsConfig
from distill_core.errors import DataError
from distill_core.models.moments import channel_moments, patch_moments
from distill_core.seeds import generator
from distill_core.selection import class_images
from distill_core.selection.class_images import ClassImages
from distill_core.sharding import Batch, ImageId
from distill_core.statistics.barycentre import barycentre
from distill_core.statistics.measure import (
    MeasureSetup,
    describe_originals,
    measure_block,
    measure_class,
)
from distill_core.storage.statistics_files import (
    POOLED,
    Rows,
    decode_pooled,
    decode_statistics,
    encode_block,
    encode_pooled,
    encode_statistics,
    layers_of,
    pooled,
)
from distill_core.transforms.pixel_space import PixelSpace
from tests.support.tiny import SIDE, tiny_recover, tiny_teacher

NAMES = ("cat", "dog")
EVERYTHING: frozenset[Measured] = frozenset({"batch_norms", "channels", "patches", "barycentre"})


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8)


def measured(seed: int, measured: frozenset[Measured] = EVERYTHING) -> Rows:
    rng = generator(seed)
    return measure_class(
        images(7, seed), tiny_teacher("float64"), measured=measured, points=3, rng=rng
    )


def normalised(pixels: np.ndarray) -> torch.Tensor:
    teacher = tiny_teacher("float64")
    space = PixelSpace.of(teacher.spec.mean, teacher.spec.std, teacher.head.weight)
    return space.normalise(torch.from_numpy(pixels))


def batch_of(*names: str) -> Batch:
    return tuple(ImageId(NAMES.index(name), name, n) for n, name in enumerate(names))


def config(*terms: str) -> RecoverConfig:
    settings = []
    if any(term.startswith(("conv", "patch", "class_conv", "class_patch")) for term in terms):
        settings.append("recover.convolutions={first_layer_factor: 10}")
    if "feature_barycentre" in terms:
        settings.append("recover.barycentre={points: 3}")
    weights = ", ".join(f"{term}: 1.0" for term in terms)
    return tiny_recover(f"recover.terms={{{weights}}}", *settings)


def test_the_moments_of_a_class_are_those_of_all_its_images_together() -> None:
    teacher, pixels = tiny_teacher("float64"), images(7)
    convolution = next(m for m in teacher.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    seen = convolution(normalised(pixels)).transpose(0, 1).flatten(1)
    found = measure_class(pixels, teacher)
    np.testing.assert_allclose(found["000.mean"], seen.mean(dim=1).numpy(), atol=1e-12)
    var = seen.var(dim=1, unbiased=False).numpy()
    np.testing.assert_allclose(found["000.var"], var, atol=1e-12)


def test_convolution_statistics_are_measured_at_the_inputs() -> None:
    found, x = measured(0), normalised(images(7))
    for kind, moments in (("channels", channel_moments(x)), ("patches", patch_moments(x))):
        for part, expected in zip(("mean", "var"), moments, strict=True):
            np.testing.assert_allclose(found[f"{kind}/000.{part}"], expected[0], atol=1e-12)


def test_only_the_requested_statistics_are_measured() -> None:
    assert all(name.startswith("channels/") for name in measured(0, frozenset({"channels"})))
    names = measure_class(images(2), tiny_teacher()).keys()
    assert all(name[:3].isdigit() for name in names)


def test_many_images_are_measured_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(0)
    monkeypatch.setattr(class_images, "FORWARD_BATCH", 3)
    parts = measured(0)
    assert parts.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_allclose(values, parts[name], atol=1e-10)


def two_classes() -> bytes:
    return encode_statistics(NAMES, [measured(0), measured(1)])


def test_statistics_are_unchanged_by_storing_and_loading() -> None:
    read = decode_statistics(two_classes())
    assert read.wnids == NAMES
    for name, values in measured(1).items():
        np.testing.assert_allclose(read.rows[name][1], values, rtol=1e-6, atol=1e-6)
    assert two_classes() == two_classes()


def test_a_batch_of_several_classes_is_compared_with_their_average() -> None:
    read, terms = decode_statistics(two_classes()), ("class_bn_statistics", "class_conv_statistics")
    one, other, both = (
        read.of(batch_of(*names), config(*terms)) for names in (["cat"], ["dog"], NAMES)
    )
    for term in terms:
        for layer, (mean, var) in enumerate(both.moments[term]):
            (mean_, var_), (mean__, var__) = (x.moments[term][layer] for x in (one, other))
            np.testing.assert_allclose(mean, (mean_ + mean__) / 2, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(var, (var_ + var__) / 2, rtol=1e-5, atol=1e-6)


def test_all_classes_together_have_the_moments_of_all_their_images() -> None:
    """Blocks may be pooled in any grouping: first each block, then the blocks."""
    every = decode_pooled(encode_pooled([measured(0), measured(1)]))
    nested = pooled([every, pooled([measured(2)])])
    x = normalised(np.concatenate([images(7, seed) for seed in range(3)]))
    mean, var = layers_of(nested, "channels")[0]
    np.testing.assert_allclose(mean, channel_moments(x)[0][0], atol=1e-10)
    np.testing.assert_allclose(var, channel_moments(x)[1][0], atol=1e-10)
    expected = decode_statistics(two_classes()).of(
        batch_of("cat"), config("conv_statistics", "patch_statistics"), every
    )
    np.testing.assert_array_equal(
        expected.moments["patch_statistics"][0][0], every["patches/000.mean"]
    )


def test_the_barycentre_point_of_an_image_follows_from_its_index_in_its_class() -> None:
    read = decode_statistics(two_classes())
    batch = (ImageId(1, "dog", 1), ImageId(0, "cat", 0), ImageId(1, "dog", 4))
    wanted = read.of(batch, config("feature_barycentre")).features["feature_barycentre"]
    points = read.rows["barycentre"]
    np.testing.assert_array_equal(wanted[:, 0], [points[1, 1], points[0, 0], points[1, 1]])


def test_a_class_of_another_block_is_refused() -> None:
    batch = (ImageId(0, "cat", 0), ImageId(9, "owl", 0))
    with pytest.raises(DataError, match="no class 'owl' among cat to dog"):
        decode_statistics(two_classes()).of(batch, config("class_bn_statistics"))


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, two_classes()[:-5]])
def test_malformed_statistics_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not class statistics"):
        decode_statistics(data)
    with pytest.raises(DataError, match="not class statistics"):
        decode_pooled(data)


def clusters() -> torch.Tensor:
    """Return 5, 15 and 10 points around three distant centres."""
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    noise = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    return centres[torch.tensor([0] * 5 + [1] * 15 + [2] * 10)] + noise


def test_a_barycentre_has_the_means_of_the_clusters_the_largest_first() -> None:
    points = clusters()
    expected = torch.stack([points[5:20].mean(0), points[20:].mean(0), points[:5].mean(0)])
    for seed in range(5):
        found = barycentre(points, 3, generator(seed))
        torch.testing.assert_close(found, expected.double())


def test_a_barycentre_is_the_mean_for_one_point_and_the_images_for_few_of_them() -> None:
    points = clusters()
    mean = barycentre(points, 1, generator(0))
    torch.testing.assert_close(mean[0], points.double().mean(0))
    assert torch.equal(barycentre(points[:2], 3, generator(0)), points[[0, 1, 0]].double())
    same = torch.ones(9, 4)
    assert torch.equal(barycentre(same, 3, generator(0)), same[:3].double())


def test_originals_are_described_at_the_input_of_a_convolution_and_used_again() -> None:
    teacher, pixels = tiny_teacher("float64"), images(3)
    settings = OriginalsConfig(images=2, layer=0, grid=2)
    found = describe_originals(pixels, teacher, settings, count=4)
    expected = torch.nn.functional.adaptive_avg_pool2d(normalised(pixels), 2).flatten(1)
    np.testing.assert_allclose(found, expected[[0, 1, 2, 0]].numpy(), atol=1e-12)


def test_a_block_holds_what_its_terms_need_of_each_class() -> None:
    needs, teacher = config("conv_statistics", "class_bn_statistics"), tiny_teacher()
    real = ClassImages(lambda label: np.arange(7), lambda rows: images(7)[rows])
    seen: list[tuple[int, int]] = []
    block = measure_block(
        list(enumerate(NAMES)),
        real,
        MeasureSetup(needs, teacher, scorer=teacher, seed=0),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert list(block) == list(NAMES)
    assert seen == [(1, 2), (2, 2)]
    alone = measure_class(images(7), teacher, measured=needs.measured)
    assert block["cat"].keys() == alone.keys()
    assert all(np.array_equal(block["dog"][name], alone[name]) for name in alone)
    assert encode_block(block, needs).keys() == {"safetensors", POOLED}
    only_norms = config("class_bn_statistics")
    assert encode_block(block, only_norms).keys() == {"safetensors"}


def test_imported_statistics_are_taken_over_and_only_the_rest_is_measured() -> None:
    """No image is read for a class whose batch norms are all that a term needs."""
    teacher, read = tiny_teacher(), list[int]()
    own = {name: values + 1 for name, values in measure_class(images(7), teacher).items()}
    imported = decode_statistics(encode_statistics(["cat"], [own]))

    def pixels_of(rows: np.ndarray) -> np.ndarray:
        read.append(int(rows[0]))
        return images(7, seed=int(rows[0]))

    real = ClassImages(lambda label: np.array([label]), pixels_of)
    classes = list(enumerate(NAMES))

    def block(*terms: str) -> dict[str, Rows]:
        read.clear()
        setup = MeasureSetup(config(*terms), teacher, teacher, seed=0, imported=imported)
        return measure_block(classes, real, setup)

    norms = block("class_bn_statistics")
    assert read == [1]
    for name, values in own.items():
        np.testing.assert_allclose(norms["cat"][name], values, rtol=1e-6)
        expected = measure_class(images(7, seed=1), teacher)[name]
        np.testing.assert_array_equal(norms["dog"][name], expected)
    both = block("class_bn_statistics", "class_conv_statistics")
    assert read == [0, 1]
    assert both["cat"].keys() == both["dog"].keys() > own.keys()
    np.testing.assert_allclose(both["cat"]["000.mean"], own["000.mean"], rtol=1e-6)
    without = block("feature_barycentre")
    assert not own.keys() & without["cat"].keys()
