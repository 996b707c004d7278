"""The network as a TensorFlow module and SavedModel, from which every other form of it is made.

Importing this module imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from nucseg_ray.model.architecture import INPUT, OUTPUT, Architecture
from nucseg_ray.model.unet import build_unet, set_weights


def as_module(
    architecture: Architecture, weights: Mapping[str, NDArray[np.float32]], *, batch: int | None = None
) -> tf.Module:
    """Give a module whose ``maps`` turns ``image (N, H, W, 3)`` in [0, 1] into ``{"maps": (N, H, W, M)}`` in [0, 1].

    float32; H and W are free multiples of 32, N is free unless ``batch`` says what it is.

    Raises
    ------
    WeightsError
        The weights do not fit the network.
    """
    network = build_unet(architecture)
    set_weights(network, weights)
    module = tf.Module()
    # The variables alone: as a Keras model, each of its layers would be traced and saved a second time.
    module.weights = network.variables
    module.maps = tf.function(
        lambda image: {OUTPUT: tf.sigmoid(network(image, training=False), name=OUTPUT)},
        input_signature=[tf.TensorSpec((batch, None, None, 3), tf.float32, name=INPUT)],
    )
    return module


def write_saved_model(module: tf.Module, folder: Path) -> None:
    """Write what :func:`as_module` gave; its ``maps`` is the signature ``serving_default``."""
    tf.saved_model.save(module, str(folder), signatures=module.maps)
