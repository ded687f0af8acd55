"""The part of a dataset's config about packs, the copy of its images that later stages read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distill_core.config.fields import Frozen, Pixels

# Increased when the bytes or the order of packed images change on purpose.
VERSION = 1
MIN_BYTES, MAX_BYTES = 2**10, 2**31  # of a pack
PackBytes = Annotated[int, Field(ge=MIN_BYTES, le=MAX_BYTES)]
Quality = Annotated[int, Field(ge=1, le=100)]


class PackConfig(Frozen):
    """Packs: files of encoded images in the order of their classes; see `distill_core.data.packs`.

    Images are never enlarged: one that is no larger than `size` keeps its bytes.
    """

    size: Pixels | None = None  # required with encoding jpeg, not allowed with original
    # short_edge: the short side becomes `size`; squish: both sides do
    shape: Literal["short_edge", "squish"] = "short_edge"
    encoding: Literal["jpeg", "original"] = "jpeg"  # original: the bytes of the source
    quality: Quality = 90  # of JPEG
    pack_bytes: PackBytes = 256_000_000  # of one file, about

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.encoding == "jpeg":
            if self.size is None:
                raise ValueError("pack.size is required with encoding=jpeg: set it in pixels")
            return self
        given = {"size", "shape", "quality"} & self.model_fields_set
        changed = [name for name in sorted(given) if getattr(self, name) != _default(name)]
        if changed:
            raise ValueError(
                f"pack.{changed[0]} is not allowed with encoding=original, which keeps the bytes: "
                "remove it"
            )
        return self

    @property
    def pixels(self) -> dict[str, Any] | None:
        """Return what decides the pixels of packed images; None: those of the source.

        It is a part of the keys of everything that is computed from them.
        """
        if self.encoding == "original":
            return None
        settings = self.model_dump(mode="json", include={"size", "shape", "quality"})
        return settings | {"encoding": self.encoding, "version": VERSION}


def _default(name: str) -> Any:
    return PackConfig.model_fields[name].default
