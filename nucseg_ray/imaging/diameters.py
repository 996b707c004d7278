"""Where the nuclei of a label image lie, how large they are, and which size is the typical one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]


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
