"""Seeded training crops: one image and its targets in, one crop of fixed size out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a crop may differ from its image. Probabilities in ``[0, 1]``, intensities in units of full range."""

    least_scale: float = 0.4
    largest_scale: float = 3.0
    gamma: float = 2.0
    contrast: float = 0.25
    colour: float = 0.08
    blur_sigma_px: float = 1.5
    noise_sigma: float = 0.06
    probability: float = 0.4
    empty_probability: float = 0.04


NO_AUGMENTATION = Augmentation(
    least_scale=1.0, largest_scale=1.0, gamma=1.0, contrast=0.0, colour=0.0, probability=0.0, empty_probability=0.0
)


def crop(
    image: NDArray[np.uint8],
    targets: NDArray[np.uint8],
    *,
    crop_px: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cut a random crop, scaled, flipped and turned, its intensities changed.

    Takes ``(H, W, 3)`` and ``(H, W, M)`` uint8, value/255 in ``[0, 1]``; gives ``(crop_px, crop_px, 3)`` and
    ``(crop_px, crop_px, M)`` of the same kind. Outside the image the picture is mirrored. The same generator state
    gives the same crop, bit for bit.
    """
    if rng.random() < augmentation.empty_probability:
        return empty_crop(crop_px, targets.shape[2], rng)
    scale = _draw_scale(augmentation, rng)
    window = _draw_window(image.shape[0], image.shape[1], crop_px=crop_px, scale=scale, rng=rng)
    flips_and_turns = int(rng.integers(8))
    pixels = _turn(_cut(image, window, crop_px=crop_px, scale=scale), flips_and_turns)
    truth = _turn(_cut(targets, window, crop_px=crop_px, scale=scale), flips_and_turns)
    return _change_intensity(pixels, augmentation, rng), np.ascontiguousarray(truth)


def centre_crop(
    image: NDArray[np.uint8], *planes: NDArray[np.generic], crop_px: int
) -> tuple[NDArray[np.generic], ...]:
    """Cut the central ``crop_px`` square of ``(H, W, ...)`` arrays, padded by zeros where they are smaller."""
    height, width = image.shape[:2]
    y0, x0 = max(0, (height - crop_px) // 2), max(0, (width - crop_px) // 2)
    cut = []
    for plane in (image, *planes):
        part = plane[y0 : y0 + crop_px, x0 : x0 + crop_px]
        padding = [(0, crop_px - part.shape[0]), (0, crop_px - part.shape[1])] + [(0, 0)] * (plane.ndim - 2)
        cut.append(np.pad(part, padding))
    return tuple(cut)


def _draw_scale(augmentation: Augmentation, rng: np.random.Generator) -> float:
    low, high = np.log(augmentation.least_scale), np.log(augmentation.largest_scale)
    # Most nuclei of a lab are of one size: the middle of the range is drawn more often than its ends.
    return float(np.exp(rng.triangular(low, 0.0, high))) if low < high else float(augmentation.least_scale)


def _draw_window(
    height: int, width: int, *, crop_px: int, scale: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Give the top left corner (y, x) of the window in whole pixels; centred along a side that it exceeds.

    Between pixels, interpolation would smooth the noise that the network meets in images as they are.
    """
    side = crop_px / scale
    y0 = rng.uniform(0, height - side) if height > side else (height - side) / 2
    x0 = rng.uniform(0, width - side) if width > side else (width - side) / 2
    return float(round(y0)), float(round(x0))


def _cut(plane: NDArray[np.uint8], window: tuple[float, float], *, crop_px: int, scale: float) -> NDArray[np.uint8]:
    y0, x0 = window
    # Pixel centres stand at half-integers: without the shift, image and targets would drift by half a pixel.
    shift = 0.5 / scale - 0.5
    inverse = np.array([[1 / scale, 0, x0 + shift], [0, 1 / scale, y0 + shift]], np.float64)
    if scale < 0.7:  # shrinking by linear interpolation alone would alias fine texture into noise
        plane = cv2.GaussianBlur(plane, (0, 0), 0.35 / scale)
    warped = cv2.warpAffine(
        plane,
        inverse,
        (crop_px, crop_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.uint8).reshape(crop_px, crop_px, plane.shape[2] if plane.ndim == 3 else 1)


def _turn(plane: NDArray[np.uint8], which: int) -> NDArray[np.uint8]:
    turned = np.rot90(plane, which % 4)
    return turned[:, ::-1] if which >= 4 else turned


def _change_intensity(
    pixels: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    if augmentation.probability == 0:
        return np.ascontiguousarray(pixels)
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    if rng.random() < augmentation.probability:
        levels = levels ** np.float32(augmentation.gamma ** rng.uniform(-1, 1))
    if rng.random() < augmentation.probability:
        levels = levels * np.float32(1 + augmentation.contrast * rng.uniform(-1, 1))
        levels = levels + np.float32(0.5 * augmentation.contrast * rng.uniform(-1, 1))
    colours = np.repeat(levels[:, None], 3, axis=1)
    grey = bool((pixels[..., 0] == pixels[..., 1]).all())
    if not grey and rng.random() < augmentation.probability:
        colours = colours + rng.uniform(-augmentation.colour, augmentation.colour, 3).astype(np.float32)
    table = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
    changed = np.stack([cv2.LUT(np.ascontiguousarray(pixels[..., c]), table[:, c]) for c in range(3)], axis=-1)
    if rng.random() < augmentation.probability / 2:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, augmentation.blur_sigma_px))
    if rng.random() < augmentation.probability / 2:
        changed = _add_noise(changed, rng.uniform(0, augmentation.noise_sigma), grey=grey, rng=rng)
    return np.ascontiguousarray(changed)


def _add_noise(pixels: NDArray[np.uint8], sigma: float, *, grey: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    shape = (*pixels.shape[:2], 1 if grey else 3)
    noise = rng.standard_normal(shape, np.float32) * np.float32(255 * sigma)
    return np.clip(pixels + noise + 0.5, 0, 255).astype(np.uint8)


def empty_crop(crop_px: int, n_maps: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give an image of background and noise with nothing in it: what an empty well looks like.

    Grey or in colour, the noise rough or smooth, up to the contrast that stretching percentiles gives it.
    """
    n_channels = int(rng.choice([1, 3]))
    noise = rng.standard_normal((crop_px, crop_px, n_channels), np.float32)
    smoothing = rng.uniform(-1, 2.5)
    if smoothing > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), smoothing).reshape(noise.shape)
        noise /= max(float(noise.std()), 1e-6)
    sigma = rng.uniform(0, 0.2)
    # Not darker than its own noise: clipped at black, smooth noise would look like nuclei out of focus.
    level = rng.uniform(2.3 * sigma, 0.9, n_channels).astype(np.float32)
    slope = np.linspace(-0.5, 0.5, crop_px, dtype=np.float32)[:, None, None] * rng.uniform(-0.3, 0.3)
    pixels = np.clip((level + slope + sigma * noise) * 255, 0, 255).astype(np.uint8)
    grey = np.repeat(pixels, 3, axis=2) if n_channels == 1 else pixels
    return np.ascontiguousarray(grey), np.zeros((crop_px, crop_px, n_maps), np.uint8)
