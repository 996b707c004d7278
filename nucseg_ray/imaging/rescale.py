"""At which size a network is to see an image, and images and maps brought there and back."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SMALLEST_SCALE, LARGEST_SCALE = 1 / 8, 4.0
# Scales come in steps, fine enough that none matters: estimates that differ little then ask for the same scale.
STEPS_PER_OCTAVE = 8
# An image is not enlarged beyond so many pixels: its maps, in float32, must fit into an actor's memory.
MOST_PIXELS = 32 << 20


def scale_for(diameter_px: float, model_diameter_px: float) -> float:
    """Say how many times larger a network is to see an image whose nuclei have this diameter; 1.0 is as it is.

    Examples
    --------
    >>> [scale_for(diameter, 30.0) for diameter in (30.0, 60.0, 15.0, 1.0)]
    [1.0, 0.5, 2.0, 4.0]
    """
    step = round(math.log2(model_diameter_px / diameter_px) * STEPS_PER_OCTAVE)
    return float(min(max(2 ** (step / STEPS_PER_OCTAVE), SMALLEST_SCALE), LARGEST_SCALE))


def affordable(scale: float, shape: tuple[int, ...]) -> float:
    """Lower a scale above 1 where an image of this height and width would otherwise come out too large."""
    if scale <= 1:
        return scale
    return max(1.0, min(scale, math.sqrt(MOST_PIXELS / (shape[0] * shape[1]))))


def rescaled(image: Floats, scale: float) -> Floats:
    """Bring normalised pixels ``(H, W)`` or ``(H, W, 3)`` to the size at which the network sees them."""
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=_into(scale)), np.float32)


def brought_back(maps: Floats, shape: tuple[int, int]) -> Floats:
    """Bring maps ``(h, w, M)`` to the ``(H, W)`` of their image; what they say in pixels stays in the network's."""
    if maps.shape[:2] == shape:
        return maps
    resized = cv2.resize(maps, shape[::-1], interpolation=_into(shape[0] * shape[1] / maps[..., 0].size))
    return np.asarray(resized, np.float32).reshape(*shape, maps.shape[2])  # OpenCV drops the axis of a single map


def _into(times: float) -> int:
    """Choose the interpolation for pixels that become so many times more: without aliasing where they become fewer."""
    return int(cv2.INTER_AREA if times < 1 else cv2.INTER_LINEAR)
