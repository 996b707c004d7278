"""Measure the nuclei of a label image; the columns are named as CellProfiler and pycytominer name them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import InputError


def measure(labels: NDArray[np.int32], image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return one column of each feature, one row a nucleus in the order of the labels.

    ``labels`` (H, W) int32; ``image`` (H, W) or (H, W, C), the raw pixels and not the normalised ones: intensities are
    in its counts, the mean of the channels where there are several. Positions are in pixels, the centre of the first
    pixel at 0; boxes are half-open. ``ObjectNumber`` is the label.

    Raises
    ------
    InputError
        Image and labels differ in height or width.

    Examples
    --------
    >>> columns = measure(np.array([[0, 1, 1]], np.int32), np.array([[5, 10, 20]], np.uint8))
    >>> columns["Nuclei_Location_Center_X"].tolist(), columns["Nuclei_Intensity_MeanIntensity"].tolist()
    ([1.5], [15.0])
    """
    if labels.ndim != 2 or image.ndim not in (2, 3) or image.shape[:2] != labels.shape:
        raise InputError(f"image and labels must have one height and width; found {image.shape} and {labels.shape}")
    from scipy import ndimage  # slow to import, and measuring is for one kind of process

    rows, columns = np.nonzero(labels)
    of_pixel = labels[rows, columns]
    area = np.bincount(of_pixel)
    numbers = np.flatnonzero(area)
    area = area[numbers]
    # Channels are added up and divided by last: sums of whole numbers are exact, a mean of means would not be.
    n_channels = 1 if image.ndim == 2 else image.shape[2]
    counts = image[rows, columns].reshape(rows.size, n_channels)
    boxes = np.array(
        [(y.start, x.start, y.stop, x.stop) for y, x in filter(None, ndimage.find_objects(labels))], np.int32
    ).reshape(-1, 4)

    def total(of_each_pixel: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(of_pixel, weights=of_each_pixel)[numbers].astype(np.float64, copy=False)

    return {
        "ObjectNumber": numbers.astype(np.int32),
        "Nuclei_Location_Center_X": total(columns) / area,
        "Nuclei_Location_Center_Y": total(rows) / area,
        "Nuclei_AreaShape_BoundingBoxMinimum_X": boxes[:, 1],
        "Nuclei_AreaShape_BoundingBoxMinimum_Y": boxes[:, 0],
        "Nuclei_AreaShape_BoundingBoxMaximum_X": boxes[:, 3],
        "Nuclei_AreaShape_BoundingBoxMaximum_Y": boxes[:, 2],
        "Nuclei_AreaShape_Area": area.astype(np.int64),
        "Nuclei_Intensity_MeanIntensity": total(counts.sum(axis=1, dtype=np.float64)) / (area * n_channels),
    }
