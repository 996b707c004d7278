"""Settings of the synthesiser: what ``jobs/synthesize.py`` takes as flags."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from nucseg_ray.config import Settings


class SynthesizeSettings(Settings):
    """Draw synthetic nuclei with their truth: a labelled training set, or a whole plate.

    Example: python jobs/synthesize.py --kind plate --scheme imagexpress --wells 24 --output synthetic
    """

    output: str = Field(description="folder or URI to write to; new, or begun with these very settings")
    kind: Literal["training", "plate"] = Field("training", description="a labelled training set, or a whole plate")
    images: int = Field(64, ge=1, description="training: number of images")
    layout: Literal["bowl", "paired"] = Field(
        "bowl", description="training: one mask file a nucleus (bowl), or one label image an image (paired)"
    )
    scheme: Literal["bbbc", "imagexpress", "cellvoyager", "operetta"] = Field(
        "bbbc", description="plate: how the image files are named"
    )
    plate: str = Field("synthetic", min_length=1, description="plate: its name, and the name of its folder")
    wells: Literal[24, 96, 384] = Field(96, description="plate: number of wells")
    sites_per_well: int = Field(1, ge=1, description="plate: sites a well (bbbc can name one only)")
    empty_wells: int = Field(4, ge=0, description="plate: number of wells without any nucleus")
    channels: int = Field(1, ge=1, le=4, description="plate: channels a site; the first shows the nuclei")
    shape_px: tuple[int, int] = Field((256, 256), description="height and width of an image in pixels")
    nuclei: tuple[int, int] = Field((10, 45), description="fewest and most nuclei in an image")
    radius_px: tuple[float, float] = Field(
        (7.0, 14.0), description="smallest and largest radius of a nucleus in pixels"
    )
    bit_depth: Literal[8, 16] = Field(16, description="bits of a pixel")
    seed: int = Field(0, ge=0, description="same seed and settings, same bytes")

    @pydantic.model_validator(mode="after")
    def _check(self) -> SynthesizeSettings:
        if not 0 <= self.nuclei[0] <= self.nuclei[1]:
            raise ValueError(f"nuclei must be (fewest, most) with 0 <= fewest <= most, not {self.nuclei}")
        if self.empty_wells > self.wells:
            raise ValueError(f"empty_wells must be 0 to {self.wells}, the number of wells, not {self.empty_wells}")
        return self
