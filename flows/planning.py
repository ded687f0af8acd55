"""What a run will cost, before anything is spent: shards, image-iterations, GPU-hours, bytes.

Pure functions of the config; nothing is read and nothing is started. One image-iteration is one
image through one optimisation step of recover: a forward and a backward pass to the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distill_core.codec import choose_scheme
from distill_core.config.schema import RunConfig
from distill_core.config.training import ModelConfig
from distill_core.errors import DistillError
from distill_core.judging import validation_blocks
from distill_core.plan import ClassEntry, ClassShard, plan_shards
from flows import sizes, units

SHARD_SECONDS = (
    300,
    900,
)  # a lost shard should be cheap, a finished one worth its overhead
PASSES = {
    "relabel": 0.5,
    "posttrain": 1.5,
}  # in image-iterations: 1 and 3 of recover's 2 passes
FEATURES: Mapping[str, int] = {"resnet18": 512, "resnet50": 2048, "mobilenet_v2": 1280}
CONVNETS = ("convnet3", "convnet4")


@dataclass(frozen=True)
class Cost:
    """What a plan costs at a given speed of one GPU."""

    rate: float  # image-iterations per second
    recover_hours: float
    relabel_hours: float
    posttrain_hours: float
    shard_seconds: float  # of the longest shard
    ipc_range: int  # recommended images per class in one shard
    price: float | None = None  # USD per GPU-hour

    @property
    def hours(self) -> float:
        """Return GPU-hours of all stages."""
        return self.recover_hours + self.relabel_hours + self.posttrain_hours

    @property
    def usd(self) -> float | None:
        """Return the price of all stages."""
        return None if self.price is None else self.price * self.hours


@dataclass(frozen=True)
class Plan:
    """The amount of work of one run, the random-real baseline included where it costs."""

    preset: str
    classes: int
    ipc: int
    images: int
    shards: int  # of one image set
    image_sets: int  # 2 with the random-real baseline
    images_per_shard: int  # of the largest
    classes_per_shard: int  # of the widest
    batches: int
    teachers: int
    statistics_shards: int  # 0 unless a term compares with class statistics
    image_iterations: int  # of recover
    views: int  # label views over all images and sets
    label_shards: int
    students: int  # students x seeds x sets
    validation_shards: int | None  # 0 if training judges on the whole split; None: not known yet
    student_images: int  # images seen in all post-train epochs together
    image_bytes: int
    label_bytes: int
    scheme: str  # label scheme, `auto` resolved


def plan_run(config: RunConfig, *, test_images: int | None = None) -> Plan:
    """Count the work of a run from its config alone, as if no class were missing.

    Args:
        config: of the run.
        test_images: in the real test split; None: not known.
    """
    shards = _shards(config)
    shapes = sizes.shapes_of(shards)
    images = sum(shape.images * count for shape, count in shapes.items())
    sets = 2 if "random_real" in config.posttrain.sets else 1
    views = images * config.relabel.views * sets
    scheme, width = _labels(config)
    pictures = [sizes.image_bytes(config, shapes, real=real) for real in (False, True)[:sets]]
    post = config.posttrain
    students = len(post.students) * len(post.seeds) * len(post.sets)
    stored = sets * len(shards) if scheme != "online" else 0
    return Plan(
        preset=config.preset,
        classes=config.data.num_classes,
        ipc=config.ipc,
        images=images,
        shards=len(shards),
        image_sets=sets,
        images_per_shard=max(shape.images for shape in shapes),
        classes_per_shard=max(shape.classes for shape in shapes),
        batches=sum(shape.batches * count for shape, count in shapes.items()),
        teachers=1 + len(config.squeeze.pool),
        statistics_shards=len(config.recover.teachers) * len({shard.labels for shard in shards})
        if config.recover.needs_class_statistics
        else 0,
        image_iterations=images * config.recover.steps,
        views=views,
        label_shards=stored * -(-config.relabel.views // config.relabel.views_per_shard),
        students=students,
        validation_shards=None
        if test_images is None
        else students * len(validation_blocks(test_images, post.validation_shard)),
        student_images=students * images * post.epochs,
        image_bytes=sum(pictures),
        label_bytes=sets * sizes.label_bytes(config, shapes, scheme=scheme, width=width),
        scheme=scheme,
    )


def count_test_images(config: RunConfig) -> int | None:
    """Return how many images the test split has, if it lies on this machine; unreadable ones too.

    A bucket is not listed for a plan: that can take minutes.
    """
    from distill_core.data.readers import open_reader

    if "://" in (config.data.path or ""):
        return None
    try:
        return open_reader(config.data).count("test")
    except DistillError:
        return None


def shards_by_stage(plan: Plan) -> dict[str, int | None]:
    """Return how many shards each stage has; None where the dataset has to be known first."""
    return {
        "ingest": 1,
        "squeeze": plan.teachers,
        "statistics": plan.statistics_shards,
        "recover": plan.shards * plan.image_sets,
        "relabel": plan.label_shards,
        "posttrain": plan.students,
        "validate": plan.validation_shards,
    }


def cost(
    plan: Plan,
    *,
    steps: int,
    rate: float,
    label_rate: float | None = None,
    price: float | None = None,
) -> Cost:
    """Turn a plan into GPU-hours.

    Args:
        plan: of one run.
        steps: optimisation steps of recover.
        rate: image-iterations per second of one GPU on this config; measure it, do not guess.
        label_rate: views of one image per second; None: as many passes as `PASSES` says.
        price: USD per GPU-hour.
    """
    per_view = 1 / label_rate if label_rate else PASSES["relabel"] / rate
    return Cost(
        rate=rate,
        recover_hours=plan.image_iterations / rate / 3600,
        relabel_hours=per_view * plan.views / 3600,
        posttrain_hours=PASSES["posttrain"] * plan.student_images / rate / 3600,
        shard_seconds=plan.images_per_shard * steps / rate,
        ipc_range=_ipc_range(plan, steps, rate),
        price=price,
    )


def cost_at(
    plan: Plan, config: RunConfig, rates: Mapping[str, float], *, price: float | None
) -> Cost | None:
    """Return what a plan costs at measured rates; None without the rate of recover.

    Args:
        plan: of one run.
        config: of that run.
        rates: ``recover``: image-iterations, ``relabel``: views of one image, per second of a GPU.
        price: USD per GPU-hour.
    """
    if not rates.get("recover"):
        return None
    return cost(
        plan,
        steps=config.recover.steps,
        rate=rates["recover"],
        label_rate=rates.get("relabel"),
        price=price,
    )


def to_json(plan: Plan, cost: Cost | None) -> dict[str, Any]:
    """Return plan and cost as a JSON-able tree."""
    tree = asdict(plan)
    if cost is not None:
        tree["cost"] = asdict(cost) | {"hours": cost.hours, "usd": cost.usd}
    return tree


def lines(plan: Plan, cost: Cost | None) -> list[tuple[str, str]]:
    """Return (what, how much) for the terminal."""
    images = f"{plan.images:,} = {plan.classes:,} classes x {plan.ipc} images per class"
    work = [
        ("images", images),
        (
            "class shards",
            f"{plan.shards:,}, up to {plan.images_per_shard:,} images each",
        ),
        ("batches", f"{plan.batches:,}"),
        ("recover", f"{plan.image_iterations:,} image-iterations"),
        (
            "relabel",
            f"{plan.views:,} views in {plan.label_shards:,} shards ({plan.scheme})",
        ),
        (
            "post-train",
            f"{plan.students:,} students, {plan.student_images:,} images seen",
        ),
        ("validate", _validation(plan)),
        ("image bytes", f"about {units.size(plan.image_bytes)}, every set"),
        ("label bytes", f"about {units.size(plan.label_bytes)}, every set"),
    ]
    return work if cost is None else work + _cost_lines(cost)


def _validation(plan: Plan) -> str:
    match plan.validation_shards:
        case None:
            return "not known before the test split is ingested or lies on this machine"
        case 0:
            return "within post-train: the test split fits one shard"
        case shards:
            return f"{shards:,} shards"


def _cost_lines(cost: Cost) -> list[tuple[str, str]]:
    low, high = SHARD_SECONDS
    fits = "fits" if low <= cost.shard_seconds <= high else "wished for"
    result = [
        (
            "GPU-hours",
            f"{cost.hours:,.2f} at {cost.rate:,.0f} image-iterations/s, start-up aside",
        ),
        ("  recover", _hours(cost.recover_hours)),
        ("  relabel", _hours(cost.relabel_hours)),
        (
            "  post-train",
            f"{_hours(cost.posttrain_hours)} (rough: three passes where recover has two)",
        ),
        (
            "one shard",
            f"{units.duration(cost.shard_seconds)} ({low // 60}-{high // 60} min {fits})",
        ),
        ("recommended", f"recover.ipc_range={cost.ipc_range}"),
    ]
    return result if cost.usd is None else [*result, ("price", f"{cost.usd:,.2f} USD")]


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"


def _shards(config: RunConfig) -> tuple[ClassShard, ...]:
    classes = [ClassEntry(number, f"class_{number}") for number in range(config.data.num_classes)]
    return plan_shards(
        classes,
        ipc=config.ipc,
        ipc_range=config.recover.ipc_range,
        batch_size=config.recover.batch_size,
        composition=config.recover.composition,
        shard_classes=config.recover.shard_classes,
    )


def _ipc_range(plan: Plan, steps: int, rate: float) -> int:
    """Return the images per class that make a shard last about the middle of the wish."""
    seconds = plan.classes_per_shard * max(steps, 1) / rate  # for one image per class
    return max(1, min(plan.ipc, round(sum(SHARD_SECONDS) / 2 / seconds)))


def _labels(config: RunConfig) -> tuple[str, int]:
    """Return the label scheme and how many values it stores per view of one image."""
    teachers = [config.of_teacher(number).squeeze.model for number in config.relabel.teachers]
    features = sum(feature_width(model) for model in teachers)
    classes = config.data.num_classes
    scheme = choose_scheme(config.relabel.scheme, features=features, classes=classes)
    return scheme, classes if scheme == "logits" else features


def feature_width(model: ModelConfig) -> int:
    """Return D, the penultimate features of a network."""
    if model.name in FEATURES:
        return FEATURES[model.name]
    if model.name in CONVNETS:
        return model.width or 128  # pooled to one value per channel
    return 8 * (model.width or 64)  # four stages, each twice as wide as the one before
