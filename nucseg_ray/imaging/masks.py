"""One nucleus a mask, or all in one image: masks to label images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.codecs import Labels


@dataclass(frozen=True, slots=True)
class JoinedMasks:
    """A label image made of masks, and what was odd about them."""

    labels: Labels
    overlap_px: int
    n_empty: int


def join_masks(masks: Iterable[NDArray[np.uint8] | NDArray[np.uint16]], *, shape: tuple[int, int]) -> JoinedMasks:
    """Join masks of one nucleus each into a label image ``(H, W) int32``.

    Any value but 0 is nucleus. A pixel that two masks claim stays with the first. Empty masks get no label, nor do
    masks that lie wholly under earlier ones; both count as empty.

    Raises
    ------
    DecodeError
        A mask has another shape than ``shape``.
    """
    labels = np.zeros(shape, np.int32)
    overlap_px = n_empty = count = 0
    for mask in masks:
        if mask.shape != shape:
            raise DecodeError(f"expected a mask of {shape[0]} x {shape[1]} like its image, found {mask.shape}")
        inside = mask != 0
        free = inside & (labels == 0)
        n_free = int(np.count_nonzero(free))
        overlap_px += int(np.count_nonzero(inside)) - n_free
        if n_free == 0:
            n_empty += 1
            continue
        count += 1
        labels[free] = count
    return JoinedMasks(labels, overlap_px, n_empty)


def labels_from_mask(mask: NDArray[np.uint8] | NDArray[np.uint16]) -> Labels:
    """Turn one mask ``(H, W)`` into labels ``(H, W) int32``, consecutive.

    A mask of 0 and one of 1, 255 and 65535 (or of one of these alone) is split into its 8-connected components;
    anything else is taken for a label image and renumbered in the order of its values.
    """
    values, inverse = np.unique(mask, return_inverse=True)
    if set(values[:-1].tolist()) <= {0} and values[-1] in (0, 1, 255, 65_535):
        _, components = cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)
        return components.astype(np.int32)
    numbers = inverse.reshape(mask.shape).astype(np.int32)
    return numbers if values[0] == 0 else numbers + 1
