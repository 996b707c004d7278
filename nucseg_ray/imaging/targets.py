"""What a network is to answer for a training crop, and how much each of its pixels counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.augment import Crop
from nucseg_ray.imaging.labels import LabelVariant

# Nuclei up to this diameter have the full weight, larger ones less in proportion.
FULL_WEIGHT_PX = 8.0


def training_targets(crop: Crop, variant: LabelVariant) -> NDArray[np.uint8]:
    """Give the variant's maps of a crop and, last, a weight: ``(S, S, maps + 1)`` uint8.

    The weight is 0 where nothing is known, 255 outside nuclei, and in a nucleus 255 times ``FULL_WEIGHT_PX`` over its
    diameter: a pixel's error of a tenth of a diameter is as bad in a large nucleus as in a small one.
    """
    maps = variant.targets(crop.labels, crop.nuclei[:, :2])
    of_nucleus = np.rint(255 * np.minimum(1, FULL_WEIGHT_PX / np.maximum(crop.nuclei[:, 2], FULL_WEIGHT_PX)))
    of_nucleus[0] = 255
    weight = np.where(crop.inside, np.maximum(of_nucleus, 1)[crop.labels], 0).astype(np.uint8)
    return np.concatenate([maps, weight[:, :, np.newaxis]], axis=-1)
