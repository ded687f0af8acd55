"""The base class of all parts of a config, and the types of their fields.

Every number of things has an upper limit, far above any use, so that a mistyped value is refused
when it is read and not after it has filled the memory.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from distill_core.naming.addresses import HOST_PATTERN, TEXT_PATTERN

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]  # of images, steps, epochs, views, ...
Images = Annotated[int, Field(ge=0, le=1_000_000_000)]  # of a whole split
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]  # likewise, or an index
MAX_CLASSES = 100_000
Classes = Annotated[int, Field(gt=0, le=MAX_CLASSES)]
ClassesOrZero = Annotated[int, Field(ge=0, le=MAX_CLASSES)]  # 0: not counted yet
Pixels = Annotated[int, Field(gt=0, le=4096)]  # of the side of an image or a part of it
PixelsOrZero = Annotated[int, Field(ge=0, le=4096)]
Channels = Annotated[int, Field(gt=0, le=2048)]  # of the first layer of a network
Processes = Annotated[int, Field(gt=0, le=1024)]  # of one training, or threads of one process
Seed = Annotated[int, Field(ge=0, lt=2**63)]
MAX_TEACHERS = 100
# Path or URL; `distill_core.config.addresses` judges it. The pattern is for Prefect's server, which
# refuses credentials before it stores them.
Address = Annotated[str, Field(json_schema_extra={"pattern": TEXT_PATTERN})]
HostAddress = Annotated[str, Field(json_schema_extra={"pattern": HOST_PATTERN})]
Triple = tuple[float, float, float]
Precision = Literal["float32", "float64", "bfloat16"]


class Frozen(BaseModel):
    """Base of all parts of a config: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Extended(Frozen):
    """A part of a config that has grown: new fields are dumped only where they are set.

    Stored configs, names of runs and keys therefore stay.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset()  # fields that the first version did not have

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        unset = {name for name in self.ADDED if getattr(self, name) == fields[name].default}
        return {name: value for name, value in tree.items() if name not in unset}
