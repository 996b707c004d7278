"""The training loss: cross-entropy and Dice on the nuclei, the length of what offsets are wrong by."""

from __future__ import annotations

import tensorflow as tf

NUCLEUS = 0
# Offsets are off by 1 here where they are off by the diameter of a nucleus: a map's range is 255 steps of half a pixel,
# and the weight 1 stands for nuclei of 8 pixels.
DIAMETERS_PER_RANGE = 255 * 0.5 / 8


def maps_loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Give the mean loss of a batch, a scalar.

    ``targets`` are ``(N, H, W, M + 1)`` in [0, 1]: the maps, and a weight; ``logits`` are ``(N, H, W, M)``, before the
    sigmoid. Map 0 is the nucleus, the others are offsets, which count in nuclei only, by the weight. Pixels of weight
    0 do not count at all. Dice loss (Milletari et al. 2016, arXiv:1606.04797) counts over the whole batch: a crop
    without nuclei then does no harm.
    """
    weight = targets[..., -1]
    known = tf.cast(weight > 0, logits.dtype)
    wanted = targets[..., NUCLEUS] * known
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets[..., NUCLEUS], logits=logits[..., NUCLEUS])
    predicted = tf.sigmoid(logits[..., NUCLEUS]) * known
    overlap = 2 * tf.reduce_sum(predicted * wanted) + 1.0
    dice = overlap / (tf.reduce_sum(predicted) + tf.reduce_sum(wanted) + 1.0)
    errors = tf.reduce_sum(tf.abs(tf.sigmoid(logits[..., 1:]) - targets[..., 1:-1]), axis=-1)
    offsets = tf.reduce_sum(errors * wanted * weight) / (tf.reduce_sum(wanted) + 1.0)
    return tf.reduce_sum(entropy * known) / (tf.reduce_sum(known) + 1.0) + (1 - dice) + DIAMETERS_PER_RANGE * offsets
