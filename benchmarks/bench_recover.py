"""Recover step against the published loop: interleaved pairs, one run, one table.

python -m benchmarks.bench_recover [--width 16] [--side 32] [--batch 50] [--groups 1] [--compile]
                                   [--device cpu] [--pairs 15] [--write]

Needs the core alone. A run whose A/A row leaves 3 % is rejected: the machine was too noisy.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import HookedTeacher, baseline_step
from benchmarks.dispatched import Dispatched
from benchmarks.pairs import Clock, Ratios, Way, clock_of, conclude, paired, parser, repeated
from distill_core.config.fields import Precision
from distill_core.config.load import load_run
from distill_core.config.recovery_settings import RollConfig
from distill_core.config.training import ModelConfig
from distill_core.models.build import build_model
from distill_core.models.files import load_teacher, teacher_files
from distill_core.models.spec import TeacherSpec
from distill_core.recover.cudagraph import steps_on
from distill_core.recover.goals import Goal
from distill_core.recover.pixels import pixel_adam
from distill_core.recover.step import Part
from distill_core.recover.terms import build_objective
from distill_core.seeds import generator
from distill_core.transforms.pixel_space import PixelSpace
from distill_core.transforms.views import View, sample_view, sampling_grid

TERMS = {"cross_entropy": 1.0, "bn_statistics": 0.01}
ROLL = RollConfig(mode="symmetric", pixels=4)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CLASSES, FACTOR, LR, BETAS = 10, 10.0, 0.01, (0.5, 0.9)
CONFIG = (
    f"- Config: terms {TERMS}, first layer {FACTOR:g}; Adam, lr {LR}, betas {BETAS}; one crop of "
    f"8 to 100 %, flip and roll of {ROLL.pixels} for the batch; {CLASSES} classes, random weights."
)
LARGE = 128  # pixels from which the stem is that of ImageNet
CEILING = {"cpu": 2048, "cuda": 8192}  # side of the matrices whose product is taken for the limit


@dataclass(frozen=True)
class Loop:
    """A recovery that can go on for ever."""

    leaf: Tensor  # (B, 3, S, S) of the first batch
    step: Callable[[], tuple[float, float] | Tensor]  # returns its losses


class Contest:
    """Loops over equal teachers, images and draws.

    Args:
        width: of the ResNet-18, below `LARGE` pixels; 64 above.
        side: of the images, in pixels.
        batch: images B of a batch.
        device: where to compute.
        classes: of the teacher.
    """

    def __init__(
        self, width: int, side: int, batch: int, device: str = "cpu", classes: int = CLASSES
    ) -> None:
        self.side, self.batch, self.device = side, batch, device
        large = ModelConfig(name="resnet18")  # which has one width
        config = large if side >= LARGE else ModelConfig(name="resnet18_small", width=width)
        self.model = build_model(config, classes, seed=0)
        self.model(torch.randn(64 if side < LARGE else 8, 3, side, side))  # running statistics
        spec = TeacherSpec(
            model=config, num_classes=classes, class_hash="-", mean=MEAN, std=STD, side=side,
            features=512 if side >= LARGE else 8 * width, origin="benchmark",
        )  # fmt: skip
        self.files = teacher_files(self.model, spec)
        self.model.to(device)
        self.targets = torch.arange(batch, device=device) % CLASSES
        self.space = PixelSpace.of(MEAN, STD, torch.empty(0, device=device))
        self.noise = torch.randn(batch, 3, side, side, device=device)

    def theirs(self) -> Loop:
        """Return the published loop."""
        leaf, hooked = self._leaf(), HookedTeacher(deepcopy(self.model), FACTOR)  # it adds hooks
        optimizer, numbers = torch.optim.Adam([leaf], lr=LR, betas=BETAS), itertools.count()

        def step() -> tuple[float, float]:
            return baseline_step(
                leaf, self.targets, teacher=hooked, optimizer=optimizer,
                view=self._view(next(numbers)), weight=TERMS["bn_statistics"], space=self.space,
            )  # fmt: skip

        return Loop(leaf, step)

    def ours(
        self, precision: Precision = "float32", *, compiled: bool = False, groups: int = 1
    ) -> Loop:
        """Return our loop over so many batches at once."""
        teacher = load_teacher(self.files["safetensors"], self.files["json"], precision=precision)
        objective = build_objective(TERMS)
        changes = {"terms": TERMS, "first_layer_factor": FACTOR, "compile": compiled}
        config = load_run("sre2l-cifar10").recover.model_copy(update=changes)
        goal = Goal(self.targets, teacher.to(self.device), objective, self.space, config)
        goals = [replace(goal) for _ in range(groups)]
        leaves = [self._leaf() for _ in range(groups)]
        adams = [pixel_adam([leaf], lr=LR, betas=BETAS) for leaf in leaves]
        take, numbers = steps_on(torch.device(self.device)), itertools.count()

        def step() -> Tensor:
            view = self._view(next(numbers))
            grid = sampling_grid(view, out=self.side, like=leaves[0])
            batches = zip(leaves, goals, adams, strict=True)
            return take([Part([leaf], goal, adam, grid) for leaf, goal, adam in batches])

        return Loop(leaves[0], step)

    def _leaf(self) -> Tensor:
        return self.noise.clone().requires_grad_(True)

    def _view(self, step: int) -> View:
        view = sample_view(
            generator(0, step), count=1, side=self.side, scale=(0.08, 1.0), flip=True, roll=ROLL
        )
        return view.repeated(self.batch)


def equality(contest: Contest, precision: Precision) -> str:
    """Compare the first steps, which start from the same images, in losses and gradients."""
    theirs, ours = contest.theirs(), contest.ours(precision)
    wanted = torch.tensor(theirs.step())
    made = torch.as_tensor(ours.step())[0, :2].cpu()
    gap = float(((made - wanted).abs() / wanted).max())
    assert theirs.leaf.grad is not None
    assert ours.leaf.grad is not None
    cosine = torch.nn.functional.cosine_similarity(
        theirs.leaf.grad.flatten(), ours.leaf.grad.flatten(), dim=0
    )
    if precision == "float32" and (gap > 1e-6 or cosine < 0.9999):
        raise SystemExit(f"not the same step: losses differ by {gap:.1e}, cosine {float(cosine)}")
    return (
        f"- First step, {precision}: losses differ by {gap:.1e} (relative), gradients have cosine "
        f"{float(cosine):.6f}."
    )


def dispatched(contest: Contest) -> str:
    """Count what one step of each loop dispatches; views cost nothing and do not count."""
    loops = {"the baseline": contest.theirs(), "ours": contest.ours("bfloat16")}
    words = []
    for name, loop in loops.items():
        loop.step()
        with Dispatched() as counted:
            loop.step()
        share = counted.bytes / contest.batch / 1e6
        words.append(f"{name} {counted.calls.total()} operations and {share:.0f} MB an image")
    return f"- Dispatched in a step: {', '.join(words)} (bfloat16)."


def narrow_products(allowed: bool) -> None:
    """Say whether a GPU may multiply float32 as TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def flops_of(contest: Contest) -> int:
    """Return the floating point operations of one step of one batch."""
    loop = contest.theirs()
    with FlopCounterMode(display=False) as counter:
        loop.step()
    return counter.get_total_flops()


def matmul_rate(device: str, clock: Clock) -> float:
    """Return the measured operations per second of a bfloat16 matrix product."""
    side = CEILING[torch.device(device).type]
    one, other = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    seconds = [clock(lambda: one @ other) for _ in range(9)]
    return float(2 * side**3 / statistics.median(seconds[2:]))


def main() -> int:
    """Measure, print, and write a result file when asked."""
    options = parser(__doc__, width=16, side=32, batch=50, groups=1)
    options.add_argument("--device", default="cpu")
    options.add_argument("--compile", action="store_true", help="also compiled; takes a minute")
    args = options.parse_args()
    torch.set_num_threads(1)
    contest, clock = Contest(args.width, args.side, args.batch, args.device), clock_of(args.device)
    narrow_products(False)  # which equality to 1e-6 is not about
    notes = [equality(contest, "float32"), equality(contest, "bfloat16"), dispatched(contest)]
    narrow_products(True)
    theirs = contest.theirs()
    noise = paired(
        "A/A: baseline over itself", contest.theirs().step, theirs.step, args.pairs, clock
    )
    rate, flops, rows = matmul_rate(args.device, clock), flops_of(contest), []
    for what, way, groups in _ways(contest, args.compile, args.groups, notes):
        one = repeated(theirs.step, groups)
        row = paired(f"baseline over ours, {what}", one, way, args.pairs, clock)
        rows.append(row)
        notes.append(_speed(row, args.batch * groups, flops * groups, rate))
    notes.append(CONFIG)
    ceiling = CEILING[torch.device(args.device).type]
    notes.append(f"- Measured limit: {rate / 1e9:,.0f} GFLOP/s, bfloat16 product of {ceiling}^3.\n")
    width = 64 if args.side >= LARGE else args.width
    title = f"recover step, ResNet-18 width {width}, {args.side} px, batch {args.batch}"
    name = f"recover-w{width}-s{args.side}-b{args.batch}"
    return conclude(title, name, noise, rows, notes, write=args.write, device=args.device)


def _ways(
    contest: Contest, compiled: bool, groups: int, notes: list[str]
) -> list[tuple[str, Way, int]]:
    """Return our loops by name, with the batches that each handles in a step."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    made: list[tuple[str, Way, int]] = [(p, contest.ours(p).step, 1) for p in precisions]
    if groups > 1:
        what = f"bfloat16, {groups} batches at once"
        made.append((what, contest.ours("bfloat16", groups=groups).step, groups))
    for precision in precisions if compiled else ():
        loop, start = contest.ours(precision, compiled=True, groups=groups), time.perf_counter()
        loop.step()
        seconds = time.perf_counter() - start
        notes.append(f"- First compiled step, {precision}: {seconds:.0f} s, cache as it was.")
        what = f"{precision}, compiled" + (f", {groups} batches at once" if groups > 1 else "")
        made.append((what, loop.step, groups))
    return made


def _speed(row: Ratios, images: int, flops: int, rate: float) -> str:
    return (
        f"- {row.what}: {images / row.seconds:,.0f} image-iterations/s, "
        f"{flops / row.seconds / 1e9:,.0f} GFLOP/s, {flops / row.seconds / rate:.0%} of the limit."
    )


if __name__ == "__main__":
    sys.exit(main())
