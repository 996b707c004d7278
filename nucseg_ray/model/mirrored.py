"""A network that looks at an image four times: as it is, upside down, in the mirror, and both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.model.predictor import Predictor

Y, X = 1, 2
VIEWS: tuple[tuple[int, ...], ...] = ((), (Y,), (X,), (Y, X))


class MirroredPredictor:
    """Gives the mean of what another predictor says of an image's mirror images (test-time augmentation)."""

    def __init__(self, predictor: Predictor, variant: LabelVariant) -> None:
        """Join a predictor and the variant that knows how its maps turn with an image."""
        self._predictor = predictor
        self._variant = variant

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        return np.sum([self._seen(images, axes) for axes in VIEWS], axis=0) / np.float32(len(VIEWS))

    def _seen(self, images: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
        maps = self._predictor.predict(np.ascontiguousarray(np.flip(images, axes)))
        for axis in axes:
            maps = self._variant.mirrored(maps, axis=axis)
        return maps
