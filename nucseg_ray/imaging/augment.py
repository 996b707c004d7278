"""Seeded training crops: one image with its nuclei in, one crop of fixed size out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.intensity import Intensity, change_intensity, empty_pixels
from nucseg_ray.imaging.rescale import LARGEST_SCALE, SMALLEST_SCALE


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a crop may differ from its image.

    Images are brought to the network's diameter, give or take ``size_spread`` (the standard deviation of the logarithm
    of the scale); ``stray_probability`` of them to any diameter between ``least_diameter_px`` and
    ``largest_diameter_px`` instead, evenly over the logarithm, so that the network also finds nuclei before their
    diameter is known. ``tilt_probability`` of them are turned by up to 45 degrees, all by quarters of a turn, mirrored,
    and stretched by ``stretch`` (a standard deviation, of the logarithm) along each axis.
    """

    size_spread: float = 0.3
    stray_probability: float = 0.15
    least_diameter_px: float = 8.0
    largest_diameter_px: float = 100.0
    tilt_probability: float = 0.3
    stretch: float = 0.05
    intensity: Intensity = field(default_factory=Intensity)
    empty_probability: float = 0.04


@dataclass(frozen=True, slots=True)
class Subject:
    """An image to cut crops from.

    ``image`` is ``(H, W, 3)`` uint8, normalised; ``labels`` ``(H, W)`` uint16 or float32, which OpenCV can warp;
    ``nuclei`` what :func:`nucseg_ray.imaging.diameters.nuclei_of` says of them; ``diameter_px`` their typical one.
    """

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    nuclei: NDArray[np.float32]
    diameter_px: float


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop: ``pixels (S, S, 3)`` uint8, ``labels (S, S)`` int32, and ``nuclei`` as seen there.

    The nuclei keep their numbers, their whole size and their centre, also where the crop shows only a part of them.
    ``inside (S, S)`` tells where it shows the image; elsewhere the picture is mirrored and nothing is known.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    nuclei: NDArray[np.float32]
    inside: NDArray[np.bool_]


def random_crop(
    subject: Subject, *, crop_px: int, diameter_px: float, augmentation: Augmentation, rng: np.random.Generator
) -> Crop:
    """Cut a crop at a random place, scaled so that nuclei are about ``diameter_px`` across, turned, and changed.

    The same generator state gives the same crop, bit for bit.
    """
    if rng.random() < augmentation.empty_probability:
        pixels = empty_pixels(crop_px, rng)
        nothing = np.zeros((crop_px, crop_px), np.int32)
        return Crop(pixels, nothing, np.zeros((1, 3), np.float32), nothing == 0)
    to_image = _draw_view(subject, crop_px=crop_px, diameter_px=diameter_px, augmentation=augmentation, rng=rng)
    seen = _cut(subject, to_image, crop_px)
    return Crop(change_intensity(seen.pixels, augmentation.intensity, rng), seen.labels, seen.nuclei, seen.inside)


def centre_crop(subject: Subject, *, crop_px: int, diameter_px: float) -> Crop:
    """Cut the middle, nuclei ``diameter_px`` across, nothing else changed."""
    scale = _within_limits(diameter_px / subject.diameter_px)
    height, width = subject.labels.shape
    return _cut(subject, _view(np.eye(2) / scale, middle=(width / 2, height / 2), crop_px=crop_px), crop_px)


def _draw_view(
    subject: Subject, *, crop_px: int, diameter_px: float, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the affine map (2, 3) from the crop's (x, y) to the image's; pixel centres at whole numbers."""
    if rng.random() < augmentation.stray_probability:
        ends = np.log([augmentation.least_diameter_px, augmentation.largest_diameter_px])
        wanted = float(np.exp(rng.uniform(*ends)))
    else:
        wanted = diameter_px * float(np.exp(rng.normal(0, augmentation.size_spread)))
    scale = _within_limits(wanted / subject.diameter_px)
    angle = int(rng.integers(4)) * np.pi / 2
    if rng.random() < augmentation.tilt_probability:
        angle += rng.uniform(-np.pi / 4, np.pi / 4)
    cos, sin = np.cos(angle), np.sin(angle)
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    stretch = np.diag(np.exp(rng.normal(0, augmentation.stretch, 2)))
    turn = np.array([[cos, -sin], [sin, cos]]) @ mirror @ stretch / scale
    height, width = subject.labels.shape
    side = crop_px / scale
    # Along a side that the crop exceeds, it is centred.
    x, y = (rng.uniform(min(side, length) / 2, length - min(side, length) / 2) for length in (width, height))
    return _view(turn, middle=(x, y), crop_px=crop_px)


def _within_limits(scale: float) -> float:
    return min(max(scale, SMALLEST_SCALE), LARGEST_SCALE)


def _view(turn: NDArray[np.float64], *, middle: tuple[float, float], crop_px: int) -> NDArray[np.float64]:
    """Give the affine map that shows ``middle``, x and y in the image, in the middle of the crop."""
    # Pixel centres stand at half-integers of these lengths: without the shift, all would drift by half a pixel.
    start = np.asarray(middle) - 0.5 - turn @ np.full(2, (crop_px - 1) / 2)
    return np.hstack([turn, start[:, np.newaxis]])


def _cut(subject: Subject, to_image: NDArray[np.float64], crop_px: int) -> Crop:
    image, labels, view = _around(subject, to_image, crop_px)
    pixels_each = float(np.sqrt(abs(np.linalg.det(view[:, :2]))))
    if pixels_each > 1.4:  # shrinking by linear interpolation alone would alias fine texture into noise
        image = cv2.GaussianBlur(image, (0, 0), 0.35 * pixels_each)
    shape, inverse = (crop_px, crop_px), cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(image, view, shape, flags=cv2.INTER_LINEAR | inverse, borderMode=cv2.BORDER_REFLECT_101)
    cut = cv2.warpAffine(labels, view, shape, flags=cv2.INTER_NEAREST | inverse, borderMode=cv2.BORDER_CONSTANT)
    whole = np.ones(labels.shape, np.uint8)
    inside = cv2.warpAffine(whole, view, shape, flags=cv2.INTER_NEAREST | inverse, borderMode=cv2.BORDER_CONSTANT)
    return Crop(
        np.asarray(pixels, np.uint8).reshape(crop_px, crop_px, 3),
        cut.astype(np.int32),
        _as_seen(subject.nuclei, to_image),
        inside.astype(np.bool_),
    )


def _around(
    subject: Subject, to_image: NDArray[np.float64], crop_px: int
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.float64]]:
    """Give the part of an image that a crop can show, and the crop's map to it: blurring a whole slide takes long."""
    ends = np.array([[x, y, 1] for x in (0, crop_px) for y in (0, crop_px)]) @ to_image.T
    height, width = subject.labels.shape
    # What is mirrored at the image's borders must be in the part, too.
    margin = 8 + 2 * np.ceil(np.ptp(ends, axis=0).max() / crop_px) + _overhang(ends, width, height)
    x0, y0 = np.clip(np.floor(ends.min(axis=0) - margin), 0, None).astype(int)
    x1, y1 = np.ceil(ends.max(axis=0) + margin).astype(int)
    part = slice(y0, min(y1, height)), slice(x0, min(x1, width))
    return subject.image[part], subject.labels[part], to_image - [[0, 0, x0], [0, 0, y0]]


def _overhang(ends: NDArray[np.float64], width: int, height: int) -> float:
    beyond = np.concatenate([-ends.min(axis=0), ends.max(axis=0) - [width, height]])
    return float(max(0.0, beyond.max()))


def _as_seen(nuclei: NDArray[np.float32], to_image: NDArray[np.float64]) -> NDArray[np.float32]:
    from_image = np.linalg.inv(to_image[:, :2])
    x, y = from_image @ (nuclei[:, 1::-1].T - to_image[:, 2:])
    diameter = nuclei[:, 2] * np.sqrt(abs(np.linalg.det(from_image)))
    return np.stack([y, x, diameter], axis=1).astype(np.float32)
