"""The recover part of a config."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from distill_core.config.committee import CommitteeConfig
from distill_core.config.fields import (
    MAX_TEACHERS,
    Count,
    CountOrZero,
    Extended,
    Fraction,
    NonNegativeFloat,
)
from distill_core.config.recovery_settings import (
    CurriculumConfig,
    MosaicConfig,
    PerturbConfig,
    RollConfig,
    SegmentConfig,
)
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

MAX_CHOICES = 100_000  # sets of voters among the teachers of a committee
InitName = Literal["gaussian", "real", "mosaic", "herding", "k_center", "judged"]


class RecoverConfig(Extended):
    """Synthesis of images from a frozen teacher."""

    ADDED = frozenset({"space", "start_std", "teacher_terms"})

    # real: random real images; herding, k_center: real images that represent their class (coresets)
    # judged: real images ranked by the teacher and by a student of the previous rounds
    init: InitName
    mosaic: MosaicConfig | None = None  # required with init: mosaic
    candidates: Count | None = None  # real images per class that a round ranks; None: all
    batch_size: Count
    composition: Composition = "one_per_class"
    ipc_range: Count = 10  # images per class in one class shard
    shard_classes: Count | None = None  # classes in one shard; None: at least 100, in whole batches
    steps: CountOrZero  # 0 keeps the start; with `init: real`, the random-real baseline
    lr: PositiveFloat
    # Space of the pixels that are optimised, in which `lr` and `start_std` are measured. teacher:
    # normalised by the first teacher, as published; pixel: values in [0, 1]
    space: Literal["teacher", "pixel"] = "teacher"
    start_std: PositiveFloat | None = None  # of gaussian starts; None: that of the normalisation
    betas: tuple[Fraction, Fraction]
    terms: dict[TermName, NonNegativeFloat] = Field(min_length=1)  # weight by name
    teachers: tuple[CountOrZero, ...] = Field(
        default=(0,), min_length=1, max_length=MAX_TEACHERS
    )  # indices of squeeze, used in turn
    committee: CommitteeConfig | None = None  # instead: several in every step
    # By teacher, in the order of `teachers`: weights of terms that differ from those in `terms`
    teacher_terms: tuple[dict[TermName, PositiveFloat], ...] = ()
    first_layer_factor: NonNegativeFloat  # multiplies the statistics gap of the first BN layer
    crop: CurriculumConfig | None  # None: no crop at all (SRe2L on CIFAR)
    flip: bool
    roll: RollConfig
    shared_view: bool = True  # one draw per batch, as published; False: one per image
    segments: tuple[SegmentConfig, ...] = Field(
        default=(), max_length=100
    )  # sum to `steps`; none: one, at the data's side
    residual: Fraction = 0.0  # share of the start that is mixed in between segments (FADRM)
    late_groups: Count = 1  # groups of a shard's images; group g starts at g/late_groups (DELT)
    perturb: PerturbConfig | None = None
    flatness: FlatnessConfig | None = None  # required with the term of that name
    # Decay per step of the running average of a batch's statistics (G-VBSM); 0: no average
    statistics_decay: Fraction = 0.0
    variance_factor: NonNegativeFloat = 1.0  # multiplies the variance gaps of statistics (DWA)
    convolutions: ConvolutionsConfig | None = None  # required with the conv and patch terms
    barycentre: BarycentreConfig | None = None  # required with feature_barycentre
    originals: OriginalsConfig | None = None  # required with feature_originals
    encoding: Literal["png", "jpeg"] = "png"  # jpeg is quality 95, 4:4:4
    compile: bool = False  # the forward pass; faster, but changes the rounding

    @model_validator(mode="after")
    def _compiled_steps_are_equal(self) -> Self:
        if self.compile and self.convolutions is not None and self.convolutions.drop_rate:
            raise ValueError(
                "compile requires that every step measures the same layers, but "
                "convolutions.drop_rate draws them per step: set compile to false or drop_rate to 0"
            )
        return self

    @model_validator(mode="after")
    def _teacher_terms_fit(self) -> Self:
        if self.teacher_terms and len(self.teacher_terms) != len(self.teachers):
            raise ValueError(
                f"teacher_terms has {len(self.teacher_terms)} entries, expected "
                f"{len(self.teachers)}, one per teacher; {{}} changes nothing"
            )
        named = {name for weights in self.teacher_terms for name in weights}
        if unused := sorted(named - self.active_terms):
            raise ValueError(
                f"teacher_terms sets {unused[0]}, which terms does not have: give it a weight in "
                "terms, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _mosaic_is_consistent(self) -> Self:
        if (self.init == "mosaic") != (self.mosaic is not None):
            raise ValueError("mosaic is required with init=mosaic and not allowed otherwise")
        return self

    @model_validator(mode="after")
    def _steps_add_up(self) -> Self:
        total = sum(segment.steps for segment in self.segments)
        if self.segments and self.steps not in (0, total):
            raise ValueError(f"steps = {self.steps}, but the segments sum to {total}")
        return self

    @model_validator(mode="after")
    def _terms_have_their_settings(self) -> Self:
        for setting, terms in SETTINGS.items():
            needed = any(term in self.active_terms for term in terms)
            if needed != (getattr(self, setting) is not None):
                raise ValueError(
                    f"{setting} is required with the term {' or '.join(terms)} and not allowed "
                    "otherwise"
                )
        return self

    @model_validator(mode="after")
    def _references_are_consistent(self) -> Self:
        whole = self.mosaic is not None and (self.mosaic.crops, self.mosaic.scale) == (1, (1, 1))
        if self.originals is not None and not whole:
            raise ValueError(
                "feature_originals needs tiles that are whole images: set init=mosaic with "
                "mosaic.crops = 1 and mosaic.scale = [1, 1]"
            )
        if self.originals is not None and self.barycentre is not None:
            raise ValueError(
                "feature_barycentre compares whole images and feature_originals compares tiles: "
                "use one of them"
            )
        patches = {"patch_statistics", "class_patch_statistics"} & self.active_terms
        if patches and any(segment.side is not None for segment in self.segments):
            raise ValueError(
                f"{min(patches)} compares patches at data.side: remove side from the segments"
            )
        return self

    @model_validator(mode="after")
    def _no_batch_straddles_a_shard(self) -> Self:
        width = batch_classes(self.composition, self.batch_size, self.ipc_range)
        if self.shard_classes is not None and self.shard_classes % width:
            raise ValueError(
                f"shard_classes = {self.shard_classes} must be a multiple of {width}, the number "
                f"of classes in a batch ({self.composition}, batch_size = {self.batch_size})"
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
                "committee.voters are chosen per ipc_index: set composition = one_per_class"
            )
        if (choices := math.comb(count, voters)) > MAX_CHOICES:
            raise ValueError(
                f"committee.voters = {voters} of {count} teachers gives {choices} choices, at most "
                f"{MAX_CHOICES} expected: use fewer teachers"
            )
        if weighting is not None and len(weighting.priors) != count:
            raise ValueError(
                f"committee.weighting.priors has {len(weighting.priors)} values, expected {count}"
            )
        return self

    def terms_of(self, place: int) -> dict[TermName, float]:
        """Return the weights of the terms under a teacher, by its place in `teachers`."""
        own = self.teacher_terms[place] if self.teacher_terms else {}
        return {**self.terms, **own}

    @property
    def passes(self) -> int:
        """Return the number of teachers that evaluate an image in one step."""
        return 1 if self.committee is None else self.committee.voters or len(self.teachers)

    @property
    def active_terms(self) -> frozenset[TermName]:
        """Return the terms that are computed: those with a positive weight."""
        return frozenset(name for name, weight in self.terms.items() if weight > 0)

    @property
    def measured(self) -> frozenset[Measured]:
        """Return the references that must be measured on the real images of each class."""
        computed = self.active_terms if self.steps > 0 else frozenset()
        return frozenset(MEASURED[term] for term in computed if term in MEASURED)

    @property
    def needs_class_statistics(self) -> bool:
        """Return whether a term compares with the real images of each class."""
        return bool(self.measured)

    @property
    def needs_every_class(self) -> bool:
        """Return whether a term compares with statistics pooled over all classes."""
        return self.steps > 0 and bool(self.active_terms & OF_EVERY_CLASS)

    @property
    def tiles(self) -> int:
        """Return the number of tiles per side that an image is cut into for the teacher."""
        return self.mosaic.factor if self.originals is not None and self.mosaic is not None else 1

    @property
    def asks_student(self) -> bool:
        """Return whether the start or a term depends on the student of the previous rounds."""
        return self.init == "judged" or self.needs_student

    @property
    def needs_student(self) -> bool:
        """Return whether a term evaluates the student of the previous rounds."""
        return self.steps > 0 and self.terms.get("adversarial", 0.0) > 0

    @property
    def reads_real_images(self) -> bool:
        """Return whether the start is made of real images, so that their content matters."""
        return self.init != "gaussian"
