"""Labels put in order: doubtful and tiny nuclei dropped, holes filled, numbers in raster order.

All label images here have a ring of background, so that every pixel of a nucleus has all its neighbours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]


def drop_doubtful(
    ringed: Labels, pixels: NDArray[np.int64], values: NDArray[np.uint8], *, least_certainty: float
) -> None:
    """Make background, in place, of nuclei whose mean of ``values``, those of the nucleus map at ``pixels``, is low."""
    numbers = ringed.reshape(-1)[pixels]
    area, total = np.bincount(numbers), np.bincount(numbers, weights=values)
    number = np.arange(area.size, dtype=np.int32)
    number[total < least_certainty * 255.0 * area] = 0
    ringed.reshape(-1)[pixels] = number[numbers]


def tidy(ringed: Labels, pixels: NDArray[np.int64], min_area_px: float) -> Labels:
    """Fill holes, drop nuclei below the least area, number the rest in raster order, take the ring of background off.

    ``pixels``, positions in the flattened image in raster order, are those of the nuclei; others may be among them.
    """
    flat = ringed.reshape(-1)
    numbers = flat[pixels]
    highest = int(numbers.max(initial=0))
    first = np.zeros(highest + 1, np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=0))[::-1]  # where a run of one nucleus begins, the last one first
    first[numbers[starts]] = pixels[starts]  # of repeated indices the last one stays: the first pixel in raster order
    filled = _fill_holes(ringed)
    area = np.bincount(np.concatenate([numbers, flat[filled]]), minlength=highest + 1)
    area[0] = 0
    kept = np.flatnonzero((area > 0) & (area >= min_area_px))
    new_number = np.zeros(highest + 1, np.int32)
    new_number[kept[np.argsort(first[kept])]] = np.arange(1, kept.size + 1, dtype=np.int32)
    flat[pixels] = new_number[numbers]
    flat[filled] = new_number[flat[filled]]
    return np.ascontiguousarray(ringed[1:-1, 1:-1])


def _fill_holes(ringed: Labels) -> NDArray[np.int64]:
    """Give background that one nucleus alone encloses to that nucleus, in place; gives the pixels that changed."""
    # Eight neighbours here are the counterpart of four for the nuclei: a hole cannot leak through a corner. Region 1 is
    # that of the ring, since it has the first pixel; all others are holes.
    count, regions = cv2.connectedComponents((ringed == 0).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    pixels = np.flatnonzero(regions > 1)
    if not pixels.size:
        return pixels
    hole_of = regions.reshape(-1)[pixels]
    flat, width = ringed.reshape(-1), ringed.shape[1]
    least, most = np.full(count, np.iinfo(np.int32).max, np.int32), np.zeros(count, np.int32)
    for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
        neighbour = flat[pixels + step]
        is_nucleus = neighbour > 0
        np.minimum.at(least, hole_of[is_nucleus], neighbour[is_nucleus])
        np.maximum.at(most, hole_of[is_nucleus], neighbour[is_nucleus])
    owner = np.where(least == most, most, 0)[hole_of]
    flat[pixels] = owner
    return pixels[owner > 0]
