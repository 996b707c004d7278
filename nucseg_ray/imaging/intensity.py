"""Seeded changes of intensity and colour, and pictures of nothing: what training images are varied by."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Intensity:
    """How far intensities may be changed; probabilities in ``[0, 1]``, intensities in units of full range.

    ``hue`` (in parts of a turn) and ``saturation`` are standard deviations, the second of the logarithm: stains differ
    from laboratory to laboratory. ``grey_probability`` of the colour images lose their colour.
    """

    gamma: float = 2.0
    contrast: float = 0.25
    colour: float = 0.08
    hue: float = 0.045
    saturation: float = 0.25
    grey_probability: float = 0.1
    blur_sigma_px: float = 1.5
    noise_sigma: float = 0.06
    probability: float = 0.25


def change_intensity(pixels: NDArray[np.uint8], intensity: Intensity, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change an image ``(H, W, 3)`` uint8; one whose channels are equal stays grey."""
    if intensity.probability == 0:
        return np.ascontiguousarray(pixels)
    grey = bool((pixels[..., 0] == pixels[..., 1]).all())
    if not grey:
        pixels = _change_stain(pixels, intensity, rng)
        grey = bool((pixels[..., 0] == pixels[..., 1]).all())
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    if rng.random() < intensity.probability:
        levels = levels ** np.float32(intensity.gamma ** rng.uniform(-1, 1))
    if rng.random() < intensity.probability:
        levels = levels * np.float32(1 + intensity.contrast * rng.uniform(-1, 1))
        levels = levels + np.float32(0.5 * intensity.contrast * rng.uniform(-1, 1))
    colours = np.repeat(levels[:, None], 3, axis=1)
    if not grey and rng.random() < intensity.probability:
        colours = colours + rng.uniform(-intensity.colour, intensity.colour, 3).astype(np.float32)
    table = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
    changed = np.stack([cv2.LUT(np.ascontiguousarray(pixels[..., c]), table[:, c]) for c in range(3)], axis=-1)
    if rng.random() < intensity.probability / 2:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, intensity.blur_sigma_px))
    if rng.random() < intensity.probability / 2:
        changed = _add_noise(changed, rng.uniform(0, intensity.noise_sigma), grey=grey, rng=rng)
    return np.ascontiguousarray(changed)


def empty_pixels(side_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Give an image ``(side_px, side_px, 3)`` uint8 of background and noise: what an empty well looks like.

    Grey or in colour, the noise rough or smooth, up to the contrast that stretching percentiles gives it.
    """
    n_channels = int(rng.choice([1, 3]))
    noise = rng.standard_normal((side_px, side_px, n_channels), np.float32)
    smoothing = rng.uniform(-1, 2.5)
    if smoothing > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), smoothing).reshape(noise.shape)
        noise /= max(float(noise.std()), 1e-6)
    sigma = rng.uniform(0, 0.2)
    # Not darker than its own noise: clipped at black, smooth noise would look like nuclei out of focus.
    level = rng.uniform(2.3 * sigma, 0.9, n_channels).astype(np.float32)
    slope = np.linspace(-0.5, 0.5, side_px, dtype=np.float32)[:, None, None] * rng.uniform(-0.3, 0.3)
    pixels = np.clip((level + slope + sigma * noise) * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if n_channels == 1 else pixels)


def _change_stain(pixels: NDArray[np.uint8], intensity: Intensity, rng: np.random.Generator) -> NDArray[np.uint8]:
    draw = rng.random()
    if draw < intensity.grey_probability:
        return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis], 3, axis=2).astype(np.uint8)
    if draw > intensity.grey_probability + intensity.probability:
        return pixels
    hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL))
    hue = hue + np.uint8(round(256 * rng.normal(0, intensity.hue)) % 256)  # a turn has 256 steps: it wraps by itself
    saturation = np.clip(saturation * np.exp(rng.normal(0, intensity.saturation)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _add_noise(pixels: NDArray[np.uint8], sigma: float, *, grey: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    shape = (*pixels.shape[:2], 1 if grey else 3)
    noise = rng.standard_normal(shape, np.float32) * np.float32(255 * sigma)
    return np.clip(pixels + noise + 0.5, 0, 255).astype(np.uint8)
