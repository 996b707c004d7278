"""From predicted maps to label images, and from label images to the maps a network is trained on.

A variant owns its maps, its settings, its training targets and its way back to labels, so that the two directions
cannot drift apart. Pixels are neighbours by their four sides throughout: two nuclei that meet at a corner stay two.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError

Labels = NDArray[np.int32]
Maps = NDArray[np.uint8]

# A network's distance map is rough at its top: taken as it is, one nucleus would carry several peaks. On the targets of
# 48 Bowl images the two together raise AP@0.5 from 0.29 to 0.99 under white noise of 0.1, from 0.98 to 0.99 without.
_SMOOTHING_PX = 1.0
_MIN_SEED_PX = 5


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

    threshold: float = 0.5
    min_area_px: int = 20

    def __post_init__(self) -> None:
        """Refuse settings that would label nothing or everything."""
        _check_fraction(self, "threshold")
        _check_area(self)

    def label(self, maps: Maps) -> Labels:
        """Turn maps (H, W, 1) uint8 into a label image (H, W) int32, consecutive in raster order.

        Raises
        ------
        UsageError
            ``maps`` is not uint8 or does not hold exactly this variant's maps.
        """
        _check_maps(self, maps)
        _, labels = cv2.connectedComponents(_above(maps[:, :, 0], self.threshold), connectivity=4, ltype=cv2.CV_32S)
        return _tidy(labels, self.min_area_px)

    def targets(self, labels: Labels) -> Maps:
        """Return the maps (H, W, 1) uint8 a perfect network would predict for a label image: 0 or 255."""
        return _nucleus_target(labels)[:, :, np.newaxis]

    def to_dict(self) -> dict[str, Any]:
        """Return kind and settings, ready for JSON; ``labels_from_dict`` is the inverse."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class DistanceLabels:
    """Nuclei grow from the peaks of a distance map, inside the foreground map.

    The distance map holds each pixel's distance to the border of its own nucleus, relative to the deepest pixel of that
    nucleus, so that large and small nuclei reach the same height and one threshold finds a seed in each. A seeded
    watershed gives every foreground pixel to a seed; a component without a seed is one nucleus.
    (Seeds and watershed on a learned distance: Naylor et al. 2019, doi:10.1109/TMI.2018.2865709.)

    Raises
    ------
    UsageError
        A setting lies outside its range.
    """

    kind: ClassVar[str] = "distance"
    map_names: ClassVar[tuple[str, ...]] = ("nucleus", "distance")

    threshold: float = 0.5
    seed_threshold: float = 0.5
    min_area_px: int = 20

    def __post_init__(self) -> None:
        """Refuse settings that would label nothing or everything."""
        _check_fraction(self, "threshold")
        _check_fraction(self, "seed_threshold")
        _check_area(self)

    def label(self, maps: Maps) -> Labels:
        """Turn maps (H, W, 2) uint8 into a label image (H, W) int32, consecutive in raster order.

        Raises
        ------
        UsageError
            ``maps`` is not uint8 or does not hold exactly this variant's maps.
        """
        _check_maps(self, maps)
        foreground = _above(maps[:, :, 0], self.threshold)
        distance = np.ascontiguousarray(maps[:, :, 1])
        smooth: Maps = cv2.GaussianBlur(distance, (0, 0), _SMOOTHING_PX)
        seeds = _seeds(_above(smooth, self.seed_threshold) & foreground)
        # Grown on the map as it is: smoothed, the narrow valley between two nuclei would shift to the smaller one.
        return _tidy(_grow(foreground, distance, seeds), self.min_area_px)

    def targets(self, labels: Labels) -> Maps:
        """Return the maps (H, W, 2) uint8 a perfect network would predict for a label image.

        ``nucleus`` is 0 or 255; ``distance`` is 255 at the deepest pixel of each nucleus and above 0 in all of it.
        """
        return np.stack([_nucleus_target(labels), _distance_target(labels)], axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """Return kind and settings, ready for JSON; ``labels_from_dict`` is the inverse."""
        return {"kind": self.kind, **asdict(self)}


LabelVariant = ForegroundLabels | DistanceLabels
_VARIANTS: dict[str, type[ForegroundLabels] | type[DistanceLabels]] = {
    variant.kind: variant for variant in (ForegroundLabels, DistanceLabels)
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


def _check_maps(variant: LabelVariant, maps: Maps) -> None:
    if maps.dtype != np.uint8 or maps.ndim != 3 or maps.shape[2] != len(variant.map_names):
        raise UsageError(
            f"labels of kind {variant.kind} need maps (H, W, {len(variant.map_names)}) uint8 "
            f"({', '.join(variant.map_names)}); found {maps.shape} {maps.dtype}"
        )


def _above(plane: Maps, threshold: float) -> Maps:
    return (plane > threshold * 255.0).astype(np.uint8)


def _nucleus_target(labels: Labels) -> Maps:
    return np.where(labels > 0, np.uint8(255), np.uint8(0))


def _distance_target(labels: Labels) -> Maps:
    from scipy import ndimage

    target = np.zeros(labels.shape, np.uint8)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        own = labels[box] == number
        # The ring of zeros makes the image border count as outside, like any other border of the nucleus.
        ringed = cv2.copyMakeBorder(own.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        depth = cv2.distanceTransform(ringed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        # Squared distances are whole numbers. OpenCV rounds their roots by where the array lies in memory, so
        # that the same image would not always have the same target.
        squared = np.rint(np.square(depth, dtype=np.float64))
        relative = np.ceil(np.sqrt(squared * 255**2 / squared.max()))
        target[box][own] = relative[own].astype(np.uint8)
    return target


def _seeds(peaks: Maps) -> Labels:
    """Label the peaks that are large enough, consecutively."""
    _, peak_labels, stats, _ = cv2.connectedComponentsWithStats(peaks, connectivity=4, ltype=cv2.CV_32S)
    large = stats[:, cv2.CC_STAT_AREA] >= _MIN_SEED_PX
    large[0] = False
    seeds: Labels = np.where(large, np.cumsum(large), 0).astype(np.int32)[peak_labels]
    return seeds


def _grow(foreground: Maps, distance: Maps, seeds: Labels) -> Labels:
    """Label the foreground's components, those with several seeds split by a watershed on the distance."""
    labels: Labels
    n_components, labels, stats, _ = cv2.connectedComponentsWithStats(foreground, connectivity=4, ltype=cv2.CV_32S)
    # Each seed lies in one component: count seeds by component to find the few that need a watershed at all.
    component_of_seed = np.zeros(int(seeds.max(initial=0)) + 1, np.int32)
    component_of_seed[seeds.ravel()] = labels.ravel()
    seeds_in_component = np.bincount(component_of_seed[1:], minlength=n_components)
    crowded = np.flatnonzero(seeds_in_component > 1)
    if crowded.size:
        # A third of a second on its own: processes that only read or predict do without.
        from skimage.segmentation import watershed
    for component in crowded:
        x0, y0, width, height, _ = stats[component]
        box = slice(y0, y0 + height), slice(x0, x0 + width)
        inside = labels[box] == component
        parts = watershed(255 - distance[box], np.where(inside, seeds[box], 0), mask=inside)
        labels[box][inside] = parts[inside] + n_components
    return labels


def _tidy(labels: Labels, min_area_px: int) -> Labels:
    """Fill holes, drop nuclei below the least area, number the rest in raster order."""
    _fill_holes(labels)
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    numbers = flat[pixels]
    highest = int(numbers.max(initial=0))
    area = np.bincount(numbers, minlength=highest + 1)
    first = np.zeros(highest + 1, np.int64)
    first[numbers[::-1]] = pixels[::-1]  # of repeated indices the last one stays: the first pixel in raster order
    kept = np.flatnonzero((area > 0) & (area >= min_area_px))
    new_number = np.zeros(highest + 1, np.int32)
    new_number[kept[np.argsort(first[kept])]] = np.arange(1, kept.size + 1, dtype=np.int32)
    tidied: Labels = new_number[labels]
    return tidied


def _fill_holes(labels: Labels) -> None:
    """Give background that one nucleus alone encloses to that nucleus, in place."""
    background = (labels == 0).astype(np.uint8)
    # Eight neighbours here are the counterpart of four for the nuclei: a hole cannot leak through a corner.
    _, holes, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=8, ltype=cv2.CV_32S)
    for hole, box in _inner_boxes(stats, labels.shape):
        inside = (holes[box] == hole).astype(np.uint8)
        ring = cv2.dilate(inside, np.ones((3, 3), np.uint8)).astype(bool) & ~inside.astype(bool)
        owners = np.unique(labels[box][ring])
        if owners.size == 1:
            labels[box][inside.astype(bool)] = owners[0]


def _inner_boxes(stats: NDArray[np.int32], shape: tuple[int, ...]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield number and box, one pixel wider on each side, of the components that stay clear of the image border."""
    for number, (x0, y0, width, height, _) in enumerate(stats):
        if number and x0 > 0 and y0 > 0 and x0 + width < shape[1] and y0 + height < shape[0]:
            yield number, (slice(y0 - 1, y0 + height + 1), slice(x0 - 1, x0 + width + 1))
