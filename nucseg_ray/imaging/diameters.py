"""Where the nuclei of a label image lie, how large they are, and which size is the typical one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]

# A diameter is believed of so many nuclei, or of fewer that have the area of so many of the network's own.
LEAST_NUCLEI, LEAST_AREA = 5, 3.0
# What is wider than this part of the image's shorter side is no nucleus, but background that was taken for one.
WIDEST = 2 / 3
# So few nuclei that outweigh at least so many others may be blobs out of focus.
FEW, MANY = 2, 10


def nuclei_of(labels: Labels) -> NDArray[np.float32]:
    """Measure nuclei: ``(n + 1, 3)`` float32, by number: y and x of the centroid, diameter of a disc of its area.

    In pixels; row 0, and numbers that do not occur, are 0.
    """
    y, x = np.nonzero(labels)
    number = labels[y, x]
    count = int(number.max(initial=0)) + 1
    area = np.bincount(number, minlength=count)
    present = np.maximum(area, 1)
    centroids = (np.bincount(number, weights=of, minlength=count) / present for of in (y, x))
    return np.stack([*centroids, 2 * np.sqrt(area / np.pi)], axis=1).astype(np.float32)


def typical_diameter(diameters: NDArray[np.floating[Any]]) -> float | None:
    """Give the diameter that half of the nuclei's area lies below, of diameters in any order; None of none.

    By area, for that is what is seen: debris counts little, and so do a few small nuclei among large ones.
    """
    ordered = np.sort(np.asarray(diameters, np.float64)[np.asarray(diameters) > 0])
    if not ordered.size:
        return None
    area = np.cumsum(np.square(ordered))
    return float(ordered[np.searchsorted(area, area[-1] / 2)])


def believed_diameter(labels: Labels, *, model_diameter_px: float) -> float | None:
    """Give the typical diameter of the nuclei in a label image, in pixels; None where they tell too little.

    A network has found them that knows nuclei of ``model_diameter_px``, and among them may be what is none. Where one
    or two outweigh all others, though these are many, either reading may be the right one (a blob out of focus among
    nuclei, or a large nucleus among debris); it is the one nearer to what the network knows.
    """
    diameters = np.sort(nuclei_of(labels)[1:, 2])
    diameters = diameters[(diameters > 0) & (diameters <= WIDEST * min(labels.shape))]
    area = np.square(diameters)
    if diameters.size < LEAST_NUCLEI and area.sum() < LEAST_AREA * model_diameter_px**2:
        return None
    readings = [typical_diameter(diameters)]
    if diameters.size >= FEW + MANY and area[-FEW:].sum() > area[:-FEW].sum():
        readings.append(typical_diameter(diameters[:-FEW]))
    return min(filter(None, readings), key=lambda reading: abs(float(np.log2(reading / model_diameter_px))))
