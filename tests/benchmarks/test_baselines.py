"""The published loops and ours compute the same losses, gradients, labels and views."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from benchmarks.baselines import (
    HookedTeacher,
    decode_files,
    load_batch,
    load_labels,
    save_labels,
)
from benchmarks.bench_posttrain import jpeg, smooth_images
from benchmarks.bench_recover import Contest
from benchmarks.bench_squeeze import images_of, training_steps
from distill_core.config.students import MixConfig
from distill_core.labels.predict import predict_view
from distill_core.labels.views import LabelView, Renderer
from distill_core.models.build import build_model
from distill_core.recover.terms import Forward, bn_statistics, cross_entropy
from distill_core.training.losses import kl_soft_labels
from distill_core.transforms.mixing import sample_mix
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import sample_view
from tests.support.tiny import CLASSES, MEAN, STD, tiny_recover, tiny_run, tiny_teacher


def test_hooks_and_the_statistics_module_agree() -> None:
    ours = tiny_teacher()
    model = build_model(ours.spec.model, CLASSES, seed=0)
    model.load_state_dict(_plain_state(ours, model))
    hooked = HookedTeacher(model, 10.0)
    pixels = torch.randn(8, 3, 16, 16, requires_grad=True)
    targets = torch.arange(8) % CLASSES
    entropy, gap = hooked.losses(pixels, targets)
    forward = Forward(pixels, targets, ours(pixels, statistics=True), tiny_recover())
    mine = (cross_entropy(forward), bn_statistics(forward))
    assert mine[0].item() == pytest.approx(entropy.item(), rel=1e-6)
    assert mine[1].item() == pytest.approx(gap.item(), rel=1e-6)
    (theirs,) = torch.autograd.grad(entropy + 0.01 * gap, pixels)
    (ours_,) = torch.autograd.grad(mine[0] + 0.01 * mine[1], pixels)
    assert cosine_similarity(theirs.flatten(), ours_.flatten(), dim=0) > 0.9999


def _plain_state(teacher: torch.nn.Module, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the teacher's weights under the names of the plain network."""
    found = {
        name.removeprefix("backbone.").replace("head.", "classifier."): value
        for name, value in teacher.state_dict().items()
    }
    return model.state_dict() | found


def test_a_label_file_of_a_batch_gives_its_logits_back_in_half_precision() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    file = save_labels(logits, torch.zeros(6, 4), torch.zeros(6, dtype=torch.bool))
    assert torch.equal(load_labels(file), logits.half().float())


def test_the_published_recovery_and_ours_have_the_same_losses_step_by_step() -> None:
    contest = Contest(8, 16, 4)
    theirs, ours = contest.theirs(), contest.ours()
    for _ in range(5):
        wanted, found = theirs.step(), torch.as_tensor(ours.step())[0]
        assert isinstance(wanted, tuple)
        assert found[:2].tolist() == pytest.approx(wanted, rel=3e-6)


def shown(seed: int) -> tuple[torch.Tensor, torch.Tensor, LabelView]:
    """Return what the loader shows of four images, their pixels, and the draws."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    files = [_png(one) for one in pixels]
    rng, cutmix = np.random.default_rng(seed), MixConfig(kind="cutmix")
    view = sample_view(rng, count=4, side=16, scale=(0.2, 1.0), flip=True)
    mix = sample_mix(rng, cutmix, count=4, side=16)
    mix.boxes[:] = mix.boxes[0]  # the loader has one box per batch
    theirs = load_batch(files, view, mix, side=16, space=PixelSpace.of(MEAN, STD, torch.empty(0)))
    return theirs, torch.from_numpy(pixels), LabelView(view, mix)


def test_the_published_loader_renders_the_same_views_where_no_crop_shrinks_the_image() -> None:
    theirs, pixels, drawn = shown(1)
    ours = Renderer("cutmix", MEAN, STD).render(pixels, np.arange(4), drawn)
    # Pillow rounds a crop to whole levels, and antialiases nothing that is enlarged.
    level = 1.0 / 255 / min(STD)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1.01 * level)


def test_published_labels_and_ours_give_a_student_the_same_loss() -> None:
    """Both loops whole: a file, a view, a teacher, a label file; then a student on that view."""
    theirs, pixels, drawn = shown(1)
    teacher, student = tiny_teacher(), tiny_teacher(seed=1)
    boxes, flips = torch.from_numpy(drawn.view.boxes), torch.from_numpy(drawn.view.flips)
    label = load_labels(save_labels(teacher(theirs).logits, boxes, flips))
    ours = Renderer("cutmix", MEAN, STD).render(pixels, np.arange(4), drawn)
    config = tiny_run("relabel.crop=[0.2, 1.0]").relabel
    mine = predict_view(teacher, pixels, drawn, config).logits
    other = predict_view(teacher, pixels, shown(2)[2], config).logits

    def loss(views: torch.Tensor, logits: torch.Tensor) -> float:
        said = student(views).logits
        return float(kl_soft_labels(said, logits, temperature=1.0, squared=False))

    # Pillow rounds views to whole levels: a hundredth of what another view makes of a label.
    assert float((mine - label).abs().max()) < 0.02 * float((other - label).abs().max())
    assert loss(ours, mine) == pytest.approx(loss(theirs, label), rel=0.003)
    assert loss(ours, other) != pytest.approx(loss(theirs, label), rel=0.02)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def test_a_training_step_of_the_loader_and_ours_have_the_same_loss() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(40) % 10
    theirs, ours = training_steps(pixels, labels, width=4, batch=16)
    for _ in range(3):
        assert ours() == pytest.approx(theirs(), rel=1e-6)


def test_files_are_decoded_to_the_same_pixels_one_by_one(tmp_path: Path) -> None:
    files = [jpeg(one) for one in smooth_images(30, 16)]
    plain = decode_files(files)
    with images_of(files, side=16, folder=tmp_path, decoders=1) as images:
        assert np.array_equal(images.resident(), plain.transpose(0, 3, 1, 2))
