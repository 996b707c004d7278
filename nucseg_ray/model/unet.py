"""The MobileNetV2 U-Net in TensorFlow.

Encoder: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381).
Decoder: a U-Net (Ronneberger et al. 2015, arXiv:1505.04597) up to half the image's sides; from there a depth-to-space
head (Shi et al. 2016, arXiv:1609.05158) gives maps at full size without the dearest layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from nucseg_ray.errors import WeightsError
from nucseg_ray.model.architecture import TAPS, Architecture

layers = tf_keras.layers
# Keras's default of 0.99 would still remember the random start after the few hundred steps of a short training.
NORM_MOMENTUM = 0.95
Weights = dict[str, NDArray[np.float32]]


def build_unet(architecture: Architecture, *, from_scratch: bool = False) -> tf_keras.Model:
    """Build the network, weights random: ``(N, H, W, 3)`` float32 in [0, 1] to logits ``(N, H, W, maps)``.

    Height and width are free multiples of 32. The encoder's batch norm keeps the statistics that it came with, unless
    it is to be trained from scratch.
    """
    image = layers.Input((None, None, 3), name="image")
    base = tf_keras.applications.MobileNetV2(input_shape=(None, None, 3), include_top=False, weights=None)
    encoder = tf_keras.Model(base.input, [base.get_layer(tap).output for tap in TAPS], name="encoder")
    if from_scratch:
        for layer in encoder.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = NORM_MOMENTUM
    half, quarter, eighth, sixteenth, deepest = encoder(image * 2.0 - 1.0, training=None if from_scratch else False)
    x = deepest
    skips = (sixteenth, eighth, quarter, half)
    for level, skip in enumerate(skips):
        x = _decode(
            x,
            skip,
            filters=architecture.decoder_filters[level],
            skip_filters=architecture.skip_filters[level],
            separable=level >= len(skips) - 2,
            name=f"up{level + 1}",
        )
    logits = layers.Conv2D(4 * len(architecture.map_names), 1, name="head")(x)
    return tf_keras.Model(image, tf.nn.depth_to_space(logits, 2), name="nucseg_unet")


def load_encoder(model: tf_keras.Model, source: str | bytes) -> None:
    """Load MobileNetV2 weights into the encoder: ``"imagenet"``, ``"none"``, or the bytes of a Keras HDF5 file.

    Raises
    ------
    WeightsError
        The download fails, or the file is not one of MobileNetV2 without its top.
    """
    if source == "none":
        return
    if isinstance(source, bytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "encoder.h5"
            path.write_bytes(source)
            donor = _donor(str(path), told="the file given")
    else:
        donor = _donor(source, told=f"weights {source!r}")
    encoder = model.get_layer("encoder")
    by_name = {weight.name: weight.numpy() for weight in donor.weights}
    encoder.set_weights([by_name[weight.name] for weight in encoder.weights])


def initial_weights(architecture: Architecture, *, encoder: str | bytes, seed: int) -> Weights:
    """Give what a training begins with: a seeded random decoder on the encoder that :func:`load_encoder` names.

    Raises
    ------
    WeightsError
        As :func:`load_encoder`.
    """
    tf_keras.utils.set_random_seed(seed)
    model = build_unet(architecture)
    load_encoder(model, encoder)
    return get_weights(model)


def weights_from_model(
    architecture: Architecture, weights: Mapping[str, NDArray[np.generic]], *, of: Architecture, seed: int
) -> Weights:
    """Give what a training begins with that goes on from another model, whose weights and architecture are given.

    All its weights where both networks are the same; else those of its encoder, with a seeded random decoder.

    Raises
    ------
    WeightsError
        They are not those of such a network.
    """
    tf_keras.utils.set_random_seed(seed)
    model = build_unet(architecture)
    if of == architecture:
        set_weights(model, weights)
    else:
        encoder = model.get_layer("encoder")
        names = {weight.name for weight in encoder.weights}
        set_weights(encoder, {name: array for name, array in weights.items() if name in names})
    return get_weights(model)


def get_weights(model: tf_keras.Model) -> Weights:
    """Give every weight by its name, as float32 arrays."""
    return {
        weight.name: np.asarray(value, np.float32)
        for weight, value in zip(model.weights, model.get_weights(), strict=True)
    }


def set_weights(model: tf_keras.Model, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Set every weight by its name; arrays of other float types are converted.

    Raises
    ------
    WeightsError
        A weight is missing, unknown or of another shape.
    """
    expected = {weight.name: tuple(weight.shape) for weight in model.weights}
    found = {name: tuple(array.shape) for name, array in weights.items()}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise WeightsError(
            f"the weights do not fit the network: {odd!r} should have shape {expected.get(odd, 'none (unknown)')}, "
            f"found {found.get(odd, 'nothing')}; the bundle may be from another version"
        )
    model.set_weights([np.asarray(weights[weight.name], np.float32) for weight in model.weights])


def _decode(x: tf.Tensor, skip: tf.Tensor, *, filters: int, skip_filters: int, separable: bool, name: str) -> tf.Tensor:
    """Double the size, join the skip connection, convolve.

    The two largest levels are depthwise separable: full convolutions there cost more than all the rest of the decoder.
    """
    if x.shape[-1] > filters:
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_narrow")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_upsample")(x)
    skip = layers.Conv2D(skip_filters, 1, use_bias=False, name=f"{name}_skip")(skip)
    skip = layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"{name}_skip_norm")(skip)
    skip = layers.ReLU(name=f"{name}_skip_relu")(skip)
    x = layers.Concatenate(name=f"{name}_join")([x, skip])
    convolution = layers.SeparableConv2D if separable else layers.Conv2D
    x = convolution(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _donor(weights: str, *, told: str) -> tf_keras.Model:
    try:
        return tf_keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=weights)
    except Exception as error:  # Keras raises a bare Exception for a failed download, many types for a wrong file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{told}: MobileNetV2 weights could not be loaded ({reason}); give --encoder-weights PATH of a Keras "
            "no-top HDF5 file, put that file under ~/.keras/models, or train from scratch with --encoder-weights none"
        ) from error
