"""A network that looks at an image eight times: in each of its quarter turns, and in the mirror in each of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.model.predictor import Predictor

Y, X = 1, 2
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (Y,), (X,), (Y, X))
# The symmetries of the square: rows and columns exchanged or not, and mirrored along each axis or not.
VIEWS = tuple((exchanged, axes) for exchanged in (False, True) for axes in _MIRRORED)


class TurnedPredictor:
    """Gives the mean of what another predictor says of an image turned and mirrored (test-time augmentation)."""

    def __init__(self, predictor: Predictor, variant: LabelVariant) -> None:
        """Join a predictor and the variant that knows how its maps turn with an image."""
        self._predictor = predictor
        self._variant = variant

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        return np.sum([self._seen(images, *view) for view in VIEWS], axis=0) / np.float32(len(VIEWS))

    def _seen(self, images: NDArray[np.float32], exchanged: bool, axes: tuple[int, ...]) -> NDArray[np.float32]:
        view = np.flip(images, axes)
        maps = self._predictor.predict(np.ascontiguousarray(view.swapaxes(Y, X) if exchanged else view))
        if exchanged:
            maps = self._variant.exchanged(maps)
        for axis in axes:
            maps = self._variant.mirrored(maps, axis=axis)
        return maps
