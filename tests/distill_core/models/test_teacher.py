"""Frozen teachers: the same logits as the original network, and their files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill_core.config.fields import Precision
from distill_core.config.training import ModelConfig
from distill_core.errors import ConfigError, DataError
from distill_core.models.build import build_model, split_head
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec, check_teacher
from distill_core.models.teacher import FrozenTeacher
from distill_core.storage.digest import sha256

SPEC = TeacherSpec(
    model=ModelConfig(name="resnet18_small", width=4),
    num_classes=5,
    class_hash="0123456789abcdef",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    side=16,
    features=32,
    accuracy=71.25,
    origin="trained",
)


def network() -> nn.Module:
    """Return a network whose running statistics are not the initial ones."""
    model = build_model(SPEC.model, SPEC.num_classes, seed=0)
    model.train()
    with torch.no_grad():
        for batch in torch.randn(3, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0)):
            model(batch)
    return model.eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def teacher(precision: Precision = "float32") -> FrozenTeacher:
    files = teacher_files(network(), SPEC)
    return load_teacher(files["safetensors"], files["json"], precision=precision)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_features_and_logits_are_those_of_the_network(precision: Precision) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    x, model = images().to(dtype), network().to(dtype)
    said = teacher(precision)(x)
    torch.testing.assert_close(said.logits, model(x))
    torch.testing.assert_close(said.features, split_head(model)[0](x))
    assert said.logits.dtype == said.features.dtype == dtype
    assert said.statistics == ()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_statistics_equal_those_read_by_a_hook(precision: Precision) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    model, x, inputs = network().to(dtype), images().to(dtype), []
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in norms:
        layer.register_forward_hook(lambda _m, args, _y: inputs.append(args[0].detach()))
    model(x)
    frozen = teacher(precision)
    said = frozen(x, statistics=True)
    assert len(said.statistics) == frozen.num_statistics == len(norms) == 20
    for seen, layer, value in zip(said.statistics, norms, inputs, strict=True):
        torch.testing.assert_close(seen.mean, value.mean((0, 2, 3)))
        torch.testing.assert_close(seen.var, value.var((0, 2, 3), unbiased=False))
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert torch.equal(seen.running_mean, layer.running_mean)
        assert torch.equal(seen.running_var, layer.running_var)
        assert seen.mean.dtype == dtype


def test_asking_for_statistics_does_not_change_the_logits() -> None:
    frozen, x = teacher("float64"), images().double()
    torch.testing.assert_close(
        frozen(x, statistics=True).logits, frozen(x).logits, rtol=1e-10, atol=1e-12
    )


def test_statistics_of_one_pass_do_not_leak_into_the_next() -> None:
    frozen = teacher()
    with pytest.raises(RuntimeError):
        frozen(torch.randn(2, 4, 16, 16), statistics=True)
    assert frozen(images()).statistics == ()


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_the_gradient_reaches_the_pixels_and_no_parameter(precision: Precision) -> None:
    frozen, x = teacher(precision), images().requires_grad_()
    said = frozen(x, statistics=True)
    gaps = [(s.var - s.running_var).norm() for s in said.statistics]
    torch.autograd.backward([said.logits.logsumexp(1).sum(), *gaps])
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert bool(torch.isfinite(x.grad).all())
    assert float(x.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in frozen.parameters())


def test_bfloat16_convolutions_stay_close_and_leave_the_rest_in_float32() -> None:
    frozen, x = teacher("bfloat16"), images()
    said, exact = frozen(x, statistics=True), teacher()(x, statistics=True)
    assert said.logits.dtype == said.features.dtype == torch.float32
    assert said.statistics[0].mean.dtype == said.statistics[0].running_var.dtype == torch.float32
    torch.testing.assert_close(said.logits, exact.logits, rtol=0.1, atol=0.1)
    assert not torch.equal(said.logits, exact.logits)


def test_convolutions_are_stored_channels_last() -> None:
    weight = teacher().backbone.get_parameter("layer2.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_teacher_stays_in_evaluation_mode_and_keeps_its_statistics() -> None:
    frozen, x = teacher(), images()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    first = frozen(x, statistics=True).logits
    assert torch.equal(first, frozen(x, statistics=True).logits)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())


def test_the_same_weights_give_the_same_bytes_and_the_digest_is_theirs() -> None:
    files = teacher_files(network(), SPEC)
    assert teacher_files(network(), SPEC) == files
    loaded = load_teacher(files["safetensors"], files["json"])
    assert loaded.digest == sha256(files["safetensors"])
    assert loaded.spec == SPEC


def test_damaged_weights_and_descriptions_are_refused_in_one_line() -> None:
    files = teacher_files(network(), SPEC)
    with pytest.raises(DataError, match=r"not a complete safetensors file .*Copy the file again"):
        load_teacher(files["safetensors"][:-100], files["json"])
    with pytest.raises(DataError, match="teacher description"):
        load_teacher(files["safetensors"], b"{")
    with pytest.raises(DataError, match="teacher description: model: Field required"):
        load_teacher(files["safetensors"], b"{}")
    other = SPEC.model_copy(update={"num_classes": 6})
    with pytest.raises(ConfigError, match=r"5 classes, the dataset has 6"):
        load_teacher(files["safetensors"], other.to_json())


def test_a_teacher_of_another_label_space_is_refused() -> None:
    check_teacher(SPEC, num_classes=5, class_hash=SPEC.class_hash, where="t")
    with pytest.raises(ConfigError, match="has 5 classes, the dataset has 10"):
        check_teacher(SPEC, num_classes=10, class_hash=SPEC.class_hash, where="t")
    with pytest.raises(ConfigError, match=r"class list is 0123456789abcdef.*feed"):
        check_teacher(SPEC, num_classes=5, class_hash="feed", where="t")
