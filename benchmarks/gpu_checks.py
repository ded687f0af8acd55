"""Whether a GPU computes what a CPU does: every stage of a small run on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from benchmarks.gpu_terms import BATCHES, CLASSES, TermBench, small_run, stripes
from distill_core.config.fields import Precision
from distill_core.labels.relabel import relabel_shard
from distill_core.models.teacher import FrozenTeacher
from distill_core.posttrain.student import StudentTask
from distill_core.posttrain.train import SoftLabels, train_on_shards
from distill_core.recover import cudagraph
from distill_core.recover.batch import RecoveredBatch
from distill_core.recover.terms import NEEDS_SYNC, TERMS
from distill_core.sharding import ClassEntry, class_list_hash
from distill_core.squeeze.result import SqueezedTeacher
from distill_core.squeeze.teacher import train_teacher
from distill_core.storage.image_shards import ImageRows
from distill_core.storage.label_shards import LabelRows, decode_labels, encode_labels
from distill_core.training.runtime import TrainingRuntime

SMALL, ROUGH = 1e-3, 0.1  # relative gaps that float32 and bfloat16 may have between devices


@dataclass(frozen=True)
class Row:
    """One thing that was compared."""

    what: str
    value: str
    passed: bool | None  # None: it was not measured, and `value` is the reason


Check = tuple[str, Callable[[], Row]]


def squeezed(device: str, *, seed: int = 0) -> SqueezedTeacher:
    """Train a small teacher on a device."""
    classes = [ClassEntry(label, f"class_{label}") for label in range(CLASSES)]
    return train_teacher(
        stripes(320), stripes(160, seed=1), run=small_run(f"seed={seed}"),
        class_hash=class_list_hash(classes), runtime=TrainingRuntime(device=device),
    )  # fmt: skip


@cache
def bench() -> TermBench:
    """Return networks trained on the CPU, which all checks share."""
    return TermBench(squeezed("cpu"), squeezed("cpu", seed=1), stripes(80, seed=2))


def checks(device: str, *, quick: bool) -> Iterator[Check]:
    """Yield every check of a device by name; none is computed yet."""
    for precision in ("float32", "bfloat16"):
        for term in TERMS:
            yield f"{term}, {precision}", lambda t=term, p=precision: _term(t, p, device)  # type: ignore[misc]
    for scheme in ("features", "logits", "topk"):
        yield f"labels, {scheme}", lambda s=scheme: _labels(s, device)  # type: ignore[misc]
    for precision in ("float32", "bfloat16"):
        yield f"student, {precision}", lambda p=precision: _student(p, device)  # type: ignore[misc]
    yield "teacher, one epoch", lambda: _teacher(device)
    yield "graphs", lambda: _graphs(device)
    yield "compile", lambda: _compiled(device, quick=quick)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference over the largest number."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(np.abs(first - second).max() / max(np.abs(second).max(), 1e-12))


def _judged(what: str, gap: float, limit: float, more: str = "") -> Row:
    return Row(what, f"{gap:.1e} (limit {limit:.0e}){more}", gap <= limit)


def _losses(batches: tuple[RecoveredBatch, ...]) -> np.ndarray:
    """Return every loss of the first step, by batch."""
    left_out = {"step", "low", "lr"}
    return np.array(
        [[v for name, v in batch.trace[0].items() if name not in left_out] for batch in batches]
    )


def _term(term: str, precision: Precision, device: str) -> Row:
    there = bench().recovered(term, device=device, precision=precision)
    here = _on_cpu(term)
    moved = max(
        int(np.abs(one.pixels.astype(int) - other.pixels).max())
        for one, other in zip(there, here, strict=True)
    )
    limit = SMALL if precision == "float32" else ROUGH
    gap = _gap(_losses(there), _losses(here))
    return _judged(
        f"losses of the first step, {term}, {precision}", gap, limit,
        f"; after the last step, pixels differ by {moved} levels at most",
    )  # fmt: skip


@cache
def _on_cpu(term: str) -> tuple[RecoveredBatch, ...]:
    return bench().recovered(term, device="cpu")


def _rows() -> ImageRows:
    return ImageRows(BATCHES[0], stripes(len(BATCHES[0]), seed=3).pixels)


def _relabelled(scheme: str, teacher: FrozenTeacher) -> LabelRows:
    settings = [f"relabel.scheme={scheme}", *(["relabel.topk=3"] if scheme == "topk" else [])]
    config = small_run(*settings).relabel
    made = relabel_shard(_rows(), range(4), config=config, teacher=teacher, seed=0)
    return decode_labels(encode_labels(made))


def _labels(scheme: str, device: str) -> Row:
    there, here = (
        _relabelled(scheme, bench().teacher.frozen(device=place)) for place in (device, "cpu")
    )
    assert there.values is not None
    assert here.values is not None
    if scheme == "features":
        levels = int(np.abs(there.values.astype(int) - here.values).max())
        return Row("codes of features", f"{levels} levels apart at most (limit 1)", levels <= 1)
    return _judged(f"labels, {scheme}", _gap(there.values, here.values), SMALL)


def _student(precision: Precision, device: str) -> Row:
    run = small_run("posttrain.epochs=2", f"precision={precision}", "posttrain.evaluate_every=1")
    labels = _relabelled("features", bench().teacher.frozen())

    def losses(place: str) -> np.ndarray:
        soft = SoftLabels.in_memory(bench().teacher.frozen(device=place), [labels])
        task = StudentTask(run, run.posttrain.students[0], 0, "distilled")
        made = train_on_shards(
            task, [_rows()], soft, stripes(80, seed=1), runtime=TrainingRuntime(device=place)
        )
        return np.array([point["loss"] for point in made.result["curve"]])

    limit = 10 * SMALL if precision == "float32" else ROUGH
    return _judged(f"losses of a student, {precision}", _gap(losses(device), losses("cpu")), limit)


def _teacher(device: str) -> Row:
    there, here = (np.array([squeezed(place).curve[0]["loss"]]) for place in (device, "cpu"))
    return _judged("loss of a teacher's epoch", _gap(there, here), 0.02)


def _graphs(device: str) -> Row:
    if torch.device(device).type != "cuda":
        return Row("recorded steps", "a CPU records none", None)
    recorded = 0
    record = cudagraph.CudaRecorder.record

    def counted(recorder: cudagraph.CudaRecorder, step: cudagraph.Replay) -> cudagraph.Replay:
        nonlocal recorded
        replay = record(recorder, step)
        recorded += 1
        return replay

    cudagraph.CudaRecorder.record = counted  # type: ignore[method-assign]
    try:
        waiting = cudagraph.NEEDS_SYNC
        graphs = bench().recovered("bn_statistics", device=device)
        cudagraph.NEEDS_SYNC = NEEDS_SYNC | {"cross_entropy"}  # so that every step is taken
        eager = bench().recovered("bn_statistics", device=device)
    finally:
        cudagraph.CudaRecorder.record = record  # type: ignore[method-assign]
        cudagraph.NEEDS_SYNC = waiting
    pairs = zip(graphs, eager, strict=True)
    moved = max(int(np.abs(a.pixels.astype(int) - b.pixels).max()) for a, b in pairs)
    value = f"{recorded} recordings; pixels differ by {moved} levels from steps taken one by one"
    return Row("recorded steps", value, recorded > 0 and moved <= 1)


def _compiled(device: str, *, quick: bool) -> Row:
    if quick:
        return Row("compiled steps", "left out by --quick", None)
    start = time.perf_counter()
    there = bench().recovered("bn_statistics", device=device, compiled=True)
    seconds = time.perf_counter() - start
    plain = bench().recovered("bn_statistics", device=device)
    gap = _gap(_losses(there), _losses(plain))
    return _judged("compiled steps", gap, SMALL, f"; {seconds:.0f} s with the compilation")
