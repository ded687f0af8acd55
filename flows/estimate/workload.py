"""Workload of a run, from its config alone: shards, image-iterations, bytes.

One image-iteration is one image through one optimisation step of recover: a forward and a backward
pass to the pixels, through one teacher. `flows.estimate.cost` turns them into GPU-hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from distill_core.config.schema import RunConfig
from distill_core.config.training import CONVNET_WIDTH, RESNET18_SMALL_WIDTH, TIMM, ModelConfig
from distill_core.data.packs.blocks import image_bytes
from distill_core.data.readers.formats import open_reader
from distill_core.errors import DistillError
from distill_core.evaluation.blocks import validation_blocks
from distill_core.sharding import ClassEntry, ClassShard, plan_shards
from distill_core.storage.label_rows import choose_scheme
from flows.estimate import stored_bytes
from flows.estimate.counts import count_images, count_parts
from tasks.stages.expected import Expected
from tasks.stages.table import row_of, stages_of

FEATURES: Mapping[str, int] = {  # of networks with a fixed width and their small variants
    "resnet18": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "densenet121": 1024,
    "mobilenet_v2": 1280,
    "shufflenet_v2_x0_5": 1024,
    "shufflenet_v2_x1_0": 1024,
    "efficientnet_b0": 1280,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
    "efficientnet_lite2": 1280,
    "alexnet": 4096,
    "wrn_16_2": 128,
    "resnet20": 64,
    "resnet32": 64,
    "resnet44": 64,
    "resnet56": 64,
    "resnet34": 512,
    "regnet_x_400mf": 400,
    "regnet_y_400mf": 440,
    "mobilenet_v3_small": 1024,
    "mobilenet_v3_large": 1280,
    "vgg11_bn": 4096,
    "vgg16_bn": 4096,
    "convnext_tiny": 768,
    "swin_t": 768,
    "vit_b_16": 768,
}


@dataclass(frozen=True)
class Plan:
    """The workload of one run, including the random-real baseline."""

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
    rounds: tuple[int, ...]  # shards of one set up to each round but the last; () if there is one
    selection_shards: int  # of each round; 0 unless a network chooses the starts
    image_iterations: int  # of recover
    views: int  # label views over all images and sets
    label_shards: int
    students: int  # students x seeds x sets
    validation_shards: int | None  # 0 if posttrain uses the whole split; None: not known yet
    student_images: int  # images seen in all post-train epochs together, those of rounds included
    set_image_bytes: Mapping[str, int]  # by image set
    set_label_bytes: Mapping[str, int]  # likewise
    scheme: str  # label scheme, `auto` resolved
    packed_image_bytes: int = 0  # of one real image in a pack, estimated; 0: there are none

    @property
    def image_bytes(self) -> int:
        """Return the bytes of the images of all sets."""
        return sum(self.set_image_bytes.values())

    @property
    def label_bytes(self) -> int:
        """Return the bytes of the labels of all sets."""
        return sum(self.set_label_bytes.values())


def plan_run(config: RunConfig, *, test_images: int | None = None) -> Plan:
    """Return the workload of a run, computed from its config as if no class were missing.

    Args:
        config: of the run.
        test_images: in the real test split; None: not known.
    """
    shards = class_shards(config)
    shapes = stored_bytes.shapes_of(shards)
    images = sum(shape.images * count for shape, count in shapes.items())
    sets = len(config.image_sets)
    views = images * config.relabel.stored_views * sets
    scheme, width = label_values(config)
    labels = stored_bytes.label_bytes(config, shapes, scheme=scheme, width=width)
    post = config.posttrain
    students = len(post.students) * len(post.seeds) * len(post.sets)
    stored = len(shards) if scheme != "online" else 0
    blocks = len({shard.labels for shard in shards})
    between = _between_rounds(config, shards)
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
        statistics_shards=len(config.recover.teachers) * blocks
        if config.recover.needs_class_statistics
        else 0,
        rounds=tuple(map(len, between)),
        selection_shards=blocks if config.recover.init == "judged" else 0,
        image_iterations=images * config.recover.steps * config.recover.passes,
        views=views,
        label_shards=sets
        * stored
        * -(-config.relabel.stored_views // config.relabel.views_per_shard),
        students=students,
        validation_shards=None
        if test_images is None
        else students * len(validation_blocks(test_images, post.validation_shard)),
        student_images=students * images * post.epochs + _seen_between_rounds(config, between),
        set_image_bytes={
            name: stored_bytes.image_bytes(config, shapes, real=name != "distilled")
            for name in config.image_sets
        },
        set_label_bytes=dict.fromkeys(config.image_sets, labels),
        scheme=scheme,
        packed_image_bytes=0 if config.data.pack is None else round(image_bytes(config.data)),
    )


def shards_by_stage(config: RunConfig, *, test_images: int | None = None) -> dict[str, int | None]:
    """Return the number of shards of each stage; None if it depends on the dataset.

    Args:
        config: of the run.
        test_images: in the real test split; None: not known.
    """
    scheme, _ = label_values(config)
    expected = Expected(
        config,
        class_shards(config),
        test_images,
        online=scheme == "online",
        parts=count_parts(config),
        train_images=None if config.data.pack is None else count_images(config).train,
    )
    return {str(stage): row_of(stage).expected(expected, stage) for stage in stages_of(config)}


def _between_rounds(
    config: RunConfig, shards: Sequence[ClassShard]
) -> tuple[tuple[ClassShard, ...], ...]:
    """Return the class shards of one set that are made before each round but the first."""
    return tuple(
        tuple(shard for shard in shards if shard.grids[0][1][0] < start)
        for start in config.round_starts[1:]
    )


def _seen_between_rounds(config: RunConfig, between: Sequence[Sequence[ClassShard]]) -> int:
    """Return the images seen in all epochs of the students between rounds."""
    epochs = 0 if config.rounds is None else config.rounds.epochs
    return epochs * sum(shard.num_images for shards in between for shard in shards)


def class_shards(config: RunConfig) -> tuple[ClassShard, ...]:
    """Return the class shards of a run, as if no class were missing."""
    names = [f"class_{number}" for number in range(config.data.num_classes)]
    if config.data.keep:
        with suppress(DistillError):  # without the list, every class counts
            names = list(open_reader(config.data).classes())
    kept = frozenset(config.data.keep) & frozenset(names) or frozenset(names)
    classes = [ClassEntry(n, name, removed=name not in kept) for n, name in enumerate(names)]
    return plan_shards(
        classes,
        ipc=config.ipc,
        ipc_range=config.recover.ipc_range,
        batch_size=config.recover.batch_size,
        composition=config.recover.composition,
        shard_classes=config.recover.shard_classes,
    )


def label_values(config: RunConfig) -> tuple[str, int]:
    """Return the label scheme, and the values it stores per view of one image."""
    teachers = [config.of_teacher(number).squeeze.model for number in config.relabel.teachers]
    features = sum(feature_width(model) for model in teachers)
    classes = config.data.num_classes
    relabel = config.relabel
    scheme = choose_scheme(relabel.scheme, features=features, classes=classes, bits=relabel.bits)
    return scheme, {"logits": classes, "topk": relabel.topk or 0}.get(scheme, features)


def feature_width(model: ModelConfig) -> int:
    """Return D, the number of penultimate features of a network.

    Raises:
        ConfigError: it is one of timm, which is not installed or has no such network.
    """
    if model.name.startswith(TIMM):
        from distill_core.models.build import head_width  # imports torch and timm

        return head_width(model)
    if model.name in ("resnet18_small", "resnet18_maxpool_small"):
        # Four stages, each twice as wide as the one before.
        return 8 * (model.width or RESNET18_SMALL_WIDTH)
    if model.name.startswith("convnet"):
        return model.width or CONVNET_WIDTH  # pooled to one value per channel
    name = model.name if model.name in FEATURES else model.name.removesuffix("_small")
    return FEATURES[name]
