"""Speed of each stage on a device, in few pairs: a first look, not a result to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.bench_posttrain import Epoch, training
from benchmarks.bench_recover import Contest, flops_of, matmul_rate, narrow_products
from benchmarks.bench_relabel import Shard
from benchmarks.gpu_checks import Row
from benchmarks.pairs import Way, clock_of, paired, repeated

PAIRS, GROUPS = 5, 8


def speeds(device: str, *, quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield every measurement by name; none is taken yet."""
    sizes = [(8, 16, 8)] if quick else [(64, 32, 100), (64, 224, 100)]
    yield "limit", lambda: _limit(device)
    for width, side, batch in sizes:
        words = f"recover, {side} px, batch {batch}"
        contest = _lazily(lambda w=width, s=side, b=batch: Contest(w, s, b, device))  # type: ignore[misc]
        yield (
            f"{words}, A/A",
            lambda c=contest, w=words: _recover(w + ", the published loop over itself", c, None),  # type: ignore[misc]
        )
        for what, options in _ways(device, side, quick=quick):
            yield (
                f"{words}, {what}",
                lambda c=contest, w=f"{words}, {what}", o=options: _recover(w, c, o),  # type: ignore[misc]
            )
    side, batch, batches = (16, 8, 2) if quick else (32, 100, 10)
    yield "post-train", lambda: _student(side, batch, batches, device)
    yield "relabel", lambda: _labels(side, device, quick=quick)


def _ways(device: str, side: int, *, quick: bool) -> Iterator[tuple[str, dict[str, object]]]:
    yield "float32", {"precision": "float32"}
    yield "bfloat16", {"precision": "bfloat16"}
    if side < 128:
        groups = 2 if quick else GROUPS
        yield f"bfloat16, {groups} batches at once", {"precision": "bfloat16", "groups": groups}
    if not quick:
        yield "bfloat16, compiled", {"precision": "bfloat16", "compiled": True}


def _lazily(make: Callable[[], Contest]) -> Callable[[], Contest]:
    """Return what makes a contest once, where it is first needed."""
    made: list[Contest] = []

    def contest() -> Contest:
        if not made:
            made.append(make())
        return made[0]

    return contest


def _limit(device: str) -> Row:
    rate = matmul_rate(device, clock_of(device))
    return Row("bfloat16 matrix product", f"{rate / 1e9:,.0f} GFLOP/s", None)


def _recover(what: str, make: Callable[[], Contest], options: dict[str, object] | None) -> Row:
    contest = make()
    narrow_products(True)
    try:
        theirs, groups = contest.theirs(), int(str((options or {}).get("groups", 1)))
        ours = contest.theirs() if options is None else contest.ours(**options)  # type: ignore[arg-type]
        clock = clock_of(contest.device)
        for _ in range(6):  # compiled, and recorded
            ours.step()
        row = paired(what, repeated(theirs.step, groups), ours.step, PAIRS, clock)
    finally:
        narrow_products(False)
    images = groups * contest.batch / row.seconds
    flops = groups * flops_of(contest) / row.seconds
    value = f"ratio {row.median:.2f}; {images:,.0f} image-iterations/s, {flops / 1e9:,.0f} GFLOP/s"
    return Row(what, value, None)


def _student(side: int, batch: int, batches: int, device: str) -> Row:
    epoch = Epoch.of(side, batch, batches)
    without, with_data = training(epoch, device)
    row = paired("a student's step without its data over one with", without, with_data, PAIRS,
                 clock_of(device))  # fmt: skip
    images = batch * batches / row.seconds
    return Row(f"{row.what}, {side} px", f"ratio {row.median:.2f}; {images:,.0f} images/s", None)


def _labels(side: int, device: str, *, quick: bool) -> Row:
    images, views, width = (8, 2, 8) if quick else (500, 10, 64)
    shard, contest = Shard.of(images, side, views, device), Contest(width, side, 8, device, 1000)
    label: Way = shard.ours(contest, "bfloat16")
    clock = clock_of(device)
    label()
    seconds = min(clock(label) for _ in range(3))
    value = f"{images * views / seconds:,.0f} labels/s made and stored"
    return Row(f"labels of a ResNet-18, {side} px, 1,000 classes", value, None)


def device_ready(device: str) -> str | None:
    """Return why a device cannot compute; None if it can."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU"
    return None
