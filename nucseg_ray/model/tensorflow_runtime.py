"""The reference runtime: TensorFlow in float32, on CPUs and GPUs. Importing this module imports TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.threads import limit_threads
from nucseg_ray.model.unet import build_unet, set_weights


class TensorFlowPredictor:
    """Runs the network with TensorFlow, one image at a time."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        """Build the network and load its weights."""
        limit_threads(threads)
        network = build_unet(bundle.architecture)
        set_weights(network, bundle.weights())
        signature = [tf.TensorSpec((1, None, None, 3), tf.float32)]
        self._run = tf.function(lambda images: tf.sigmoid(network(images, training=False)), input_signature=signature)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        # One at a time: libraries choose other algorithms for other batch sizes, and round otherwise.
        return np.concatenate([self._run(image[np.newaxis]).numpy() for image in images])
