"""Settings of a batch run: what ``jobs/predict.py`` takes as flags."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from nucseg_ray.config import AUTO, MODEL_TEXT, TTA_TEXT, DiameterText, Place, Settings

NO_ILLUMINATION, ESTIMATE = "none", "estimate"


class PredictSettings(Settings):
    """Segment a plate or a folder of images."""

    groups: ClassVar[dict[str, str]] = {
        "input": "input and output",
        "dry_run": "plates, channels and sites",
        "illumination": "images and nuclei",
        "max_failed": "failures and reruns",
        "preflight": "running on the machine or cluster",
    }
    examples: ClassVar[tuple[str, ...]] = (
        "--input plate --output segmented --dry-run",
        "--input plate --channel w1 --output segmented",
        "--model s3://bucket/model --input s3://bucket/plate --output s3://bucket/segmented",
        "--config run.yaml --input plate7 --output segmented7",
    )

    input: Place = Field(description="folder of images, or a plate as the microscope wrote it")
    output: Place = Field(description="folder for masks and tables; a rerun goes on where the last one stopped")
    model: Place = Field("pretrained", description=MODEL_TEXT)
    masks: Literal["png", "parquet", "both", "none"] = Field("png", description="how label masks are written")

    dry_run: bool = Field(False, description="tell what was understood of the input, change nothing, and stop")
    scheme: Annotated[str, "NAME"] | None = Field(
        None,
        description="how files are named, where looking is not enough to tell: a scheme's name (docs/plates.md), or "
        "regex: and a pattern with the groups well (or row and column), site, channel, z, time, plate",
    )
    channel: Annotated[str, "NAME|N"] | None = Field(
        None,
        description="channel to segment, as the file names have it; where they name none, of those inside each file, "
        "by name or number from 1",
    )
    z: Annotated[str, "max|mean|best-focus|projection|N"] | None = Field(
        None,
        description="how the planes of a z-stack become an image: their maximum (max, the default), their mean, the "
        "sharpest plane, the projection that the instrument stored beside them, or the plane of this number, as the "
        "file names have it, else from 1. Given, pages of which a file says nothing are planes; else they are refused",
    )
    wells: Annotated[str, "WELLS"] | None = Field(
        None, description="only these wells, such as A01,B02-D04 (a range is a rectangle of the plate)"
    )
    sites: Annotated[str, "SITES"] | None = Field(None, description="only these sites of each well, such as 1,3-5")
    timepoints: Annotated[str, "TIMES"] | None = Field(
        None,
        description="only these time points, such as 1,3-5; where file names tell of none, those inside each file, "
        "by their numbers from 1: each is a site of its own",
    )
    limit: int | None = Field(None, description="only the first N sites; without it a rerun does the rest", ge=1)
    settle_s: float | None = Field(
        None,
        description="a plate still being scanned: leave sites for the next run whose files changed within so many "
        "seconds, or that have less files than others; by default 60 where files are seen to change, else 0: all are "
        "taken as they are",
        ge=0,
    )

    illumination: Annotated[str, "none|estimate|PATH"] = Field(
        NO_ILLUMINATION,
        description="correct uneven light, before segmenting and measuring; estimate: found on some sites of each "
        "plate; PATH: an illumination function (TIFF, .npy), or a folder such as OUT/illumination; none: intensities "
        "stay as the camera gave them",
    )
    pixel_size_um: float | None = Field(
        None,
        description="side of a pixel, in micrometres, by default as the files say of themselves; changes masks with "
        "--nucleus-diameter-um only",
        gt=0,
    )
    nucleus_diameter_px: DiameterText = Field(
        AUTO,
        description="diameter of the nuclei, in pixels; auto: found on some sites of each plate, or for each image",
    )
    nucleus_diameter_um: float | None = Field(
        None, description="the same in micrometres, where the size of pixels is known", gt=0
    )
    min_area_px: int | None = Field(
        None, description="leave out nuclei of less pixels, by default of as many as the model was tuned to", ge=0
    )
    drop_border: bool = Field(False, description="leave out nuclei that touch the border of the image")
    tta: bool = Field(False, description=TTA_TEXT)

    max_failed: Annotated[str, "N|P%"] = Field("0", description="exit with 3 when more sites failed than N, or than P%")
    retry_failed: bool = Field(False, description="try the failed sites of earlier runs again")
    overwrite: bool = Field(False, description="delete what an earlier run left in the output, and start afresh")

    preflight: bool = Field(True, description="try one site through every stage before the long run")

    runtime: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto", description="what runs the network: OpenVINO on CPUs, TensorFlow on GPUs"
    )
    actors: int = Field(1, description="processes that run the network", ge=1)
    use_gpu: bool = Field(False, description="run the network on GPUs, one an actor")
    cpus_per_actor: float = Field(1.0, description="CPUs that Ray reserves for each actor", gt=0)
    threads_per_actor: int = Field(2, description="the network's threads in each actor", ge=1)
    tile_px: int = Field(1024, description="images longer than this are predicted in tiles", ge=64, multiple_of=32)
    overlap_px: int = Field(128, description="overlap of tiles", ge=0)
    sites_per_part: int = Field(16, description="sites that are read, segmented and committed together", ge=1)

    @field_validator("max_failed")
    @classmethod
    def _is_count_or_share(cls, value: str) -> str:
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", value):
            raise ValueError("expected a number of sites such as 3, or a share such as 5%")
        return value

    @field_validator("nucleus_diameter_um")
    @classmethod
    def _is_the_only_diameter(cls, value: float | None, others: ValidationInfo) -> float | None:
        if value is not None and others.data.get("nucleus_diameter_px", AUTO) != AUTO:
            raise ValueError("expected one diameter, but --nucleus-diameter-px names one, too")
        return value

    @field_validator("z")
    @classmethod
    def _is_projection_or_plane(cls, value: str | None) -> str | None:
        if value not in (None, "max", "mean", "best-focus", "projection") and not value.isdecimal():
            raise ValueError("expected max, mean, best-focus, projection, or the number of a plane such as 2")
        return value
