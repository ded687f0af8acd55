"""The dataset part of a config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distill_core.config.fields import (
    MAX_CLASSES,
    Address,
    ClassesOrZero,
    Extended,
    Fraction,
    Images,
    Pixels,
    Triple,
)
from distill_core.config.packs import PackConfig
from distill_core.config.split_rule import parse_rule
from distill_core.label_spaces.facts import SPACES

Format = Literal[
    "auto",  # found by `data.detection` before a run is registered
    "cifar",
    "classes",
    "digits",
    "flat",
    "imagefolder",
    "parquet",
    "patterns",
    "tars",
    "tiny",
    "webdataset",
]
WITHOUT_PATH = ("digits", "patterns", "classes")

LabelSpaceName = Literal[  # keys of label_spaces.facts.SPACES
    "imagenet-1k",
    "imagenet-12k",
    "imagenet-21k-p",
    "imagenet-21k-p-fall11",
    "imagenet-21k-winter21",
    "imagenet-21k",
    "imagenet-21k-ms",
    "imagenet-21k-goog",
    "tiny-imagenet",
    "cifar10",
    "cifar100",
]


class DataConfig(Extended):
    """The labelled image dataset, and the conversion of a real image to a square tensor."""

    ADDED = frozenset(
        {"label_space", "keep", "split", "test_format", "class_list", "label_list"}
        | {"image_column", "label_column", "max_bad_per_class", "verify", "images", "pack"}
    )

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)
    format: Format
    path: Address | None = None  # folder or URL of both splits; digits, patterns, classes: none
    train: Address = "train"  # folder, file or glob below `path`
    test: Address = "test"
    test_format: Format | None = None  # of the test split; None: the same
    class_list: Address | None = None  # file of class names by id, below `path` or elsewhere
    label_list: Address | None = None  # file of image names and classes, for format flat
    image_column: str | None = Field(default=None, max_length=200)  # or member; None: guessed
    label_column: str | None = Field(default=None, max_length=200)  # likewise
    # ids, including those of removed classes; must equal the index's; 0: counted by the reader
    num_classes: ClassesOrZero = 0
    side: Pixels  # S, in pixels
    # squish: resize both sides to S; center_crop: the short side to `resize`, then crop S x S
    load: Literal["squish", "center_crop"] = "squish"
    resize: Pixels | None = None  # short side in pixels, for center_crop only
    mean: Triple  # per channel, of pixels in [0, 1]
    std: Triple  # likewise; mean 0 with std 1 is no normalisation
    max_bad_fraction: Fraction = 0.0  # share of unreadable images that is tolerated in a split
    max_bad_per_class: int | None = Field(default=None, ge=0)  # and in a class of it; None: any
    # full: every image is decoded when it is ingested; header: only its format and size are read,
    # so damage of the rest is found by the stage that decodes it first
    verify: Literal["full", "header"] = "full"
    # Numbers of files to train and to test on, for estimates before the dataset can be listed;
    # ingestion compares them with what it finds. None: any
    images: tuple[Images, Images] | None = None
    label_space: LabelSpaceName | None = None  # its classes, compared by name; None: any
    # Names of the classes that are distilled; none: all. The others keep their ids. classes only
    keep: tuple[str, ...] = Field(default=(), max_length=MAX_CLASSES)
    split: str | None = Field(default=None, max_length=40)  # rule that divides `train`; no `test`
    pack: PackConfig | None = None  # a copy in the store that stages read; None: the source

    @field_validator("split")
    @classmethod
    def _is_a_rule(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rule(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.load == "center_crop") != (self.resize is not None):
            raise ValueError("resize is required with load=center_crop and not allowed otherwise")
        if self.resize is not None and self.resize < self.side:
            raise ValueError(
                "resize must not be smaller than side, because a side x side crop is cut from it"
            )
        count = 0 if self.label_space is None else SPACES[self.label_space].count
        if count and self.num_classes and self.num_classes != count:
            raise ValueError(
                f"num_classes = {self.num_classes}, but label_space {self.label_space} has "
                f"{count:,} classes"
            )
        if self.format == "classes" and self.label_space is None:
            raise ValueError("format=classes requires label_space, the list of the classes")
        if self.keep and self.format != "classes":
            raise ValueError("keep is allowed with format=classes only: remove it")
        if min(self.std) <= 0:
            raise ValueError("std must be positive in every channel")
        return self

    @model_validator(mode="after")
    def _pack_is_large_enough(self) -> Self:
        if self.pack is None:
            return self
        if self.format == "classes":
            raise ValueError("format=classes has no images to pack: remove pack")
        if self.pack.size is not None:
            least = self.side if self.resize is None else self.resize
            if self.pack.size < least:
                raise ValueError(
                    f"pack.size = {self.pack.size} is smaller than "
                    f"{'side' if self.resize is None else 'resize'} = {least}, to which images "
                    "would be enlarged again: set a larger one"
                )
            if self.pack.shape == "squish" and self.load == "center_crop":
                raise ValueError(
                    "pack.shape=squish loses the proportions that load=center_crop keeps: set "
                    "pack.shape=short_edge or load=squish"
                )
        return self
