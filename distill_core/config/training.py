"""The squeeze part of a config; networks, optimisers and schedules of all training."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, PositiveFloat, WithJsonSchema, model_validator

from distill_core.config.data import LabelSpaceName
from distill_core.config.fields import (
    MAX_TEACHERS,
    Address,
    Channels,
    Count,
    CountOrZero,
    Extended,
    Fraction,
    Frozen,
    NonNegativeFloat,
    PixelsOrZero,
    Processes,
)

TeacherKey = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]  # of its marker in squeeze/_done

Network = Literal[  # keys of models.build.MODELS; *_small are for images of 16 to 64 pixels
    "resnet18_small",
    "resnet18_maxpool_small",
    "resnet50_small",
    "resnet101_small",
    "densenet121_small",
    "mobilenet_v2_small",
    "shufflenet_v2_x0_5_small",
    "efficientnet_b0_small",
    "resnet20_small",
    "resnet32_small",
    "resnet44_small",
    "resnet56_small",
    "wrn_16_2",
    "convnet1",
    "convnet2",
    "convnet3",
    "convnet4",
    "convnet3_instance",
    "convnet4_instance",
    "resnet18",
    "resnet50",
    "resnet101",
    "densenet121",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "alexnet",
    "resnet34",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "vgg11_bn",
    "vgg16_bn",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
]
NETWORKS: tuple[str, ...] = get_args(Network)
WITHOUT_BATCH_NORM = frozenset(
    {"convnet3_instance", "convnet4_instance", "alexnet", "convnext_tiny", "swin_t", "vit_b_16"}
)
FIXED_SIDE = {"vit_b_16": 224}  # S of networks that accept one size of image, in pixels
TIMM = "timm:"  # beginning of the names of networks that timm builds
TIMM_PATTERN = r"^timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_.-]+)?$"


def _check_network(name: str) -> str:
    """Refuse a name that is neither a network of ours nor formed like one of timm."""
    if name in NETWORKS or (len(name) <= 100 and re.match(TIMM_PATTERN, name)):
        return name
    close = difflib.get_close_matches(name[:100], NETWORKS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see docs/networks.md"
    raise ValueError(f"{name[:100]!r} is not a network, nor timm:NAME with one of timm; {hint}")


NetworkName = Annotated[
    str,
    AfterValidator(_check_network),
    WithJsonSchema(
        {"anyOf": [{"enum": list(NETWORKS)}, {"pattern": TIMM_PATTERN}], "type": "string"}
    ),
]

RESNET18_SMALL_WIDTH = 64  # channels of the first layer where a config gives no width
CONVNET_WIDTH = 128  # likewise


class ModelConfig(Frozen):
    """A network of `distill_core.models` or of timm, as a teacher or a student."""

    name: NetworkName
    width: Channels | None = None  # of the first layer; only resnet18_small and convnets

    @property
    def title(self) -> str:
        """Return the name for people and files, e.g. ``resnet18_small-w16``."""
        name = self.name.replace(":", "-")
        return name if self.width is None else f"{name}-w{self.width}"


class OptimizerConfig(Frozen):
    """One optimiser of torch.optim. Weight decay skips biases and norm parameters."""

    name: Literal["sgd", "adam", "adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    momentum: Fraction = 0.9  # sgd only
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # adam and adamw only


class ScheduleConfig(Frozen):
    """Learning rate by epoch: lr * (1 + cos(pi * epoch / (zeta * epochs))) / 2 after a warm-up.

    With milestones, it is multiplied by gamma at each of them instead.
    """

    zeta: PositiveFloat = 1.0  # 1 ends at 0; 2 is the first half of the cosine (EDC, RDED "eta")
    warmup_epochs: CountOrZero = 0
    warmup_start: Fraction = 0.01  # factor of lr in the first warm-up epoch
    per_step: bool = False  # update every optimiser step instead of every epoch
    milestones: tuple[Count, ...] = Field(default=(), max_length=1000)  # epochs
    gamma: Fraction = 0.5


class AugmentConfig(Frozen):
    """Augmentation of real training images, drawn per image."""

    pad_crop: PixelsOrZero = 0  # zero padding in pixels, then a random S x S window
    crop: tuple[Fraction, Fraction] | None = None  # area of a random resized crop
    flip: bool = True
    cutout: Fraction = 0.0  # side of one zeroed square, as a fraction of S; 0 is off


class TrainingConfig(Extended):
    """Training of a teacher."""

    ADDED = frozenset({"crop_from", "decode"})

    epochs: Count
    batch_size: Count  # over all processes
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig
    label_smoothing: Fraction = 0.0
    nesterov: bool = False
    processes: Processes = 1  # two or more: DDP under Ray Train; BN statistics are per process
    threads: Processes | None = None  # intra-op threads of this stage; None: those of the run
    # Random crops are cut from the S x S square of an image, or from the image (or its pack) itself
    crop_from: Literal["square", "image"] = "square"
    # scaled: training JPEGs are decoded at 1/2, 1/4 or 1/8 where that is still large enough
    decode: Literal["exact", "scaled"] = "exact"

    @model_validator(mode="after")
    def _every_process_has_images(self) -> Self:
        if self.batch_size < self.processes:
            raise ValueError(
                f"batch_size = {self.batch_size} is smaller than processes = {self.processes}, "
                "which share a batch: raise it, or lower processes"
            )
        return self

    @model_validator(mode="after")
    def _crops_of_whole_images(self) -> Self:
        if self.crop_from == "image" and (self.augment.crop is None or self.augment.pad_crop):
            raise ValueError(
                "crop_from=image requires augment.crop and does not combine with augment.pad_crop: "
                "set augment.crop, e.g. to [0.08, 1.0], and augment.pad_crop to 0"
            )
        return self


class ImportConfig(Extended):
    """Checks and corrections of a teacher that is imported from a file."""

    ADDED = frozenset({"label_space", "min_accuracy", "sample", "entry", "class_statistics"})

    top1: float | None = Field(default=None, ge=0, le=100)  # expected on the test split, percent
    accept_any: bool = False  # do not compare its accuracy with `top1` or with guessing
    outputs: tuple[CountOrZero, ...] = ()  # class id of every output; none: in order
    label_space: LabelSpaceName | None = None  # of the outputs, in its order; None: the dataset's
    # Lowest top-1 on the test split, percent; None: a tenth of the way from guessing to 100 %
    min_accuracy: float | None = Field(default=None, ge=0, le=100)
    sample: Count | None = None  # test images on which it is judged; None: all
    entry: str | None = Field(default=None, min_length=1, max_length=200)  # of a checkpoint
    class_statistics: bool = True  # use those of the checkpoint if it has any; else measure them

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if self.outputs and self.label_space is not None:
            raise ValueError("outputs and label_space both state the order of the outputs; set one")
        return self


class _Importing(Extended):
    """A teacher that may be imported."""

    ADDED = frozenset({"imported"})

    imported: ImportConfig | None = None  # of `checkpoint`; None: the defaults


class PoolMember(_Importing):
    """A further teacher: trained like the first one, imported, or reused from the store."""

    model: ModelConfig
    checkpoint: Address | None = None
    reuse: TeacherKey | None = None
    start: TeacherKey | None = None


class SqueezeConfig(_Importing):
    """The teacher: trained here, imported from a file, or reused from another run."""

    model: ModelConfig
    checkpoint: Address | None = None  # path or URL of a checkpoint, or package:NAME
    reuse: TeacherKey | None = None  # a teacher of the same store, unchanged
    start: TeacherKey | None = None  # a teacher whose weights the training starts from
    training: TrainingConfig | None = None
    pool: tuple[PoolMember, ...] = Field(
        default=(), max_length=MAX_TEACHERS - 1
    )  # teachers 1, 2, ...; the one above is teacher 0

    @model_validator(mode="after")
    def _members_are_valid(self) -> Self:
        for number in range(len(self.pool)):
            self.member(number + 1)  # the checks of a single teacher apply to each
        return self

    def member(self, number: int) -> SqueezeConfig:
        """Return the config of teacher `number` as if it were the only one."""
        if number == 0:
            return self.model_copy(update={"pool": ()})
        return SqueezeConfig(**dict(self.pool[number - 1]), training=self.training)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [way for way in (self.checkpoint, self.reuse, self.start) if way is not None]
        if len(given) > 1:
            raise ValueError(
                f"{len(given)} of checkpoint, reuse and start are set; set at most one of them"
            )
        if self.training is None and self.start is not None:
            raise ValueError("start requires training, which continues from its weights")
        if self.training is None and not given:
            raise ValueError(
                "set checkpoint (import a teacher), reuse (take one of the store) or training"
            )
        return self
