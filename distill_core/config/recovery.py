"""The recover part of a config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from distill_core.config.committee import CommitteeConfig
from distill_core.config.fields import Fraction, Frozen, NonNegativeFloat, NonNegativeInt
from distill_core.config.terms import (
    MEASURED,
    OF_EVERY_CLASS,
    SETTINGS,
    BarycentreConfig,
    ConvolutionsConfig,
    FlatnessConfig,
    Measured,
    OriginalsConfig,
    TermName,
)
from distill_core.sharding import Composition, batch_classes

InitName = Literal["gaussian", "real", "mosaic", "herding", "k_center", "judged"]


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


class RecoverConfig(Frozen):
    """How images are made from a frozen teacher."""

    # real: at random; herding, k_center: real images that stand for their class (coresets)
    # judged: by what the teacher, and a student of the rounds before, say of real images
    init: InitName
    mosaic: MosaicConfig | None = None  # goes with init: mosaic
    candidates: PositiveInt | None = None  # of a class that a round of judging looks at; None: all
    batch_size: PositiveInt
    composition: Composition = "one_per_class"
    ipc_range: PositiveInt = 10  # images per class in one class shard
    shard_classes: PositiveInt | None = None  # classes in one; None: at least 100, whole batches
    steps: NonNegativeInt  # 0 keeps the start: `init: real` is then the random-real baseline
    lr: PositiveFloat
    betas: tuple[Fraction, Fraction]
    terms: dict[TermName, NonNegativeFloat] = Field(min_length=1)  # weight by name
    teachers: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)  # of squeeze, by turn
    committee: CommitteeConfig | None = None  # all at once instead
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
    # of the running average of a batch's statistics, per step (G-VBSM); 0: each step by itself
    statistics_decay: Fraction = 0.0
    variance_factor: NonNegativeFloat = 1.0  # multiplies the variance gaps of statistics (DWA)
    convolutions: ConvolutionsConfig | None = None  # goes with the terms of that name, patches too
    barycentre: BarycentreConfig | None = None  # goes with feature_barycentre
    originals: OriginalsConfig | None = None  # goes with feature_originals
    encoding: Literal["png", "jpeg"] = "png"  # jpeg is quality 95, 4:4:4
    compile: bool = False  # the pass through the teacher; faster, other rounding, needs a compiler

    @model_validator(mode="after")
    def _what_is_compiled_stays_the_same(self) -> Self:
        if self.compile and self.convolutions is not None and self.convolutions.drop_rate:
            raise ValueError(
                "compile needs every step to measure the same layers, and convolutions.drop_rate "
                "draws them anew: set one of them to false or 0"
            )
        return self

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
        return self

    @model_validator(mode="after")
    def _terms_have_their_settings(self) -> Self:
        for setting, terms in SETTINGS.items():
            asked = any(term in self.active_terms for term in terms)
            if asked != (getattr(self, setting) is not None):
                raise ValueError(
                    f"{setting} goes with the term of that name ({' or '.join(terms)}), "
                    "and only with it"
                )
        return self

    @model_validator(mode="after")
    def _what_terms_compare_exists(self) -> Self:
        whole = self.mosaic is not None and (self.mosaic.crops, self.mosaic.scale) == (1, (1, 1))
        if self.originals is not None and not whole:
            raise ValueError(
                "feature_originals needs tiles that are whole images: init=mosaic with "
                "mosaic.crops = 1 and mosaic.scale = [1, 1]"
            )
        if self.originals is not None and self.barycentre is not None:
            raise ValueError(
                "feature_barycentre looks at whole images, feature_originals at their tiles: "
                "use one of them"
            )
        patches = {"patch_statistics", "class_patch_statistics"} & self.active_terms
        if patches and any(segment.side is not None for segment in self.segments):
            raise ValueError(
                f"{min(patches)} compares patches at the side of the data; segments have another"
            )
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

    @model_validator(mode="after")
    def _committee_fits(self) -> Self:
        if self.committee is None:
            return self
        count, voters = len(self.teachers), self.committee.voters or len(self.teachers)
        weighting = self.committee.weighting
        if voters > count:
            raise ValueError(f"committee.voters = {voters}, but there are {count} teachers")
        if voters < count and self.composition != "one_per_class":
            raise ValueError(
                "committee.voters are chosen per ipc_index, so composition must be one_per_class"
            )
        if weighting is not None and len(weighting.priors) != count:
            raise ValueError(f"committee.weighting.priors: one per teacher, {count} expected")
        return self

    @property
    def passes(self) -> int:
        """Return how many teachers look at an image in one step."""
        return 1 if self.committee is None else self.committee.voters or len(self.teachers)

    @property
    def active_terms(self) -> frozenset[TermName]:
        """Return the terms that are computed: those with a weight."""
        return frozenset(name for name, weight in self.terms.items() if weight > 0)

    @property
    def measured(self) -> frozenset[Measured]:
        """Return what has to be measured on the real images of each class."""
        asked = self.active_terms if self.steps > 0 else frozenset()
        return frozenset(MEASURED[term] for term in asked if term in MEASURED)

    @property
    def needs_class_statistics(self) -> bool:
        """Return whether a term compares with the real images of each class."""
        return bool(self.measured)

    @property
    def needs_every_class(self) -> bool:
        """Return whether a term compares with all classes together, as measured class by class."""
        return self.steps > 0 and bool(self.active_terms & OF_EVERY_CLASS)

    @property
    def tiles(self) -> int:
        """Return into how many tiles per side an image is cut before a teacher looks at it."""
        return self.mosaic.factor if self.originals is not None and self.mosaic is not None else 1

    @property
    def asks_student(self) -> bool:
        """Return whether something depends on the student of the rounds before."""
        return self.init == "judged" or self.needs_student

    @property
    def needs_student(self) -> bool:
        """Return whether a term asks the student of the rounds before."""
        return self.steps > 0 and self.terms.get("adversarial", 0.0) > 0

    @property
    def reads_real_images(self) -> bool:
        """Return whether the start is made of real images, whose content then counts."""
        return self.init != "gaussian"
