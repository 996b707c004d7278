"""What a network is to answer for a training crop, and how much each of its pixels counts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.augment import Crop
from nucseg_ray.imaging.labels import LabelVariant

# Nuclei up to this diameter have the full weight, larger ones less in proportion.
FULL_WEIGHT_PX = 8.0
# Pixels that lie no farther than this, along rows and columns, from each of two nuclei are where they meet.
CONTACT_PX = 3


def training_targets(crop: Crop, variant: LabelVariant) -> NDArray[np.uint8]:
    """Give the variant's maps of a crop, where nuclei meet, and a weight: ``(S, S, maps + 2)`` uint8.

    The last but one is 255 where two nuclei meet, else 0. The last is 0 where nothing is known, 255 outside nuclei, and
    in a nucleus 255 times ``FULL_WEIGHT_PX`` over its diameter: a pixel's error of a tenth of a diameter is as bad in
    a large nucleus as in a small one.
    """
    maps = variant.targets(crop.labels, crop.nuclei[:, :2])
    of_nucleus = np.rint(255 * np.minimum(1, FULL_WEIGHT_PX / np.maximum(crop.nuclei[:, 2], FULL_WEIGHT_PX)))
    of_nucleus[0] = 255
    weight = np.where(crop.inside, np.maximum(of_nucleus, 1)[crop.labels], 0).astype(np.uint8)
    return np.concatenate([maps, _contacts(crop.labels)[:, :, np.newaxis], weight[:, :, np.newaxis]], axis=-1)


def _contacts(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    number = labels.astype(np.float32)  # what OpenCV can dilate; exact up to 16 million
    window = np.ones((2 * CONTACT_PX + 1, 2 * CONTACT_PX + 1), np.uint8)
    highest = cv2.dilate(number, window)
    lowest = cv2.erode(np.where(labels > 0, number, np.float32(np.inf)), window)
    return np.where(lowest < highest, np.uint8(255), np.uint8(0))
