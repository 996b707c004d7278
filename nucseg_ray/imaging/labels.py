"""From predicted maps to label images, and from label images to the maps a network is trained on.

A variant owns its maps, its settings, its training targets and its way back to labels, so that the two directions
cannot drift apart. Pixels are neighbours by their four sides throughout: two nuclei that meet at a corner stay two.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.tidying import drop_doubtful, tidy
from nucseg_ray.imaging.votes import label_votes

Labels = NDArray[np.int32]
Maps = NDArray[np.uint8]
Centres = NDArray[np.float32]

# The value of an offset map that points nowhere.
ZERO = 128
# What a variant's settings are tried at when a network has been trained (``tried``).
_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
_LEAST_AREAS_PX = (10, 20, 40, 80)


@dataclass(frozen=True, slots=True)
class ForegroundLabels:
    """Nuclei are the connected components of one foreground map.

    Touching nuclei come out as one; this is the plain U-Net that the other variant is measured against.

    Raises
    ------
    UsageError
        A setting lies outside its range.
    """

    kind: ClassVar[str] = "foreground"
    map_names: ClassVar[tuple[str, ...]] = ("nucleus",)
    tried: ClassVar[Mapping[str, tuple[Any, ...]]] = {"threshold": _THRESHOLDS, "min_area_px": _LEAST_AREAS_PX}

    threshold: float = 0.5
    min_area_px: int = 20

    def __post_init__(self) -> None:
        """Refuse settings that would label nothing or everything."""
        _check_fraction(self, "threshold")
        _check_area(self)

    def label(self, maps: Maps, *, scale: float = 1.0, min_area_px: int | None = None) -> Labels:
        """Turn maps (H, W, 1) uint8 into a label image (H, W) int32, consecutive in raster order.

        ``scale`` is how many times larger the network saw the image. The setting ``min_area_px`` is in the network's
        pixels; one that is given here stands for it, and is in the image's.

        Raises
        ------
        UsageError
            ``maps`` is not uint8 or does not hold exactly this variant's maps.
        """
        _check_maps(self, maps)
        foreground = _above(_ringed(maps[:, :, 0]), self.threshold)
        _, labels = cv2.connectedComponents(foreground.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        return tidy(labels, np.flatnonzero(foreground), _least_area(self, scale, min_area_px))

    def targets(self, labels: Labels, centres: Centres | None = None) -> Maps:
        """Return the maps (H, W, 1) uint8 a perfect network would predict for a label image: 0 or 255."""
        return _nucleus_target(labels)[:, :, np.newaxis]

    def mirrored(self, maps: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
        """Give the maps (N, H, W, 1) in [0, 1] of images mirrored along axis 1 (upside down) or 2."""
        return np.flip(maps, axis)

    def exchanged(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the maps (N, W, H, 1) in [0, 1] of images whose rows and columns are exchanged."""
        return maps.swapaxes(1, 2)

    def to_dict(self) -> dict[str, Any]:
        """Return kind and settings, ready for JSON; ``labels_from_dict`` is the inverse."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class CentreLabels:
    """Every pixel of the foreground votes for the centre of its nucleus.

    Nuclei over whose pixels the map ``nucleus`` is below ``least_certainty`` on average are dropped.
    The maps ``centre_dy`` and ``centre_dx`` say how far that centre lies below and to the right of the pixel, in steps
    of ``offset_step_px`` of the network's pixels from the value 128; so they reach 128 steps far. How votes become
    nuclei: :func:`nucseg_ray.imaging.votes.label_votes`.

    Raises
    ------
    UsageError
        A setting lies outside its range.
    """

    kind: ClassVar[str] = "centres"
    map_names: ClassVar[tuple[str, ...]] = ("nucleus", "centre_dy", "centre_dx")
    tried: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "threshold": _THRESHOLDS,
        "least_votes": (0.05, 0.1, 0.2, 0.3),
        "least_certainty": (0.6, 0.7, 0.75, 0.8, 0.84, 0.88),
        "min_area_px": _LEAST_AREAS_PX,
    }

    threshold: float = 0.5
    least_votes: float = 0.1
    least_certainty: float = 0.6
    min_area_px: int = 20
    offset_step_px: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that would label nothing or everything."""
        _check_fraction(self, "threshold")
        _check_fraction(self, "least_votes")
        _check_fraction(self, "least_certainty")
        _check_area(self)
        if not self.offset_step_px > 0:
            raise UsageError(
                f"label settings of kind {self.kind}: offset_step_px must be above 0; found {self.offset_step_px!r}"
            )

    def label(self, maps: Maps, *, scale: float = 1.0, min_area_px: int | None = None) -> Labels:
        """Turn maps (H, W, 3) uint8 into a label image (H, W) int32, consecutive in raster order.

        ``scale`` is how many times larger the network saw the image: offsets and the setting ``min_area_px`` are in its
        pixels. A ``min_area_px`` that is given here stands for the setting, and is in the image's.

        Raises
        ------
        UsageError
            ``maps`` is not uint8 or does not hold exactly this variant's maps.
        """
        _check_maps(self, maps)
        nucleus, *offsets = map(_ringed, cv2.split(maps))
        voters = np.flatnonzero(_above(nucleus, self.threshold))
        step_px = np.float32(self.offset_step_px / scale)
        dy, dx = ((plane.reshape(-1)[voters].astype(np.float32) - ZERO) * step_px for plane in offsets)
        labels = label_votes(voters, dy, dx, shape=nucleus.shape, least_votes=self.least_votes)
        drop_doubtful(labels, voters, nucleus.reshape(-1)[voters], least_certainty=self.least_certainty)
        return tidy(labels, voters, _least_area(self, scale, min_area_px))

    def targets(self, labels: Labels, centres: Centres | None = None) -> Maps:
        """Return the maps (H, W, 3) uint8 a perfect network would predict for a label image.

        ``nucleus`` is 0 or 255; the offsets are 128 outside nuclei. ``centres (n + 1, 2)`` float32 are y and x of the
        nucleus of each number, for a label image that shows only a part of some; by default they are taken from it.
        """
        if centres is None:
            centres = nuclei_of(labels)[:, :2]
        offsets = np.full((*labels.shape, 2), ZERO, np.uint8)
        y, x = np.nonzero(labels)
        steps = (centres[labels[y, x]] - np.stack([y, x], axis=1).astype(np.float32)) / np.float32(self.offset_step_px)
        offsets[y, x] = np.clip(np.rint(steps) + ZERO, 0, 255)
        return np.concatenate([_nucleus_target(labels)[:, :, np.newaxis], offsets], axis=-1)

    def mirrored(self, maps: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
        """Give the maps (N, H, W, 3) in [0, 1] of images mirrored along axis 1 (upside down) or 2."""
        turned = np.flip(maps, axis).copy()
        # Map 1 points along axis 1, map 2 along axis 2. The steps to one side are one more than to the other.
        turned[..., axis] = np.minimum(2 * ZERO / 255 - turned[..., axis], 1)
        return turned

    def exchanged(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the maps (N, W, H, 3) in [0, 1] of images whose rows and columns are exchanged."""
        return maps.swapaxes(1, 2)[..., [0, 2, 1]]

    def to_dict(self) -> dict[str, Any]:
        """Return kind and settings, ready for JSON; ``labels_from_dict`` is the inverse."""
        return {"kind": self.kind, **asdict(self)}


LabelVariant = ForegroundLabels | CentreLabels
_VARIANTS: dict[str, type[ForegroundLabels] | type[CentreLabels]] = {
    variant.kind: variant for variant in (ForegroundLabels, CentreLabels)
}


def labels_from_dict(settings: Mapping[str, Any]) -> LabelVariant:
    """Build the variant that ``to_dict`` described.

    Raises
    ------
    UsageError
        The kind is unknown, or a setting is; the message names the closest known one.
    """
    kind = settings.get("kind")
    if kind not in _VARIANTS:
        raise UsageError(f"label settings: kind must be one of {', '.join(_VARIANTS)}; found {kind!r}")
    variant = _VARIANTS[kind]
    known = [field.name for field in fields(variant)]
    for name in settings:
        if name != "kind" and name not in known:
            closest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UsageError(f"label settings of kind {kind}: {name!r} is not a setting; did you mean {closest!r}?")
    return variant(**{name: value for name, value in settings.items() if name != "kind"})


def _check_fraction(variant: LabelVariant, name: str) -> None:
    value = getattr(variant, name)
    if not 0.0 < value < 1.0:
        raise UsageError(f"label settings of kind {variant.kind}: {name} must lie between 0 and 1; found {value!r}")


def _check_area(variant: LabelVariant) -> None:
    if variant.min_area_px < 0:
        raise UsageError(
            f"label settings of kind {variant.kind}: min_area_px must be 0 or more; found {variant.min_area_px!r}"
        )


def _least_area(variant: LabelVariant, scale: float, given_px: int | None) -> float:
    return variant.min_area_px / scale**2 if given_px is None else given_px


def _check_maps(variant: LabelVariant, maps: Maps) -> None:
    if maps.dtype != np.uint8 or maps.ndim != 3 or maps.shape[2] != len(variant.map_names):
        raise UsageError(
            f"labels of kind {variant.kind} need maps (H, W, {len(variant.map_names)}) uint8 "
            f"({', '.join(variant.map_names)}); found {maps.shape} {maps.dtype}"
        )


def _above(plane: Maps, threshold: float) -> NDArray[np.bool_]:
    return plane > threshold * 255.0


def _nucleus_target(labels: Labels) -> Maps:
    return np.where(labels > 0, np.uint8(255), np.uint8(0))


def _ringed(plane: Maps) -> Maps:
    """Put a ring of background round a plane: then every pixel of a nucleus has all its neighbours."""
    return np.asarray(cv2.copyMakeBorder(plane, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), np.uint8)
