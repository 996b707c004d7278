"""The seam behind which the network runs: images in, maps out. Only this folder knows which runtime it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.model.bundle import Bundle


class Predictor(Protocol):
    """Runs a network."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        ...


class TensorFlowPredictor:
    """The reference runtime, on CPUs and GPUs."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        """Build the network and load its weights; TensorFlow is imported here, and not before."""
        import tensorflow as tf

        from nucseg_ray.model.threads import limit_threads
        from nucseg_ray.model.unet import build_unet, set_weights

        limit_threads(threads)
        network = build_unet(bundle.architecture)
        set_weights(network, bundle.weights())
        signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
        self._run = tf.function(lambda images: tf.sigmoid(network(images, training=False)), input_signature=signature)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        return np.asarray(self._run(images).numpy())


def load_predictor(bundle: Bundle, *, threads: int = 1) -> Predictor:
    """Load the network of a bundle, to run on so many threads (or a GPU where TensorFlow sees one)."""
    return TensorFlowPredictor(bundle, threads=threads)
