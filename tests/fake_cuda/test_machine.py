"""The fake GPU itself: it finds mixed devices, values that are read, and copies that wait."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_core.posttrain import student
from distill_core.posttrain.student import Student, StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.recover import terms
from distill_core.recover.optimise import recover_batch
from distill_core.recover.setup import RecoverySetup
from distill_core.recover.terms import Forward, cross_entropy
from distill_core.training.runtime import TrainingRuntime
from tests.support.fake_cuda import ALLOWED, EVERY_STEP, UnexpectedWait, Wait, fake_cuda
from tests.support.stored_labels import shard
from tests.support.tiny import labelled, tiny_batch, tiny_recover, tiny_run, tiny_teacher

# What the host does, and how it waits for it. The first argument is on the GPU, the second is not.
WAYS: dict[str, tuple[Callable[[Tensor, Tensor], object], str | None]] = {
    "item": (lambda on, off: on.sum().item(), "read"),
    "float": (lambda on, off: float(on[0]), "read"),
    "condition": (lambda on, off: bool((on > 0).all()), "read"),
    "tolist": (lambda on, off: on.tolist(), "read"),
    "equal": (lambda on, off: torch.equal(on, on), "read"),
    "cpu": (lambda on, off: on.cpu(), "download"),
    "cpu without waiting": (lambda on, off: on.to("cpu", non_blocking=True), "download"),
    "copy to the host": (lambda on, off: off.copy_(on), "download"),
    "upload": (lambda on, off: off.to("cuda"), "upload"),
    "copy from the host": (lambda on, off: on.copy_(off), "upload"),
    "constant": (lambda on, off: torch.tensor([1.0, 2.0], device="cuda"), "upload"),
    "constant like another": (lambda on, off: on.new_tensor([1.0]), "upload"),
    "a number": (lambda on, off: torch.as_tensor(0.1, device="cuda"), "upload"),
    "index by an array": (lambda on, off: on[np.array([0, 1])], "upload"),
    "index by a list": (lambda on, off: on[[0, 1]], "upload"),
    "index by the host": (lambda on, off: on[off.long()], "upload"),
    "assign by the host": (lambda on, off: on.index_put_((off.long(),), off.to("cuda")), "upload"),
    "mask": (lambda on, off: on[on > 0], "shape"),
    "nonzero": (lambda on, off: on.nonzero(), "shape"),
    "unique": (lambda on, off: torch.unique(on), "shape"),
    "bincount": (lambda on, off: torch.bincount(on.long(), minlength=9), "shape"),
    "eigenvalues": (lambda on, off: torch.linalg.eigvalsh(on[:, None] * on), "check"),
    "upload without waiting": (lambda on, off: off.to("cuda", non_blocking=True), None),
    "copy without waiting": (lambda on, off: on.copy_(off, non_blocking=True), None),
    "fill": (lambda on, off: on.fill_(0.1), None),
    "zeros": (lambda on, off: torch.zeros(3, device="cuda"), None),
    "assign by a mask": (lambda on, off: on.masked_fill_(on > 0, 1), None),
    "index on the GPU": (lambda on, off: on[on.long()], None),
    "host alone": (lambda on, off: off[np.array([0, 1])].sum().item(), None),
    "arithmetic": (lambda on, off: (2 * on + 1).softmax(0), None),
}


def waiting(way: str) -> list[Wait]:
    """Return the waits of one way; done where the product does it."""
    function, _ = WAYS[way]
    with fake_cuda() as gpu:
        on, off = torch.zeros(4, device="cuda"), torch.zeros(4)
        function(on, off)
        return gpu.waits


@pytest.fixture
def as_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this file for a part of the product."""
    monkeypatch.setattr("tests.support.fake_cuda.watch.PRODUCT", str(Path(__file__).parent))


@pytest.mark.usefixtures("as_the_product")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_wait_is_found_and_no_other(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = WAYS[way][1]
    if kind is None:
        assert waiting(way) == []
        return
    with pytest.raises(UnexpectedWait, match=rf"test_machine.py:.* waits for the GPU \({kind}, "):
        waiting(way)
    allowed = {Wait("test_machine.py", kind): "tested here"}  # type: ignore[arg-type]
    monkeypatch.setattr("tests.support.fake_cuda.watch.site", lambda: "test_machine.py")
    monkeypatch.setattr("tests.support.fake_cuda.watch.ALLOWED", allowed)
    assert set(waiting(way)) == set(allowed)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_test_does_itself_is_no_wait(way: str) -> None:
    assert waiting(way) == []


@pytest.mark.parametrize(
    "mixed",
    [
        lambda on, off: on + off,
        lambda on, off: torch.cat([on, off]),
        lambda on, off: on @ off,
        lambda on, off: nn.functional.cross_entropy(on[None], off[:1].long()),
        lambda on, off: torch.lerp(on, off, 0.5),
        lambda on, off: torch.ops.aten.batch_norm_update_stats(
            on[None], on.float(), off.float(), 1.0
        ),
    ],
    ids=["sum", "cat", "product", "loss", "lerp", "moments"],
)
def test_tensors_on_different_devices_do_not_mix(mixed: Callable[..., Tensor]) -> None:
    with fake_cuda():
        on, off = torch.zeros(4, device="cuda"), torch.zeros(4)
        with pytest.raises(RuntimeError, match=r"same device|devices"):
            mixed(on, off)


def test_a_tensor_from_outside_does_not_enter() -> None:
    outside = torch.zeros(4)
    with fake_cuda(), pytest.raises(AssertionError, match="FakeTensor"):
        outside + 1


@pytest.mark.parametrize("change", ["requires_grad_", "bfloat16", "cuda"])
def test_an_array_is_made_only_of_what_torch_makes_one_of(change: str) -> None:
    with fake_cuda():
        tensor = torch.zeros(4)
        assert tensor.numpy().dtype == np.float32
        tensor = tensor.to("cuda") if change == "cuda" else getattr(tensor, change)()
        with pytest.raises((RuntimeError, TypeError)):
            tensor.numpy()


def test_gradients_have_the_shapes_and_devices_of_their_leaves() -> None:
    with fake_cuda():
        weight = torch.zeros(3, 2, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        offset = torch.zeros(3, device="cuda", requires_grad=True)
        unused = torch.zeros(1, device="cuda", requires_grad=True)
        images = torch.zeros(5, 2, device="cuda")
        twice = (images.bfloat16() @ weight.T).float() + offset
        (twice * twice).sum().backward()
        (found,) = torch.autograd.grad((offset * offset).sum(), [offset])
    assert unused.grad is None
    for gradient, leaf in ((weight.grad, weight), (offset.grad, offset), (found, offset)):
        assert gradient is not None
        assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
        assert gradient.device == leaf.device


def test_a_recording_refuses_any_copy() -> None:
    with fake_cuda() as gpu:
        with pytest.raises(UnexpectedWait, match="cannot record a copy"):
            gpu.record(lambda: torch.zeros(3).to("cuda", non_blocking=True))
        assert gpu.record(lambda: torch.zeros(3, device="cuda"))().is_cuda


def reads_a_value(forward: Forward) -> Tensor:
    loss = cross_entropy(forward)
    return loss * (2.0 if loss.item() > 0 else 1.0)


def mixes_devices(forward: Forward) -> Tensor:
    return (cross_entropy(forward) * torch.ones(1)).sum()


def copies(forward: Forward) -> Tensor:
    return (cross_entropy(forward) * torch.ones(1).to("cuda", non_blocking=True)).sum()


@pytest.mark.parametrize(
    ("term", "error", "message"),
    [
        (reads_a_value, UnexpectedWait, r"recover/step.py:_losses waits for the GPU \(read"),
        (mixes_devices, RuntimeError, "same device"),
        (copies, UnexpectedWait, "a CUDA graph cannot record a copy"),
        (cross_entropy, None, ""),
    ],
)
def test_a_mistake_in_a_term_is_found(
    term: Callable[[Forward], Tensor],
    error: type[Exception] | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(terms.TERMS, "cross_entropy", term)  # type: ignore[arg-type]
    config = tiny_recover("recover.terms={cross_entropy: 1.0}", "recover.steps=5")
    with fake_cuda(), pytest.raises(error, match=message) if error else nullcontext():
        recover_batch(tiny_batch(), RecoverySetup(config, [tiny_teacher().to("cuda")], seed=0))


def waits_for_its_loss(loss: Tensor) -> Tensor:
    return loss if loss.isfinite() else loss * 0


def asks_the_host(loss: Tensor) -> Tensor:
    return loss * torch.tensor([1.0], device="cuda").sum()


def train(images_of: Any) -> None:
    """Train a student with labels that a teacher computes; on the fake GPU."""
    run = tiny_run("posttrain.epochs=1", "relabel.scheme=online")
    task = StudentTask(run, run.posttrain.students[0], 0, images_of)
    teacher, runtime = tiny_teacher().to("cuda"), TrainingRuntime(device="cuda")
    soft = SoftLabels(lambda: teacher)
    train_on_shards(task, [shard(0)], soft, labelled(8), runtime=runtime)


@pytest.mark.parametrize(
    ("changed", "kind"), [(waits_for_its_loss, "read"), (asks_the_host, "upload")]
)
def test_a_mistake_in_a_loss_of_a_student_is_found(
    changed: Callable[[Tensor], Tensor], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = student.kl_soft_labels
    monkeypatch.setattr(student, "kl_soft_labels", lambda *a, **k: changed(loss(*a, **k)))
    message = rf"posttrain/student.py:Student._soft waits for the GPU \({kind}"
    with fake_cuda(), pytest.raises(UnexpectedWait, match=message):
        train("distilled")


def test_positions_that_stay_on_the_host_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    of_classes = Student._hard

    def on_the_host(*arguments: Any) -> Tensor:
        with patch.object(student, "upload", lambda array, device: torch.from_numpy(array)):
            return of_classes(*arguments)

    monkeypatch.setattr(Student, "_hard", on_the_host)
    message = r"Student._hard waits for the GPU \(upload"
    with fake_cuda(), pytest.raises(UnexpectedWait, match=message):
        train("hard_labels")


@pytest.mark.parametrize("wait", sorted(ALLOWED), ids=lambda wait: f"{wait.site}-{wait.kind}")
def test_every_allowed_wait_is_of_a_function_of_the_product_and_has_a_reason(wait: Wait) -> None:
    file, _, name = wait.site.partition(":")
    found: object = import_module("distill_core." + file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    assert ALLOWED[wait]


def test_only_terms_that_are_known_to_wait_do_so_in_every_step() -> None:
    sites = {wait.site for wait in EVERY_STEP}
    known = {f"recover/terms/pixels.py:{term}" for term in terms.NEEDS_SYNC}
    assert known < sites
    assert all(site.startswith(("recover/terms/", "recover/step.py:")) for site in sites)
