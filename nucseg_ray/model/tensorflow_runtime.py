"""The reference runtime: TensorFlow in float32, on CPUs and GPUs. Importing this module imports TensorFlow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.model.architecture import OUTPUT
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.saved_model import as_module
from nucseg_ray.model.threads import limit_threads


class TensorFlowPredictor:
    """Runs the network with TensorFlow, one image at a time."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        """Build the network and load its weights."""
        limit_threads(threads)
        self._maps = as_module(bundle.architecture, bundle.weights(), batch=1).maps

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        # One at a time: libraries choose other algorithms for other batch sizes, and round otherwise.
        return np.concatenate([self._maps(image[np.newaxis])[OUTPUT].numpy() for image in images])
