"""Settings of the synthesiser: what ``jobs/synthesize.py`` takes as flags."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from nucseg_ray.config import NumberText, Place, Settings


class SynthesizeSettings(Settings):
    """Draw synthetic nuclei with their truth: a labelled training set, or a whole plate."""

    groups: ClassVar[dict[str, str]] = {
        "output": "what and where",
        "images": "a training set",
        "scheme": "a plate",
        "shape_px": "images",
    }
    examples: ClassVar[tuple[str, ...]] = (
        "--images 96 --output training",
        "--kind plate --scheme imagexpress --wells 24 --output synthetic",
    )

    output: Place = Field(description="folder or URI to write to; new, or begun with these very settings")
    kind: Literal["training", "plate"] = Field("training", description="a labelled training set, or a whole plate")
    images: int = Field(64, ge=1, description="number of images")
    layout: Literal["bowl", "paired"] = Field(
        "bowl", description="one mask file a nucleus (bowl), or one label image an image (paired)"
    )
    scheme: Literal[
        "bbbc",
        "imagexpress",
        "cellvoyager",
        "cq1",
        "operetta",
        "incell",
        "scanr",
        "micromanager",
        "cellomics",
        "folders",
    ] = Field("bbbc", description="how the image files are named (docs/plates.md)")
    plate: str = Field("synthetic", min_length=1, description="name of the plate, and the name of its folder")
    wells: Annotated[Literal[24, 96, 384, 1536], NumberText] = Field(96, description="number of wells")
    sites_per_well: int = Field(1, ge=1, description="sites a well (bbbc can name one only)")
    timepoints: int = Field(1, ge=1, description="time points a site (where the scheme names them)")
    planes: int = Field(
        1, ge=1, description="planes of a z-stack (where the scheme names them), the middle one in focus"
    )
    empty_wells: int = Field(4, ge=0, description="number of wells without any nucleus")
    channels: int = Field(1, ge=1, le=4, description="channels a site; the first shows the nuclei")
    shape_px: tuple[int, int] = Field((256, 256), description="height and width of an image in pixels")
    nuclei: tuple[int, int] = Field((10, 45), description="fewest and most nuclei in an image")
    radius_px: tuple[float, float] = Field(
        (7.0, 14.0), description="smallest and largest radius of a nucleus in pixels"
    )
    bit_depth: Annotated[Literal[8, 16], NumberText] = Field(16, description="bits of a pixel")
    seed: int = Field(0, ge=0, description="same seed and settings, same bytes")

    @field_validator("empty_wells")
    @classmethod
    def _are_some_of_the_wells(cls, value: int, others: ValidationInfo) -> int:
        if value > others.data.get("wells", value):
            raise ValueError(f"expected 0 to {others.data['wells']}, the number of wells")
        return value

    @field_validator("nuclei")
    @classmethod
    def _are_fewest_and_most(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError("expected fewest and most, 0 <= fewest <= most")
        return value
