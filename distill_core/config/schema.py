"""The frozen configuration tree of a run.

Values that a paper states have no default here: a preset must say them, with their source.
What does not change the result (store, workers, retries, device, log level) is not in this tree;
see ``tasks.execution``. Units are in the names or the docstrings; areas and chances are fractions.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from distill_core.plan import Composition, batch_classes

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Triple = tuple[float, float, float]
Precision = Literal["float32", "float64", "bfloat16"]
SetName = Literal["distilled", "random_real", "hard_labels"]
TeacherKey = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]  # of its marker in squeeze/_done
TermName = Literal[  # the functions of recover/terms.py
    "cross_entropy",
    "bn_statistics",
    "class_bn_statistics",
    "start_distance",
    "flatness",
    "density",
]


class Frozen(BaseModel):
    """Immutable, and strict about unknown keys: a typo is an error, never a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Frozen):
    """The labelled image dataset, and how one real image becomes a square tensor."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    format: Literal["digits", "imagefolder", "parquet", "patterns"]
    path: str | None = None  # folder or URL of both splits; digits and patterns need none
    train: str = "train"  # folder, file or glob below `path`
    test: str = "test"
    num_classes: PositiveInt  # ids, those of removed classes included; the index must find as many
    side: PositiveInt  # S, in pixels
    # squish: both sides to S; center_crop: the short side to `resize`, then the central S x S
    load: Literal["squish", "center_crop"] = "squish"
    resize: PositiveInt | None = None  # short side in pixels, for center_crop only
    mean: Triple  # per channel, of pixels in [0, 1]
    std: Triple  # likewise; mean 0 with std 1 is no normalisation
    max_bad_fraction: Fraction = 0.0  # unreadable images tolerated before a dataset is refused

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.load == "center_crop") != (self.resize is not None):
            raise ValueError("resize goes with load=center_crop, and only with it")
        if self.resize is not None and self.resize < self.side:
            raise ValueError("resize must not be smaller than side, which is cut out of it")
        if min(self.std) <= 0:
            raise ValueError("std must be positive in every channel")
        return self


class ModelConfig(Frozen):
    """A network of `distill_core.models`; teachers and students come from the same table."""

    name: Literal["resnet18_small", "resnet18", "resnet50", "mobilenet_v2", "convnet3", "convnet4"]
    width: PositiveInt | None = None  # of the first layer; only resnet18_small and convnets

    @property
    def title(self) -> str:
        """Return the name people see, e.g. ``resnet18_small-w16``."""
        return self.name if self.width is None else f"{self.name}-w{self.width}"


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
    warmup_epochs: NonNegativeInt = 0
    warmup_start: Fraction = 0.01  # factor of lr in the first warm-up epoch
    per_step: bool = False  # update every optimiser step instead of every epoch
    milestones: tuple[PositiveInt, ...] = ()  # epochs
    gamma: Fraction = 0.5


class AugmentConfig(Frozen):
    """Augmentation of real training images, drawn per image."""

    pad_crop: NonNegativeInt = 0  # zero padding in pixels, then a random S x S window
    crop: tuple[Fraction, Fraction] | None = None  # area of a random resized crop
    flip: bool = True
    cutout: Fraction = 0.0  # side of one zeroed square, as a fraction of S; 0 is off


class TrainingConfig(Frozen):
    """How a teacher is trained."""

    epochs: PositiveInt
    batch_size: PositiveInt  # over all processes
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig
    label_smoothing: Fraction = 0.0
    nesterov: bool = False
    processes: PositiveInt = 1  # two or more: DDP under Ray Train; BN statistics are per process
    threads: PositiveInt | None = None  # intra-op threads of this stage; None: those of the run


class PoolMember(Frozen):
    """A further teacher; trained as the first one, imported from a file, or taken over."""

    model: ModelConfig
    checkpoint: str | None = None
    reuse: TeacherKey | None = None
    start: TeacherKey | None = None


class SqueezeConfig(Frozen):
    """The teacher: trained here, imported from a file, or taken over from another run."""

    model: ModelConfig
    checkpoint: str | None = None  # path or URL of a torchvision checkpoint or plain state dict
    reuse: TeacherKey | None = None  # a teacher of the same store, as it is
    start: TeacherKey | None = None  # likewise, whose weights the training starts from
    training: TrainingConfig | None = None
    pool: tuple[PoolMember, ...] = ()  # teachers 1, 2, ...; the one above is teacher 0

    @model_validator(mode="after")
    def _members_are_whole(self) -> Self:
        for number in range(len(self.pool)):
            self.member(number + 1)  # raises what a teacher of its own would raise
        return self

    def member(self, number: int) -> SqueezeConfig:
        """Return how teacher `number` comes about, as if it were the only one."""
        if number == 0:
            return self.model_copy(update={"pool": ()})
        return SqueezeConfig(**dict(self.pool[number - 1]), training=self.training)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        given = [way for way in (self.checkpoint, self.reuse, self.start) if way is not None]
        if len(given) > 1:
            raise ValueError("say only one of checkpoint, reuse and start")
        if self.training is None and self.start is not None:
            raise ValueError("start needs training, which goes on from there")
        if self.training is None and not given:
            raise ValueError("say either checkpoint (import a teacher) or training (train one)")
        return self


class CurriculumConfig(Frozen):
    """Bounds of the crop area by step (CDA): easy, large crops first unless reversed."""

    mode: Literal["constant", "step", "linear", "cosine", "reverse"]
    low: Fraction
    high: Fraction = 1.0
    milestone: Fraction = 1.0  # fraction of the steps after which the lower bound stays at `low`


class RollConfig(Frozen):
    """Circular shift of the view."""

    mode: Literal["one_sided", "symmetric", "off"]
    pixels: NonNegativeInt = 0  # one_sided: 0..pixels; symmetric: -pixels..pixels (both inclusive)

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        """Take the word for what was written: YAML reads a bare `off` as false."""
        return "off" if value is False else value


class MosaicConfig(Frozen):
    """Mosaics of scored real crops (RDED)."""

    images: PositiveInt = 300  # real images of a class that are looked at
    crops: PositiveInt = 5  # of each; the one most like its class is kept
    factor: PositiveInt  # tiles per side of a mosaic
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)  # area of a crop
    # easiest: the crops most like their class first; median: those of median probability first
    order: Literal["easiest", "median"] = "easiest"


class SegmentConfig(Frozen):
    """A part of a recovery with its own resolution; the optimiser starts afresh in each (FADRM)."""

    steps: PositiveInt
    side: PositiveInt | None = None  # in pixels; None: that of the data


class PerturbConfig(Frozen):
    """The teacher's weights, moved uphill anew for every batch (DWA)."""

    steps: PositiveInt
    radius: PositiveFloat  # L2 length of the whole move


class FlatnessConfig(Frozen):
    """What the term `flatness` compares with (EDC)."""

    decay: Fraction  # of the running average of the images, per step
    temperature: PositiveFloat


class RecoverConfig(Frozen):
    """How images are made from a frozen teacher."""

    init: Literal["gaussian", "real", "mosaic"]
    mosaic: MosaicConfig | None = None  # goes with init: mosaic
    batch_size: PositiveInt
    composition: Composition = "one_per_class"
    ipc_range: PositiveInt = 10  # images per class in one class shard
    shard_classes: PositiveInt | None = None  # classes in one; None: at least 100, whole batches
    steps: NonNegativeInt  # 0 keeps the start: `init: real` is then the random-real baseline
    lr: PositiveFloat
    betas: tuple[Fraction, Fraction]
    terms: dict[TermName, NonNegativeFloat] = Field(min_length=1)  # weight by name
    teachers: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)  # of squeeze, by turn
    first_layer_factor: NonNegativeFloat  # multiplies the statistics gap of the first BN layer
    crop: CurriculumConfig | None  # None: no crop at all (SRe2L on CIFAR)
    flip: bool
    roll: RollConfig
    shared_view: bool = True  # one draw for the whole batch, as published; False: one per image
    segments: tuple[SegmentConfig, ...] = ()  # add up to `steps`; none: one, at the data's side
    residual: Fraction = 0.0  # share of the start that is mixed in between two segments (FADRM)
    late_groups: PositiveInt = 1  # of a shard's images; group g joins at g/late_groups (DELT)
    perturb: PerturbConfig | None = None
    flatness: FlatnessConfig | None = None  # goes with the term of that name
    variance_factor: NonNegativeFloat = 1.0  # multiplies the variance gaps of bn_statistics (DWA)
    encoding: Literal["png", "jpeg"] = "png"  # jpeg is quality 95, 4:4:4

    @model_validator(mode="after")
    def _mosaic_is_described(self) -> Self:
        if (self.init == "mosaic") != (self.mosaic is not None):
            raise ValueError("mosaic goes with init=mosaic, and only with it")
        return self

    @model_validator(mode="after")
    def _steps_add_up(self) -> Self:
        total = sum(segment.steps for segment in self.segments)
        if self.segments and self.steps not in (0, total):
            raise ValueError(f"steps = {self.steps}, but the segments add up to {total}")
        if (self.terms.get("flatness", 0.0) > 0) != (self.flatness is not None):
            raise ValueError("flatness goes with the term of that name, and only with it")
        return self

    @model_validator(mode="after")
    def _no_batch_straddles_a_shard(self) -> Self:
        width = batch_classes(self.composition, self.batch_size, self.ipc_range)
        if self.shard_classes is not None and self.shard_classes % width:
            raise ValueError(
                f"shard_classes = {self.shard_classes} must be a multiple of {width}, the classes "
                f"of a batch ({self.composition}, batch_size = {self.batch_size})"
            )
        return self

    @property
    def needs_class_statistics(self) -> bool:
        """Return whether a term compares with the statistics of each class's real images."""
        return self.steps > 0 and self.terms.get("class_bn_statistics", 0.0) > 0

    @property
    def reads_real_images(self) -> bool:
        """Return whether the start is made of real images, whose content then counts."""
        return self.init != "gaussian"


class MixConfig(Frozen):
    """What is mixed into a label view."""

    kind: Literal["none", "cutmix", "mixup", "cutout"]
    alpha: PositiveFloat = 1.0  # Beta(alpha, alpha) of cutmix and mixup
    cutout: Fraction = 0.5  # side of the hole as a fraction of S; colour uniform random


class RelabelConfig(Frozen):
    """How teachers describe views of the images."""

    scheme: Literal["auto", "features", "logits", "online"] = "auto"
    # of squeeze; the mean of their logits is the label
    teachers: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    views: PositiveInt  # views per image; post-train epoch e reads view e mod views
    views_per_shard: PositiveInt = 50  # views in one label shard
    crop: tuple[Fraction, Fraction] | None
    flip: bool
    mix: MixConfig
    # Images of a shard whose batch norm statistics are pooled, in place of the running ones (BSSL)
    batch_statistics: Annotated[int, Field(ge=2)] | None = None


class TemperatureConfig(Frozen):
    """The teacher's temperature falls by steps, so that the same logits teach anew (LPQLD)."""

    factor: Fraction
    every: PositiveInt  # epochs
    floor: PositiveFloat


class PosttrainConfig(Frozen):
    """How students are trained and judged."""

    students: tuple[ModelConfig, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    sets: tuple[SetName, ...] = ("distilled", "random_real", "hard_labels")
    epochs: PositiveInt
    batch_size: PositiveInt
    micro_batch: PositiveInt | None = None  # images per backward pass; None: the whole batch
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    loss: Literal["kl", "mse"] = "kl"  # mse compares logits (G-VBSM, EDC)
    hard_weight: NonNegativeFloat = 0.0  # of cross-entropy with the class, beside the soft loss
    temperature: PositiveFloat
    student_temperature: PositiveFloat | None = None  # None: the teacher's
    temperature_decay: TemperatureConfig | None = None  # None: it stays
    temperature_squared: bool  # multiply the loss by T^2
    logit_smoothing: Fraction = 0.0  # share of a uniform vector mixed into the raw teacher logits
    ema_decay: Fraction = 0.99  # of the student's weights, per optimiser step
    evaluate_every: PositiveInt = 10  # epochs between evaluations; the last is always evaluated
    validation_shard: PositiveInt = 10_000  # test images per job of the final judgement
    processes: PositiveInt = 1  # two or more: DDP under Ray Train


class RunConfig(Frozen):
    """Everything that decides the result of one run."""

    preset: str  # name of the preset or file this tree came from
    source: str  # where its values were read
    expected: str  # the published or measured number to compare with, or "not published"
    seed: NonNegativeInt = 0
    ipc: PositiveInt
    threads: PositiveInt = 1  # intra-op threads of every worker; decides float32 rounding on a CPU
    precision: Precision = "float32"  # of convolutions; statistics, losses and updates stay float32
    data: DataConfig
    squeeze: SqueezeConfig
    recover: RecoverConfig
    relabel: RelabelConfig
    posttrain: PosttrainConfig

    def recover_for(self, images: Literal["distilled", "random_real"]) -> RecoverConfig:
        """Return how the images of one set are made; random real images are a start, unchanged."""
        if images == "distilled":
            return self.recover
        plain = {"init": "real", "mosaic": None, "steps": 0, "teachers": self.recover.teachers[:1]}
        return self.recover.model_copy(update=plain)

    def of_teacher(self, number: int) -> RunConfig:
        """Return the run as if teacher `number` were its only one."""
        return self.model_copy(update={"squeeze": self.squeeze.member(number)})

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        count = 1 + len(self.squeeze.pool)
        for stage, chosen in (("recover", self.recover), ("relabel", self.relabel)):
            if max(chosen.teachers) >= count:
                raise ValueError(
                    f"{stage}.teachers = {list(chosen.teachers)}: squeeze has teachers 0 to "
                    f"{count - 1}"
                )
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        mosaic = self.recover.mosaic
        if mosaic is not None and self.data.side % mosaic.factor:
            raise ValueError(
                f"recover.mosaic.factor = {mosaic.factor} must divide data.side = {self.data.side}"
            )
        return self
