"""Networks of timm: their heads, their weights, and names that do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distill_core.config.fields import Precision
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError
from distill_core.models.build import build_model, head_name, head_width, skeleton
from distill_core.models.convolutions import Probe
from distill_core.models.files import load_network, save_weights
from distill_core.models.importing import import_model
from distill_core.models.spec import TeacherSpec
from distill_core.models.teacher import FrozenTeacher

timm = pytest.importorskip("timm")

CLASSES = 5
HEADS = {  # network -> its head, batch norm layers, side of the test's images
    "resnet18": ("fc", 20, 32),
    "regnety_002": ("head.fc", 44, 32),
    "mobilenetv3_small_100": ("classifier", 34, 32),
    "convnext_atto": ("head.fc", 0, 32),
    "swin_tiny_patch4_window7_224": ("head.fc", 0, 224),
    "deit_tiny_patch16_224": ("head", 0, 224),
}
SMALL = [name for name in HEADS if not name.startswith("swin")]
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name not in SMALL else name for name in HEADS
]


def config(name: str) -> ModelConfig:
    return ModelConfig(name=f"timm:{name}")


def pixels(name: str) -> Tensor:
    side = HEADS[name][2]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def frozen(name: str, precision: Precision = "float32") -> FrozenTeacher:
    spec = TeacherSpec(
        model=config(name),
        num_classes=CLASSES,
        class_hash="0" * 16,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        side=HEADS[name][2],
        features=1,
        origin="test",
    )
    model = build_model(config(name), CLASSES, seed=0)
    return FrozenTeacher(model, spec, digest="0" * 64, precision=precision)


@pytest.mark.parametrize("name", NAMES)
def test_features_and_head_give_the_logits_of_timm(name: str) -> None:
    whole, teacher, x = (
        build_model(config(name), CLASSES, seed=0).eval(),
        frozen(name),
        pixels(name),
    )
    with torch.no_grad():
        found = teacher(x, statistics=True)
        expected = whole(x)
    torch.testing.assert_close(found.logits, expected, rtol=1e-3, atol=1e-4)
    by_hand = found.features @ teacher.head.weight.T + teacher.head.bias
    torch.testing.assert_close(by_hand, found.logits)
    head, norms, _ = HEADS[name]
    assert head_name(whole) == head
    assert head_width(config(name)) == found.features.shape[1]
    assert len(found.statistics) == norms


@pytest.mark.parametrize("name", NAMES)
def test_a_network_has_the_tensors_of_timm(name: str) -> None:
    theirs = timm.create_model(name, num_classes=CLASSES)
    ours = skeleton(config(name), CLASSES)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny_patch16_224"])
def test_a_network_without_batch_norm_computes_in_bfloat16(name: str) -> None:
    with torch.no_grad():
        found, exact = frozen(name, "bfloat16")(pixels(name)), frozen(name)(pixels(name))
    assert found.logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, exact.logits, rtol=0.1, atol=0.1)


def test_the_start_depends_on_the_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = build_model(config("convnext_atto"), CLASSES, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = (
        build_model(config("convnext_atto"), CLASSES, seed=s).state_dict() for s in (3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_timm_are_imported_and_stored_networks_are_read(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(1)
    theirs: nn.Module = timm.create_model(name, num_classes=CLASSES).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    url = str(tmp_path / "model.safetensors")
    imported = import_model(url, config(name), num_classes=CLASSES).eval()
    stored = load_network(save_weights(imported), config(name), num_classes=CLASSES).eval()
    with torch.no_grad():
        expected = theirs(pixels(name))
        assert torch.equal(imported(pixels(name)), expected)
        assert torch.equal(stored(pixels(name)), expected)


def test_the_container_of_published_weights_of_timm_is_opened(tmp_path: Path) -> None:
    """MIIL publishes its ImageNet-21K networks as a state dict inside a dictionary."""
    theirs: nn.Module = timm.create_model("mobilenetv3_small_100", num_classes=CLASSES)
    content = {"state_dict": theirs.state_dict(), "epoch": 80, "arch": "mobilenetv3"}
    torch.save(content, tmp_path / "miil.pth")
    url = str(tmp_path / "miil.pth")
    ours = import_model(url, config("mobilenetv3_small_100"), num_classes=CLASSES)
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), ("resnet34", "fc"), ("resnet50", "fc")]
)
def test_residual_networks_of_timm_load_into_those_of_torchvision(
    tmp_path: Path, name: str, head: str
) -> None:
    theirs: nn.Module = timm.create_model(name, num_classes=CLASSES).eval()
    state = {n.replace("fc.", "head.fc."): t for n, t in theirs.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    ours = import_model(
        str(tmp_path / "w.safetensors"), ModelConfig(name=name), num_classes=CLASSES
    ).eval()
    assert head_name(ours) == head
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("convnext_tinny", r"no such network\. Did you mean .*timm:convnext_tiny"),
        ("convnext_tiny.in21", r"no such weights of convnext_tiny\. Did you mean .*in12k"),
        ("deit_tiny_distilled_patch16_224", "not one linear layer"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        skeleton(config(name), CLASSES)


def test_a_tag_of_weights_is_part_of_the_name() -> None:
    assert head_width(config("convnext_tiny.in12k")) == 768


def test_timm_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_core.models.timm_networks.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"timm is not installed.*'distill\[timm\]'"):
        skeleton(config("resnet18"), CLASSES)


def test_convolutions_that_pad_as_tensorflow_does_are_measured_and_compute_the_same() -> None:
    whole = build_model(config("tf_efficientnet_lite0"), CLASSES, seed=0).eval()
    teacher = FrozenTeacher(
        build_model(config("tf_efficientnet_lite0"), CLASSES, seed=0),
        frozen("resnet18").spec,
        digest="0" * 64,
    )
    assert teacher.num_convolutions == sum(isinstance(m, nn.Conv2d) for m in whole.modules())
    for side in (32, 45):  # an odd side needs another padding
        x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = teacher(x, probe=Probe(layer=1))
            torch.testing.assert_close(found.logits, whole(x), rtol=1e-4, atol=1e-5)
            assert found.convolutions.features is not None


def test_a_network_that_pads_in_its_convolutions_is_refused_as_a_teacher() -> None:
    """These convolutions rescale their weights, too, which no layer before them could do."""
    whole: Any = build_model(config("vit_tiny_r_s16_p8_224"), CLASSES, seed=0)
    spec = frozen("resnet18").spec
    with pytest.raises(ConfigError, match=r"layer 'patch_embed.*conv': a timm\..*StdConv2dSame"):
        FrozenTeacher(whole, spec, digest="0" * 64)
